"""Calibration says whether a run's own confidence tells its right answers from its wrong ones.

All functions take pairs (confidence, right) of the answers that have both; `pairs` takes them from the rows of a
report and counts those that have not. Figures: the risk-coverage curve and its area (Geifman and El-Yaniv, arXiv
1705.08500 and 1805.08206), and the expected calibration error (Guo et al., arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sleuth.eval.records import Scored

Pair: TypeAlias = tuple[float, bool]
"""Confidence in [0, 1], and whether the answer was right."""


@dataclass(frozen=True, slots=True)
class Point:
    coverage: float
    """Share of the answers given when every one below this confidence is withheld."""
    risk: float
    """Share of wrong ones among those given."""
    confidence: float
    """The least confidence among those given."""


@dataclass(frozen=True, slots=True)
class Calibration:
    n: int
    missing: int
    """Rows without a confidence or without a score."""
    accuracy: float
    aurc: float
    """Area under the risk-coverage curve; 0 is perfect, 1 - accuracy is what a confidence that says nothing gives."""
    excess_aurc: float
    """AURC less that of the best possible order of the same answers, each at a confidence of its own: at least 0."""
    ece: float


def pairs(rows: Iterable[Scored], right: str = "em", confidence: str = "confidence") -> tuple[list[Pair], int]:
    """(confidence, right) of the rows that have both, right being 1 in that metric, and how many have not."""
    found, missing = [], 0
    for row in rows:
        sure, value = row.values.get(confidence), row.values.get(right)
        if sure is None or value is None:
            missing += 1
        else:
            found.append((sure, value == 1))
    return found, missing


def calibration(rows: Sequence[Scored], right: str = "em", confidence: str = "confidence") -> Calibration | None:
    """All figures of a run; None when no row has both a confidence and a score."""
    found, missing = pairs(rows, right, confidence)
    if not found:
        return None
    best = [(-place, ok) for place, ok in enumerate(sorted((ok for _, ok in found), reverse=True))]
    return Calibration(
        n=len(found),
        missing=missing,
        accuracy=sum(ok for _, ok in found) / len(found),
        aurc=aurc(found),
        excess_aurc=aurc(found) - aurc(best),
        ece=ece(found),
    )


def risk_coverage(found: Sequence[Pair]) -> list[Point]:
    """The curve from the surest answer to all of them, one point a distinct confidence: equals are given together."""
    ranked = sorted(found, key=lambda pair: -pair[0])
    points, wrong = [], 0
    for given, (sure, ok) in enumerate(ranked, 1):
        wrong += not ok
        if given == len(ranked) or ranked[given][0] != sure:
            points.append(Point(given / len(ranked), wrong / given, sure))
    return points


def aurc(found: Sequence[Pair]) -> float:
    """Mean over the answers of the risk at their coverage; equal confidences share the risk of their group.

    An empty sequence raises ``ValueError``.
    """
    if not found:
        raise ValueError("no answer has a confidence: there is no curve")
    area, before = 0.0, 0.0
    for point in risk_coverage(found):
        area += (point.coverage - before) * point.risk
        before = point.coverage
    return area


def ece(found: Sequence[Pair], bins: int = 10) -> float:
    """sum over bins of n_b / n * |accuracy_b - mean confidence_b|, bins of equal width; 1.0 falls in the last.

    An empty sequence raises ``ValueError``.
    """
    if not found:
        raise ValueError("no answer has a confidence: there is no calibration error")
    held: dict[int, list[Pair]] = {}
    for pair in found:
        held.setdefault(min(int(pair[0] * bins), bins - 1), []).append(pair)
    gaps = (abs(sum(ok for _, ok in group) - sum(sure for sure, _ in group)) for group in held.values())
    return sum(gaps) / len(found)
