"""A lexical index ranks a few texts by BM25 in memory: rows of tables, questions, samples of sources.

It is for what is small beside a store and made when it is opened; a store's own index is on disk (`bm25`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sleuth.retrieval.bm25 import BM25, Postings
from sleuth.retrieval.tokens import WORD, Analyzer


class Lexical:
    """BM25 over ``texts``, which are not kept."""

    def __init__(self, texts: Sequence[str], language: str = "english") -> None:
        analyzer = Analyzer(language)
        self._count = len(texts)
        self._bm25 = BM25([Postings.of(texts, analyzer)], analyzer) if texts else None

    def __len__(self) -> int:
        return self._count

    def search(self, query: str, k: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """At most ``k`` (position, score) pairs, best first, equal scores by position; ``allowed`` is (N,) bool."""
        if self._bm25 is None or not WORD.search(query):
            return []
        ((rows, scores),) = self._bm25.search([query], k, allowed)
        return sorted(zip(rows.tolist(), scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))[:k]
