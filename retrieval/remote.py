"""A remote retriever is a datastore behind HTTP (`sleuth serve`), searched as if it were here.

A request has a deadline for the whole of its reply, within which transient failures (no connection, 429, 502, 503) are
tried again with growing, jittered pauses or after the pause that the server named; nothing else is. Answers are cached
by query under the fingerprint of the version they came from, so that a new version is never answered from an old one's
hits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.hosts import is_local
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.sharded import Hits, InMode
from sleuth.retrieval.static import QUERY_CHARS

if TYPE_CHECKING:
    import httpx

    from sleuth.retrieval.store import Datastore, Mode

KEY = "SLEUTH_SERVE_KEY"
"""Environment variable with the key that servers want."""
TRANSIENT = (429, 502, 503)
_ADDRESS = re.compile(r"(https?):/+(.+)")  # as a path it has lost one of the slashes
CACHED = 10_000
"""Answers that the cache in memory holds."""
MAX_PAUSE_S = 30.0
MAX_HITS = 20_000
"""Of one request to a server: queries times k."""
MAX_IDS = 1000
"""Passages of one request to a server."""
MAX_REPLY_BYTES = 2**28


class _TransientError(Exception):
    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


def is_address(spec: str | Path) -> bool:
    return _ADDRESS.fullmatch(str(spec)) is not None


def open_store(spec: str | Path, device: str = "cpu", wait: bool = True) -> Datastore | RemoteRetriever:
    """The datastore in a folder, or behind an address; raises `StoreError`. With ``wait=False`` an address may not
    answer yet."""
    from sleuth.retrieval.store import Datastore

    address = _ADDRESS.fullmatch(str(spec))
    if address is None:
        return Datastore.open(spec, device)
    remote = RemoteRetriever(f"{address[1]}://{address[2]}")
    if wait:
        remote.check()
    return remote


class RemoteRetriever:
    """Safe to share between threads; `close` lets the connections go."""

    def __init__(
        self, url: str, mode: Mode | None = None, *, timeout_s: float = 10.0, attempts: int = 5, fresh_s: float = 5.0,
        cache: MutableMapping[str, str] | None = None, key: str | None = None,
    ) -> None:  # fmt: skip
        """``mode`` None leaves it to the server. ``timeout_s`` bounds a request with all its attempts. The fingerprint
        is asked for again after ``fresh_s``. ``cache`` is any mapping of strings, for instance `disk_cache`; None keeps
        the last `CACHED` answers in memory. ``key`` None takes the one in the environment."""
        if not re.match(r"https?://[^/\s]", url):
            raise ConfigError(f"expected an address like http://127.0.0.1:8000, found {url!r}")
        if timeout_s <= 0 or attempts < 1:
            raise ConfigError(f"expected timeout_s above 0 and attempts of at least 1, found {timeout_s}, {attempts}")
        self.url, self.mode = url.rstrip("/"), mode
        self.timeout_s, self.attempts, self.fresh_s = timeout_s, attempts, fresh_s
        self._key = os.environ.get(KEY, "") if key is None else key
        self._lock = threading.RLock()
        self._client: httpx.Client | None = None
        self._fingerprint, self._seen_s, self._passages = "", -1e9, 0
        self._dense_weight: float | None = None
        if cache is None:
            from cachetools import LRUCache

            cache = LRUCache(CACHED)
        self._cache = cache

    @property
    def fingerprint(self) -> str:
        """Of the version that the server answers from, at most ``fresh_s`` old."""
        if time.monotonic() - self._seen_s > self.fresh_s:
            self.check()
        return self._fingerprint

    def check(self) -> None:
        """Ask the server what it serves; raises `StoreError` where there is none."""
        try:
            told = self._call("GET", "/health")
        except KeyError as error:  # 404: a server of something else, or a path of this one
            raise StoreError(f"{self.url}: no sleuth server here; expected http://HOST:PORT") from error
        if not isinstance(told, dict) or not isinstance(told.get("fingerprint"), str):
            raise StoreError(f"{self.url}: expected a sleuth server, found {str(told)[:80]!r} at /health")
        self._saw(told["fingerprint"])
        self._passages = int(told.get("passages", 0))
        weight = told.get("dense_weight")
        self._dense_weight = None if weight is None else float(weight)

    def __len__(self) -> int:
        """Number of passages when last asked."""
        if not self._fingerprint:
            self.check()
        return self._passages

    @property
    def dense_weight(self) -> float | None:
        """As `Datastore.dense_weight`, when last asked."""
        if not self._fingerprint:
            self.check()
        return self._dense_weight

    def search(
        self, queries: Sequence[str], k: int, where: Filter | None = None, mode: Mode | None = None
    ) -> list[list[Hit]]:
        """As `Datastore.search`; shards of the server that did not answer stand in the result's ``missing``."""
        if isinstance(queries, str):
            raise InputError("queries: expected a list of strings, found one string")
        texts = [query[:QUERY_CHARS].encode("utf-8", "replace").decode() for query in queries]
        asked: dict[str, Any] = {"k": k}
        if where:
            asked["where"] = {field: _plain(condition) for field, condition in where.items()}
        if chosen := mode or self.mode:
            asked["mode"] = chosen
        fingerprint = self.fingerprint
        found = self._cached(texts, asked, fingerprint)
        missing: dict[tuple[str, str], None] = {}
        size, changes = max(1, MAX_HITS // max(1, k)), 0
        while absent := [text for text in dict.fromkeys(texts) if text not in found]:
            told = self._call("POST", "/search", {"queries": absent[:size], **asked})
            if told["fingerprint"] != fingerprint:  # a new version: what an old one said does not mix with it
                fingerprint, changes = told["fingerprint"], changes + 1
                found, missing = {}, {}
                if changes > self.attempts:
                    raise StoreError(f"{self.url}/search: expected one version, found {changes + 1} in one search")
            self._saw(fingerprint)
            absences = [(str(name), str(reason)) for name, reason in told.get("missing", ())]
            missing.update(dict.fromkeys(absences))
            for text, rows in zip(absent[:size], told["hits"], strict=True):
                found[text] = [_hit(row) for row in rows]
                if not absences:
                    with self._lock:
                        self._cache[_key(self.url, fingerprint, asked, text)] = json.dumps(rows)
        return Hits((list(found[text]) for text in texts), tuple(missing))

    def _cached(self, texts: Sequence[str], asked: dict[str, Any], fingerprint: str) -> dict[str, list[Hit]]:
        found = {}
        for text in dict.fromkeys(texts):
            with self._lock:
                kept = self._cache.get(_key(self.url, fingerprint, asked, text))
            if kept is not None:
                found[text] = [_hit(row) for row in json.loads(kept)]
        return found

    def retriever(self, mode: Mode) -> Retriever:
        """The same server asked in one mode."""
        return InMode(self, mode)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in order; raises ``KeyError`` naming the ids that are not there."""
        found: list[Passage] = []
        for start in range(0, len(passage_ids), MAX_IDS):
            told = self._call("POST", "/fetch", {"ids": list(passage_ids[start : start + MAX_IDS])})
            self._saw(told["fingerprint"])
            found += [Passage(**passage) for passage in told["passages"]]
        return found

    def document(self, doc_id: str) -> Document:
        """A whole document by id; raises ``KeyError``."""
        from urllib.parse import quote

        return Document(**self._call("GET", f"/documents/{quote(doc_id, safe='')}")["document"])

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _saw(self, fingerprint: str) -> None:
        self._fingerprint, self._seen_s = fingerprint, time.monotonic()

    def _http(self) -> httpx.Client:
        """Proxies of the environment are not used for this machine."""
        import httpx

        with self._lock:
            if self._client is None:
                headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
                secure = self.url.startswith("https:")  # without it no certificates are read, which takes a while
                limits = httpx.Limits(max_connections=64)
                self._client = httpx.Client(
                    base_url=self.url, headers=headers, limits=limits, verify=secure,
                    trust_env=not is_local(self.url),
                )  # fmt: skip
            return self._client

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """One request until it is answered, refused, or out of time."""
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
        from tenacity import wait_random_exponential as growing

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.after_s if isinstance(error, _TransientError) else 0.0
            return max(asked, growing(multiplier=0.1, max=MAX_PAUSE_S)(state))

        ends = time.monotonic() + self.timeout_s
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(_TransientError),
                stop=stop_after_attempt(self.attempts) | stop_before_delay(self.timeout_s),
                wait=pause,
                reraise=True,
            ):
                with attempt:
                    return self._once(method, path, body, ends)
        except _TransientError as error:
            raise StoreError(f"{self.url}{path}: not answered in {self.timeout_s:g} s: {error}") from error
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Any, ends: float) -> Any:
        import httpx

        content = bytearray()
        try:
            left_s = max(0.001, ends - time.monotonic())
            with self._http().stream(method, path, json=body, timeout=left_s) as reply:
                for chunk in reply.iter_bytes():
                    content += chunk
                    if len(content) > MAX_REPLY_BYTES:
                        raise StoreError(f"{self.url}{path}: expected at most {MAX_REPLY_BYTES:,} bytes, found more")
                    if time.monotonic() > ends:
                        raise _TransientError(f"the reply had not ended after {len(content):,} bytes")
        except httpx.TransportError as error:
            raise _TransientError(f"{type(error).__name__}: {error}") from error
        except httpx.DecodingError as error:
            raise StoreError(f"{self.url}{path}: expected a reply that can be unpacked, found: {error}") from error
        if reply.status_code != 200:
            raise self._refusal(path, reply, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.url}{path}: expected JSON, found {_start(content)[:80]!r}") from error

    def _refusal(self, path: str, reply: httpx.Response, content: bytearray) -> Exception:
        said = _said(content)
        if reply.status_code in TRANSIENT:
            return _TransientError(f"HTTP {reply.status_code}: {said}", _after_s(reply))
        if reply.status_code == 404:
            return KeyError(said)
        if reply.status_code == 400:
            return (ConfigError if b'"kind":"ConfigError"' in content else InputError)(said)
        return StoreError(f"{self.url}{path}: expected HTTP 200, found {reply.status_code}: {said}")


def disk_cache(folder: str | Path, max_bytes: int = 2**30) -> MutableMapping[str, str]:
    """A cache in a folder, shared by processes, least recently stored answers leaving first; holds text and unpickles
    nothing."""
    import diskcache

    class Text(diskcache.Disk):
        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode == diskcache.core.MODE_PICKLE:
                raise StoreError(f"{folder}: expected a cache of text, found an object of another program")
            return super().fetch(mode, filename, value, read)

    return diskcache.Cache(str(folder), disk=Text, size_limit=max_bytes)


def _key(url: str, fingerprint: str, asked: dict[str, Any], text: str) -> str:
    return hashlib.sha256(json.dumps([url, fingerprint, asked, text], sort_keys=True).encode()).hexdigest()


def _hit(row: dict[str, Any]) -> Hit:
    return Hit(**{**row, "passage": Passage(**row["passage"])})


def _plain(condition: Any) -> Any:
    """A condition as JSON has it."""
    if isinstance(condition, str) or not isinstance(condition, Sequence):
        return condition
    return list(condition)


def _start(content: bytearray) -> str:
    return content[:1000].decode("utf-8", "replace")


def _said(content: bytearray) -> str:
    try:
        return str(json.loads(content)["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return _start(content)[:200]


def _after_s(reply: httpx.Response) -> float:
    value = reply.headers.get("retry-after", "")
    return min(float(value), MAX_PAUSE_S) if value.isdecimal() else 0.0
