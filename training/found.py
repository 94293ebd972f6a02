"""Questions that come without text, where passages at hand happen to answer them: more real questions for training.

``qa_no_corpus`` asks of all Wikipedia, and some of its questions are answered by the abstracts that other sets bring.
What tells them is distant supervision as for open-domain readers (Chen et al. 2017, arXiv 1704.00051, on its
data): among the first passages of a search one holds the answer and most of what the question says. The evidence is
silver: whether the question was written over that passage is not known.
"""

from __future__ import annotations

from pathlib import Path

from sleuth.eval.answers import normalise
from sleuth.training.hops import content
from sleuth.training.sets import FOUND, POOL, QuestionSet, Row, find_span, lines, load, trainable

DEPTH = 5
"""Passages of a search that are looked at."""
SAID = 0.6
"""Share of a question's content words that the passage must say; 18 of 22 drawn over four corpora were sound."""


def found(name: str, data: str | Path) -> QuestionSet:
    """The trainable rows of ``qa_no_corpus/name`` that passages of `POOL` answer and no set with passages asks."""
    pool = [load(data, corpus) for corpus in POOL]
    qa = QuestionSet(FOUND + name, [], {id_: passage for part in pool for id_, passage in part.passages.items()})
    asked = {normalise(row["question"]) for path in sorted(Path(data).glob("qa/*.jsonl")) for row in lines(path)}
    rows = [
        row
        for asking in lines(Path(data) / "qa_no_corpus" / f"{name}.dev.jsonl")
        if trainable(asking, data) and normalise(asking["question"]) not in asked and (row := _answered(qa, asking))
    ]
    return QuestionSet(qa.name, rows, qa.passages)


def _answered(qa: QuestionSet, row: Row) -> Row | None:
    """The row with the passages that answer it; None for none, and for an answer that the question itself says."""
    said = content(row["question"])
    enough = SAID * len(said)
    answer = row["answers"][0] if row["answers"] else ""
    if not said or normalise(answer) in ("", "yes", "no") or find_span(answer, row["question"]):
        return None
    holding = [
        passage.id
        for passage in qa.search(row["question"], DEPTH)
        if find_span(answer, passage.text) and len(said & content(f"{passage.title} {passage.text}")) >= enough
    ]
    return {**row, "supporting": holding, "support_mode": "any", "silver": True} if holding else None
