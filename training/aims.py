"""An aim is what a task says about where its answer lies: the time that it is about, and what is really asked.

`temporal` and `intent` are the rewards for keeping to them, metrics like all others; where a task says nothing of its
aim they do not apply (None).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from sleuth.agents.records import Episode
from sleuth.eval.answers import token_f1
from sleuth.eval.metrics import quoted
from sleuth.eval.records import Task
from sleuth.retrieval.scope import scope_of
from sleuth.training.plans import from_strategy, natural, resolved

COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
"""The operators of a filter (`retrieval.records.Filter`); ISO 8601 dates compare as text."""


def temporal(task: Task, episode: Episode) -> float | None:
    """Share of the cited spans whose source is dated within the task's time; 0 where the answer cites nothing.

    None where the task names no time, or no hit of the run has a date. In the manner of Memory-T1's temporal
    consistency (arXiv 2512.20092), which lets a session near the time earn a part, weighs the times of the events told
    in it, and goes below 0.
    """
    wanted, dates = time_of(task), dates_of(episode)
    if wanted is None or not dates:
        return None
    passages = episode.passages()
    cited = {(passages[c.passage_id].doc_id, c) for c in quoted(episode) if c.passage_id in passages}
    return sum(_within(dates.get(doc_id, ""), wanted) for doc_id, _ in cited) / len(cited) if cited else 0.0


def time_of(task: Task) -> Any:
    """The condition on ``date`` that a task searches under, else that of the time its question names; None for none."""
    if task.where is not None and "date" in task.where:
        return task.where["date"]
    scope = scope_of(task.question)
    return scope.filter() if scope else None


def dates_of(episode: Episode) -> dict[str, str]:
    """The dates of the documents that a run found, as its searches noted them."""
    passages = episode.passages()
    hits = [hit for step in episode.steps for call in step.calls if call.tool == "search" for hit in call.result or ()]
    return {passages[h["passage_id"]].doc_id: h["date"] for h in hits if h.get("date") and h["passage_id"] in passages}


def intent(task: Task, episode: Episode) -> float | None:
    """Mean over what is really asked (`asked_for`) of the best word F1 with a query that was searched; 0 without one.

    None where the task does not say. In the manner of ChatR1's intent-aware reward (arXiv 2510.13312), which follows
    the intent turn by turn while an episode runs; here one figure an episode, by words (`answers.token_f1`).
    """
    wanted = asked_for(task)
    if not wanted:
        return None
    calls = [call for step in episode.steps for call in step.calls if call.tool == "search"]
    queries = [str(call.arguments.get("query", "")) for call in calls]
    return fmean(max((token_f1(query, question) for query in queries), default=0.0) for question in wanted)


def asked_for(task: Task) -> list[str]:
    """A conversation's question as it stands alone (``standalone``), else the look-ups of ``decomposition``.

    Look-ups have the earlier answers filled in where the task tells them; those without a passage (``"passage": null``)
    need no search. The turns before (``history``) say by themselves nothing of what is asked.
    """
    alone = task.metadata.get("standalone")
    if isinstance(alone, str) and alone.strip():
        return [alone]
    parts: Sequence[Any] = task.metadata.get("decomposition") or ()
    if not all(isinstance(part, Mapping) for part in parts):
        return from_strategy({"decomposition": parts})
    steps = resolved([natural(str(p.get("question"))) for p in parts], [str(p.get("answer") or "") for p in parts])
    return [
        step for step, p in zip(steps, parts, strict=True) if p.get("question") and p.get("passage", "") is not None
    ]


def _within(date: str, wanted: Any) -> bool:
    """Does a date satisfy a condition? A document without one is in no time."""
    if not date:
        return False
    if isinstance(wanted, Mapping):
        return all(COMPARE[sign](date, str(bound)) for sign, bound in wanted.items())
    among = isinstance(wanted, Sequence | set | frozenset) and not isinstance(wanted, str)
    return date in (wanted if among else (str(wanted),))
