"""Training examples: reporting rows stay out, replies read back through the roles, quotes and answers are verbatim."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sleuth.agents.cite import quotable
from sleuth.agents.context import Context, equipped
from sleuth.agents.graph import build_graph
from sleuth.agents.role import parse_object
from sleuth.agents.roles import answerer, planner, reflector, rewriter
from sleuth.agents.rollout import rollout
from sleuth.agents.strategy import STRATEGIES
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Passage
from sleuth.eval.split import bucket, reporting_only
from sleuth.training import plans
from sleuth.training.examples import build
from sleuth.training.sets import Corpus, QuestionSet, find_span, load
from sleuth.training.turns import Example
from tests.films import LengthReader, use_reranker
from tests.scripted import ScriptedPolicy
from tests.training_data import ROWS, make, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


COUNTS = {
    "planner": {"musique_s": 99, "strategyqa": 99, "hotpotqa_s": 99, "nq_train": 99},
    "rewriter": {"musique_s": 99, "hotpotqa_s": 99, "nq_train": 99},
    "reflector": {"musique_s": 99, "hotpotqa_s": 99, "nq_train": 99},
    "answerer": {"musique_s": 99, "hotpotqa_s": 99, "nq_train": 99, "strategyqa": 99, "commaqa_e": 99},
    "closed": {"nq_train": 9},
}


@pytest.fixture(scope="module")
def examples(data: Path) -> list[Example]:
    return build(data, COUNTS, 0, range(3, 10))


def test_reporting_rows_never_enter(data: Path, examples: list[Example]) -> None:
    names = {example.source.split("/")[1] for example in examples}
    every = [f"{kind}-{i}" for kind in ("hot", "musique", "sq", "nq", "cq") for i in range(ROWS)]
    barred = {name for name in every if reporting_only({"id": name})}
    twins = {"hot": "musique", "musique": "hot"}  # the same questions in two sets
    asked = {f"{twins[kind]}-{i}" for kind, i in (name.split("-") for name in barred) if kind in twins}
    assert len(barred) > 20 and len(asked - barred) > 5 and names.isdisjoint(barred | asked)
    assert names == set(every) - barred - asked
    assert not any(reporting_only(row) for row in load(data, "musique_s").rows)
    only = build(data, COUNTS, 0, (3,))
    assert {bucket({"id": example.source.split("/")[1]}) for example in only} == {3}


def test_what_a_reporting_row_asks_or_goes_on_from_is_not_trained_on(tmp_path: Path) -> None:
    def named(kind: str, reporting: bool) -> str:
        return next(f"{kind}_{n}" for n in range(99) if reporting_only({"id": f"{kind}_{n}"}) == reporting)

    row = {"answers": ["Ann"], "supporting": ["p"], "hops": 1, "support_mode": "any"}
    rows = [
        {**row, "id": named("sibling", False), "question": "How old is she?", "previous_question": "who wrote the X"},
        {**row, "id": named("same", False), "question": "Who wrote X?"},
        {**row, "id": named("other", False), "question": "Who wrote Y?"},
        {**row, "id": named("listed", False), "question": "Who wrote Z?"},
    ]
    write(tmp_path, "nq_train", rows, [{"id": "p", "text": "Ann wrote X."}], corpus="nq")
    held = {**row, "id": named("r", True), "question": "How long is her name?", "previous_question": "Who wrote X?"}
    write(tmp_path, "morehopqa_s", [held], [])
    (tmp_path / "qa_no_corpus").mkdir()
    listed = {"id": named("l", True), "question": "Who wrote Z?", "answers": ["Bo"]}
    (tmp_path / "qa_no_corpus" / "list.dev.jsonl").write_text(json.dumps(listed) + "\n")
    assert [row["question"] for row in load(tmp_path, "nq_train").rows] == ["Who wrote Y?"]


def test_base_id_decides_the_split() -> None:
    assert bucket({"id": "x-en-7", "base_id": "7"}) == bucket({"id": "x-de-7", "base_id": "7"}) == bucket({"id": "7"})
    with pytest.raises(InputError, match="string id"):
        bucket({"question": "?"})


def test_same_seed_same_examples(data: Path, examples: list[Example]) -> None:
    assert build(data, COUNTS, 0, range(3, 10)) == examples
    assert build(data, COUNTS, 1, range(3, 10)) != examples


def shown(user: str) -> list[Passage]:
    """Passages as the prompt lists them."""
    lines = [line.split("] ", 1)[1] for line in user.splitlines() if line.startswith("[")]
    parts = [line.split(": ", 1) for line in lines]
    return [Passage(str(i), str(i), 0, len(text), title, text) for i, (title, text) in enumerate(parts)]


SCHEMAS: dict[str, Callable[[list[Passage]], Any]] = {
    "planner": lambda passages: planner.schema(4),
    "rewriter": lambda passages: rewriter.schema(),
    "reflector": reflector.schema,
    "answerer": answerer.schema,
}


def test_ranked_examples_show_passages_as_a_search_does(data: Path) -> None:
    counts = {"answerer": {"nq_train": 99}}
    qa = load(data, "nq_train")
    rows = {row["id"]: row for row in qa.rows}

    def in_order(ranked: bool) -> list[bool]:
        found = []
        for example in build(data, counts, 0, range(3, 10), ranked):
            ranks = {p.text: n for n, p in enumerate(qa.search(rows[example.source.split("/")[1]]["question"], 20))}
            places = [ranks.get(p.text, len(ranks)) for p in shown(example.messages[1].content)]
            found.append(places == sorted(places))
        return found

    assert all(in_order(True)) and not all(in_order(False))
    plain, ranked = (build(data, counts, 0, range(3, 10), order) for order in (False, True))
    assert [e.completion for e in plain] == [e.completion for e in ranked]


def test_chained_examples_show_passages_as_the_strategy_does(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_reranker(monkeypatch, LengthReader())
    qa = replace(load(data, "hotpotqa_s"), ranked="chain")
    row, policy = qa.rows[0], ScriptedPolicy(lambda messages: {"answer": "x", "quotes": []})
    context = equipped(Context(policy, STRATEGIES["chain"], fingerprint=qa.name), Corpus(qa))
    episode = asyncio.run(rollout(build_graph(context.strategy), row["question"], context))
    found = [p.id for p in qa.ordered(row["question"], 1)]
    assert found[:4] == episode.steps[-1].parsed["shown"] and len(set(found)) == len(found) > 4
    assert found != [p.id for p in qa.search(row["question"], len(found))]
    made = build(data, {"answerer": {"hotpotqa_s": 99}}, 0, range(3, 10), "chain")
    questions = {row["id"]: row["question"] for row in qa.rows}
    for example in made:
        places = {p.text: n for n, p in enumerate(qa.ordered(questions[example.source.split("/")[1]], 1))}
        order = [places.get(p.text, len(places)) for p in shown(example.messages[1].content)]
        assert order == sorted(order) and "Known:" not in example.messages[1].content
    assert len(made) > 9


def test_replies_fit_the_schema_and_read_back(examples: list[Example]) -> None:
    seen = set()
    for example in examples:
        user = example.messages[1].content
        passages = shown(user)
        reply = json.loads(example.completion)
        jsonschema.validate(reply, SCHEMAS[example.role](passages))
        assert json.dumps(reply, ensure_ascii=False, separators=(",", ":")) == example.completion
        assert parse_object(example.completion) == reply
        if example.role == "planner":
            assert planner.read(example.completion, 4) == {"steps": reply["steps"]}
        elif example.role == "rewriter":
            assert rewriter.read(example.completion, "other") == reply
        elif example.role == "answerer":
            read = answerer.read(example.completion, passages)
            assert (read["items"] or read["answer"]) == reply["answer"] and read["quotes"] == reply.get("quotes", [])
        seen.add((example.role, bool(passages)))
    assert seen == {
        ("planner", False),
        ("rewriter", False),
        ("reflector", True),
        ("answerer", True),
        ("answerer", False),
    }


def test_answers_can_be_copied_and_quotes_are_sentences(examples: list[Example]) -> None:
    unknown = 0
    for example in examples:
        passages = shown(example.messages[1].content)
        reply = json.loads(example.completion)
        if example.role not in ("reflector", "answerer") or not passages:
            continue
        quotes = [q for q in [reply.get("quote"), *reply.get("quotes", ())] if q]
        assert set(quotes) <= set(quotable(passages))
        if reply["answer"] == UNKNOWN:
            unknown += 1
        elif reply["answer"] not in ("yes", "no"):
            for said in [reply["answer"]] if isinstance(reply["answer"], str) else reply["answer"]:
                assert any(find_span(said, text) == said for p in passages for text in (p.text, p.title))
    assert unknown > 5


def test_a_list_holds_the_items_that_are_shown_in_the_order_of_the_passages(data: Path) -> None:
    rows = {row["id"]: row for row in load(data, "commaqa_e").rows}
    sizes = set()
    for example in build(data, {"answerer": {"commaqa_e": 999}}, 0, range(3, 10)):
        row, passages = rows[example.source.split("/")[1]], shown(example.messages[1].content)
        reply = json.loads(example.completion)
        said = [reply["answer"]] if isinstance(reply["answer"], str) else reply["answer"]
        text = " ".join(f"{p.title} {p.text}" for p in passages)
        assert said == sorted((i for i in row["answer_items"] if find_span(i, text)), key=text.find)
        assert len(passages) <= 5 and {p.title for p in passages} <= {i.title() for i in row["candidates"]}
        assert all(any(find_span(item, quote) for quote in reply["quotes"]) for item in said)
        sizes.add(len(said))
    assert sizes == {1, 2, 3}


def test_a_passage_alone_is_answered_from_quoted_from_or_passed_over(data: Path) -> None:
    names = ("hotpotqa_s", "musique_s", "nq_train")
    answers = {row["id"]: row["answers"] for name in names for row in load(data, name).rows}
    kinds: set[tuple[str, bool, bool, bool]] = set()
    for example in build(data, {"alone": dict.fromkeys(names, 400)}, 0, range(3, 10)):
        (passage,) = shown(example.messages[1].content)
        reply = json.loads(example.completion)
        known = "Known: " in example.messages[1].content
        jsonschema.validate(reply, reflector.schema([passage]))
        if reply["answer"] == UNKNOWN and not reply["quote"]:
            assert not any(find_span(answer, passage.text) for answer in answers[example.source.split("/")[1]])
        if reply["answer"] != UNKNOWN:
            assert find_span(reply["answer"], reply["quote"]) and reply["quote"] in passage.text
        kinds.add((example.source.split("/")[0], reply["answer"] != UNKNOWN, bool(reply["quote"]), known))
    assert kinds == {
        ("hotpotqa_s", True, True, True),
        ("hotpotqa_s", True, True, False),
        ("hotpotqa_s", False, True, False),
        ("hotpotqa_s", False, False, True),
        ("hotpotqa_s", False, False, False),
        ("musique_s", True, True, False),
        ("musique_s", False, False, False),
        ("nq_train", True, True, False),
        ("nq_train", False, False, False),
    }


def test_unknown_is_never_taught_where_the_answer_is_shown(data: Path, tmp_path: Path) -> None:
    """Two of three first passages name the town, in a sentence or the title; so do passages about other people."""
    told = {0: "It came out in Town{}.", 1: "", 2: ""}
    rows, passages = [], []
    for i in range(ROWS):
        written, born = f"Book{i} is a novel by Author{i}.", f"Author{i} was born in Town{i}."
        title = f"Book{i}, Town{i}" if i % 3 == 1 else f"Book{i}"
        first = f"{written} {told[i % 3].format(i)}".strip()
        other = f"Book{i}'s author was born where Town{i} has its docks."
        passages += [
            {"id": f"b{i}", "title": title, "text": first, "sents": [0]},
            {"id": f"a{i}", "title": f"Author{i}", "text": born, "sents": [0]},
            {"id": f"o{i}", "title": f"Docks{i}", "text": other, "sents": [0]},
        ]
        rows.append(
            {
                "id": f"hot-{i}", "question": f"Where was the author of Book{i} born?", "answers": [f"Town{i}"],
                "supporting": [f"b{i}", f"a{i}"], "candidates": [], "support_mode": "all", "type": "bridge", "hops": 2,
                "supporting_facts": [[f"b{i}", 0], [f"a{i}", 0]],
            }
        )  # fmt: skip
    write(tmp_path, "hotpotqa_s", rows, passages)
    made = build(tmp_path, {kind: {"hotpotqa_s": 999} for kind in ("reflector", "alone")}, 0, range(3, 10))
    assert {int(e.source.split("-")[1]) % 3 for e in made} == {2}
    unknown = [e for e in made if json.loads(e.completion)["answer"] == UNKNOWN]
    assert len(unknown) > 5
    for example in unknown:
        town = f"Town{example.source.split('-')[1]}"
        assert not any(find_span(town, f"{p.title} {p.text}") for p in shown(example.messages[1].content))


def test_second_queries_name_what_the_known_sentence_brought(examples: list[Example]) -> None:
    second = [e for e in examples if e.role == "rewriter" and "Known: " in e.messages[1].content]
    assert second
    for example in second:
        number = example.source.split("-")[1]
        assert f"Author{number}" in json.loads(example.completion)["query"]
        assert "Tried: " in example.messages[1].content


def test_rows_take_turns(data: Path) -> None:
    few = build(data, {"answerer": {"hotpotqa_s": 10}}, 0, range(3, 10))
    assert len({example.source for example in few}) == 10


def test_unknown_kind_and_missing_files_say_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"planner\.musique_s"):
        build(data, {"planner": {"xquad_en": 1}}, 0, (4,))
    with pytest.raises(InputError, match=r"musique_s\.dev\.jsonl"):
        build(tmp_path, {"planner": {"musique_s": 1}}, 0, (4,))
    write(tmp_path, "musique_s", [], [])
    (tmp_path / "qa" / "musique_s.dev.jsonl").write_text('{"id": "a"}\nnot json\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"musique_s\.dev\.jsonl:2"):
        load(tmp_path, "musique_s")


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Hello Love >> performer", "Who is the performer of Hello Love?"),
        ("#1 >> place of birth", "Where was #1 born?"),
        ("Brother >> record label", "What is the record label of Brother?"),
        ("Humphrey (#1 ) >> part of", "What is Humphrey, #1 part of?"),
        ("what was #1 's currency before the euro", "What was #1's currency before the euro?"),
    ],
)
def test_steps_become_natural(written: str, asked: str) -> None:
    assert plans.natural(written) == asked


def test_filled_in_answers_become_references_and_logic_is_dropped() -> None:
    row: dict[str, Any] = {
        "id": "morehop-1",
        "decomposition": [
            {"question": "Who directed X?", "answer": "Ann Lee (director)", "passage": "p1"},
            {"question": "Where was Ann Lee born?", "answer": "Oslo", "passage": "p2"},
            {"question": "How many letters has Oslo?", "answer": "4", "passage": None},
        ],
    }
    assert plans.from_decomposition(row) == ["Who directed X?", "Where was #1 born?"]
    first, second, logic = row["decomposition"]
    linked = {**second, "question": "Where was #2 born?"}
    assert plans.from_decomposition({**row, "decomposition": [logic, first, linked]}) == [
        "Who directed X?",
        "Where was #1 born?",
    ]
    lost = {**second, "question": "What has #1 letters?"}
    assert plans.from_decomposition({**row, "decomposition": [logic, first, lost]}) == []
    assert plans.resolved(["Who has #32?", "Where was #1?"], ["Ann", "Oslo"]) == ["Who has #32?", "Where was Ann?"]
    closing = {"decomposition": ["When was A born?", "When did B die?", "Is #2 before #1?"]}
    assert plans.from_strategy(closing) == ["When was A born?", "When did B die?"]


def test_a_comparison_is_two_look_ups_in_the_order_of_the_question() -> None:
    passages = {k: Passage(k, k, 0, 1, title, "x") for k, title in (("1", "Muse (band)"), ("2", "The Raconteurs"))}
    qa = QuestionSet("hotpotqa_s", [], passages)
    row = {"question": "Which was formed first, The Raconteurs or Muse?", "supporting": ["1", "2"], "candidates": []}
    assert plans.from_comparison(qa, row) == ["When was The Raconteurs founded?", "When was Muse founded?"]
    assert plans.from_comparison(qa, {**row, "question": "Who formed Muse?"}) == []


def test_invented_worlds_give_examples_without_any_file() -> None:
    from sleuth.eval.synthesis.fictional import fictional_world
    from sleuth.training.sets import WORLDS, load

    roles = ("planner", "reflector", "answerer", "reader")
    made = build(None, {role: {"fictional": 6} for role in roles}, 0, range(3, 10))
    assert sorted({e.role for e in made}) == ["answerer", "planner", "reflector"] and len(made) == 24
    assert all(json.loads(e.completion) for e in made)
    checked = {d.id for seed in (1, 2) for d in fictional_world(seed, 120)[0]}
    assert not checked & set(load(None, "fictional").passages) and not {1, 2} & set(WORLDS)
    with pytest.raises(InputError, match="need --data"):
        build(None, {"reader": {"nq_train": 1}}, 0, range(10))
