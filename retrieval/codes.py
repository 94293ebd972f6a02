"""Codes are compressed vectors in lists around centroids, held as plain arrays of known shapes.

They are learned and read by faiss but stored as numpy files, memory-mapped and checked, so that no serialised index is
ever parsed: a file of a stranger can be wrong, and is then refused, but is never more than numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sleuth.retrieval.bm25 import load_array
from sleuth.retrieval.plan import IndexPlan

CHUNK = 2**15
"""Vectors in flight; with the training sample, all that building needs in memory."""
ITERATIONS = 12
SEED = 5
NEAR = 20
"""How near a list is, is told by how far it lies behind the list of this rank."""
SAMPLES = 128
"""Queries that the reaches come from."""


@dataclass(frozen=True, slots=True)
class Codes:
    """``L`` lists of ``N`` vectors in all; each field but the last is a file ``NAME.npy``."""

    coarse: np.ndarray
    """(L, D') float32, centroids of the rotated vectors; D' is D padded (`IndexPlan.coded_dims`)."""
    rotation: np.ndarray
    """(D', D) float32 with orthonormal columns, or (0, 0) for none: a query is turned as the vectors were."""
    book: np.ndarray
    """Float32: what the quantiser learned; its length follows from the plan."""
    sizes: np.ndarray
    """(L,) int64, vectors of each list."""
    rows: np.ndarray
    """(N,) int64, numbers of the vectors, list after list."""
    codes: np.ndarray
    """(N, C) uint8, in the order of ``rows``."""
    reaches: np.ndarray
    """(L,) float32: how far behind its `NEAR`-th list a query looks to see 1, 2, .. L lists on average."""

    @classmethod
    def load(cls, folder: Path, plan: IndexPlan) -> Codes:
        """Memory-mapped; raises ``ValueError`` where an array is not what ``plan`` says, or the lists do not hold each
        row once."""
        n, d, lists = plan.num_vectors, plan.coded_dims, plan.num_lists
        arrays = {field.name: load_array(folder / f"{field.name}.npy") for field in fields(cls)[:-1]}
        wanted = {"coarse": ("f4", (lists, d)), "book": ("f4", (book_length(plan),)), "sizes": ("i8", (lists,)),
                  "rows": ("i8", (n,)), "codes": ("u1", (n, plan.code_bytes))}  # fmt: skip
        wanted["rotation"] = ("f4", (d, plan.dims) if plan.kind != "sq8" else (0, 0))
        for name, (dtype, shape) in wanted.items():
            array = arrays[name]
            if array.dtype != np.dtype(dtype) or array.shape != shape:
                raise ValueError(f"{name}.npy: expected {dtype} {shape}, found {array.dtype} {array.shape}")
        sizes, rows = arrays["sizes"], arrays["rows"]
        if (sizes < 0).any() or sizes.sum() != n:
            raise ValueError(f"sizes.npy: expected lists of {n} vectors in all, found {sizes.sum()}")
        if n and (rows.min() < 0 or rows.max() >= n or not _each_once(rows)):
            raise ValueError(f"rows.npy: expected each number below {n} once")
        for name in ("coarse", "rotation", "book"):
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name}.npy: expected finite numbers")
        return cls(**arrays, reaches=_reaches(arrays["coarse"]))


def _reaches(coarse: np.ndarray) -> np.ndarray:
    """Of queries that are centroids themselves, which see somewhat fewer lists than passages and questions do."""
    queries = coarse[np.random.default_rng(SEED).permutation(len(coarse))[:SAMPLES]]
    near = queries @ coarse.T  # (S, L)
    rank = max(0, len(coarse) - NEAR)
    behind = np.sort(np.partition(near, rank, axis=1)[:, rank, None] - near, axis=None)
    return behind.reshape(len(coarse), len(queries))[:, -1]


def _each_once(rows: np.ndarray) -> bool:
    seen = np.zeros(len(rows), bool)
    seen[rows] = True
    return bool(seen.all())


def book_length(plan: IndexPlan) -> int:
    """Numbers that the quantiser of ``plan`` learns."""
    return {"pq": 16 * plan.coded_dims, "sq8": 2 * plan.dims, "rabitq": 0}[plan.kind]


def train(plan: IndexPlan, sample: np.ndarray) -> tuple[Any, np.ndarray]:
    """A trained, empty faiss index of the plan, and the rotation; ``sample`` is (S, D) float32.

    A random rotation spreads what the first dimensions hold over all codes. (Balancing the variance of the sub-vectors
    instead, as optimised product quantisation does, found less here: docs/retrieval.md.)
    """
    import faiss

    rotation = np.zeros((0, 0), np.float32)
    if plan.kind != "sq8":
        gaussian = np.random.default_rng(SEED).standard_normal((plan.coded_dims, plan.coded_dims))
        rotation = np.linalg.qr(gaussian)[0][:, : plan.dims].astype(np.float32)
    index = _empty(plan)
    index.cp.niter, index.cp.seed, index.cp.max_points_per_centroid = ITERATIONS, SEED, 10**6
    index.cp.min_points_per_centroid = 1
    if plan.kind == "pq":
        index.pq.cp.niter, index.pq.cp.max_points_per_centroid, index.pq.cp.min_points_per_centroid = 15, 4096, 1
    index.train(np.ascontiguousarray(sample @ rotation.T if rotation.size else sample))
    assert isinstance(index, faiss.IndexIVF)
    return index, rotation


def _empty(plan: IndexPlan, coarse: np.ndarray | None = None) -> Any:
    import faiss

    centroids = faiss.IndexFlatIP(plan.coded_dims)
    if coarse is not None:
        centroids.add(np.ascontiguousarray(coarse))
    given = (centroids, plan.coded_dims, plan.num_lists)
    product = faiss.METRIC_INNER_PRODUCT
    if plan.kind == "pq":
        index: Any = faiss.IndexIVFPQ(*given, plan.coded_dims // plan.width, 4, product)
    elif plan.kind == "sq8":
        index = faiss.IndexIVFScalarQuantizer(*given, faiss.ScalarQuantizer.QT_8bit, product)
    else:
        index = faiss.IndexIVFRaBitQ(*given, product, True, plan.width)
    index.referenced_objects = [centroids]  # faiss holds a bare pointer: Python must keep it alive
    return index


def learned(index: Any, plan: IndexPlan) -> np.ndarray:
    """The book of a trained index."""
    import faiss

    if plan.kind == "rabitq":
        return np.zeros(0, np.float32)
    return faiss.vector_to_array(index.pq.centroids if plan.kind == "pq" else index.sq.trained)


def write(
    folder: Path,
    plan: IndexPlan,
    index: Any,
    rotation: np.ndarray,
    chunks: Callable[[], Iterable[np.ndarray]],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Encode the vectors of ``chunks`` ((n, D) each, together all vectors) and write the files of `Codes`.

    Codes go to disk as they come and are then put in the order of their lists, so memory does not grow with them.
    """
    import faiss

    n = plan.num_vectors
    lists = np.lib.format.open_memmap(folder / ".lists.npy", "w+", np.int32, (n,))
    codes = np.lib.format.open_memmap(folder / ".codes.npy", "w+", np.uint8, (n, plan.code_bytes))
    at = 0
    for chunk in chunks():
        vectors = chunk.astype(np.float32)
        vectors = np.ascontiguousarray(vectors @ rotation.T if rotation.size else vectors)
        nearest = np.ascontiguousarray(index.quantizer.search(vectors, 1)[1][:, 0])
        part = np.zeros((len(vectors), plan.code_bytes), np.uint8)
        index.encode_vectors(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(nearest), faiss.swig_ptr(part))
        lists[at : at + len(vectors)], codes[at : at + len(vectors)] = nearest, part
        at += len(vectors)
        progress(at)
    np.save(folder / "coarse.npy", index.quantizer.reconstruct_n(0, plan.num_lists))
    np.save(folder / "rotation.npy", rotation)
    np.save(folder / "book.npy", learned(index, plan))
    _sorted(folder, lists, codes, plan.num_lists)
    del lists, codes
    for name in (".lists.npy", ".codes.npy"):
        (folder / name).unlink()


def _sorted(folder: Path, lists: np.ndarray, codes: np.ndarray, num_lists: int) -> None:
    """A counting sort from file to file."""
    sizes = np.bincount(lists, minlength=num_lists).astype(np.int64)
    np.save(folder / "sizes.npy", sizes)
    place = np.cumsum(sizes) - sizes
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.int64, (len(lists),))
    out = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint8, codes.shape)
    for start in range(0, len(lists), 2**20):
        part = lists[start : start + 2**20]
        order = np.argsort(part, kind="stable")
        counts = np.bincount(part, minlength=num_lists)
        first = np.cumsum(counts) - counts
        target = (place - first)[part[order]] + np.arange(len(part))
        rows[target], out[target] = start + order, codes[start : start + 2**20][order]
        place += counts
    rows.flush()
    out.flush()


def searchable(plan: IndexPlan, codes: Codes) -> Any:
    """The faiss index that searches ``codes``; codes of `pq` and `rabitq` are packed for scanning in registers."""
    import faiss

    index = _empty(plan, codes.coarse)
    if plan.kind == "pq":
        faiss.copy_array_to_vector(np.ascontiguousarray(codes.book), index.pq.centroids)
    elif plan.kind == "sq8":
        faiss.copy_array_to_vector(np.ascontiguousarray(codes.book), index.sq.trained)
    index.is_trained = True
    for number, rows, part in _lists(codes):
        index.invlists.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(part))
    index.ntotal = plan.num_vectors
    if plan.kind == "sq8":
        return index
    packed: Any = faiss.IndexIVFPQFastScan(index) if plan.kind == "pq" else faiss.IndexIVFRaBitQFastScan(index)
    packed.referenced_objects = index.referenced_objects
    del index
    _give_back()
    return packed


def _give_back() -> None:
    """Return freed memory to the system: the unpacked lists were as large as the index, in pieces that glibc keeps."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _lists(codes: Codes) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    at = 0
    for number, count in enumerate(codes.sizes.tolist()):
        if count:
            yield number, np.array(codes.rows[at : at + count]), np.array(codes.codes[at : at + count])
        at += count
