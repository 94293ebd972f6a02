"""RGB: questions with snippets that hold the answer, snippets that do not, and (``_fact``) snippets made to be wrong.

Chen et al. 2024, arXiv 2309.01431; rows of ``en_refine.json``, ``en_int.json`` and ``en_fact.json``, one JSON object a
line whatever their name, so rename them to ``.jsonl``. The rows carry their snippets. `rgb_accuracy` is the published
check: every wanted item stands in the answer, case aside, in one of its wordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sleuth.agents.records import Episode
from sleuth.eval.load import carried, document, loader
from sleuth.eval.metrics import QUESTION_ANSWERING, answer_text, misled
from sleuth.eval.records import Benchmark, Task


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Of ``answer``, items of a list are wanted together, and a list within it holds the wordings of one item.

    Where snippets are grouped, one of each group is needed, which marks of gold documents cannot say: any counts.
    """
    held = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    wanted = [item if isinstance(item, list) else [item] for item in held]
    positive = [document("", text) for text in _texts(row["positive"])]
    grouped = any(isinstance(item, list) for item in row["positive"])
    others = [document("", text) for key in ("negative", "positive_wrong") for text in _texts(row.get(key) or [])]
    fake = row.get("fakeanswer") or []
    yield {
        "id": f"rgb-{row['id']}",
        "question": row["query"],
        "answers": wanted[0] if len(wanted) == 1 else [", ".join(wordings[0] for wordings in wanted)],
        "answer_items": [wordings[0] for wordings in wanted] if len(wanted) > 1 else [],
        "wanted": wanted,
        "wrong_answers": fake if isinstance(fake, list) else [fake],
        "supporting": list(dict.fromkeys(item["id"] for item in positive)),
        "support_mode": "any" if grouped or len(wanted) == 1 else "all",
        "documents": [*positive, *others],
    }


def _texts(held: Iterable[Any]) -> Iterator[str]:
    """Snippets; in ``en_int.json`` they are grouped by the item that they hold."""
    for item in held:
        yield from item if isinstance(item, list) else [item]


def rgb_accuracy(task: Task, episode: Episode) -> float | None:
    """1 when a wording of every wanted item is a substring of the answer, case aside (``evalue.py``, checkanswer)."""
    wanted = task.metadata.get("wanted")
    said = answer_text(episode).lower()
    return float(all(any(w.lower() in said for w in wordings) for wordings in wanted)) if wanted else None


RGB = Benchmark(
    name="rgb",
    load=loader("rgb", convert),
    metrics={**QUESTION_ANSWERING, "rgb_accuracy": rgb_accuracy, "misled": misled},
    primary="rgb_accuracy",
    licence="stated at the source",
    documents=carried("rgb", convert),
)
