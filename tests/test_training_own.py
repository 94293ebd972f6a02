"""A warm start from a user's own tasks: their documents become passages, their evidence quotes, and rewards follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.eval.load import read_tasks
from sleuth.eval.split import bucket, reporting_only
from sleuth.eval.synthesis.fictional import fictional_world
from sleuth.eval.synthesis.make import row_of, write_rows
from sleuth.eval.synthesis.training import composed
from sleuth.retrieval.build import BuildSpec, build
from sleuth.training import examples, recipe
from sleuth.training.own import own
from tests.tiny_model import make


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An invented world; each document begins with words that make it more than one passage."""
    room = tmp_path_factory.mktemp("own")
    documents, tasks = fictional_world(5, 24)
    preface = "Nothing of note is said in these words. " * 6
    long = [Document(d.id, preface + d.text, title=d.title) for d in documents]
    build(long, room / "store", BuildSpec(max_words=60))
    moved = []
    for row in map(row_of, tasks):
        pieces = [{**p, "start": p["start"] + len(preface), "end": p["end"] + len(preface)} for p in row["evidence"]]
        moved.append({**row, "evidence": pieces})
    write_rows(room / "questions.jsonl", moved)
    return room


def test_gold_documents_become_the_passages_that_hold_the_evidence(store: Path) -> None:
    qa = own(store / "store", store / "questions.jsonl")
    asked = [json.loads(line) for line in (store / "questions.jsonl").read_text().splitlines()]
    assert {row["id"] for row in qa.rows} == {row["id"] for row in asked if not reporting_only(row)}
    by_id = {row["id"]: row for row in asked}
    for row in qa.rows:
        gold = [qa.passages[id_] for id_ in row["supporting"]]
        assert {p.doc_id for p in gold} == set(by_id[row["id"]]["supporting"])
        assert all(any(piece["text"] in p.text for p in gold) for piece in row["evidence"])
    assert any("#" in id_ for row in qa.rows for id_ in row["supporting"])
    assert qa.search(qa.rows[0]["question"], 3)[0].id != qa.search(qa.rows[-1]["question"], 3)[0].id


def test_every_role_gets_examples_of_the_training_buckets(store: Path) -> None:
    kinds = ("planner", "rewriter", "reflector", "alone", "answerer", "reader")
    made = examples.build(
        None, {kind: {"own": 40} for kind in kinds}, 0, range(4, 10),
        own=lambda: own(store / "store", store / "questions.jsonl"),
    )  # fmt: skip
    assert {example.role for example in made} == {"planner", "rewriter", "reflector", "answerer"}
    assert all(bucket({"id": example.source.split("/")[1]}) >= 4 for example in made)
    assert {example.source.split("/")[0] for example in made} == {"own"}


def test_tasks_with_several_answers_teach_lists(store: Path, tmp_path: Path) -> None:
    asked = [task for task in read_tasks(store / "questions.jsonl") if task.hops == 1]
    write_rows(tmp_path / "q.jsonl", [row_of(task) for task in composed(asked, 3)])
    qa = own(store / "store", tmp_path / "q.jsonl")
    wanted = {row["id"]: row["answer_items"] for row in qa.rows}
    made = examples.build(None, {"answerer": {"own": 60}, "reader": {"own": 20}}, 0, range(10), own=lambda: qa)
    lists = [(example, json.loads(example.completion)) for example in made]
    assert made and {len(r["answer"]) if isinstance(r["answer"], list) else 1 for _, r in lists} >= {2, 3}
    for example, reply in lists:
        said = reply["answer"] if isinstance(reply["answer"], list) else [reply["answer"]]
        assert set(said) <= set(wanted[example.source.split("/")[1]])
        assert all(any(item in quote for quote in reply["quotes"]) for item in said)


def test_items_are_said_as_the_passages_spell_them(store: Path, tmp_path: Path) -> None:
    asked = composed([task for task in read_tasks(store / "questions.jsonl") if task.hops == 1], 3)
    rows = [row_of(task) for task in asked]
    loud = [{**row, "answer_items": [item.upper() for item in row["answer_items"]]} for row in rows]
    made = []
    for name, given in (("plain", rows), ("loud", loud)):
        write_rows(tmp_path / f"{name}.jsonl", given)
        qa = own(store / "store", tmp_path / f"{name}.jsonl")
        made.append(examples.build(None, {"answerer": {"own": 20}}, 0, range(10), own=lambda qa=qa: qa))
    assert made[0] and made[0] == made[1]


def test_a_recipe_begins_with_examples_of_its_own_tasks(tmp_path: Path, store: Path) -> None:
    base = make(tmp_path / "base", max_position_embeddings=4096)
    text = f"""
name = "mine"
base = "{base}"
[tasks]
store = "{store / "store"}"
questions = "{store / "questions.jsonl"}"
search = "bm25"
dev = 0
[rl]
steps = 0
[sft]
rank = 2
batch = 4
max_tokens = 4000
micro_tokens = 4000
[examples.reader]
own = 8
"""
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    said: list[str] = []
    recipe.run(str(file), str(tmp_path / "out"), progress=said.append)
    assert "mine: 8 examples" in said and (tmp_path / "out" / "warm" / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"decomposition": [{"question": "Who?", "passage": 3}], "evidence": "none"},
        {"decomposition": ["Who?", "Where is #1?"], "evidence": [{"document": 1}, 7]},
        {"decomposition": [{"question": "Who?", "answer": "x", "passage": None}], "evidence": None},
        {"decomposition": {}, "hops": None},
    ],
)
def test_what_a_row_says_of_its_look_ups_may_be_missing_or_odd(
    store: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    rows = [json.loads(line) | change for line in (store / "questions.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "q.jsonl", rows)
    qa = own(store / "store", tmp_path / "q.jsonl")
    assert all(row["hops"] >= 1 and set(row["supporting"]) <= set(qa.passages) for row in qa.rows)
    counts = {kind: {"own": 9} for kind in ("planner", "rewriter", "reflector", "alone", "answerer", "reader")}
    for example in examples.build(None, counts, 0, range(4, 10), own=lambda: qa):
        assert example.completion.startswith("{")


@pytest.mark.parametrize("change", [{"supporting": ["nowhere"]}, {"supporting": []}])
def test_tasks_that_no_example_can_be_made_of(store: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [json.loads(line) | change for line in (store / "questions.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "q.jsonl", rows)
    with pytest.raises(InputError, match="nowhere" if change["supporting"] else r"no task with answers and gold"):
        own(store / "store", tmp_path / "q.jsonl")


def test_rows_that_give_no_example_are_said_before_anything_is_written(tmp_path: Path, store: Path) -> None:
    rows = [json.loads(line) | {"answers": ["nowhere to be found"], "decomposition": []}
            for line in (store / "questions.jsonl").read_text().splitlines()]  # fmt: skip
    write_rows(tmp_path / "q.jsonl", rows)
    file = tmp_path / "r.toml"
    where = f'store = "{store / "store"}"\nquestions = "{tmp_path / "q.jsonl"}"'
    file.write_text(f'name = "x"\n[examples.reader]\nown = 3\n[tasks]\n{where}\n[rl]\nsteps = 0\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"x: no example could be made of reader\.own: rows need an answer"):
        recipe.run(str(file), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "warm" / "recipe.json").exists()


def test_own_examples_need_tasks_with_a_store(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('name = "x"\n[examples.reader]\nown = 3\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"examples.reader.own needs \[tasks\] with questions and store"):
        recipe.read(file)
