"""AmbigNQ: questions of search users, half of which can be read in several ways that each have their own answer.

Min et al. 2020, arXiv 2004.10645; rows of ``dev_light.json``: ``annotations`` of type ``singleAnswer`` or
``multipleQAs`` (each reading with its ``answer``, all whose wordings are accepted). An ambiguous question is served by
asking back (`clarification`) or by giving the answers of all its readings; `annotated_f1` is the published score of
answers, the best over the annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sleuth.agents.records import Episode
from sleuth.eval.answers import items
from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING, answer_text, asked_back, clarification, cover_share
from sleuth.eval.records import Benchmark, Task


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Ambiguous where no annotator gave a single answer; items and readings are then those of the first annotation."""
    alone = any(a["type"] == "singleAnswer" for a in row["annotations"])
    several = None if alone else next((a for a in row["annotations"] if a["type"] == "multipleQAs"), None)
    readings = several["qaPairs"] if several else []
    single = [answer for a in row["annotations"] if a["type"] == "singleAnswer" for answer in a["answer"]]
    wanted = list(dict.fromkeys(reading["answer"][0] for reading in readings))
    yield {
        "id": f"ambignq-{row['id']}",
        "question": row["question"],
        "answers": [", ".join(wanted)] if several else list(dict.fromkeys(single)),
        "answer_items": wanted,
        "needs_clarification": several is not None,
        "type": "ambiguous" if several else "single",
        "readings": [{"question": r["question"], "answers": r["answer"]} for r in readings],
        "annotations": [
            [r["answer"] for r in a["qaPairs"]] if a["type"] == "multipleQAs" else [a["answer"]]
            for a in row["annotations"]
        ],
    }


def annotated_f1(task: Task, episode: Episode) -> float | None:
    """F1 of the answers given against those of an annotation, each right in any of its wordings; the best of them.

    The answer is cut into items as `answers.items` does, and so is a wording: all its pieces must be there.
    """
    said = items(answer_text(episode))
    scores = [0.0]
    for wanted in task.metadata.get("annotations") or ():
        fitting = ([cut for w in wordings if (cut := items(w)) and cut <= said] for wordings in wanted)
        held = [max(cuts, key=len) for cuts in fitting if cuts]
        right, used = len(held), len(frozenset().union(*held))
        if right:
            recall, precision = right / len(wanted), used / len(said)
            scores.append(2 * recall * precision / (recall + precision))
    return max(scores) if task.metadata.get("annotations") else None


AMBIGNQ = Benchmark(
    name="ambignq",
    load=loader("ambignq", convert),
    metrics={
        **QUESTION_ANSWERING,
        "annotated_f1": annotated_f1,
        "cover_share": cover_share,
        "clarification": clarification,
        "asked_back": asked_back,
    },
    primary="annotated_f1",
    licence="CC BY-SA 3.0",
)
