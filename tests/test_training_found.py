"""Questions without text join training where passages at hand answer them; reporting rows stay out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora.errors import InputError
from sleuth.eval.split import bucket, reporting_only
from sleuth.training.examples import build
from sleuth.training.sets import load
from sleuth.training.tasks import HELD_OUT, TaskSpec, open_tasks
from tests.retrieval_stores import use_hash_embedder
from tests.training_data import write

NAME = "hotpotqa_dev_questions"
ASKED = "Which painter is depicted on the harbour stamp of Norwick?"


def _id(reporting: bool, nth: int = 0) -> str:
    """The nth id that the split judges so, none of them held out."""
    ids = (f"q{n}" for n in range(999))
    return [i for i in ids if reporting_only({"id": i}) == reporting and bucket({"id": i}) != HELD_OUT][nth]


def _row(nth: int, question: str, answer: str, reporting: bool = False) -> dict[str, Any]:
    given = {"answers": [answer], "supporting": [], "support_mode": "none", "type": "bridge", "hops": 2}
    return {"id": _id(reporting, nth), "question": question, "answerable": True, **given}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    write(folder, "hotpotqa_s", [_row(50, ASKED, "Ida Brandt")], [
        {"id": "s1", "title": "Lantern", "text": "Lantern is a 1950 mystery film directed by Anna Adler in Norwick."},
        {"id": "s2", "title": "Harbour stamp", "text": "The harbour stamp of Norwick depicts the painter Ida Brandt."},
    ])  # fmt: skip
    write(folder, "hotpotqa_r1s", [], [
        {"id": "r1", "title": "Anna Adler", "text": "Anna Adler was a film director, born in Vienna."},
        {"id": "r2", "title": "Clay", "text": "Clay is a play. Its first night was in Vienna."},
    ])  # fmt: skip
    questions = [
        _row(0, "Who directed the mystery film Lantern of 1950?", "Anna Adler"),
        _row(1, "Where was the film director Anna Adler born?", "Vienna"),
        _row(2, "Was the film Lantern of 1950 directed by Anna Adler?", "yes"),
        _row(3, "Was Anna Adler, the film director, born in Vienna or in Graz?", "Vienna"),
        _row(4, "In what city did the third husband of queen Olga play chess?", "Vienna"),
        _row(5, ASKED, "Ida Brandt"),
        _row(0, "Which mystery film of 1950 did Anna Adler direct?", "Lantern", reporting=True),
    ]
    (folder / "qa_no_corpus").mkdir()
    (folder / "qa_no_corpus" / f"{NAME}.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return folder


def test_a_question_is_found_where_one_passage_says_most_of_it_and_its_answer(data: Path) -> None:
    qa = load(data, f"found_{NAME}")
    assert {row["question"]: row["supporting"] for row in qa.rows} == {
        "Who directed the mystery film Lantern of 1950?": ["s1"],
        "Where was the film director Anna Adler born?": ["r1"],  # r2 says Vienna too, and little of the question
    }
    assert all(row["support_mode"] == "any" and row["silver"] for row in qa.rows)
    assert set(qa.passages) == {"s1", "s2", "r1", "r2"}


def test_found_questions_are_read_and_rewarded_over_the_passages_that_answer_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    kinds = ("reader", "answerer", "alone")
    examples = build(data, {kind: {f"found_{NAME}": 9} for kind in kinds}, 0, range(3, 10))
    assert {e.role for e in examples} == {"answerer", "reflector"}
    assert {json.loads(e.completion)["answer"] for e in examples if e.role == "answerer"} == {"Anna Adler", "Vienna"}
    store, train, dev = open_tasks(TaskSpec(sets={f"found_{NAME}": 9}), data, tmp_path, seed=0)
    assert {task.question for task in train} == {
        row["question"] for row in load(data, f"found_{NAME}").rows
    } and not dev
    assert {p for task in train for p in task.supporting} == {"s1", "r1"}
    assert store.search(["Anna Adler"], 9)[0]


def test_a_set_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(InputError, match=r"r1searcher_train\.dev\.jsonl: no such file"):
        load(data, "found_r1searcher_train")
