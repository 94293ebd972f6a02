"""FanOutQA: questions that fan out over many articles, answered by a list or by a table of names and values.

Zhu et al. 2024, arXiv 2402.14116. The wanted items are every name and value of ``answer_struct``; the primary is the
paper's loose accuracy, the share of them that the answer holds, and ``cover_em`` its strict one. A value that two names
share counts twice, as in the authors' scorer. ``supporting`` holds titles of articles; the texts are the user's to
bring, under those titles as document ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING, cover_share
from sleuth.eval.records import Benchmark


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """A row of the published file, whose ``answer`` is a list, an object, or one value."""
    wanted = list(flat(row["answer"]))
    yield {
        "id": row["id"],
        "base_id": f"fanoutqa-{row['id']}",  # as the shared layout names it: on the same side of the split
        "question": row["question"],
        "answers": [", ".join(wanted)],
        "answer_items": wanted,
        "supporting": list(dict.fromkeys(titles(row.get("decomposition") or ()))),
        "categories": row.get("categories") or [],
        "decomposition": row.get("decomposition") or [],
        "hops": len(set(titles(row.get("decomposition") or ()))) or None,
    }


def refine(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of the shared layout, which keeps the structure as ``answer_struct``."""
    return {**row, "answer_items": list(flat(row["answer_struct"]))} if "answer_struct" in row else row


def titles(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Articles that the steps of a decomposition, and the steps of those, rest on."""
    for step in steps:
        if step.get("evidence"):
            yield step["evidence"]["title"]
        yield from titles(step.get("decomposition") or ())


def flat(struct: Any) -> Iterator[str]:
    """Names and values of an answer, one string each, in order; a truth value is yes or no, null is left out."""
    if isinstance(struct, dict):
        for name, value in struct.items():
            yield str(name)
            yield from flat(value)
    elif isinstance(struct, list):
        for value in struct:
            yield from flat(value)
    elif isinstance(struct, bool):
        yield "yes" if struct else "no"
    elif struct is not None and str(struct).strip():
        yield str(struct)


FANOUTQA = Benchmark(
    name="fanoutqa",
    load=loader("fanoutqa", convert, refine),
    metrics={**QUESTION_ANSWERING, "cover_share": cover_share},
    primary="cover_share",
    licence="CC BY-SA 4.0",
)
