"""A folder of small benchmark files about books, authors and towns that nobody has heard of."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

ROWS = 40


def write(data: Path, name: str, rows: list[dict[str, Any]], passages: list[dict[str, Any]], corpus: str = "") -> None:
    for folder in ("qa", "corpora"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    (data / "qa" / f"{name}.dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    with gzip.open(data / "corpora" / f"{corpus or name}.corpus.jsonl.gz", "wt", encoding="utf-8") as handle:
        handle.writelines(json.dumps(p) + "\n" for p in passages)


def make(data: Path) -> Path:
    """A two-hop set with gold sentences, one with decompositions, a yes/no set, a simple one and one of lists."""
    hp, bridge = [], []
    for i in range(ROWS):
        book = f"Book{i} is a novel by Author{i}."
        life = f"Author{i} was born in Town{i}."
        starts = [0, len("It sold well. ")]
        hp.append({"id": f"b{i}", "title": f"Book{i}", "text": f"It sold well. {book}", "sents": starts})
        starts = [0, len(life) + 1]
        hp.append({"id": f"a{i}", "title": f"Author{i}", "text": f"{life} Nothing else is known.", "sents": starts})
        bridge.append(
            {
                "id": f"hot-{i}", "question": f"Where was the author of Book{i} born?", "answers": [f"Town{i}"],
                "supporting": [f"a{i}", f"b{i}"], "candidates": [f"a{i}", f"b{i}"], "support_mode": "all",
                "type": "bridge", "hops": 2, "supporting_facts": [[f"a{i}", 0], [f"b{i}", 1]],
            }
        )  # fmt: skip
    write(data, "hotpotqa_s", bridge, hp)
    steps = [
        {
            "id": f"musique-{i}", "question": row["question"], "answers": row["answers"], "type": "2hop", "hops": 2,
            "support_mode": "all", "supporting": row["supporting"], "candidates": row["candidates"],
            "decomposition": [
                {"question": f"Book{i} >> author", "answer": f"Author{i}", "passage": f"b{i}"},
                {"question": "#1 >> place of birth", "answer": f"Town{i}", "passage": f"a{i}"},
            ],
        }
        for i, row in enumerate(bridge)
    ]  # fmt: skip
    write(data, "musique_s", steps, hp)
    yes = [
        {
            "id": f"sq-{i}", "question": f"Is Author{i} alive?", "answers": [["yes", "no"][i % 2]], "hops": 1,
            "supporting": [f"a{i}"], "support_mode": "all", "type": "yes_no", "candidates": [],
            "decomposition": [f"When was Author{i} born?", "Is #1 recent?"],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    write(data, "strategyqa", yes, hp)
    simple = [
        {
            "id": f"nq-{i}", "question": f"who wrote book{i}", "answers": [f"author{i}"], "supporting": [f"b{i}"],
            "support_mode": "any", "hops": 1, "type": "factoid", "candidates": [],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    write(data, "nq_train", simple, hp, corpus="nq")
    films = [
        {"id": f"f{i}{n}", "title": f"F{i}{n}", "text": f"movie: F{i}{n} ; directed by: D{i}. year: {1900 + n}."}
        for i in range(ROWS)
        for n in range(3)
    ]
    people = [
        {"id": f"d{i}{n}", "title": f"D{i}{n}", "text": f"D{i}{n} acted in F{i}0. D{i}{n} is old."}
        for i in range(ROWS)
        for n in range(4)
    ]
    several = [
        {
            "id": f"cq-{i}", "question": f"What movies has D{i} directed?", "answers": [f"F{i}0, F{i}1, F{i}2"],
            "answer_items": [f"F{i}{n}" for n in range(3)], "supporting": [], "support_mode": "none", "type": "list",
            "scope": f"s{i}", "candidates": [*(f"f{i}{n}" for n in range(3)), *(f"d{i}{n}" for n in range(4))],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    write(data, "commaqa_e", several, [*films, *people])
    return data
