"""A datastore is a folder of passages that can be searched, fetched by id, filtered and asked in SQL.

Opening reads one committed version and checks every byte of it against its checksum (XXH3, at the speed of memory)
before anything is answered. Models and indexes are loaded on the first query that needs them. Nothing here writes.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.bm25 import BM25
from sleuth.retrieval.catalog import Catalog
from sleuth.retrieval.deletes import alive
from sleuth.retrieval.dense import Dense, Effort
from sleuth.retrieval.embed import Embedder, checked, embedder
from sleuth.retrieval.fuse import reciprocal_rank, weighted
from sleuth.retrieval.index import Index, load_index
from sleuth.retrieval.keys import Keys, hashes
from sleuth.retrieval.layout import Manifest, check_sums, read_manifest
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.segment import NULL, Segment, merged_types, schemas
from sleuth.retrieval.static import QUERY_CHARS
from sleuth.retrieval.tokens import WORD, Analyzer

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["hybrid", "bm25", "dense"]
Ranked: TypeAlias = "list[tuple[int, float]]"
"""Rows and scores, best first."""
FUSION_DEPTH = 100
"""Hits of each ranking that fusion sees, or k where that is more."""

STATIC_WEIGHT = 0.1
"""Of a static embedder in ``hybrid``; by reciprocal ranks it would cost more than it brings (docs/retrieval.md)."""


class Datastore:
    """One committed version of a store, opened for reading; safe to share between threads."""

    def __init__(
        self, path: Path, manifest: Manifest, fingerprint: str, segments: Sequence[Segment], device: str,
        index: Index | None = None,
    ) -> None:  # fmt: skip
        self.path, self.manifest, self.fingerprint, self.device = path, manifest, fingerprint, device
        self.index = index
        """Of the vectors; None where they are all compared."""
        self._segments = segments
        self._keys = [Keys.open(part.folder, len(part.documents), part.alive, part.columns) for part in segments]
        self._starts: list[int] = [0, *accumulate(len(segment.passages) for segment in segments)]
        self._first_documents = np.cumsum([0, *(len(segment.documents) for segment in segments)])
        self._deleted = any(segment.alive is not None for segment in segments)
        kinds = merged_types(entry.fields for entry in manifest.segments)
        fields = {name: "str" if kind == NULL else kind for name, kind in kinds.items()}  # text holds nothing as well
        self._catalog = Catalog(self._tables, fields)
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: str | Path, device: str = "cpu", verify: bool = True, snapshot: str = "") -> Datastore:
        """The committed version at ``path``, or a named snapshot of it; raises `StoreError` naming the file that is
        missing, damaged or of another format. ``verify=False`` compares file sizes alone."""
        for attempt in range(3):  # a build may publish twice while we look, and then sweep what we saw
            manifest, fingerprint = read_manifest(Path(path), snapshot)
            try:
                segments = []
                for entry in manifest.segments:
                    folder = Path(path) / "segments" / entry.id
                    check_sums(folder, entry.sums, contents=verify)
                    segments.append(Segment.open(folder, manifest.dims, alive(Path(path), entry)))
                index = load_index(Path(path), manifest, verify)
                return cls(Path(path), manifest, fingerprint, segments, device, index)
            except StoreError:
                if attempt == 2 or read_manifest(Path(path), snapshot)[1] == fingerprint:
                    raise
        raise AssertionError("unreachable")

    def __len__(self) -> int:
        """Number of passages."""
        return self.manifest.passages

    @property
    def dense_weight(self) -> float | None:
        """Of the embedder in ``hybrid``, where nobody asks for another; None fuses by reciprocal rank."""
        return STATIC_WEIGHT if self.manifest.embedder.partition(":")[0] == "static" else None

    def search(
        self, queries: Sequence[str], k: int, where: Filter | None = None, mode: Mode = "hybrid",
        effort: Effort | None = None, dense_weight: float | None = None,
    ) -> list[list[Hit]]:  # fmt: skip
        """At most ``k`` hits a query, best first, ties by passage id.

        ``hybrid`` fuses the best `FUSION_DEPTH` of BM25 and of the embedder by reciprocal rank. A query without a word
        finds nothing; of a longer one the first `QUERY_CHARS` characters are used. The filter holds before ranking, so
        k hits come back where k documents satisfy it. ``effort`` overrides how much of an index is read; with
        ``dense_weight`` (0 to 1) ``hybrid`` adds up scores instead, the embedder's with that weight, and in stores of a
        static embedder it does so unasked. Raises
        `InputError` for k below 1 and for a filter on an unknown field, `StoreError` where the installed
        embedder is not the one the store was built with.
        """
        if isinstance(queries, str):
            raise InputError("queries: expected a list of strings, found one string")
        if not isinstance(k, int) or k < 1:
            raise InputError(f"k: expected an integer of at least 1, found {k!r}")
        if mode not in get_args(Mode):
            raise ConfigError(f"unknown search mode {mode!r}; known: {', '.join(get_args(Mode))}")
        if dense_weight is not None and not 0 <= dense_weight <= 1:
            raise InputError(f"dense_weight: expected a number from 0 to 1, found {dense_weight!r}")
        if dense_weight is None:
            dense_weight = self.dense_weight
        allowed = self._allowed(where)
        texts = [query[:QUERY_CHARS].encode("utf-8", "replace").decode() for query in queries]  # no half surrogates
        worded = list(dict.fromkeys(text for text in texts if len(self) and WORD.search(text)))
        if not worded:
            return [[] for _ in texts]
        rankings = self._rankings(worded, k, allowed, mode, effort, dense_weight)
        found = dict(zip(worded, self._hits([ranking[:k] for ranking in rankings], mode), strict=True))
        return [list(found.get(text, ())) for text in texts]

    def _rankings(
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None, mode: Mode, effort: Effort | None,
        dense_weight: float | None,
    ) -> list[Ranked]:  # fmt: skip
        """Rows and scores of each query, best first; at least ``k`` where there are so many."""
        depth = max(k, FUSION_DEPTH) if mode == "hybrid" else k
        lexical = self._lexical(queries, depth, allowed) if mode != "dense" else []
        dense = self._near(queries, depth, allowed, effort) if mode != "bm25" else []
        if mode != "hybrid":
            return lexical or dense
        if dense_weight is None:
            fused = [reciprocal_rank([[row for row, _ in ranked] for ranked in both])
                     for both in zip(lexical, dense, strict=True)]  # fmt: skip
        else:
            fused = [weighted(both, (1 - dense_weight, dense_weight)) for both in zip(lexical, dense, strict=True)]
        return [self._ordered(*zip(*ranked, strict=True)) if ranked else [] for ranked in fused]

    def _lexical(self, queries: Sequence[str], depth: int, allowed: np.ndarray | None) -> list[Ranked]:
        found = self._bm25.search(queries, depth, allowed)  # with all that tie for the last place: the id decides
        return [self._ordered(rows, scores)[:depth] for rows, scores in found]

    def _near(
        self, queries: Sequence[str], depth: int, allowed: np.ndarray | None, effort: Effort | None
    ) -> list[Ranked]:
        vectors = self._encode(queries)
        known = np.flatnonzero(vectors.any(axis=1))  # without a known word there is no vector
        ranked: list[Ranked] = [[] for _ in queries]
        if len(known):
            for n, found in zip(known, self._dense.search(vectors[known], depth, allowed, effort), strict=True):
                ranked[n] = self._ordered(*found)
        return ranked

    def _ordered(self, rows: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> Ranked:
        """By score, equal scores by passage id."""
        given = np.asarray(scores)
        order = np.argsort(-given, kind="stable")
        ordered, ranked = np.asarray(rows)[order].tolist(), given[order]
        same = ranked[1:] == ranked[:-1]
        if same.any():
            for start, end in pairwise([0, *(np.flatnonzero(~same) + 1).tolist(), len(ordered)]):
                if end - start > 1:
                    ordered[start:end] = sorted(ordered[start:end], key=self._id)
        return list(zip(ordered, ranked.tolist(), strict=True))

    def _hits(self, rankings: Sequence[Ranked], mode: Mode) -> list[list[Hit]]:
        """Each passage is read once, in the order of the store."""
        rows = sorted({row for ranking in rankings for row, _ in ranking})
        read = {row: self._passage(row) for row in rows}
        return [
            [Hit(read[row][0], score, rank, mode, **read[row][1]) for rank, (row, score) in enumerate(ranking, start=1)]
            for ranking in rankings
        ]

    def retriever(self, mode: Mode = "hybrid", dense_weight: float | None = None) -> Retriever:
        """This store behind the `Retriever` contract in a fixed mode, with the embedder's weight where one is given."""
        if mode not in get_args(Mode):
            raise ConfigError(f"unknown search mode {mode!r}; known: {', '.join(get_args(Mode))}")
        return ModeRetriever(self, mode, dense_weight)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in order; raises ``KeyError`` naming the ids that are not there."""
        places = self._places([_document_id(id_) for id_ in passage_ids])
        found: list[Passage] = []
        missing: list[str] = []
        for id_, place in zip(passage_ids, places, strict=True):
            passage = place and place[0].passage_of(place[1], id_)
            if passage:
                found.append(passage)
            else:
                missing.append(id_)
        if missing:
            raise KeyError(f"no such passages in {self.path}: {', '.join(missing[:10])}")
        return found

    def document(self, doc_id: str) -> Document:
        """A whole document by id; raises ``KeyError``."""
        (place,) = self._places([doc_id])
        if place is None:
            raise KeyError(f"no such document in {self.path}: {doc_id}")
        return place[0].document(place[1])

    def _places(self, doc_ids: Sequence[str]) -> list[tuple[Segment, int] | None]:
        """Segment and row of each living document, None where there is none; a binary search a segment."""
        hashed = hashes(doc_ids, [b""] * len(doc_ids))
        found: list[tuple[Segment, int] | None] = [None] * len(doc_ids)
        for segment, keys in zip(self._segments, self._keys, strict=True):
            for at, row in keys.ids(doc_ids, hashed).items():
                found[at] = (segment, row)
        return found

    def matching(self, where: Filter) -> list[str]:
        """Ids of the documents that satisfy a filter, in store order; raises `InputError`."""
        mask = self._catalog.mask(where) & self._alive
        ids = (segment.columns["id"] for segment in self._segments)
        return [id_ for column, rows in zip(ids, np.split(mask, self._first_documents[1:-1]), strict=False)
                for id_ in column.filter(rows).to_pylist()]  # fmt: skip

    def sql(self, query: str, limit: int = 1000) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and at most ``limit`` rows of one SELECT over the views ``documents`` and ``passages``."""
        return self._catalog.sql(query, limit)

    @property
    def fields(self) -> dict[str, str]:
        """Metadata fields that filters and SQL know, with their types."""
        return {name: kind for name, (_, kind) in self._catalog.fields.items()}

    def _place(self, row: int) -> tuple[Segment, int]:
        n = bisect_right(self._starts, row) - 1
        return self._segments[n], row - self._starts[n]

    def _passage(self, row: int) -> tuple[Passage, Mapping[str, str]]:
        segment, at = self._place(row)
        return segment.passage(at)

    def _id(self, row: int) -> str:
        segment, at = self._place(row)
        return segment.ids[at]

    def _encode(self, queries: Sequence[str]) -> np.ndarray:
        with self._lock:
            return checked(self._embedder.encode_queries(queries), queries, self._embedder)

    def _allowed(self, where: Filter | None) -> np.ndarray | None:
        """(rows,) bool over all passages, deleted ones too; None allows every row."""
        if not where and not self._deleted:
            return None
        mask = self._catalog.mask(where) & self._alive if where else self._alive
        rows = [segment.spans["document"] + first
                for segment, first in zip(self._segments, self._first_documents, strict=False)]  # fmt: skip
        return mask[np.concatenate(rows)] if rows else np.zeros(0, bool)

    def _tables(self) -> tuple[pa.Table, pa.Table]:
        """Documents and passages of all segments, numbered through, for the catalog."""
        import pyarrow as pa

        document_schema, passage_schema = schemas()
        documents = pa.concat_tables([document_schema.empty_table(), *(s.documents for s in self._segments)])
        passages = pa.concat_tables([passage_schema.empty_table(), *(s.passages for s in self._segments)])
        rows = [np.zeros(0, "i8"), *(segment.spans["document"] + first
                for segment, first in zip(self._segments, self._first_documents, strict=False))]  # fmt: skip
        documents = documents.append_column("_row", pa.array(np.arange(len(documents))))
        documents = documents.append_column("_alive", pa.array(self._alive))
        return documents, passages.append_column("_document", pa.array(np.concatenate(rows)))

    @cached_property
    def _alive(self) -> np.ndarray:
        """(documents,) bool, false where deleted."""
        masks = [np.ones(len(s.documents), bool) if s.alive is None else s.alive for s in self._segments]
        return np.concatenate([np.zeros(0, bool), *masks])

    @cached_property
    def _embedder(self) -> Embedder:
        found = embedder(self.manifest.embedder, self.device)
        if (found.revision, found.dims) != (self.manifest.revision, self.manifest.dims):
            raise StoreError(
                f"{self.path}: built with embedder {self.manifest.embedder!r} revision {self.manifest.revision} "
                f"({self.manifest.dims} dims), found revision {found.revision} ({found.dims} dims); build it anew"
            )
        return found

    @cached_property
    def _bm25(self) -> BM25:
        alive = [segment.alive_passages for segment in self._segments]
        analyzer = Analyzer(self.manifest.language, self.manifest.analyzer)
        return BM25([segment.postings for segment in self._segments], analyzer, alive)

    @cached_property
    def _dense(self) -> Dense:
        with self._lock:
            names = [entry.id for entry in self.manifest.segments]
            return Dense([segment.vectors for segment in self._segments], names, self.index, self.device)


def _document_id(passage_id: str) -> str:
    """Of the document that a passage is part of: ids of documents do not end in a number sign and digits."""
    head, sign, number = passage_id.rpartition("#")
    return head if sign and number.isdigit() and number.isascii() else passage_id


@dataclass(frozen=True, slots=True)
class ModeRetriever:
    """A datastore searched in one mode."""

    store: Datastore
    mode: Mode
    dense_weight: float | None = None

    @property
    def fingerprint(self) -> str:
        return self.store.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        return self.store.search(queries, k, where, self.mode, dense_weight=self.dense_weight)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.store.fetch(passage_ids)
