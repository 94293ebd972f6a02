"""An interval says how far a mean could move if other questions of the same kind had been drawn.

Percentile bootstrap over questions (Efron and Tibshirani 1993, chapter 13), seeded, so that one file of scores always
gives one interval; the paired form resamples differences on the questions both runs have (Koehn 2004, W04-3250).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000
LEVEL = 0.95
_CHUNK = 250
"""Resamples drawn at once: bounds the index array at _CHUNK x n."""


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int
    """Questions that it was made of."""


def interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """Mean with its 95 % interval; None for no values. Equal values have that point as interval."""
    if not len(values):
        return None
    data = np.asarray(values, dtype=np.float64)  # (n,)
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [
            data[random.integers(0, len(data), (min(_CHUNK, resamples - done), len(data)))].mean(axis=1)
            for done in range(0, resamples, _CHUNK)
        ]
    )  # (resamples,)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(data.mean()), float(low), float(high), len(data))


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """Mean of ours - theirs with its 95 % interval over the task ids both have; None when they share none.

    An interval that leaves out 0 says that the difference is not the draw of the questions.
    """
    common = sorted(ours.keys() & theirs.keys())
    return interval([ours[i] - theirs[i] for i in common], seed, resamples)
