"""Shards are parts of one corpus, each behind its own retriever; they are asked at once and answer within a deadline.

A shard that is down, late or still busy with earlier questions is left out, and the answer says so: `Hits` is the usual
list of hit lists with the absent shards beside it. Passages of several shards are merged by score, which is exact for
dense search (an inner product depends on nothing else) and near for BM25, whose term statistics are each shard's own;
hybrid search fuses the two merged rankings as one store would: with the embedder's weight where all shards have the
same, by reciprocal rank where they have none or are of different kinds.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, get_args

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.fuse import reciprocal_rank, weighted
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.store import FUSION_DEPTH, Mode

Result = TypeVar("Result")
MOST = 8
"""Calls of one shard at a time; a shard that hangs holds this many threads and no more."""
FRESH_S = 5.0
"""How old a fingerprint may be."""


class Hits(list[list[Hit]]):
    """One list of hits a query, and the shards that they were not looked for in."""

    def __init__(self, hits: Iterable[list[Hit]] = (), missing: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(hits)
        self.missing = tuple(missing)
        """Name and reason of each."""


class Shard(Protocol):
    """A `Datastore` or a `RemoteRetriever`: something that can be asked in a mode."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def dense_weight(self) -> float | None: ...
    def __len__(self) -> int: ...
    def search(self, queries: Sequence[str], k: int, where: Filter | None, mode: Mode) -> list[list[Hit]]: ...
    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]: ...
    def document(self, doc_id: str) -> Document: ...


@dataclass(frozen=True, slots=True)
class InMode:
    """Any of these asked in one mode."""

    store: Shard
    mode: Mode

    @property
    def fingerprint(self) -> str:
        return self.store.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        return self.store.search(queries, k, where, self.mode)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.store.fetch(passage_ids)


class Sharded:
    """A `Retriever` over named shards; safe to share between threads."""

    def __init__(
        self, shards: Mapping[str, Shard], deadline_s: float = 5.0, mode: Mode = "hybrid", rest_s: float = 5.0
    ) -> None:
        """A shard that failed is not asked again for ``rest_s``, so that it does not hold up every answer."""
        if not shards:
            raise ConfigError("shards: expected at least one, found none")
        if deadline_s <= 0:
            raise ConfigError(f"deadline_s: expected more than 0, found {deadline_s}")
        self.shards, self.deadline_s, self.mode, self.rest_s = dict(shards), deadline_s, mode, rest_s
        self._busy = dict.fromkeys(self.shards, 0)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MOST * len(self.shards), "shard")
        self._down: dict[str, tuple[float, str]] = {}
        """When a shard that failed may be asked again, and how it failed."""
        self._known: dict[str, tuple[str, int, float | None]] = {}
        """Fingerprint, passages and weight as last told: a shard that goes down does not change what is searched."""
        self._known_s = -FRESH_S

    @property
    def fingerprint(self) -> str:
        """Over the names and fingerprints of the shards, at most `FRESH_S` old; of one that is down, the last that was
        seen. Raises `StoreError` where none was ever seen."""
        known = self._look()
        told = "".join(f"{name} {known[name][0] if name in known else '-'}\n" for name in sorted(self.shards))
        return hashlib.sha256(told.encode()).hexdigest()

    def __len__(self) -> int:
        """Passages of the shards that were ever seen."""
        return sum(passages for _, passages, _ in self._look().values())

    @property
    def dense_weight(self) -> float | None:
        """As of a store, where all shards that were ever seen have the same."""
        return _common(weight for _, _, weight in self._look().values())

    def _look(self) -> Mapping[str, tuple[str, int, float | None]]:
        if time.monotonic() - self._known_s > FRESH_S:
            found, missing = self._ask(lambda shard: (shard.fingerprint, len(shard), shard.dense_weight))
            self._known = {**self._known, **found}
            if not self._known:
                raise StoreError(f"no shard answered: {_reasons(missing)}")
            self._known_s = time.monotonic()
        return self._known

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None, mode: Mode | None = None) -> Hits:
        """The best ``k`` of all shards that answered in time. Raises what a shard says of a bad question
        (`InputError`, `ConfigError`), and `StoreError` where no shard answered."""
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise InputError(f"k: expected an integer of at least 1, found {k!r}")
        chosen = mode or self.mode
        if chosen not in get_args(Mode):
            raise ConfigError(f"unknown search mode {chosen!r}; known: {', '.join(get_args(Mode))}")
        kinds: tuple[Mode, ...] = ("bm25", "dense") if chosen == "hybrid" else (chosen,)
        depth = max(k, FUSION_DEPTH) if chosen == "hybrid" else k

        def ask(shard: Shard) -> tuple[list[list[list[Hit]]], str, float | None]:
            found = [shard.search(queries, depth, where, kind) for kind in kinds]
            return found, shard.fingerprint, shard.dense_weight if chosen == "hybrid" else None

        answered, missing = self._ask(ask)
        if not answered:
            raise StoreError(f"no shard answered: {_reasons(missing)}")
        found, weight = {name: told[0] for name, told in answered.items()}, _common(w for *_, w in answered.values())
        if any(name in self._known and self._known[name][0] != told[1] for name, told in answered.items()):
            self._known_s = -FRESH_S  # a new version has answered: it is looked for at once
        for name, rankings in found.items():  # a shard may itself be missing parts
            for ranking in rankings:
                missing += [(f"{name}/{part}", reason) for part, reason in getattr(ranking, "missing", ())]
        merged = [
            [_merged([rankings[kind][n] for rankings in found.values()], depth) for kind in range(len(kinds))]
            for n in range(len(queries))
        ]
        return Hits((_ranked(rankings, k, chosen, weight) for rankings in merged), tuple(dict.fromkeys(missing)))

    def retriever(self, mode: Mode) -> Retriever:
        """The same shards in one mode."""
        return InMode(self, mode)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, from whichever shard has them; raises ``KeyError`` naming those that none of the shards that
        answered has, and `StoreError` where a shard that may have them did not answer."""

        def present(shard: Shard) -> dict[str, Passage]:
            try:
                return {passage.id: passage for passage in shard.fetch(passage_ids)}
            except KeyError:
                return dict(pair for id_ in passage_ids for pair in _one(shard, id_))

        found, missing = self._ask(present)
        passages = {id_: passage for part in found.values() for id_, passage in part.items()}
        return [passages[id_] for id_ in self._complete(passage_ids, passages, missing)]

    def document(self, doc_id: str) -> Document:
        """A whole document by id; raises as `fetch`."""

        def present(shard: Shard) -> Document | None:
            try:
                return shard.document(doc_id)
            except KeyError:
                return None

        found, missing = self._ask(present)
        documents = {document.id: document for document in found.values() if document is not None}
        self._complete([doc_id], documents, missing)
        return documents[doc_id]

    @staticmethod
    def _complete(ids: Sequence[str], found: Mapping[str, Any], missing: Sequence[tuple[str, str]]) -> Sequence[str]:
        if absent := [id_ for id_ in ids if id_ not in found]:
            if missing:
                raise StoreError(
                    f"{', '.join(absent[:10])}: not found, and not every shard answered: {_reasons(missing)}"
                )
            raise KeyError(f"no such ids in any shard: {', '.join(absent[:10])}")
        return ids

    def _ask(self, call: Callable[[Shard], Result]) -> tuple[dict[str, Result], list[tuple[str, str]]]:
        """What each shard returned within the deadline, and the others with the reason."""
        ends = time.monotonic() + self.deadline_s
        missing: list[tuple[str, str]] = []
        futures: dict[str, Future[Result]] = {}
        for name, shard in self.shards.items():
            until, reason = self._down.get(name, (0.0, ""))
            if time.monotonic() < until:
                missing.append((name, reason))
            elif (future := self._started(name, shard, call)) is None:
                missing.append((name, f"busy: {MOST} earlier calls have not returned"))
            else:
                futures[name] = future
        found = {}
        for name, future in futures.items():
            try:
                found[name] = future.result(max(0.0, ends - time.monotonic()))
                continue
            except TimeoutError:
                reason = f"not answered within {self.deadline_s:g} s"
            except (InputError, ConfigError):
                raise
            except Exception as error:  # whatever befalls a shard, the others answer
                reason = f"{type(error).__name__}: {error}"
            self._down[name] = (time.monotonic() + self.rest_s, reason)
            missing.append((name, reason))
        return found, missing

    def _started(self, name: str, shard: Shard, call: Callable[[Shard], Result]) -> Future[Result] | None:
        with self._lock:
            if self._busy[name] >= MOST:
                return None
            self._busy[name] += 1

        def done(future: Future[Result]) -> None:
            with self._lock:
                self._busy[name] -= 1

        future = self._pool.submit(call, shard)
        future.add_done_callback(done)
        return future


def _reasons(missing: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in missing)


def _one(shard: Shard, id_: str) -> list[tuple[str, Passage]]:
    try:
        return [(id_, shard.fetch([id_])[0])]
    except KeyError:
        return []


def _merged(rankings: Sequence[Sequence[Hit]], depth: int) -> list[Hit]:
    """By score, equal scores by passage id; of a passage that several shards have, the best."""
    best: dict[str, Hit] = {}
    for hit in (hit for ranking in rankings for hit in ranking):
        if hit.passage.id not in best or best[hit.passage.id].score < hit.score:
            best[hit.passage.id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.passage.id))[:depth]


def _common(weights: Iterable[float | None]) -> float | None:
    """The one weight of all, or None where they differ."""
    found = set(weights)
    return found.pop() if len(found) == 1 else None


def _ranked(rankings: Sequence[Sequence[Hit]], k: int, name: str, dense_weight: float | None) -> list[Hit]:
    hits = {hit.passage.id: hit for ranking in reversed(rankings) for hit in ranking}
    if len(rankings) == 1:
        ordered = [(hit.passage.id, hit.score) for hit in rankings[0]]
    else:
        scored = [[(hit.passage.id, hit.score) for hit in ranking] for ranking in rankings]
        if dense_weight is None:
            fused = reciprocal_rank([[id_ for id_, _ in ranking] for ranking in scored])
        else:
            fused = weighted(scored, (1 - dense_weight, dense_weight))
        ordered = sorted(fused, key=lambda pair: (-pair[1], pair[0]))
    return [
        replace(hits[id_], score=score, rank=rank, retriever=name)
        for rank, (id_, score) in enumerate(ordered[:k], start=1)
    ]
