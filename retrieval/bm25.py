"""BM25 over immutable segments: each holds its postings, and the weights of a term come from all segments together.

So adding a segment leaves the others as they are, and scores are those of one index over everything. Postings are plain
numpy arrays, memory-mapped and read without pickle. Formula: BM25 as Lucene computes it, Kamphuis et al. 2020, "Which
BM25 do you mean?", table 1; term frequencies are exact up to 65,535.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sleuth.retrieval.tokens import TERM_BYTES, Analyzer

K1, B = 1.2, 0.75
FEW, DEARER = 20_000, 4
"""Postings are read through where they are no more than so many and so many times the rows to look up in them."""
ARRAYS = {"terms": np.dtype(f"S{TERM_BYTES}"), "starts": np.dtype("i8"), "rows": np.dtype("i4"),
          "counts": np.dtype("u2"), "lengths": np.dtype("i4")}  # fmt: skip
"""Files of a segment: terms (T,) sorted; starts (T + 1,) into rows and counts (P,); lengths (N,) in terms."""


@dataclass(frozen=True, slots=True)
class Postings:
    """One segment's inverted index; the fields are the arrays named in `ARRAYS`."""

    terms: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], analyzer: Analyzer) -> Postings:
        """Postings of ``texts``, one row each."""
        vocabulary: dict[str, int] = {}
        cut = [analyzer.terms(text) for text in texts]
        lengths = np.array([len(terms) for terms in cut], "i4")
        flat = (vocabulary.setdefault(term, len(vocabulary)) for term in itertools.chain.from_iterable(cut))
        ids = np.fromiter(flat, "i8", int(lengths.sum()))
        names = np.array([term.encode()[:TERM_BYTES] for term in vocabulary], ARRAYS["terms"])
        terms, rank = np.unique(names, return_inverse=True)  # long terms may meet where they are cut
        keys = rank[ids] * len(texts) + np.repeat(np.arange(len(texts)), lengths)
        pairs, counts = np.unique(keys, return_counts=True)
        starts = np.searchsorted(pairs, np.arange(len(terms) + 1) * len(texts)).astype("i8")
        rows = (pairs % max(1, len(texts))).astype("i4")
        return cls(terms, starts, rows, np.minimum(counts, 65_535).astype("u2"), lengths)

    @classmethod
    def merged(cls, parts: Sequence[Postings], alive: Sequence[np.ndarray]) -> Postings:
        """Postings of the rows that are ``alive`` (N,) bool a part, numbered through: those of their texts together."""
        terms = np.unique(np.concatenate([part.terms for part in parts]))
        firsts = np.cumsum([0, *(np.count_nonzero(kept) for kept in alive)])
        ids, rows, counts = [], [], []
        for part, kept, first in zip(parts, alive, firsts, strict=False):
            living = kept[part.rows]
            ids.append(np.repeat(np.searchsorted(terms, part.terms), np.diff(part.starts))[living])
            rows.append((np.cumsum(kept) - 1 + first)[part.rows[living]])
            counts.append(part.counts[living])
        flat_ids, flat_rows = np.concatenate(ids), np.concatenate(rows)
        order = np.lexsort((flat_rows, flat_ids))
        used, starts = np.unique(flat_ids[order], return_index=True)
        starts = np.append(starts, len(order)).astype("i8")
        lengths = np.concatenate([part.lengths[kept] for part, kept in zip(parts, alive, strict=True)])
        return cls(terms[used], starts, flat_rows[order].astype("i4"), np.concatenate(counts)[order], lengths)

    def save(self, folder: Path) -> None:
        for name in ARRAYS:
            np.save(folder / f"bm25.{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """Memory-mapped; raises ``ValueError`` for arrays of another type."""
        arrays = {name: load_array(folder / f"bm25.{name}.npy") for name in ARRAYS}
        for name, dtype in ARRAYS.items():
            if arrays[name].dtype != dtype or arrays[name].ndim != 1:
                raise ValueError(f"bm25.{name}.npy: expected {dtype} in one dimension, found {arrays[name].dtype}")
        return cls(**arrays)


def load_array(path: Path) -> np.ndarray:
    """Memory-mapped where it is not empty, never through pickle."""
    array = np.load(path, mmap_mode=None if path.stat().st_size <= 128 else "r", allow_pickle=False)
    return array.view(np.ndarray)


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a query as the index has it."""

    weight: float
    """Its inverse document frequency."""
    frequency: int
    """Living rows that hold it."""
    spans: tuple[tuple[int, int, int], ...]
    """Segment, and start and end of its postings there."""


class BM25:
    """Scores of all rows of all segments, numbered through in segment order.

    ``alive`` has (N,) bool a segment, or None where no row of it is deleted; deleted rows score 0 and count in no
    statistic, so scores are those of an index without them.
    """

    def __init__(
        self, segments: Sequence[Postings], analyzer: Analyzer, alive: Sequence[np.ndarray | None] | None = None
    ) -> None:
        self.segments, self.analyzer = segments, analyzer
        self.alive = alive or [None] * len(segments)
        self.offsets = np.cumsum([0, *(len(segment.lengths) for segment in segments)])
        counted = [s.lengths if rows is None else s.lengths[rows] for s, rows in zip(segments, self.alive, strict=True)]
        num_terms = sum(int(lengths.sum(dtype="i8")) for lengths in counted)
        self.num_alive = sum(len(lengths) for lengths in counted)
        mean = num_terms / max(1, self.num_alive) or 1.0
        norms = [np.zeros(0, "f4"), *((K1 * (1 - B + B * s.lengths / mean)).astype("f4") for s in segments)]
        self.norms = np.concatenate(norms)
        self.stops = analyzer.stops()
        self._own = threading.local()

    def search(
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query rows and float32 scores of the ``k`` best and of all that tie with the last, in no order.

        Only rows with a term of the query are found, and only ``allowed`` ones ((N,) bool). Stop words count only where
        there is nothing else. Terms are looked up for all queries together.
        """
        asked = [self._words(query) for query in queries]
        known = self._terms({name for words in asked for name in words})
        found = []
        for words in asked:
            terms = [(count, known[name]) for name, count in words.items() if name in known]
            rarest_first = sorted(terms, key=lambda pair: pair[1].frequency)
            weighed = [(np.float32(count * term.weight), term) for count, term in rarest_first]
            found.append(self._search(weighed, k, allowed))
        return found

    def _search(
        self, terms: list[tuple[np.float32, Term]], k: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One query: weights and terms, rarest first.

        They are added up until the frequent ones left cannot lift a new row among the best; for the rows in question
        alone those are looked up where that is less work (Turtle and Flood 1995, "Query evaluation: strategies and
        optimizations", max_score), which changes no score.
        """
        if not hasattr(self._own, "scores"):
            self._own.scores = np.zeros(self.offsets[-1], "f4")
        scores: np.ndarray = self._own.scores
        rest, added, growing = sum(float(weight) for weight, _ in terms), 0.0, True
        found, met = np.zeros(0, "i8"), list[np.ndarray]()
        try:
            for at, (weight, term) in enumerate(terms):
                least = _kth(scores[found], k) if rest < added else -np.inf  # no score is above what was added
                if rest * (1 + 1e-5) < least:
                    growing, found = False, found[scores[found] + rest * (1 + 1e-5) >= least]
                    if term.frequency > FEW + DEARER * len(found):
                        return self._finished(found, terms[at:], rest, k)
                rows, counts = self._postings(term)
                if allowed is not None:
                    kept = allowed[rows]
                    rows, counts = rows[kept], counts[kept]
                before = scores[rows]
                met.append(rows[before == 0])
                if growing:
                    found = np.concatenate([found, met[-1]])
                scores[rows] = before + weight * counts / (counts + self.norms[rows])
                rest, added = rest - float(weight), added + float(weight)
            return _best(found, scores[found], k)
        finally:
            for rows in met:
                scores[rows] = 0

    def _words(self, query: str) -> Counter[bytes]:
        """How often a query has each of its telling words; sorted."""
        words = Counter(self.analyzer.terms(query))
        times = Counter[bytes]()
        for word, count in ({w: c for w, c in words.items() if w not in self.stops} or words).items():
            times[word.encode()[:TERM_BYTES]] += count
        return Counter(dict(sorted(times.items())))

    def _terms(self, names: Iterable[bytes]) -> dict[bytes, Term]:
        """Those of ``names`` that occur."""
        wanted = sorted(names)
        keys = np.array(wanted, ARRAYS["terms"])
        spans = np.array([_spans(segment, keys) for segment in self.segments], "i8").reshape(-1, 2, len(keys))
        frequencies = np.zeros(len(keys), "i8")
        for n, (starts, ends) in enumerate(spans):
            frequencies += self._frequencies(n, starts, ends)
        weights = np.log(1 + (self.num_alive - frequencies + 0.5) / (frequencies + 0.5))
        found = {}
        for t in np.flatnonzero(frequencies).tolist():
            holds = np.flatnonzero(spans[:, 1, t] > spans[:, 0, t])
            places = zip(holds.tolist(), spans[holds, 0, t].tolist(), spans[holds, 1, t].tolist(), strict=True)
            found[wanted[t]] = Term(float(weights[t]), int(frequencies[t]), tuple(places))
        return found

    def _postings(self, term: Term) -> tuple[np.ndarray, np.ndarray]:
        """Rows (int64, numbered through) and counts (float32) of a term, without the deleted."""
        rows = np.concatenate([self.segments[n].rows[start:end] for n, start, end in term.spans], dtype="i8")
        counts = np.concatenate([self.segments[n].counts[start:end] for n, start, end in term.spans], dtype="f4")
        held, starts, ends = np.array(term.spans).T
        rows += np.repeat(self.offsets[held], ends - starts)
        if self._living is not None:
            kept = self._living[rows]
            rows, counts = rows[kept], counts[kept]
        return rows, counts

    def _finished(
        self, rows: np.ndarray, terms: Sequence[tuple[np.float32, Term]], rest: float, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the remaining ``terms`` to ``rows`` alone, dropping those that fall out of reach."""
        rows = np.sort(rows)
        scores = self._own.scores[rows]
        for weight, term in terms:
            cuts = np.searchsorted(rows, self.offsets).tolist()
            for n, start, end in term.spans:
                first, last = cuts[n], cuts[n + 1]
                if first == last:
                    continue
                posted = self.segments[n].rows[start:end]
                wanted = (rows[first:last] - self.offsets[n]).astype(posted.dtype)
                places = np.minimum(np.searchsorted(posted, wanted), len(posted) - 1)
                hit = np.flatnonzero(posted[places] == wanted)
                counts = self.segments[n].counts[start + places[hit]].astype("f4")
                scores[first + hit] += weight * counts / (counts + self.norms[rows[first + hit]])
            rest -= float(weight)
            near = scores + rest * (1 + 1e-5) >= _kth(scores, k)
            rows, scores = rows[near], scores[near]
        return _best(rows, scores, k)

    @cached_property
    def _living(self) -> np.ndarray | None:
        """(rows,) bool, false where deleted; None where nothing is."""
        if all(rows is None for rows in self.alive):
            return None
        lengths = np.diff(self.offsets).tolist()
        return np.concatenate(
            [np.ones(length, bool) if rows is None else rows for length, rows in zip(lengths, self.alive, strict=True)]
        )

    def _frequencies(self, n: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Rows of segment ``n`` that hold each term, without the deleted."""
        alive = self.alive[n]
        if alive is None:
            return ends - starts
        rows = self.segments[n].rows
        spans = zip(starts, ends, strict=True)
        return np.array([np.count_nonzero(alive[rows[start:end]]) for start, end in spans], "i8")


def _kth(scores: np.ndarray, k: int) -> float:
    """The k-th largest, or minus infinity where there are fewer."""
    return float(np.partition(scores, -k)[-k]) if len(scores) >= k else -np.inf


def _best(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    kept = scores >= _kth(scores, k)
    return rows[kept], scores[kept]


def _spans(segment: Postings, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the postings of each key start and end; an empty span where the segment lacks it."""
    if not len(segment.terms) or not len(keys):
        return np.zeros(len(keys), "i8"), np.zeros(len(keys), "i8")
    places = np.searchsorted(segment.terms, keys)
    inside = np.minimum(places, len(segment.terms) - 1)
    known = segment.terms[inside] == keys
    return np.where(known, segment.starts[inside], 0), np.where(known, segment.starts[inside + 1], 0)
