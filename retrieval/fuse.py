"""Fusion makes one ranking out of several of the same query, by ranks alone, so scores need not be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def reciprocal_rank(rankings: Sequence[Sequence[Item]], k: int = 60) -> list[tuple[Item, float]]:
    """``(item, sum over rankings of 1 / (k + rank))``, best first, ties in order of first appearance.

    Cormack, Clarke and Buettcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods"; ``k`` as there.
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
