"""A span index says of any string where a corpus holds it, how often, and what comes next: a suffix array of its text.

It is what retriever-free decoding walks on (FREESON, arXiv 2505.16409, where a policy decodes spans that the corpus
holds), and a retriever by itself: passages that hold the longest spans of a query. Exact characters, case included.
Derived from a store (`derived`) and memory-mapped: on disk the text, and 4 bytes for each byte of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sleuth.corpora.errors import InputError, ModelError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval import derived
from sleuth.retrieval.build import Progress
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.tokens import WORD, fold, stop_words

KIND, TEXT, SUFFIXES, STARTS, IDS = "spans", "text.bin", "suffixes.npy", "starts.npy", "ids.parquet"
SEPARATOR = b"\0"
"""Between passages; no passage holds it, so no span reaches over two."""
MAX_BYTES = 2**31 - 1
"""Of a corpus that is indexed as one: the suffixes of more do not fit in memory while they are sorted."""
MAX_PLACES = 2_000
"""Places of one span that count for passages: a span that is everywhere tells nothing."""
MAX_SPAN_WORDS = 16
QUERY_WORDS = 64


def derive(store: Datastore, progress: Progress | None = None) -> Path:
    """The span index of a store's current version. While it is sorted it takes about 5 bytes of memory a byte of text.

    Raises `ModelError` where the sorting library is not installed, `InputError` for a corpus of more than `MAX_BYTES`.
    """
    try:
        from pydivsufsort import divsufsort  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise ModelError(f"span indexes need pydivsufsort: pip install 'sleuth[spans]' ({error})") from error

    def fill(folder: Path) -> Mapping[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        starts, ids, at = [], [], 0
        with (folder / TEXT).open("wb") as text:
            for number, (_, passages) in enumerate(derived.documents(store), 1):
                for passage in passages:
                    data = passage.text.encode().replace(SEPARATOR, b" ") + SEPARATOR
                    starts.append(at)
                    ids.append(passage.id)
                    at += text.write(data)
                    if at > MAX_BYTES:
                        raise InputError(f"{store.path}: expected at most {MAX_BYTES:,} bytes of text, found more")
                if progress is not None:
                    progress(KIND, number, store.manifest.documents)
        whole = np.fromfile(folder / TEXT, np.uint8)
        suffixes = divsufsort(whole) if len(whole) else np.zeros(0, np.int32)
        np.save(folder / SUFFIXES, suffixes, allow_pickle=False)
        np.save(folder / STARTS, np.array(starts, np.int64), allow_pickle=False)
        pq.write_table(pa.table({"id": ids}), folder / IDS)
        return {"passages": len(ids), "bytes": at}

    return derived.make(store, KIND, fill)


class Spans:
    """A `Retriever` by the longest spans of a query, and the walk that decoding needs; `Spans.open` makes one."""

    def __init__(self, store: Datastore, folder: Path) -> None:
        import mmap

        import pyarrow.parquet as pq

        self.store = store
        self._ids: list[str] = pq.read_table(folder / IDS)["id"].to_pylist()
        self._starts = np.load(folder / STARTS, allow_pickle=False)
        empty = not self._ids
        self._suffixes = np.load(folder / SUFFIXES, mmap_mode=None if empty else "r", allow_pickle=False)
        with (folder / TEXT).open("rb") as file:
            self._text = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._stops = frozenset(map(fold, stop_words(store.manifest.language)))

    @classmethod
    def open(cls, store: Datastore) -> Spans:
        """Raises `StoreError` where none was derived from this version of the store."""
        return cls(store, derived.find(store, KIND)[0])

    @property
    def fingerprint(self) -> str:
        """The store's: passages are its own."""
        return self.store.fingerprint

    def __len__(self) -> int:
        """Number of passages."""
        return len(self._ids)

    def shown(self, most: int) -> list[str]:
        """At most so many texts that show what is in the corpus: beginnings of passages."""
        starts = (int(self._starts[n]) for n in derived.evenly(len(self), most))
        return [self._text[at : at + 400].split(SEPARATOR, 1)[0].decode("utf-8", "ignore") for at in starts]

    def count(self, span: str) -> int:
        """How often the corpus holds exactly these characters."""
        first, last = self._interval(_bytes(span))
        return last - first

    def continuations(self, prefix: str) -> dict[str, int]:
        """Characters that may come after ``prefix`` and how often each does, commonest first; the empty prefix begins
        anywhere. The end of a passage is no character, so counts may sum to less than `count`."""
        found = self._next_characters(_bytes(prefix))
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    def words(self, prefix: str, limit: int = 1000) -> dict[str, int]:
        """Whole pieces, up to the end of the next word, that may come after ``prefix``, and how often, commonest first.

        A piece begins with what stands between (``" and"``). Of more than ``limit`` those first in byte order are told.
        """
        head = _bytes(prefix)
        first, last = self._interval(head)
        found: dict[str, int] = {}
        while first < last and len(found) < limit:
            at = int(self._suffixes[first]) + len(head)
            window = self._text[at : at + 200].split(SEPARATOR, 1)[0].decode("utf-8", "ignore")
            word = WORD.search(window)
            piece = window[: word.end()] if word else window[:1]
            if not piece:  # the end of a passage
                first = self._bound(head + SEPARATOR, True, first, last)
                continue
            after = self._bound(head + piece.encode(), True, first, last)
            found[piece] = self._whole(head + piece.encode(), first, after)
            first = after
        kept = {piece: times for piece, times in found.items() if times}
        return dict(sorted(kept.items(), key=lambda pair: (-pair[1], pair[0])))

    def locate(self, span: str, limit: int = MAX_PLACES) -> list[tuple[str, int]]:
        """Passage and first character, within its text, of each place that holds a span, in no order."""
        data = _bytes(span)
        first, last = self._interval(data)
        found = []
        for at in np.sort(self._suffixes[first : min(last, first + limit)]).tolist() if data else ():
            n = int(np.searchsorted(self._starts, at, "right")) - 1
            start = int(self._starts[n])
            found.append((self._ids[n], len(self._text[start:at].decode())))
        return found

    def longest(self, query: str) -> list[tuple[str, int]]:
        """The longest spans of a query, in whole words, that the corpus holds, and how often; none inside another.

        A span's first letter may be of the other case, as it is where a sentence begins. Spans of stop words alone are
        left out.
        """
        words = list(WORD.finditer(query))[:QUERY_WORDS]
        found: list[tuple[int, int, str, int]] = []
        for n, word in enumerate(words):
            best = None
            for cased in dict.fromkeys((word[0], word[0][:1].swapcase() + word[0][1:])):
                reached = self._reach(query, words, n, cased)
                if reached and (best is None or reached[0] > best[0]):
                    best = reached
            if best is not None and (not found or best[0] > found[-1][1]):
                found.append((n, *best))
        return [(span, times) for n, end, span, times in found
                if any(fold(word[0]) not in self._stops for word in words[n:end])]  # fmt: skip

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """Passages by what the query's longest spans tell: long ones and those of few places tell more."""
        if isinstance(queries, str) or k < 1:
            raise InputError(f"expected a list of queries and k of at least 1, found {queries!r}, {k}")
        allowed = set(self.store.matching(where)) if where else None
        found = []
        for query in queries:
            scores: dict[str, float] = {}
            for span, times in self.longest(query):
                words = sum(fold(word[0]) not in self._stops for word in WORD.finditer(span))
                weight = words * math.log(1 + len(self._text) / times)
                for id_ in self._passages(span):
                    scores[id_] = scores.get(id_, 0.0) + weight
            ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
            if allowed is not None:
                owners = {p.id: p.doc_id for p in self.store.fetch([id_ for id_, _ in ranked])}
                ranked = [(id_, score) for id_, score in ranked if owners[id_] in allowed]
            found.append(derived.hits(self.store, ranked[:k], KIND))
        return found

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.store.fetch(passage_ids)

    def document(self, doc_id: str) -> Document:
        return self.store.document(doc_id)

    def _reach(self, query: str, words: Sequence[Any], n: int, cased: str) -> tuple[int, str, int] | None:
        """End (in words), text and count of the longest span from word ``n`` that is there."""
        best, within = None, (0, len(self._suffixes))
        for end in range(n + 1, min(len(words), n + MAX_SPAN_WORDS) + 1):
            span = cased + query[words[n].end() : words[end - 1].end()]
            first, last = within = self._interval(_bytes(span), within)
            times = self._whole(_bytes(span), first, last, begins=True)
            if first == last:
                break
            if times:
                best = (end, span, times)
        return best

    def _passages(self, span: str) -> set[str]:
        """Those that hold the span in whole words."""
        data = _bytes(span)
        places = self._whole_places(data, *self._interval(data), begins=True)
        return {self._ids[n] for n in (np.searchsorted(self._starts, places, "right") - 1).tolist()}

    def _whole(self, data: bytes, first: int, last: int, begins: bool = False) -> int:
        """How many suffixes of an interval are whole: exact up to `MAX_PLACES`."""
        total = last - first
        whole = len(self._whole_places(data, first, last, begins))
        return whole if total <= MAX_PLACES else whole * total // MAX_PLACES

    def _whole_places(self, data: bytes, first: int, last: int, begins: bool) -> list[int]:
        """Of the first `MAX_PLACES` of an interval those where the span is not followed by more of a word, and where it
        ``begins`` a word, not preceded by any."""
        places = map(int, self._suffixes[first : min(last, first + MAX_PLACES)])
        return [at for at in places if not self._goes_on(at + len(data)) and not (begins and self._is_within(at))]

    def _is_within(self, at: int) -> bool:
        """Whether what stands before belongs to the same word, as it may not in scripts without spaces."""
        before = self._text[max(0, at - 4) : at].decode("utf-8", "ignore")[-1:]
        return before.isalnum() and before < "\u0e00"

    def _goes_on(self, at: int) -> bool:
        following = self._text[at : at + 4].decode("utf-8", "ignore")[:1]
        return following.isalnum()

    def _next_characters(self, head: bytes) -> dict[str, int]:
        """By character of one to four bytes, each found by two binary searches."""
        found: dict[str, int] = {}
        open_ = [(head, self._interval(head))]
        while open_:
            stem, (first, last) = open_.pop()
            while first < last:
                at = int(self._suffixes[first]) + len(stem)
                following = self._text[at : at + 1]
                after = self._bound(stem + following, True, first, last) if following else first + 1
                tail = (stem + following)[len(head) :]
                if following and following != SEPARATOR:
                    try:
                        found[tail.decode()] = after - first
                    except UnicodeDecodeError:
                        if len(tail) < 4:
                            open_.append((stem + following, (first, after)))
                first = after
        return found

    def _interval(self, data: bytes, within: tuple[int, int] | None = None) -> tuple[int, int]:
        """The suffixes that begin with ``data``."""
        first, last = within or (0, len(self._suffixes))
        first = self._bound(data, False, first, last)
        return first, self._bound(data, True, first, last)

    def _bound(self, data: bytes, after: bool, first: int, last: int) -> int:
        """First suffix in [first, last) whose beginning is not below ``data``, or is above it where ``after``."""
        length, text, suffixes = len(data), self._text, self._suffixes
        while first < last:
            middle = (first + last) // 2
            at = int(suffixes[middle])
            begins = text[at : at + length]
            if begins < data or (after and begins == data):
                first = middle + 1
            else:
                last = middle
        return first


def _bytes(span: str) -> bytes:
    return span.encode("utf-8", "replace").replace(SEPARATOR, b" ")
