"""Dense search over a store: the index proposes, the half-precision vectors on disk decide.

Vectors that no index covers are compared exhaustively in memory. All scores are inner products of the query with the
stored half-precision vector, whichever way a vector was found, and the score of a vector depends on nothing else.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sleuth.corpora.errors import InputError
from sleuth.retrieval.codes import searchable
from sleuth.retrieval.index import Index
from sleuth.retrieval.recall import Ranking, best, candidates, compared, gather, similarities

FEW = 20_000
"""Rows that a filter allows are all compared where they are no more than this."""
_NONE: Ranking = (np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of an index one search reads; None leaves what the index was tuned to."""

    nprobe: int | None = None
    """Lists looked into, on average: fewer by a query whose nearest lists stand out."""
    depth: int | None = None
    """Candidates compared exactly."""

    def __post_init__(self) -> None:
        for name in ("nprobe", "depth"):
            if (value := getattr(self, name)) is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name}: expected an integer of at least 1, found {value!r}")


class Dense:
    """Vectors of all segments, numbered through in the order of the store; safe to share between threads."""

    def __init__(self, vectors: Sequence[np.ndarray], ids: Sequence[str], index: Index | None, device: str) -> None:
        """``vectors`` are (N, D) float16 a segment, ``ids`` the segments' names."""
        self._vectors, self._device, self._lock = vectors, device, threading.RLock()
        self._first = np.cumsum([0, *map(len, vectors)])
        covered = set() if index is None or index.codes is None else set(index.segments)
        self._index = index if covered & set(ids) else None
        self._rest = [n for n, id_ in enumerate(ids) if id_ not in covered]
        """Segments that are compared exhaustively."""
        if self._index is not None:
            here = {id_: n for n, id_ in enumerate(ids)}
            self._places = [here.get(id_) for id_ in self._index.segments]
            self._gone = None in self._places
            self._index_first = np.cumsum([0, *self._index.lengths])[:-1]
            self._store_first = np.array([0 if n is None else self._first[n] for n in self._places])

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, effort: Effort | None = None
    ) -> list[Ranking]:
        """At most ``k`` rows a query, best first; ``queries`` are (Q, D) float32, ``allowed`` (N,) bool.

        Of a filtered search k rows come back where k are allowed; where few are, all of them are compared. What a
        query finds does not depend on the others.
        """
        if allowed is not None and np.count_nonzero(allowed) <= FEW:
            rows = np.flatnonzero(allowed)
            near = gather(self._vectors, self._first, rows)
            return [best(rows, similarities(near, query), k) for query in queries]
        found = self._approximate(queries, k, allowed, effort or Effort()) if self._index is not None else None
        if not self._rest:
            return found or [_NONE for _ in queries]
        others = self._exhaustive(queries, k, allowed)
        if found is None:
            return others
        return [
            best(np.concatenate([rows, more]), np.concatenate([scores, further]), k)
            for (rows, scores), (more, further) in zip(found, others, strict=True)
        ]

    def _approximate(self, queries: np.ndarray, k: int, allowed: np.ndarray | None, effort: Effort) -> list[Ranking]:
        """Candidates of the index, compared exactly."""
        assert self._index is not None and self._index.codes is not None
        plan, codes = self._index.plan, self._index.codes
        bits, share = None, 1.0
        if allowed is not None or self._gone:
            kept = self._in_index_order(allowed)
            bits, share = np.packbits(kept, bitorder="little"), max(1, int(np.count_nonzero(kept))) / len(kept)
        depth = min(plan.num_vectors, max(effort.depth or plan.depth, 2 * k))
        # lists that are expected to hold four times the candidates, filtered ones left out
        needed = int(4 * depth / share * plan.num_lists / plan.num_vectors) + 1
        nprobe = min(plan.num_lists, effort.nprobe or max(plan.nprobe, needed))
        rows = candidates(self._faiss, codes, queries, nprobe, depth, bits)
        if nprobe < plan.num_lists and (short := [n for n, own in enumerate(rows) if len(own) < k]):
            wider = candidates(self._faiss, codes, queries[short], plan.num_lists, depth, bits)
            for n, own in zip(short, wider, strict=True):
                rows[n] = own
        return compared(self._vectors, self._first, queries, [self._in_store_order(own) for own in rows], k)

    def _in_store_order(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the store for numbers of the index."""
        places = np.searchsorted(self._index_first, rows, "right") - 1
        return rows - self._index_first[places] + self._store_first[places]

    def _in_index_order(self, allowed: np.ndarray | None) -> np.ndarray:
        """(numbers of the index,) bool: allowed, and still in the store."""
        assert self._index is not None
        kept = np.zeros(self._index.plan.num_vectors, bool)
        for n, place in enumerate(self._places):
            if place is not None:
                own = slice(self._index_first[n], self._index_first[n] + len(self._vectors[place]))
                kept[own] = True if allowed is None else allowed[self._first[place] : self._first[place + 1]]
        return kept

    def _exhaustive(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> list[Ranking]:
        """The best of the vectors without an index."""
        import faiss

        parameters: Any = None
        kept = None if allowed is None else allowed[self._rest_rows]
        if kept is not None:
            bits = np.packbits(kept, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        k = min(k, self._flat.ntotal if kept is None else int(np.count_nonzero(kept)))
        if k == 0:
            return [_NONE for _ in queries]
        scores, rows = self._flat.search(queries, k, params=parameters)
        return [(self._rest_rows[own[own >= 0]], score[own >= 0]) for own, score in zip(rows, scores, strict=True)]

    @cached_property
    def _rest_rows(self) -> np.ndarray:
        """Rows of the store that no index covers."""
        parts = [np.arange(self._first[n], self._first[n + 1]) for n in self._rest]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    @cached_property
    def _flat(self) -> Any:
        """Exact index over the vectors without another, in half precision.

        The scalar quantiser scores each query by itself, so a query's scores do not depend on its batch.
        """
        import faiss

        with self._lock:
            half = faiss.ScalarQuantizer.QT_fp16
            dims = self._vectors[0].shape[1] if self._vectors else 1
            index = faiss.IndexScalarQuantizer(dims, half, faiss.METRIC_INNER_PRODUCT)
            for n in self._rest:
                for start in range(0, len(self._vectors[n]), 65_536):
                    index.add(self._vectors[n][start : start + 65_536].astype(np.float32))
            return on_device(index, self._device)

    @cached_property
    def _faiss(self) -> Any:
        assert self._index is not None and self._index.codes is not None
        with self._lock:
            return searchable(self._index.plan, self._index.codes)


def on_device(index: Any, device: str) -> Any:
    """The index on a GPU where ``device`` asks for one and this faiss can; otherwise as it is, with a warning."""
    import faiss

    if not device.startswith("cuda"):
        return index
    number = int(device.partition(":")[2] or 0)
    try:
        if number >= faiss.get_num_gpus():
            raise RuntimeError(f"faiss sees {faiss.get_num_gpus()} GPUs (the extra `gpu` brings a faiss that can)")
        resources = faiss.StandardGpuResources()
        moved: Any = faiss.index_cpu_to_gpu(resources, number, index)
        moved.referenced_objects = [resources]
        return moved
    except (RuntimeError, AttributeError) as error:
        warnings.warn(f"device {device!r}: vectors are searched on the CPU: {error}", stacklevel=2)
        return index
