"""Published rows become tasks from every kind of source; what cannot be used is named, and the rest is good."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sleuth.agents.records import Answer, Episode
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval import source
from sleuth.eval.benchmarks import BENCHMARKS, beir, benchmark
from sleuth.eval.benchmarks.fanoutqa import convert as fanout
from sleuth.eval.load import SHIPPED, carried, is_reporting, outlook, read_tasks, resolved
from sleuth.eval.records import Task
from tests.eval_episodes import episode

ROWS = [{"id": f"{n}", "question": f"Question {n}?", "answers": [f"answer {n}"], "supporting": []} for n in range(3)]


def lines(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(folder: Path, kind: str) -> str:
    """The three rows in one kind of file; returns what a user would name."""
    path = folder / f"mine.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines(ROWS)))
    elif kind == "json":
        path.write_text(json.dumps({"data": ROWS}))
    else:
        path.write_bytes(lines(ROWS))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_tasks(kind: str, tmp_path: Path) -> None:
    tasks = read_tasks(written(tmp_path, kind))
    assert [(t.id, t.question, t.answers) for t in tasks] == [
        (r["id"], r["question"], tuple(r["answers"])) for r in ROWS
    ]
    chosen, path = benchmark(written(tmp_path, kind))
    assert chosen.name == "mine" and len(chosen.load(path)) == 3


def test_a_saved_dataset_is_read_by_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"dev": one, "test": one.select([0])}).save_to_disk(tmp_path / "two")
    assert len(read_tasks(tmp_path / "one")) == 3
    assert len(read_tasks(f"{tmp_path / 'two'}@test")) == 1
    with pytest.raises(InputError, match="one of the splits dev, test; found 'none'"):
        read_tasks(tmp_path / "two")
    chosen, path = benchmark(f"{tmp_path / 'two'}@dev")
    assert len(chosen.load(path)) == 3


def test_a_hub_name_goes_to_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the library reads a local folder of Parquet files by the same call."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    row = {"question": "who?", "answer": ["Anna Lund"]}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "owner" / "name" / "validation.parquet")
    (task,) = BENCHMARKS["nq_open"].load("hf:owner/name@validation")
    assert task.answers == ("Anna Lund",) and task.id.startswith("nq-")
    chosen, place = benchmark("nq_open=hf:owner/name@validation")
    assert chosen is BENCHMARKS["nq_open"] and len(chosen.load(place)) == 1
    with pytest.raises(InputError, match="cannot be had"):
        BENCHMARKS["nq_open"].load("hf:owner/absent@validation")


def test_places_that_are_no_source_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.xlsx").write_text("x")
    for path, message in [
        ("absent.jsonl", "no such question file"),
        ("mine.xlsx", r"expected one of \.jsonl.*'\.xlsx'"),
    ]:
        with pytest.raises(InputError, match=message):
            read_tasks(tmp_path / path)
    (tmp_path / "cut.json").write_text('[{"id": ')
    with pytest.raises(InputError, match="not JSON"):
        read_tasks(tmp_path / "cut.json")
    (tmp_path / "word.json").write_text('"word"')
    with pytest.raises(InputError, match="expected a list of rows; found str"):
        read_tasks(tmp_path / "word.json")
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_tasks(tmp_path / "mine.parquet")


def test_a_file_that_was_cut_short_keeps_its_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(lines([{**row, "note": str(hash(row["id"]) * 7)} for row in ROWS * 400]))[:-20])
    messages: list[str] = []
    tasks = read_tasks(path, messages.append)
    assert len(tasks) == 3
    assert "cut short" in messages[-1] and all("stands at" in message for message in messages[:-1])


def test_a_table_is_read_below_its_notices_and_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bamboogle.csv"
    path.write_text('A notice,\n,\nQuestion,Answer\n"Who, then?",Lund\nWhere?,Kaldor,extra\nWhen?,1953\n')
    messages: list[str] = []
    tasks = BENCHMARKS["bamboogle"].load(path, messages.append)
    assert [(t.question, t.answers) for t in tasks] == [("Who, then?", ("Lund",)), ("When?", ("1953",))]
    assert messages == [f"{path}:5: not a usable question row: expected 2 cells; found 3"]


# set, a row that cannot be used, what the message must say
UNUSABLE = [
    ("nq_open", {"question": "who?"}, "expected a field 'answer'; found question"),
    ("nq_open", {"question": "who?", "answer": []}, "'answers' is empty"),
    ("nq_open", {"question": "who?", "answer": [["x"]]}, "'answers' must be a list of strings"),
    ("nq_open", {"question": "who?", "answer": "x"}, "'answers' must be a list of strings"),
    ("triviaqa", {"QuestionId": "1", "Question": "who?", "Answer": "x"}, "its fields are QuestionId, Question, Answer"),
    ("hotpotqa", {"_id": "1", "question": "q", "answer": "x", "context": [["A", ["a."]]],
                  "supporting_facts": [["B", 0]]}, r"not there: \['B'\]"),
    ("musique", {"id": "2hop__1", "question": "q", "paragraphs": []}, "expected a field"),
    ("webqsp", {"QuestionId": "1", "RawQuestion": "q", "Parses": [{"Answers": []}]}, "expected a parse with 'Answers'"),
    ("o2qa", {"key": "q", "value": []}, "'answers' is empty"),
    ("rgb", ["a list"], "its fields are list"),
    ("bright", {"query": "q", "id": "1", "gold_ids": [3]}, "'supporting' must be a list of strings"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "message"), UNUSABLE)
def test_an_unusable_published_row_is_named(name: str, row: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([row]))
    said: list[str] = []
    assert BENCHMARKS[name].load(path, said.append) == []
    assert len(said) == 1 and said[0].startswith(f"{path}:1: not a usable question row: ")
    with pytest.raises(InputError, match=message):
        BENCHMARKS[name].load(path)


def test_not_a_number_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "1", "question": "q", "answers": ["x"], "s_pop": NaN}')
    with pytest.raises(InputError, match="NaN is no JSON number"):
        read_tasks(tmp_path / "rows.jsonl")


def test_evidence_that_is_not_in_the_corpus_is_named() -> None:
    tasks = [Task("a", "q", ("x",), ("d1", "d2")), Task("b", "q", ("x",), ("d1", "d8", "d9")), Task("c", "q", ("x",))]
    said: list[str] = []
    assert [task.id for task in resolved(tasks, {"d1", "d2"}.__contains__, said.append)] == ["a", "c"]
    assert said == ["task b: 'supporting' must name documents of the corpus; not there are 2 of 3: 'd8', 'd9'"]


def test_rows_in_the_shared_layout_pass_by_the_converter(tmp_path: Path) -> None:
    (tmp_path / "nq_open.jsonl").write_bytes(lines(ROWS))
    chosen, path = benchmark(str(tmp_path / "nq_open.jsonl"))
    assert chosen is BENCHMARKS["nq_open"]
    assert [task.id for task in chosen.load(path)] == ["0", "1", "2"]


def test_flashrag_rows_are_read_everywhere(tmp_path: Path) -> None:
    row = {"id": "dev_1", "question": "q", "golden_answers": ["x"], "metadata": {"type": "bridge", "level": "hard"}}
    (tmp_path / "hotpotqa.jsonl").write_bytes(lines([row]))
    (task,) = BENCHMARKS["hotpotqa"].load(tmp_path / "hotpotqa.jsonl")
    assert (task.id, task.answers, task.type, task.metadata) == ("dev_1", ("x",), "bridge", {"level": "hard"})


def test_paragraphs_that_rows_carry_become_documents_once() -> None:
    documents = list(BENCHMARKS["hotpotqa"].documents())
    tasks = BENCHMARKS["hotpotqa"].load()
    assert len({d.id for d in documents}) == len(documents) == 9, "a paragraph of two rows is one document"
    assert {i for task in tasks for i in task.supporting} <= {d.id for d in documents}
    assert {d.title: d.text for d in documents}[
        "Vostberg"
    ] == "Vostberg is a town on the river Ilm. Its first mayor was Anna Lund."
    assert list(carried("hotpotqa", lambda row: [{"documents": []}])()) == []


def test_hotpotqa_on_the_hub_has_columns_for_pairs(tmp_path: Path) -> None:
    published = json.loads((SHIPPED / "hotpotqa.json").read_text())[0]
    columns = {
        **{key: published[key] for key in ("question", "answer", "type", "level")},
        "id": published["_id"],
        "supporting_facts": {
            key: [f[n] for f in published["supporting_facts"]] for n, key in enumerate(("title", "sent_id"))
        },
        "context": {key: [c[n] for c in published["context"]] for n, key in enumerate(("title", "sentences"))},
    }
    (tmp_path / "rows.jsonl").write_bytes(lines([columns]))
    assert BENCHMARKS["hotpotqa"].load(tmp_path / "rows.jsonl") == BENCHMARKS["hotpotqa"].load()[:1]


def test_a_question_is_on_one_side_of_the_split_in_whatever_form_it_comes() -> None:
    for published, shared in [("musique", "musique-2hop__1_2"), ("hotpotqa", "hotpot-invented0001")]:
        for task in BENCHMARKS[published].load()[:1]:
            assert is_reporting(task) == is_reporting(Task(shared, "q"))
            assert task.metadata["base_id"] == shared


def test_the_twin_of_a_musique_question_cannot_be_answered() -> None:
    tasks = {task.id: task for task in BENCHMARKS["musique"].load()}
    asked, twin = tasks["2hop__1_2"], tasks["2hop__1_2#unanswerable"]
    assert asked.question == twin.question and asked.answers == ("Kaldor", "port of Kaldor")
    assert twin.answers == twin.supporting == () and twin.metadata["answerable"] is False
    assert (asked.hops, asked.type, asked.metadata["decomposition"][1]["answer"]) == (2, "2hop", "Kaldor")


def test_the_published_table_of_wikitablequestions_is_unescaped(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text('id\tutterance\tcontext\ttargetValue\nnu-0\twhat "is" it?\tcsv/1.csv\tone\\p two|a\\\\b\\nc\n')
    (task,) = BENCHMARKS["wikitablequestions"].load(path)
    assert task.question == 'what "is" it?' and task.metadata["table"] == "csv/1.csv"
    assert task.answer_items == ("one| two", "a\\b\nc")


def test_fanoutqa_as_published() -> None:
    row = {
        "id": "1",
        "question": "q",
        "answer": {"A": [1, True], "B": None},
        "decomposition": [
            {"evidence": {"title": "T"}},
            {"evidence": None, "decomposition": [{"evidence": {"title": "U"}}]},
        ],
    }
    (made,) = fanout(row)
    assert made["answer_items"] == ["A", "1", "yes", "B"] and made["supporting"] == ["T", "U"]
    assert made["base_id"] == "fanoutqa-1"
    (shared,) = fanout({**row, "answer": {"A": "oil", "B": "oil"}})
    assert shared["answer_items"] == ["A", "oil", "B", "oil"]


def test_sentences_of_2wikimultihopqa_are_kept_apart(tmp_path: Path) -> None:
    row = {
        "_id": "1", "type": "compositional", "question": "Where was its director born?", "answer": "Lund",
        "context": [["Ash", ["Ash is a film by Bo Lind.", "It was shot in 1995."]],
                    ["Bo Lind", ["He was born in Lund."]]],
        "supporting_facts": [["Ash", 0], ["Bo Lind", 0]], "evidences": [["Ash", "director", "Bo Lind"]],
    }  # fmt: skip
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([row]))
    chosen = BENCHMARKS["2wikimultihopqa"]
    assert chosen.documents is not None
    assert [d.text for d in chosen.documents(path)] == [
        "Ash is a film by Bo Lind. It was shot in 1995.",
        "He was born in Lund.",
    ]
    hotpot = {**row, "context": [["Ash", ["Ash is a film.", " It was shot in 1995."]], ["Bo Lind", ["Born in Lund."]]]}
    path.write_text(json.dumps([hotpot]))
    published = BENCHMARKS["hotpotqa"].documents
    assert published is not None and next(iter(published(path))).text == "Ash is a film. It was shot in 1995."


def said(text: str) -> Episode:
    return episode(answer=Answer(text))


def loaded(name: str, row: dict, tmp_path: Path) -> Task:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (task,) = BENCHMARKS[name].load(path)
    return task


def test_what_published_rows_accept_is_accepted(tmp_path: Path) -> None:
    both = {"type": "multipleQAs", "qaPairs": [{"question": "a?", "answer": ["5 February 1953", "February 1953"]},
                                               {"question": "b?", "answer": ["1887"]}]}  # fmt: skip
    other = {"type": "multipleQAs", "qaPairs": [{"question": "c?", "answer": ["Lund"]}]}
    task = loaded("ambignq", {"id": "1", "question": "When?", "annotations": [both, other]}, tmp_path)
    score = BENCHMARKS["ambignq"].metrics["annotated_f1"]
    for text, value in (("February 1953, 1887", 1), ("Lund", 1), ("1887", 2 / 3), ("1887, Ohio", 0.5), ("Ohio", 0)):
        assert score(task, said(text)) == pytest.approx(value)
    single = {"type": "singleAnswer", "answer": ["Lund", "Lund, Sweden"]}
    task = loaded("ambignq", {"id": "1", "question": "Where?", "annotations": [both, single]}, tmp_path)
    assert task.type == "single" and task.metadata["needs_clarification"] is False
    assert score(task, said("Lund, Sweden")) == 1 and task.answers == ("Lund", "Lund, Sweden")
    answers = [{"answer": "Belgium", "aliases": ["Belgique"]}, {"answer": "France", "aliases": []}]
    task = loaded("cwq", {"ID": "1", "question": "Which?", "answers": answers}, tmp_path)
    assert BENCHMARKS["cwq"].metrics["first_hit"](task, said("Belgique")) == 1 and len(task.answer_items) == 2
    held = {"Value": "Lund", "Aliases": ["Lunda"], "HumanAnswers": ["city of Lund"]}
    task = loaded("triviaqa", {"QuestionId": "1", "Question": "Where?", "Answer": held}, tmp_path)
    assert task.answers == ("Lund", "Lunda", "city of Lund")


def test_of_many_questions_some_are_looked_up_in_the_store() -> None:
    class Half:
        asked = 0

        def document(self, doc_id: str) -> None:
            self.asked += 1
            if int(doc_id) % 2:
                raise KeyError(doc_id)

    store = Half()
    tasks = [Task(f"t{n}", "q?", ("a",), (str(n),)) for n in range(900)]
    assert outlook("x", 900, tasks, None, store) == (
        "x: 900 of 900 questions; 100 of 200 of the 900 that mark their evidence have it in this store"
    )
    assert store.asked == 200 and outlook("x", 9, tasks[:4], 20, store).endswith(
        "4 of 9 questions (--limit asks for 20); 2 of the 4 that mark their evidence have it in this store"
    )


def test_a_query_that_is_a_document_too_is_not_ranked_for_itself(tmp_path: Path) -> None:
    for name, excluded in (("arguana", ["a"]), ("other", None)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "queries.jsonl").write_bytes(lines([{"_id": "a", "text": "x"}]))
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\td1\t1\n")
        chosen, path = benchmark(str(folder))
        (task,) = chosen.load(path)
        assert task.metadata.get("excluded") == excluded


def test_the_published_table_of_popqa_quotes_its_lists(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(
        "id\tsubj\tprop\tobj\ts_pop\to_pop\tquestion\tpossible_answers\n"
        '1\tBo Lind\toccupation\tpainter\t93\t7\tWhat is Bo Lind\'s occupation?\t"[""painter"", ""poet""]"\n'
    )
    (task,) = BENCHMARKS["popqa"].load(path)
    assert task.answers == ("painter", "poet") and task.metadata["s_pop"] == 93


def test_beir_folders_work_and_their_bad_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_bytes(
        lines([{"_id": "a", "text": "x"}, {"_id": "b", "text": "y"}, {"_id": "a", "text": "z"}, {"text": "w"}])
    )
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\td1\t2\na\td2\t0\nb\td1\t0\n")
    chosen, path = benchmark(str(tmp_path))
    said: list[str] = []
    (task,) = chosen.load(path, said.append)
    assert (task.id, task.supporting, task.metadata["relevance"]) == ("a", ("d1",), {"d1": 2})
    assert [message.partition(":")[2].split(":")[0] for message in said] == ["3", "4"]
    assert beir.is_folder(tmp_path) and not beir.is_folder(tmp_path / "qrels")
    for line, message in [("a\td1\n", "expected query-id, corpus-id and score"), ("a\td1\tyes\n", "a whole number")]:
        (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}")
        with pytest.raises(InputError, match=message):
            chosen.load(path)


def test_the_users_own_findings_are_scored_as_findings(tmp_path: Path) -> None:
    path = tmp_path / "open.jsonl"
    path.write_bytes(lines([{"id": "1", "question": "q", "key_findings": ["a finding", "another"]}]))
    chosen, place = benchmark(str(path))
    assert chosen.primary == "key_finding_f1" and chosen.load(place)[0].answers == ()
    assert source.is_source(path) and not source.is_source(tmp_path)
    with pytest.raises(ConfigError, match="unknown benchmark"):
        benchmark(str(tmp_path))
