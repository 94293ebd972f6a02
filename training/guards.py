"""A guard looks at the log of a run after every step and says when it must not go on, and what it saw.

It is a function of the log's lines, so a resumed run is judged as the uninterrupted one. Runs fail by a policy that
stops exploring, by rewards that fall and do not come back, by a dead search, or by nothing left to tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Literal, NamedTuple

from sleuth.corpora.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GuardSpec:
    on: bool = True
    window: int = 8
    """Steps over which means are taken."""
    drop: float = 0.5
    """A mean success below this share of the best window's, and by more than chance (`ERRORS`), is a collapse, unless
    the held-out questions, asked twice at least, are answered as before."""
    entropy: float = 0.01
    """Nats per drawn token; below it for a window, without success, the policy has stopped exploring."""
    dead: int = 3
    """Steps in a row in which every episode failed."""
    solved: float = 0.99
    """With a window's success at least this the run is done."""

    def __post_init__(self) -> None:
        if self.window < 2 or self.dead < 1 or not 0 <= self.drop < 1:
            raise ConfigError(
                f"guards: expected window >= 2, dead >= 1, 0 <= drop < 1; found {self.window}, {self.dead}, {self.drop}"
            )


ERRORS = 3.0
"""Standard errors of the difference between two windows, from how success varies between their steps: with few
questions a step it halves by chance, for some are harder, and the best of many windows was lucky."""


class Verdict(NamedTuple):
    kind: Literal["collapse", "dead", "solved"]
    """``dead``: nothing was learned from the last steps, so the last checkpoint is as good as any."""
    seen: str


def judge(log: Sequence[Mapping[str, Any]], spec: GuardSpec) -> Verdict | None:
    """``log``: the lines of the steps so far, each with ``success`` (None when all failed), ``entropy`` (None without
    an update), ``informative`` (groups), ``failed`` and ``episodes``, ``norm`` of the gradient where there was an
    update, and ``dev_success`` where it was measured."""
    if not spec.on or not log:
        return None
    last = log[-spec.dead :]
    if len(last) == spec.dead and all(line["failed"] == line["episodes"] for line in last):
        return Verdict("dead", f"every episode failed in {spec.dead} steps, the last by: {log[-1].get('why') or '?'}")
    rates = [line["success"] for line in log if line["success"] is not None]
    if len(rates) < spec.window:
        return None
    now = fmean(rates[-spec.window :])
    if now >= spec.solved:
        return Verdict("solved", f"success {now:.3f} over {spec.window} steps")
    windows = [rates[i : i + spec.window] for i in range(len(rates) - spec.window + 1)]
    best = max(map(fmean, windows))
    chance = ERRORS * math.sqrt(sum(variance(w) / spec.window for w in (max(windows, key=fmean), windows[-1])))
    fell = len(rates) >= 2 * spec.window and now < (1 - spec.drop) * best and best - now > chance
    if fell and not _holds(log, spec):
        return Verdict("collapse", f"success fell from {best:.3f} to {now:.3f} (means of {spec.window} steps)")
    recent = log[-spec.window :]
    # a batch's baseline, a true trajectory and steps' own rewards teach from groups of equal rewards too
    idle = all(line["informative"] == 0 and not line.get("norm") for line in recent)
    if idle and len(log) >= 2 * spec.window:
        return Verdict("collapse", f"no group of {spec.window} steps told its rollouts apart, at success {now:.3f}")
    spread = [line["entropy"] for line in recent if line["entropy"] is not None]
    if len(spread) == spec.window and max(spread) < spec.entropy and now < 0.9 * best:
        seen = f"entropy under {spec.entropy} for {spec.window} steps (last {spread[-1]:.4f}), success {now:.3f}"
        return Verdict("collapse", f"{seen} after {best:.3f}")
    return None


def _holds(log: Sequence[Mapping[str, Any]], spec: GuardSpec) -> bool:
    """Whether the held-out questions say that nothing fell. They stay the same, while a curriculum sets solved ones
    aside and asks harder ones, so that success falls under a policy that gets better."""
    rates = [line["dev_success"] for line in log if line.get("dev_success") is not None]
    return len(rates) > 1 and rates[-1] > 0 and rates[-1] >= (1 - spec.drop) * max(rates)


def best_step(log: Sequence[Mapping[str, Any]], window: int) -> int | None:
    """The step that ends the window with the highest mean success (the latest among equals); None before a window."""
    rated = [line for line in log if line["success"] is not None]
    if len(rated) < window:
        return None
    ends = range(window, len(rated) + 1)
    return int(
        rated[max(ends, key=lambda e: (fmean(line["success"] for line in rated[e - window : e]), e)) - 1]["step"]
    )
