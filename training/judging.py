"""A judging asks the judge of a reward about the answers of a run before they are graded; `rewards.grade` asks nobody.

Equal cases of one run are asked about once. A verdict that could not be had is no verdict: its episode has no reward,
and the next time that the same answer comes the judge is asked again. Every verdict is written down with its reason,
and a run that goes on takes over those that stand there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from sleuth.agents.records import Episode, Policy
from sleuth.corpora.errors import ConfigError
from sleuth.eval.judge import RUBRIC, Judge, Verdict, case_key, judge_all, spared
from sleuth.eval.records import Task
from sleuth.training.rewards import RewardSpec, failure

Ask: TypeAlias = Callable[[Sequence[tuple[Task, Episode]]], Mapping[str, Verdict]]
"""Verdicts on some episodes, for `rewards.grade`; those on earlier ones may be among them."""


def nobody(pairs: Sequence[tuple[Task, Episode]]) -> Mapping[str, Verdict]:
    """What a reward without a judge asks."""
    return {}


def asking(spec: RewardSpec, path: str | Path | None = None, policy: Policy | None = None) -> Ask:
    """What asks the judge of a reward, or ``policy`` in its place; verdicts are written to ``path``.

    Not for code that runs on an event loop: it waits for the judge on one of its own.
    """
    if not spec.judge:
        return nobody
    if not spec.judges():
        raise ConfigError(f"reward.judge {spec.judge!r} is never asked: the term judged has no weight")
    from sleuth.agents.policy import open_policy

    by = Judge(policy or open_policy(spec.judge, adapter="none"), spec.rubric or RUBRIC)
    heard: dict[str, Verdict] = {}

    def ask(pairs: Sequence[tuple[Task, Episode]]) -> Mapping[str, Verdict]:
        cases = [spec.case(task, episode) for task, episode in pairs if not failure(episode) and not spared(task)]
        new = [case for case in cases if case_key(*case) not in heard]
        if new:
            found = asyncio.run(judge_all(by, new, path=path))
            heard.update({key: verdict for key, verdict in found.items() if verdict.grade})
            return {**found, **heard}
        return heard

    return ask
