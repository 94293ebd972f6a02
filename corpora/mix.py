"""Mixing decides how much of each source a corpus holds: caps, and shares of words in proportion to weights.

Which documents are taken where not all are is decided by a hash of their ids and the seed, so it depends neither on the
order of the input nor on the machine, and a larger share holds all of a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sleuth.corpora.recipe import Source


def targets(words: Mapping[str, int], sources: Sequence[Source]) -> dict[str, float]:
    """Words to take of each source: all of ``words``, at most its cap, and at most its share.

    ``words`` are those of the documents that its ``max_documents`` leaves, which would else set no scale.
    Among weighted sources that hold anything, the one that is scarcest for its weight sets the scale.
    """
    available = {s.name: min(words.get(s.name, 0), s.max_words or words.get(s.name, 0)) for s in sources}
    scales = [available[s.name] / s.weight for s in sources if s.weight and available[s.name]]
    scale = min(scales, default=0.0)
    return {s.name: min(available[s.name], scale * s.weight) if s.weight else available[s.name] for s in sources}


def chosen(keys: np.ndarray, words: np.ndarray, target: float, max_documents: int | None) -> np.ndarray:
    """(N,) bool: the documents with the least ``keys`` (N,) uint64 whose ``words`` (N,) add up to at most ``target``.

    One document is taken even where the first alone passes the target, so that no source vanishes.
    """
    order = np.argsort(keys, kind="stable")
    totals = np.cumsum(words[order], dtype=np.int64)
    count = int(np.searchsorted(totals, target + 0.5, "right"))
    count = min(max(count, 1), max_documents or len(keys), len(keys))
    taken = np.zeros(len(keys), bool)
    taken[order[:count]] = True
    return taken


def key_of(doc_id: str, seed: int) -> int:
    """64 bits that say when a document is taken."""
    import xxhash

    return xxhash.xxh3_64_intdigest(doc_id.encode("utf-8", "surrogatepass"), seed & (2**64 - 1))
