"""2WikiMultiHopQA as published: two- and four-hop questions with ten paragraphs and the triples that answer them.

Ho et al. 2020, arXiv 2011.01060; rows of ``dev.json``, in HotpotQA's layout with ``evidences`` (subject, relation,
object). The rows carry their paragraphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sleuth.eval.benchmarks import hotpotqa
from sleuth.eval.load import carried, loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """One question; unlike HotpotQA's, sentences come without the blank between them."""
    paragraphs = hotpotqa.pairs(row["context"], "title", "sentences")
    context = [(title, [f" {part.strip()}" for part in parts]) for title, parts in paragraphs]
    for made in hotpotqa.convert({**row, "context": context}):
        yield {**made, "base_id": made["id"], "evidences": row.get("evidences") or []}


TWOWIKI = Benchmark(
    name="2wikimultihopqa",
    load=loader("2wikimultihopqa", convert),
    metrics=QUESTION_ANSWERING,
    primary="f1",
    licence="Apache-2.0",
    documents=carried("2wikimultihopqa", convert),
)
