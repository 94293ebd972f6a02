"""ComplexWebQuestions: WebQuestionsSP made harder by composition, conjunction, comparison and superlatives.

Talmor and Berant 2018, arXiv 1803.06643; rows of ``ComplexWebQuestions_dev.json``: ``ID``, ``question``,
``compositionality_type``, ``sparql`` and ``answers`` with ``answer`` and ``aliases``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING, first_hit
from sleuth.eval.records import Benchmark


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """One answer is wanted in any of its wordings; several are wanted together, by their first wording.

    `first_hit` takes any wording of any of them, as the published script does.
    """
    wordings = [[w for w in (a["answer"], *a.get("aliases", ())) if w] for a in row["answers"]]
    wordings = [held for held in wordings if held]
    wanted = [held[0] for held in wordings]
    yield {
        "id": row["ID"],
        "question": row["question"],
        "answers": wordings[0] if len(wordings) == 1 else [", ".join(wanted)],
        "answer_items": wanted if len(wordings) > 1 else [],
        "wordings": list(dict.fromkeys(word for held in wordings for word in held)),
        "type": row.get("compositionality_type"),
    }


CWQ = Benchmark(
    name="cwq",
    load=loader("cwq", convert),
    metrics={**QUESTION_ANSWERING, "first_hit": first_hit},
    primary="first_hit",
    licence="Apache-2.0",
)
