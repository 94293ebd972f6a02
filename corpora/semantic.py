"""A semantic duplicate says what a kept document says, in other words or another order: its vector is nearly the same.

SemDeDup (Abbas et al. 2023, "SemDeDup: data-efficient learning at web-scale through semantic deduplication", arXiv
2303.09540) compares vectors within clusters and drops what lies within a distance of another. Differs: documents come
as a stream, so clusters are learned from those kept so far, anew each time these have quadrupled; a document is
compared with the nearest `PROBES` clusters, not one; and of alike documents the first stays, not the one farthest from
its centroid. Vectors are kept in memory at two bytes a value, 512 bytes a document with the static embedder, and ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shingle import batches
from sleuth.corpora.stages import Corpus, Stage

BATCH = 512
FLAT = 4_096
"""Kept documents that are all compared; from so many on there are clusters."""
GROWTH = 4
PROBES = 8


class Encoder(Protocol):
    """What is needed of an embedder."""

    dims: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, rows of length 1 or zero."""
        ...


class Kept:
    """Vectors of the documents that were kept, to be asked for the nearest."""

    def __init__(self, dims: int) -> None:
        import faiss

        self.dims = dims
        self.index: Any = faiss.IndexScalarQuantizer(dims, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self.next = FLAT

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosine of the nearest kept vector and its number, (N,) each; minus infinity where there is none."""
        if not self.index.ntotal:
            return np.full(len(vectors), -np.inf, np.float32), np.full(len(vectors), -1)
        scores, numbers = self.index.search(vectors, 1)
        return scores[:, 0], numbers[:, 0]

    def add(self, vectors: np.ndarray) -> None:
        if not len(vectors):
            return
        self.index.add(vectors)
        if self.index.ntotal >= self.next:
            self._cluster()

    def _cluster(self) -> None:
        """Four times the root of their number: a search then meets about as many centroids as vectors."""
        import faiss

        count = self.index.ntotal
        lists = 4 * int(np.sqrt(count))
        coarse = faiss.IndexFlatIP(self.dims)
        made = faiss.IndexIVFScalarQuantizer(coarse, self.dims, lists, faiss.ScalarQuantizer.QT_fp16,
                                             faiss.METRIC_INNER_PRODUCT, False)  # fmt: skip
        made.cp.niter, made.cp.seed, made.nprobe = 8, 1, PROBES
        made.cp.min_points_per_centroid, made.cp.max_points_per_centroid = 1, 64
        if isinstance(self.index, faiss.IndexIVF):
            self.index.make_direct_map()
        whole = np.empty((count, self.dims), np.float32)
        for start in range(0, count, 65_536):
            end = min(count, start + 65_536)
            self.index.reconstruct_n(start, end - start, whole[start:end])
        made.train(whole)
        made.add(whole)
        self.index, self.next = made, GROWTH * count


def semantic(corpus: Corpus, threshold: float = 0.95, embedder: str = "static") -> Stage:
    """Documents whose vector has a cosine below ``threshold`` to every kept one; a text without a vector is kept.

    A transformer reads the beginning of a long document only, the static embedder reads all of it.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ConfigError(f"stage 'semantic': expected a threshold in (0, 1], found {threshold!r}")
    if not isinstance(embedder, str):
        raise ConfigError(f"stage 'semantic': expected an embedder's name, found {embedder!r}")
    if corpus.embedder is None:
        raise ConfigError("stage 'semantic': expected a build that opens embedders, as `sleuth build` does")
    model = corpus.embedder(embedder)
    return lambda documents, drop: semantic_duplicates(documents, model, threshold, drop)


def semantic_duplicates(
    documents: Iterable[Document], model: Encoder, threshold: float, drop: Callable[[Drop], None]
) -> Iterator[Document]:
    """Documents in order; the others are dropped, naming the kept one that they repeat."""
    kept, ids = Kept(model.dims), list[str]()
    for batch in batches(documents, BATCH):
        vectors = np.ascontiguousarray(model.encode([document.text for document in batch]), np.float32)
        if not np.isfinite(vectors).all():
            odd = batch[int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])].id
            raise ModelError(f"stage 'semantic': expected finite vectors, found NaN or infinity for {odd!r}")
        scores, numbers = kept.nearest(vectors)
        among = vectors @ vectors.T
        own: list[int] = []
        for n, document in enumerate(batch):
            twin, cosine = (ids[numbers[n]], float(scores[n])) if scores[n] >= threshold else ("", 0.0)
            if not twin and own:
                at = own[int(np.argmax(among[n, own]))]
                twin, cosine = (batch[at].id, float(among[n, at])) if among[n, at] >= threshold else ("", 0.0)
            if twin:
                drop(Drop(document.id, "semantic", f"says what {twin!r} says (cosine {min(cosine, 1.0):.3f})"))
                continue
            own.append(n)
            yield document
        kept.add(vectors[own])
        ids += [batch[n].id for n in own]
