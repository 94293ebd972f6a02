"""A retriever answers a batch of queries with ranked hits; everything that searches has this one signature.

BM25, dense, hybrid and (later) reranked, routed, cached and remote retrievers wrap one another because none of them
changes the shape: a list of queries in, a list of hit lists of the same length out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sleuth.corpora.records import Passage, Scalar

Filter: TypeAlias = Mapping[str, "Scalar | Sequence[Scalar] | Mapping[str, Scalar]"]
"""Metadata filter: every field must match. A value means equality, a sequence means membership, a mapping holds
comparisons by operator, for instance ``{"source": "wiki", "lang": ["en", "de"], "date": {">=": "2001"}}``. What is
missing or empty is neither before nor after anything."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found for one query."""

    passage: Passage
    score: float
    """Higher is better; comparable only within one retriever."""
    rank: int
    """From 1."""
    retriever: str
    """Name of the retriever that ranked it: ``bm25``, ``dense``, ``hybrid``."""
    url: str = ""
    source: str = ""
    date: str = ""


class Retriever(Protocol):
    """Batch in, batch out, always this shape."""

    @property
    def fingerprint(self) -> str:
        """Hash of what is searched (a datastore's manifest); goes into every episode and citation."""
        ...

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """At most ``k`` hits per query, best first; ``len(result) == len(queries)``."""
        ...

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in order; raises ``KeyError`` naming the ids that are not there."""
        ...
