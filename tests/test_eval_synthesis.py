"""Synthesis: what the rules read, what they refuse, and what verification drops."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from sleuth.agents.roles import answerer
from sleuth.cli import app
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.eval.load import is_reporting, read_tasks
from sleuth.eval.synthesis.entity import entity_of
from sleuth.eval.synthesis.extract import Table, extract, mentions
from sleuth.eval.synthesis.keychain import planted
from sleuth.eval.synthesis.kinds import KINDS, Candidate
from sleuth.eval.synthesis.leak import leak_check
from sleuth.eval.synthesis.make import make_benchmark, row_of, write
from sleuth.eval.synthesis.rename import renamed
from sleuth.eval.synthesis.rephrase import holds, rephrased
from sleuth.eval.synthesis.training import composed, decontaminated, graded
from sleuth.eval.synthesis.verify import Verifier
from sleuth.eval.synthesis.wording import grammar
from sleuth.retrieval.build import build
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import use_hash_embedder
from tests.scripted import ScriptedPolicy

PAGES = {
    "Tin Harbour": "Tin Harbour is a 1991 drama film directed by Mara Oldwin and produced by Lev Stone. It was "
    "released on 4 May 1991 by Corvid Pictures. Critics were kind to it.",
    "Glass Road": "Glass Road is a 2004 comedy film directed by Ines Farro and produced by Ada Quill. The film was "
    "released on 9 June 2004 by Corvid Pictures.",
    "Mara Oldwin": "Mara Oldwin (born 3 March 1950) is a British film director. She was born in Brackwater, Kent.",
    "Ines Farro": "Ines Farro (12 July 1961 – 2 May 2019) was an Italian film director. She was born in Perola.",
    "Brackwater Hall": "Brackwater Hall is a museum in Brackwater, Kent. It was founded in 1888. The hall was visited "
    "once by Ines Farro, who liked the garden.",
    "Perola": "Perola is a town in Liguria. Perola was founded in 1204.",
    "Oskar Bell": "Oskar Bell (5 May 1931 – 8 August 1999) was a Danish painter. He was born in Skive.",
}


def documents(pages: dict[str, str] = PAGES) -> list[Document]:
    return [Document(title.lower().replace(" ", "-"), text, title=title) for title, text in pages.items()]


def read(title: str, text: str) -> set[tuple[str, str]]:
    return {(f.relation, f.value) for f in extract([Document("d", text, title=title)], grammar()).facts}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datastore:
    use_hash_embedder(monkeypatch)
    return Datastore.open(_build(tmp_path, PAGES))


def _build(folder: Path, pages: dict[str, str]) -> Path:
    rows = folder / "rows.jsonl"
    made = ({"id": d.id, "title": d.title, "text": d.text} for d in documents(pages))
    rows.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    build([rows], folder / "store")
    return folder / "store"


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Tin Harbour", PAGES["Tin Harbour"], {("director", "Mara Oldwin"), ("producer", "Lev Stone"),
         ("release", "1991"), ("release label", "Corvid Pictures")}),
        ("Ines Farro", PAGES["Ines Farro"], {("birth", "1961"), ("died", "2019"), ("birthplace", "Perola")}),
        ("Blue Fen", "Blue Fen is a 1999 film directed by Anna Roe, Bo Lind and Cy Marsh.", {("release", "1999")}),
        ("Blue Fen", "Blue Fen is a novel by the Irish author J. K. Moor, first published in 1999.",
         {("writer", "J. K. Moor"), ("publication", "1999")}),
        ("Orla Finn", "Orla Finn (c. 1710 – 1780) was a weaver.", set()),
        ("Kestrel Ltd", "Founded in 1990 by Ada Quill, it is based in Leeds. Kestrel Ltd is a firm.", set()),
        ("Kestrel Ltd", "Kestrel Ltd is a company. Founded in 1990 by Ada Quill, it is based in Leeds, England.",
         {("foundation", "1990"), ("founder", "Ada Quill"), ("seat", "Leeds, England")}),
        ("Kestrel Ltd", "Kestrel Ltd is a firm. Its rival opened later. It was founded in 1990.", set()),
    ],
)  # fmt: skip
def test_facts_are_read_from_sentences_about_the_entity(title: str, text: str, expected: set[tuple[str, str]]) -> None:
    assert read(title, text) == expected


@pytest.mark.parametrize(
    ("lead", "head"),
    [
        ("Ash is a 2004 Hindi action film written and directed by Bo Lind.", "film"),
        ("Ash is an American cable and satellite television channel.", "channel"),
        ("Ash is an English stage and film director, writer and producer.", "director"),
        ("Ash is a village and civil parish in Kent.", "parish"),
        ("Ash is the former capital of Kent.", "capital"),
        ("Ash was one of the first trees.", ""),
        ("Ash burns well.", ""),
    ],
)
def test_the_lead_sentence_says_what_kind_of_thing_it_is(lead: str, head: str) -> None:
    found = entity_of(Document("d", lead, title="Ash"))
    assert found is not None and found.head == head


def test_a_bracket_in_a_title_becomes_part_of_the_name_and_its_bare_name_links_to_nothing() -> None:
    pages = {"Ash (film)": "Ash is a 1999 film directed by Mara Oldwin.", "Mara Oldwin": PAGES["Mara Oldwin"],
             "Lime": "Lime is a song from the album Ash. Lime is a single written by Ash."}  # fmt: skip
    table = extract(documents(pages), grammar())
    assert table.entities["Ash (film)"].name == "the film Ash"
    assert {(f.entity, f.target) for f in table.facts if f.target} == {("Ash (film)", "Mara Oldwin")}


def test_a_mention_inside_a_longer_term_is_none() -> None:
    pages = {**PAGES, "Fair": "The fair shows the Mara Oldwin dynasty of puppets to all visitors every single year."}
    table = extract(documents(pages), grammar())
    assert not [f for f in mentions(documents(pages), table) if f.entity == "Fair"]
    assert "Ines Farro" in {f.value for f in mentions(documents(pages), table) if f.entity == "Brackwater Hall"}


def test_mentions_come_in_the_order_of_the_text() -> None:
    named = ["Oskar Bell", "Tin Harbour", "Ines Farro", "Glass Road", "Mara Oldwin"]
    pages = {
        **PAGES,
        "Perola": f"Perola is a town. The fair shows pictures of {', '.join(named[:-1])} and {named[-1]}.",
    }
    table = extract(documents(pages), grammar())
    assert [f.value for f in mentions(documents(pages), table) if f.entity == "Perola"] == named


def test_every_question_holds_its_evidence_and_reads_back_and_the_seed_decides(
    store: Datastore, tmp_path: Path
) -> None:
    tasks, report = make_benchmark(store, 40, seed=3)
    assert {"bridge", "comparison", "tree", "cloze", "list"} <= {task.type for task in tasks}
    for task in tasks:
        spans = task.metadata["evidence"]
        assert all(store.document(s["document"]).text[s["start"] : s["end"]] == s["text"] for s in spans)
        if task.type == "list":
            assert all(any(item in span["text"] for span in spans) for item in task.answer_items)
        else:
            assert any(answer in spans[-1]["text"] for answer in task.answers)
        assert not any(answer in task.question for answer in task.answers)
        assert set(task.supporting) == {span["document"] for span in spans}
    assert make_benchmark(store, 40, seed=3)[0] == tasks
    assert [task.question for task in make_benchmark(store, 40, seed=4)[0]] != [task.question for task in tasks]
    write(tmp_path / "out", tasks, report)
    assert read_tasks(tmp_path / "out" / "questions.jsonl") == tasks
    counted = json.loads((tmp_path / "out" / "report.json").read_text())
    assert sum(counted["kept"].values()) == len(tasks)
    for kind, made in counted["made"].items():
        assert made == counted["kept"][kind] + sum(counted["dropped"][kind].values())


def test_a_chain_asks_for_the_last_value_through_the_others(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 40, ["bridge"], seed=0)
    found = {(task.answers[0], task.supporting) for task in tasks}
    assert ("1950", ("tin-harbour", "mara-oldwin")) in found
    assert ("1204", ("ines-farro", "perola")) in found
    assert ("Liguria", ("glass-road", "ines-farro", "perola")) in found
    assert all("Oldwin" not in task.question for task in tasks if task.supporting[0] == "tin-harbour")


def test_a_comparison_asks_something_of_the_one_chosen(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 40, ["comparison"], seed=0)
    older = [t for t in tasks if "older of" in t.question and "Bell" in t.question and "Farro" in t.question]
    assert older and {t.answers[0] for t in older} <= {"1999", "Skive"}


def test_a_list_asks_for_everything_that_shares_a_maker_and_nothing_may_be_missing(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    (task,) = make_benchmark(store, 40, ["list"], seed=0)[0]
    assert task.question == "Name every film that was released by Corvid Pictures."
    assert task.answer_items == ("Glass Road", "Tin Harbour") and task.answers == ("Glass Road, Tin Harbour",)
    assert set(task.supporting) == {"glass-road", "tin-harbour"}
    _, (renamed_task,), _ = renamed([task], store.retriever("bm25"), store.document)
    assert renamed_task.answers == (", ".join(renamed_task.answer_items),)
    assert not set(renamed_task.answer_items) & set(task.answer_items)
    mention = {"Rope": "A note on Corvid Pictures: Rope was theirs too."}
    (tmp_path / "more").mkdir()
    spoiled = Datastore.open(_build(tmp_path / "more", {**PAGES, **mention}))
    with pytest.raises(InputError, match="none of which passed"):
        make_benchmark(spoiled, 40, ["list"])


PRODUCED = {
    "Salt Year": "Salt Year is a drama film. It was produced by Nils Orr. It was released in 1950.",
    "Long Ebb": "Long Ebb is a drama film. Long Ebb was produced by Nils Orr. It was released in 1970.",
}


def test_each_sub_question_has_its_own_answer_and_refers_to_earlier_ones_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    store = Datastore.open(_build(tmp_path, {**PAGES, **PRODUCED}))
    tasks, _ = make_benchmark(store, 200, seed=1)
    found = {}
    for task in tasks:
        answers: list[str] = []
        for number, step in enumerate(task.metadata["decomposition"], 1):
            referred = {int(n) for n in re.findall(r"#(\d)", step["question"])}
            assert referred <= set(range(1, number)), step
            asked = re.sub(r"#(\d)", lambda match: answers[int(match[1]) - 1], step["question"])  # noqa: B023
            document = store.document(step["passage"])
            assert step["answer"] in f"{document.title} {document.text}"
            assert step["answer"] not in step["question"]
            answers.append(step["answer"])
            found[asked] = step["answer"]
    assert (
        "Which film was directed by Mara Oldwin?" in found
        and found["Which director was born in 1950?"] == "Mara Oldwin"
    )
    assert found["Which film was produced by Nils Orr?"] == "Salt Year"
    assert found["In which year was the film that was produced by Nils Orr released?"] == "1970"
    assert found["Which film was produced by Nils Orr and was released in 1970?"] == "Long Ebb"
    assert any("the older of Ines Farro (1961) and Oskar Bell (1931)" in asked for asked in found)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("Tin Harbour was directed by Paul Kemp, says the Tin Harbour fan page.", "another passage disagrees"),
        ("The makers of Tin Harbour have been asked about 1950 again and again.", "one passage suffices"),
    ],
)
def test_a_page_that_spoils_a_question_is_found(
    page: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    spoiled = Datastore.open(_build(tmp_path, {**PAGES, "Letters": page}))
    candidate, table = _bridge()
    verifier = Verifier(table, grammar(), spoiled.retriever("bm25"), spoiled.document)
    assert verifier.failed(candidate) == reason


def _bridge() -> tuple[Candidate, Table]:
    """When the director of Tin Harbour was born."""
    table = extract(documents(), grammar())
    made = KINDS["bridge"](table, grammar(), Random(0))
    return next(c for c in made if c.answers == ("1950",) and c.named == ("Tin Harbour",)), table


def test_a_candidate_that_is_changed_fails_the_check_that_guards_it(store: Datastore) -> None:
    candidate, table = _bridge()
    verifier = Verifier(table, grammar(), store.retriever("bm25"), store.document)
    assert verifier.failed(candidate) == ""
    first, last = candidate.facts
    for changed, reason in (
        (dataclasses.replace(candidate, question="the director?"), "reads badly"),
        (dataclasses.replace(candidate, facts=(first, dataclasses.replace(last, start=5))), "evidence is not verbatim"),
        (dataclasses.replace(candidate, answers=("1949",)), "answer is not in the last evidence"),
        (dataclasses.replace(candidate, question="Was Oldwin born?"), "question gives the answer away"),
    ):
        assert verifier.failed(changed) == reason


def test_what_a_policy_knows_is_dropped_and_made_up_for(store: Datastore, tmp_path: Path) -> None:
    def reply(messages):  # type: ignore[no-untyped-def]
        assert messages[0].content == answerer.CLOSED_PROMPT
        return {"answer": "1950" if "Tin Harbour" in messages[1].content else "no idea"}

    with leak_check(ScriptedPolicy(reply), tmp_path / "leak.jsonl") as leaks:
        tasks, report = make_benchmark(store, 8, ["bridge"], leaks=leaks, policy="scripted")
    assert report.leak["right"] >= 1 and report.leak["asked"] == len(tasks) + report.leak["right"]
    assert not [task for task in tasks if "1950" in task.answers and "Tin Harbour" in task.question]
    assert report.dropped["bridge"]["answered without documents"] == report.leak["right"]


def test_bad_requests_are_named(store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown riddle; known: bridge"):
        make_benchmark(store, 5, ["riddle"])
    with pytest.raises(InputError, match="found 0"):
        make_benchmark(store, 0)
    (tmp_path / "other").mkdir()
    bare = Datastore.open(_build(tmp_path / "other", {"Notes": "nothing is said here at all."}))
    with pytest.raises(InputError, match="no question could be made: 1 documents, 0 facts"):
        make_benchmark(bare, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x]\nphrases = ['the x of {s}']", "expected a table with 'questions'"),
        ("[x]\nquestions = ['What?']", "where the subject goes"),
        ("[x]\nquestions = ['What is {s}?']\nparticiple = ['made']", "unknown key 'participle'"),
        ("[x]\nquestions = ['What is {s}?']\nvalue = 'number'", "must be one of name, place, time"),
        ("[x]\nquestions = ['What is {s}?']\ncue = '('", "no regular expression"),
        ("[x", "expected TOML"),
    ],
)
def test_a_file_of_relations_that_cannot_be_used_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        grammar(file)
    assert str(file) in str(caught.value)


def test_relations_of_a_user_are_asked_for(store: Datastore, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[release]\nquestions = ['When did {s} come out?']\nparticiples = ['released']\nprepositions = ['on']\n"
        "value = 'time'\nclause = 'came out in {v}'\n"
    )
    tasks, _ = make_benchmark(store, 40, ["comparison"], relations=[file])
    assert any("came out first" in task.question or "came out later" in task.question for task in tasks)


def test_a_row_keeps_what_the_task_says(store: Datastore) -> None:
    task = make_benchmark(store, 1, ["bridge"])[0][0]
    row = row_of(task)
    assert row["hops"] == len(row["supporting"]) and row["support_mode"] == "all" and len(row["decomposition"]) >= 2


def test_renamed_questions_have_the_same_evidence_under_names_that_nobody_knows(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 40, ["bridge", "tree"], seed=1)
    copies, made, dropped = renamed(tasks, store.retriever("bm25"), store.document, seed=2)
    texts = {copy.id: copy.text for copy in copies}
    assert made and len(made) + dropped.total() == len(tasks)
    for task in made:
        spans = task.metadata["evidence"]
        assert all(texts[s["document"]][s["start"] : s["end"]] == s["text"] for s in spans)
        assert any(answer in spans[-1]["text"] for answer in task.answers)
    everything = " ".join([*texts.values(), *(task.question for task in made)])
    assert not {"Tin", "Harbour", "Oldwin", "Mara", "Farro", "Perola"} & set(everything.replace(".", " ").split())
    assert "1950" in everything and {task.metadata["base_id"] for task in made} <= {task.id for task in tasks}
    assert renamed(tasks, store.retriever("bm25"), store.document, seed=2)[1] == made


def test_renaming_leaves_question_words_and_months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    pages = {title.replace("Tin Harbour", "Doctor Who"): text.replace("Tin Harbour", "Doctor Who")
             for title, text in PAGES.items()}  # fmt: skip
    store = Datastore.open(_build(tmp_path, pages))
    tasks, _ = make_benchmark(store, 40, ["bridge"], seed=1)
    copies, made, _ = renamed(tasks, store.retriever("bm25"), store.document, seed=2)
    assert any("Doctor Who" in task.question for task in tasks) and not any("Doctor" in t.question for t in made)
    first = {task.metadata["base_id"]: task.question.split()[0] for task in made}
    assert first == {task.id: task.question.split()[0] for task in tasks if task.id in first}
    assert any("4 May 1991" in copy.text for copy in copies)


def test_a_key_chain_leads_through_its_notes_to_the_hidden_question(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 6, ["bridge"], seed=1)
    copies, made = planted(tasks, store.retriever("bm25"), store.document, links=3, seed=0)
    texts = {copy.id: copy.text for copy in copies}
    for source, task in zip(tasks, made, strict=True):
        key = task.question.split("key ")[1].split()[0]
        for _ in range(2):
            key = next(text.split(f"Note for key {key}: go on with key ")[1][:16] for text in texts.values()
                       if f"Note for key {key}: go" in text)  # fmt: skip
        assert any(f"Note for key {key}: answer this question: {source.question}" in text for text in texts.values())
        spans = task.metadata["evidence"]
        assert all(texts[s["document"]][s["start"] : s["end"]] == s["text"] for s in spans)
        assert task.answers == source.answers and task.hops == len(task.supporting) >= 2
    with pytest.raises(InputError, match="at least 1"):
        planted(tasks, store.retriever("bm25"), store.document, links=0)


def test_a_rewording_is_kept_only_where_nothing_was_lost(store: Datastore) -> None:
    task = next(t for t in make_benchmark(store, 40, ["bridge"], seed=0)[0] if "Tin Harbour" in t.question)
    task = dataclasses.replace(task, question="In which year was the director of Tin Harbour born?", answers=("1950",))
    for new, kept in (
        ("What year was the director of Tin Harbour born in?", True),
        ("In what year was the director born?", False),
        ("The director of Tin Harbour was born in a year.", False),
        ("Was the director of Tin Harbour born in the year 1950?", False),
        ("Who played in Tin Harbour that year?", False),
    ):
        assert holds(task, new) == kept, new
    good = "What year was the director of Tin Harbour born in?"
    made, count = asyncio.run(rephrased([task], ScriptedPolicy(lambda messages: good)))
    assert count == 1 and made[0].question == good and made[0].metadata["template"] == task.question
    made, count = asyncio.run(rephrased([task], ScriptedPolicy(lambda messages: "Who?")))
    assert count == 0 and made == [task]


def test_training_tasks_have_a_difficulty_and_leave_out_what_is_held_out(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 40, seed=0)
    held = next(task for task in tasks if not is_reporting(task))
    kept, dropped = decontaminated(tasks, [dataclasses.replace(held, id="x", question=held.question.lower())])
    assert held not in kept and not any(is_reporting(task) for task in kept)
    assert len(kept) + dropped.total() == len(tasks) and dropped["asked by a held-out task"] >= 1
    same, _ = decontaminated([held], [dataclasses.replace(held, id="x", question="Something else entirely?")])
    assert same == []
    levels = {task.id: task.metadata["difficulty"] for task in graded(kept, store.retriever("bm25"))}
    assert set(levels.values()) <= {"easy", "medium", "hard"} and len(levels) == len(kept)
    nothing = graded([dataclasses.replace(held, supporting=("gone",))], store.retriever("bm25"))
    assert nothing[0].metadata["difficulty"] == "hard" and nothing[0].metadata["found_at_5"] == 0


def test_composed_tasks_want_all_answers_of_their_parts(store: Datastore) -> None:
    tasks, _ = make_benchmark(store, 5, ["bridge"], seed=0)
    made = composed(tasks, 2, seed=1)
    by_id = {task.id: task for task in tasks}
    assert len(made) == 2 and len({part for task in made for part in task.metadata["parts"]}) == 4
    for task in made:
        parts = [by_id[part] for part in task.metadata["parts"]]
        assert task.answer_items == tuple(part.answers[0] for part in parts)
        assert all(part.question in task.question for part in parts)
        assert set(task.supporting) == {id_ for part in parts for id_ in part.supporting}
    with pytest.raises(InputError, match="at least 2"):
        composed(tasks, 1)


def test_the_commands_write_what_eval_and_build_read(store: Datastore, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    options = ["--out", str(out), "-n", "12", "--renamed", "--keychain", "2", "--json"]
    done = CliRunner().invoke(app, ["make-benchmark", str(store.path), *options])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert sum(said["kept"].values()) == len(read_tasks(out / "questions.jsonl"))
    for name in ("renamed", "keychain"):
        ids = {json.loads(line)["id"] for line in (out / name / "corpus.jsonl").read_text().splitlines()}
        assert {id_ for task in read_tasks(out / name / "questions.jsonl") for id_ in task.supporting} <= ids
    again = CliRunner().invoke(app, ["make-benchmark", str(store.path), "--out", str(out)])
    assert isinstance(again.exception, ConfigError) and "earlier run" in str(again.exception)
    both = CliRunner().invoke(app, ["make-benchmark", str(store.path), "--fictional", "50"])
    assert isinstance(both.exception, ConfigError)
    invented = CliRunner().invoke(
        app, ["make-benchmark", "--fictional", "30", "--out", str(tmp_path / "f"), "-n", "10"]
    )
    assert invented.exit_code == 0 and len(read_tasks(tmp_path / "f" / "questions.jsonl")) == 10
    held = ["--against", str(out / "questions.jsonl")]
    tasks = CliRunner().invoke(app, ["make-tasks", str(store.path), "--out", str(tmp_path / "t"), "--json", *held])
    assert tasks.exit_code == 0, tasks.output
    counts = json.loads(tasks.stdout)
    assert counts["tasks"] == len(read_tasks(tmp_path / "t" / "questions.jsonl")) == sum(counts["difficulty"].values())
    wrong = CliRunner().invoke(app, ["make-tasks", str(store.path), "--difficulty", "mild"])
    assert isinstance(wrong.exception, ConfigError) and "mild" in str(wrong.exception)
