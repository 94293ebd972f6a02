"""What a run says of its steps: figures of a batch of groups, seconds per phase, a line for people, TensorBoard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sleuth.training import credit
from sleuth.training.rewards import Graded

PHASES = ("dev_s", "rollout_s", "samples_s", "update_s", "publish_s")


def describe(groups: Sequence[Sequence[Graded]]) -> dict[str, Any]:
    """The log's figures of a batch of groups; means are over episodes that did not fail, None where there are none."""
    graded = [g for group in groups for g in group]
    valid = [g for g in graded if g.reward is not None]

    def mean(values: Sequence[float]) -> float | None:
        return fmean(values) if values else None

    terms = sorted({name for g in valid for name in g.terms})
    return {
        "reward": mean([g.reward for g in valid if g.reward is not None]),
        "success": mean([float(g.success) for g in valid]),
        **{f"term/{t}": mean([v for g in valid if (v := g.terms[t]) is not None]) for t in terms},
        "searches": mean([float(g.searches) for g in valid]),
        "completion_tokens": mean([float(g.tokens) for g in valid]),
        "episodes": len(graded),
        "failed": len(graded) - len(valid),
        "void": sum(g.void for g in graded),
        "cut": sum(g.cut for g in graded),
        "groups": len(groups),
        "informative": sum(not credit.equal(group) for group in groups),
        "why": next((g.why for g in graded if g.why), ""),
    }


class Clock:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.spent[name], self._last = round(now - self._last, 3), now


def told(line: Mapping[str, Any], steps: int) -> str:
    """A step's line for people."""

    def shown(key: str, digits: int = 3) -> str:
        value = line.get(key)
        return "–" if value is None else f"{value:.{digits}f}"

    seconds = sum(line[key] for key in PHASES)
    dev = f"  dev {shown('dev_success')}" if "dev_success" in line else ""
    return (
        f"step {line['step']}/{steps}  reward {shown('reward')}  success {shown('success')}  entropy {shown('entropy')}"
        f"  groups {line['informative']}/{line['groups']}  {seconds:.1f} s{dev}"
    )


@contextlib.contextmanager
def tensorboard(out: Path, done: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes a line's numbers as scalars where tensorboard is installed; otherwise does nothing."""
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        yield lambda line: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out / "tensorboard"), purge_step=done + 1) as writer:

        def write(line: Mapping[str, Any]) -> None:
            for key, value in line.items():
                if isinstance(value, int | float) and key != "step":
                    writer.add_scalar(key, value, line["step"])

        yield write
