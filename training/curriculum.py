"""A curriculum chooses the questions of each step, and how many rollouts each gets, from what earlier rollouts earned.

`choose` is a function of the settings, the records of past rewards, the step and the seed; so a resumed run chooses as
the uninterrupted one did. Records are plain JSON values and lie in the checkpoint.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sleuth.corpora.errors import ConfigError
from sleuth.eval.records import Task

Records = MutableMapping[str, dict[str, float]]
"""By task id: ``n`` rollouts so far that were rewarded and ``failed`` ones, ``success`` and ``reward`` (moving means;
absent while all have failed), ``step`` when it was last asked."""


@dataclass(frozen=True, slots=True)
class CurriculumSpec:
    low: float = 0.0
    """Questions that succeed no oftener than this are set aside..."""
    high: float = 1.0
    """...and so are those that succeed at least this often (online difficulty filtering, arXiv 2504.03380)."""
    tries: int = 8
    """Rollouts before a question may be set aside."""
    again: int = 20
    """Steps after which one that was set aside is asked again."""
    memory: float = 0.5
    """Weight of the past in a question's moving means."""
    allocate: bool = False
    """Rollouts in proportion to the spread of a question's success, sqrt(p (1 - p)), in place of as many for each
    (CurES, arXiv 2510.01037; Reinforce-Ada, arXiv 2510.04996); at least 2."""
    domains: bool = False
    """Questions of a type in proportion to how often it fails (RuleReasoner, arXiv 2506.08672), not to its size."""
    hops: bool = False
    """Fewest look-ups first; one more when those asked so far succeed as often as `ready` (UR2's easy to hard)."""
    ready: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(f"curriculum: expected 0 <= low < high <= 1; found {self.low} and {self.high}")
        if not 0 <= self.memory < 1:
            raise ConfigError(f"curriculum: memory must be in [0, 1); found {self.memory}")


def choose(
    tasks: Sequence[Task],
    records: Mapping[str, Mapping[str, float]],
    spec: CurriculumSpec,
    step: int,
    questions: int,
    group: int,
    seed: int,
) -> list[tuple[Task, int]]:
    """``questions`` tasks with their numbers of rollouts, ``questions * group`` rollouts together.

    The least asked come first, in an order drawn by seed and step. When too few are left, those that were set aside
    fill up.
    """
    level = _level(tasks, records, spec) if spec.hops else None
    fitting = [task for task in tasks if level is None or (task.hops or 1) <= level]
    draw = random.Random(f"{seed}:{step}")
    order = sorted(fitting, key=lambda task: (_times(records.get(task.id)), draw.random()))
    open_ = [task for task in order if not _aside(records.get(task.id), spec, step)]
    aside = [task for task in order if _aside(records.get(task.id), spec, step)]
    chosen = _by_domain(open_, records, questions) if spec.domains and open_ else open_[:questions]
    chosen += aside[: questions - len(chosen)]
    return list(zip(chosen, _rollouts(chosen, records, spec, group), strict=True))


def update(
    records: Records, spec: CurriculumSpec, step: int, task: Task, rewards: Sequence[float], wins: int, failed: int = 0
) -> None:
    """Note what the rollouts of one question earned; those that ``failed`` are not among ``rewards``.

    They say nothing of the question but that it was asked: one that always fails is not the least asked for ever.
    """
    old = records.get(task.id, {})
    made = {**old, "n": old.get("n", 0) + len(rewards), "failed": old.get("failed", 0) + failed, "step": step}
    if rewards:
        keep = spec.memory if "reward" in old else 0.0
        for key, value in (("success", wins / len(rewards)), ("reward", fmean(rewards))):
            made[key] = keep * old.get(key, 0.0) + (1 - keep) * value
    records[task.id] = made


def past(records: Mapping[str, Mapping[str, float]], task: Task) -> float | None:
    """Mean past reward of a question; None before its first rollout that did not fail."""
    return records.get(task.id, {}).get("reward")


def _times(record: Mapping[str, float] | None) -> float:
    """How many rollouts a question has had, failed ones too."""
    return record["n"] + record.get("failed", 0) if record else 0


def _success(records: Mapping[str, Mapping[str, float]], tasks: Iterable[Task]) -> list[float]:
    """Of the tasks that have one."""
    found = (records.get(task.id, {}).get("success") for task in tasks)
    return [rate for rate in found if rate is not None]


def _aside(record: Mapping[str, float] | None, spec: CurriculumSpec, step: int) -> bool:
    if record is None or _times(record) < spec.tries or step - record["step"] >= spec.again:
        return False
    return not spec.low < record.get("success", 0.0) < spec.high


def _level(tasks: Sequence[Task], records: Mapping[str, Mapping[str, float]], spec: CurriculumSpec) -> int:
    """The most look-ups asked for now."""
    for hops in sorted({task.hops or 1 for task in tasks}):
        seen = _success(records, (task for task in tasks if (task.hops or 1) == hops))
        if not seen or fmean(seen) < spec.ready:
            return hops
    return max(task.hops or 1 for task in tasks)


def _by_domain(order: Sequence[Task], records: Mapping[str, Mapping[str, float]], count: int) -> list[Task]:
    """Each type's share is that of its failures among all types' (a type not asked yet counts as failing)."""
    kinds: dict[str, list[Task]] = {}
    for task in order:
        kinds.setdefault(task.type, []).append(task)
    failing = {}
    for kind, members in kinds.items():
        seen = _success(records, members)
        failing[kind] = 1.05 - (fmean(seen) if seen else 0.0)
    shares = apportion([failing[kind] for kind in kinds], count)
    chosen = [task for kind, share in zip(kinds, shares, strict=True) for task in kinds[kind][:share]]
    taken = {task.id for task in chosen}
    return chosen + [task for task in order if task.id not in taken][: count - len(chosen)]


def _rollouts(
    chosen: Sequence[Task], records: Mapping[str, Mapping[str, float]], spec: CurriculumSpec, group: int
) -> list[int]:
    if not spec.allocate or group <= 2:
        return [group] * len(chosen)
    spread = []
    for task in chosen:
        rate = min(0.95, max(0.05, next(iter(_success(records, [task])), 0.5)))
        spread.append(math.sqrt(rate * (1 - rate)))
    return [2 + extra for extra in apportion(spread, (group - 2) * len(chosen))]


def apportion(weights: Sequence[float], count: int) -> list[int]:
    """``count`` in whole parts in proportion to the weights, by largest remainder; equal remainders in order."""
    total = math.fsum(weights)
    exact = [count * weight / total for weight in weights] if total else [count / len(weights)] * len(weights)
    parts = [math.floor(value) for value in exact]
    left = sorted(range(len(exact)), key=lambda i: (parts[i] - exact[i], i))
    for i in left[: count - sum(parts)]:
        parts[i] += 1
    return parts


def describe(records: Mapping[str, Mapping[str, float]], spec: CurriculumSpec, step: int) -> dict[str, Any]:
    """For the log: questions asked so far, and how many of them are set aside."""
    return {"asked": len(records), "aside": sum(_aside(record, spec, step) for record in records.values())}
