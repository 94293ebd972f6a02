"""pass@k is the chance that of k runs of a question at least one is right, over several seeds of one configuration.

Estimated without bias from n >= k runs of which c are right: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374,
eq. 1). Chain-checked, a run counts only when its evidence is right as well, so that lucky guesses fall away
(CoT-Pass@K, Wen et al., arXiv 2506.14245); here the chain is checked by evidence, not by a model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sleuth.eval.records import Scored
from sleuth.eval.report import Report
from sleuth.eval.stats import Interval, interval

Right: TypeAlias = Callable[[Scored], "bool | None"]
"""Whether a run counts as right; None leaves it out."""


@dataclass(frozen=True, slots=True)
class PassAt:
    k: int
    interval: Interval | None
    """Mean over questions with its interval; None when no question has k scored runs."""
    short: int
    """Questions with fewer than k scored runs: not in the mean."""


def pass_at_k(runs: Sequence[Sequence[Scored]], k: int, right: Right | None = None, seed: int = 0) -> PassAt:
    """pass@k over the rows of several runs (one sequence a seed), questions matched by task id."""
    by_task: dict[str, list[bool]] = {}
    for rows in runs:
        for row in rows:
            counted = by_task.setdefault(row.task_id, [])
            if (ok := (right or answered)(row)) is not None:
                counted.append(ok)
    values = [estimate(len(found), sum(found), k) for found in by_task.values() if len(found) >= k]
    return PassAt(k, interval(values, seed), len(by_task) - len(values))


def repeated(reports: Sequence[Report]) -> list[list[Report]]:
    """The reports that differ in nothing but their seed, two or more of each, in the order given."""
    alike: dict[str, dict[str, Report]] = {}
    for report in reports:
        config = {key: value for key, value in report.config.items() if key != "seed"}
        versions = sorted({row.policy_version for row in report.scored if row.policy_version})  # a failed run has none
        key = json.dumps([report.benchmark, config, versions], sort_keys=True)
        alike.setdefault(key, {}).setdefault(str(report.config.get("seed")), report)
    return [list(seeds.values()) for seeds in alike.values() if len(seeds) > 1]


def estimate(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k) for c right ones of n; k must lie in 1..n, or ``ValueError``."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} runs of a question; found {n}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def answered(row: Scored) -> bool | None:
    """Right by exact match."""
    value = row.values.get("em")
    return None if value is None else value == 1


def chain_checked(needs: Mapping[str, float] | None = None) -> Right:
    """Right by exact match, and every named metric at least its value; a metric that gave None checks nothing.

    By default the gold documents were all retrieved and the answer is carried by quotes. A run without a figure for any
    of them is left out: it can be neither right nor wrong in its chain.
    """
    wanted = {"evidence_recall": 1.0, "citation_support": 1.0} if needs is None else needs

    def right(row: Scored) -> bool | None:
        ok = answered(row)
        values = {name: row.values.get(name) for name in wanted}
        if ok is None or (wanted and all(value is None for value in values.values())):
            return None
        return ok and all(value is None or value >= wanted[name] for name, value in values.items())

    return right
