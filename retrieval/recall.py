"""Recall@10 is the share of a query's ten true neighbours that a search finds; every build measures a curve of it.

Queries are vectors of the corpus that took no part in training, each itself left out of what it finds. Users' questions
lie farther from the passages than passages from one another, so bench/index.py measures those too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sleuth.retrieval.codes import CHUNK, NEAR, SEED, Codes, searchable
from sleuth.retrieval.plan import IndexPlan

Ranking: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""Rows (int64) and their scores (float32)."""
K = 10
NUM_QUERIES = 500
"""Held back at most; recall is then known to a third of a hundredth."""
DEPTHS = (50, 100, 200, 400, 800, 1200, 1600)
PROBES = (8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 1024, 2048)
MOST = 4
"""No query looks into more than this many times the lists that one does on average."""
ENOUGH = 0.995
"""From here on the curve goes no further, and more comparisons that add less than a thousandth are left out."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of an index and what it gave."""

    nprobe: int
    depth: int
    recall: float
    """Mean over the queries of the share of the ten nearest that was found."""
    p50_ms: float
    """Of one query on one thread, the comparison with the exact vectors included; as the machine was at the time."""


def held_back(vectors: Sequence[np.ndarray], num_training: int) -> tuple[np.ndarray, np.ndarray]:
    """A training sample (S, D) float32 and the numbers of some other vectors, at most a quarter of all."""
    first = np.cumsum([0, *map(len, vectors)])
    held = max(1, min(NUM_QUERIES, int(first[-1]) // 4))
    chosen = np.random.default_rng(SEED).permutation(first[-1])[: num_training + held]
    queries, training = chosen[:held], np.sort(chosen[held:])
    if not len(training):
        training = np.arange(first[-1])
    return widened(gather(vectors, first, training)), np.sort(queries)


def gather(vectors: Sequence[np.ndarray], first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(R, D) float16: the vectors numbered ``rows``, which ascend, over all segments; ``first`` (segments + 1,) says
    where each segment starts."""
    out = np.empty((len(rows), vectors[0].shape[1] if vectors else 0), np.float16)
    cuts = np.searchsorted(rows, first)
    for n in np.flatnonzero(np.diff(cuts)).tolist():
        own = slice(cuts[n], cuts[n + 1])
        np.take(vectors[n], rows[own] - first[n], axis=0, out=out[own], mode="clip")
    return out


def widened(halves: np.ndarray) -> np.ndarray:
    """Finite float16 as float32, exactly, several times faster than numpy: the bits are moved to where they
    belong (the sign is copied into three too many on the way), and the exponents' difference is a power of two."""
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= ~0x70000000
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)
    return wide


def similarities(halves: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(R,) inner products, each row by itself: the score of a vector does not depend on what is compared beside it."""
    return np.vecdot(widened(halves), query)


def compared(
    vectors: Sequence[np.ndarray], first: np.ndarray, queries: np.ndarray, rows: Sequence[np.ndarray], k: int
) -> list[Ranking]:
    """The best ``k`` of ``rows[n]`` for each query n, equal scores by row. Each query reads its own, in the order of
    the store: to find what several ask for would take longer than to read it again."""
    found: list[Ranking] = []
    for query, own in zip(queries, rows, strict=True):
        wanted = np.sort(own)
        found.append(best(wanted, similarities(gather(vectors, first, wanted), query), k))
    return found


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> Ranking:
    """The ``k`` of the highest scores, highest first; equal ones as they came."""
    if len(scores) > 4 * k > 0:  # sorting all of them takes longer than finding the least that counts
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:k]
    return rows[order], scores[order]


def nearest(vectors: Sequence[np.ndarray], queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers (Q, k) of the true neighbours, by comparing all; memory is bounded by a chunk."""
    scores = np.full((len(queries), 0), 0, np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    at = 0
    for segment in vectors:
        for start in range(0, len(segment), CHUNK):
            part = queries @ segment[start : start + CHUNK].astype(np.float32).T
            if part.shape[1] > k:
                top = np.argpartition(-part, k, axis=1)[:, :k]
            else:
                top = np.broadcast_to(np.arange(part.shape[1]), part.shape)
            scores = np.concatenate([scores, np.take_along_axis(part, top, 1)], 1)
            rows = np.concatenate([rows, top + at + start], 1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        at += len(segment)
    return scores, rows


def tenth(vectors: Sequence[np.ndarray], queries: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """(Q,) score of the tenth true neighbour: whatever is found and scores as much counts, so that ties cannot hurt.
    ``own`` are rows that are the queries themselves, and left out."""
    scores, rows = nearest(vectors, queries, K + 1)
    if own is not None:
        scores = np.where(rows == own[:, None], -np.inf, scores)
    best = -np.sort(-scores, axis=1)
    return best[:, min(K, best.shape[1]) - 1] if best.size else np.zeros(len(queries), np.float32)


def curve(
    plan: IndexPlan,
    codes: Codes,
    vectors: Sequence[np.ndarray],
    query_rows: np.ndarray,
    target: float,
    tell: Callable[[str, int, int | None], None],
) -> tuple[tuple[Point, ...], IndexPlan]:
    """The measured points, cheapest first, and the plan with the cheapest setting that reaches ``target``: where none
    does, the best."""
    first = np.cumsum([0, *map(len, vectors)])
    queries = widened(gather(vectors, first, query_rows))
    truth = tenth(vectors, queries, query_rows)
    index = searchable(plan, codes)
    probes = sorted({min(number, plan.num_lists) for number in PROBES})
    points: list[Point] = []
    for done, nprobe in enumerate(probes):
        for depth in DEPTHS:
            if depth > plan.num_vectors and depth != DEPTHS[0]:
                continue
            before = points[-1] if points and points[-1].nprobe == nprobe else None
            points.append(measured(index, codes, vectors, queries, query_rows, truth, nprobe, depth))
            if points[-1].recall >= max(ENOUGH, target) or (before and points[-1].recall < before.recall + 0.001):
                break
        tell("measure", done + 1, len(probes))
        if points[-1].recall >= max(ENOUGH, target):
            break
    tell("measure", len(probes), len(probes))
    good = [point for point in points if point.recall >= target]
    best = min(good, key=lambda p: p.p50_ms) if good else max(points, key=lambda p: (p.recall, -p.p50_ms))
    ordered = tuple(sorted(points, key=lambda p: (p.p50_ms, p.recall)))
    return ordered, dataclasses.replace(plan, nprobe=best.nprobe, depth=best.depth)


def measured(
    index: Any, codes: Codes, vectors: Sequence[np.ndarray], queries: np.ndarray, own: np.ndarray | None,
    truth: np.ndarray, nprobe: int, depth: int,
) -> Point:  # fmt: skip
    """One point of the curve: every query by itself, as a user's would be; ``own`` are the queries' own numbers, and
    ``truth`` comes from `tenth`."""
    import faiss

    first = np.cumsum([0, *map(len, vectors)])
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    found, taken = [], []
    try:
        for n in range(len(queries)):
            started = time.perf_counter()
            query = queries[n : n + 1]
            ((rows, scores),) = compared(
                vectors, first, query, candidates(index, codes, query, nprobe, depth + 1), K + 1
            )
            taken.append(time.perf_counter() - started)
            others = scores if own is None else scores[rows != own[n]]
            found.append(min(K, int(np.count_nonzero(others >= truth[n] - 1e-5))) / K)
    finally:
        faiss.omp_set_num_threads(threads)
    return Point(nprobe, depth, round(float(np.mean(found)), 4), round(float(np.median(taken)) * 1e3, 3))


def candidates(
    index: Any, codes: Codes, queries: np.ndarray, nprobe: int, depth: int, allowed: np.ndarray | None = None
) -> list[np.ndarray]:
    """For each query of (Q, D) at most ``depth`` numbers of vectors that the compressed index proposes, in no order;
    ``allowed`` has a bit a vector, least significant first.

    A list's codes are read once for all queries that look into it. Lists are chosen for each query by itself, so that
    its proposals do not depend on what is asked beside it.
    """
    import faiss

    turned = np.ascontiguousarray([codes.rotation @ query if codes.rotation.size else query for query in queries])
    lists, products = nearest_lists(codes, turned, nprobe)
    selector = None if allowed is None else faiss.IDSelectorBitmap(allowed)  # type: ignore[arg-type,call-arg]
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=lists.shape[1])  # type: ignore[call-arg]
    scores, rows = np.empty((len(turned), depth), np.float32), np.empty((len(turned), depth), np.int64)
    given = (faiss.swig_ptr(array) for array in (lists, products, scores, rows))
    index.search_preassigned_c(len(turned), faiss.swig_ptr(turned), depth, *given, False, parameters)
    return [own[own >= 0] for own in rows]


def nearest_lists(codes: Codes, turned: np.ndarray, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, most) numbers of the lists that each query looks into, then -1, and their inner products.

    Those count that lie no farther behind the `NEAR`-th list than is usual for ``nprobe`` lists: few where the nearest
    stand out, up to `MOST` times as many where all are alike. Li et al. 2020, "Improving approximate nearest neighbor
    search through learned adaptive early termination", with one feature and no model.
    """
    chosen = []
    for query in turned:
        near = np.vecdot(codes.coarse, query)  # reads the rows once, in half the time of a matrix product
        own = np.arange(len(near))
        if nprobe < len(near):
            rank = max(0, len(near) - NEAR)
            least = np.partition(near, rank)[rank] - codes.reaches[nprobe - 1]
            own = np.flatnonzero(near >= min(least, near.max()))
        if len(own) > MOST * nprobe:
            own = own[np.argpartition(-near[own], MOST * nprobe - 1)[: MOST * nprobe]]
        chosen.append((own, near[own]))
    shape = len(turned), max(len(own) for own, _ in chosen)
    lists, products = np.full(shape, -1), np.zeros(shape, np.float32)
    for n, (own, near) in enumerate(chosen):
        lists[n, : len(own)], products[n, : len(own)] = own, near
    return lists, products
