"""PopQA: one-relation questions on subjects of every popularity, so that what is rare can be told from what is known.

Mallen et al. 2023, arXiv 2212.10511; rows of ``hf:akariasai/PopQA@test`` or its TSV. ``possible_answers`` is a JSON
list in a string; ``s_pop`` and ``o_pop`` (monthly page views of subject and object) stay as metadata, for slices. The
paper counts an answer as right when it holds an accepted one, which is close to cover-EM.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """One question; the TSV quotes a cell that holds quotes, as CSV does."""
    held = row["possible_answers"]
    if isinstance(held, str) and held.startswith('"'):
        held = held[1:-1].replace('""', '"')
    answers = json.loads(held) if isinstance(held, str) else held
    views = {key: int(row[key]) for key in ("s_pop", "o_pop") if row.get(key) not in (None, "")}
    kept = {key: row[key] for key in ("subj", "obj") if row.get(key)}
    yield {"id": f"popqa-{row['id']}", "question": row["question"], "answers": answers, "type": row["prop"], "hops": 1,
           **views, **kept}  # fmt: skip


POPQA = Benchmark(
    name="popqa",
    load=loader("popqa", convert),
    metrics=QUESTION_ANSWERING,
    primary="cover_em",
    licence="MIT",
)
