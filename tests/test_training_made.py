"""Questions made by rules from a set's passages train like the set's own, and what is for reporting stays out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sleuth.eval.split import bucket, reporting_only
from sleuth.training.examples import build
from sleuth.training.sets import load
from sleuth.training.tasks import TaskSpec, open_tasks
from tests.retrieval_stores import use_hash_embedder
from tests.training_data import write

PEOPLE = [f"{first} {last}" for first in ("Anna", "Boris", "Clara", "David") for last in ("Adler", "Brandt", "Corvin")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film by each of twelve people; the rows of the set ask for the first two directors' years."""
    folder = tmp_path_factory.mktemp("made")
    passages: list[dict[str, Any]] = []
    for i, name in enumerate(PEOPLE):
        passages += [
            {"id": f"f{i}", "title": f"Lantern {i}", "text": f"Lantern {i} is a 19{50 + i} film directed by {name}."},
            {"id": f"p{i}", "title": name, "text": f"{name} (born {3 + i} May 19{20 + i}) is a German film director."},
        ]
    rows = [
        {
            "id": f"row-{n}", "question": f"When was the director of Lantern {i} born?", "answers": [f"19{20 + i}"],
            "supporting": [f"f{i}", f"p{i}"], "support_mode": "all", "type": "bridge", "hops": 2, "candidates": [],
        }
        for n, i in ((_first(True), 0), (_first(False), 1))
    ]  # fmt: skip
    write(folder, "hotpotqa_s", rows, passages)
    return folder


def _first(reporting: bool) -> int:
    return next(n for n in range(99) if reporting_only({"id": f"row-{n}"}) == reporting)


def test_made_questions_come_from_the_passages_and_keep_clear_of_reporting_rows(data: Path) -> None:
    qa = load(data, "made_hotpotqa_s")
    assert qa.name == "made_hotpotqa_s" and set(qa.passages) == set(load(data, "hotpotqa_s").passages)
    assert {"bridge", "comparison"} <= {row["type"] for row in qa.rows}
    assert not any(reporting_only(row) for row in qa.rows)
    # the reporting row's answer, from its passage, is asked for by no question; that of the other row may be
    assert not any({"p0", "f0"} & set(row["supporting"]) and "1920" in row["answers"] for row in qa.rows)
    assert [row["id"] for row in qa.rows] == [row["id"] for row in load(data, "made_hotpotqa_s").rows]
    for row in qa.rows:
        for piece in row["evidence"]:
            text = qa.passages[piece["document"]].text
            assert text[piece["start"] : piece["end"]] == piece["text"]


def test_made_questions_ask_nothing_that_another_set_reports_on(data: Path, tmp_path: Path) -> None:
    rows = load(data, "made_hotpotqa_s").rows
    shutil.copytree(data, tmp_path / "data")
    held = {"id": f"row-{_first(True)}", "question": rows[0]["question"].upper(), "answers": ["1"]}
    write(tmp_path / "data", "nq_dev", [held], [], corpus="nq")
    assert [row["id"] for row in load(tmp_path / "data", "made_hotpotqa_s").rows] == [row["id"] for row in rows[1:]]


def test_rewards_are_given_for_them_too_and_they_are_no_dev_tasks(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hash_embedder(monkeypatch)
    store, train, dev = open_tasks(TaskSpec(sets={"made_hotpotqa_s": 9}), data, tmp_path, 0)
    assert len(train) == 9 and not dev and {bucket({"id": task.id}) for task in train} <= set(range(4, 10))
    assert all(task.supporting and task.answers for task in train)
    assert store.search(["Lantern 3"], 1)[0][0].passage.id.startswith("f3")


def test_they_give_examples_of_every_role_from_the_training_buckets_alone(data: Path) -> None:
    kinds = ("planner", "rewriter", "reflector", "alone", "answerer", "reader")
    counts = {kind: {"made_hotpotqa_s": 99} for kind in kinds}
    made = build(data, counts, 0, range(4, 10), ranked=True)
    assert {example.role for example in made} == {"planner", "rewriter", "reflector", "answerer"}
    ids = {example.source.split("/")[1] for example in made}
    assert ids and all(bucket({"id": id_}) >= 4 for id_ in ids)
