"""The search application: HTTP routes over a live store, with limits, deadlines, metrics and one door for errors.

    POST /search      queries, k, where, mode -> hits with passage, score and fingerprint
    POST /retrieve    the shape of Search-R1's retrieval server
    GET  /search      the shape of SearXNG: ?q=...&format=json
    GET  /passages/ID and /documents/ID; POST /fetch for passages by ids
    GET  /health, /ready, /metrics

A request ends in its answer, 400 with what was expected and found, 404, 503 with Retry-After when too much waits, or
504 at its deadline. What a client sends is never executed and no traceback is sent out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.retrieval.remote import RemoteRetriever, is_address, open_store
from sleuth.retrieval.sharded import Shard, Sharded
from sleuth.retrieval.store import Mode
from sleuth.serve_policy import KEY, Guard, run_app
from sleuth.serving import shapes
from sleuth.serving.batch import Batcher, Limits, OverloadedError
from sleuth.serving.live import Answer, Ask, Gateway, Live
from sleuth.serving.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    Handler = Callable[[Request], Awaitable[Response]]

MAX_BODY_BYTES = 4 * 2**20
GRACE_S = 1.0
"""Beyond the deadline, for requests in flight when the server is told to stop."""
KEEP_ALIVE_S = 75
"""An idle connection is kept this long: longer than clients keep theirs, so that none is closed as it is used again."""
SWITCH_S = 0.0005
"""Python hands over between threads this often, so that a search does not hold up the answering of others."""
log = logging.getLogger("sleuth.serving")


@dataclass(frozen=True, slots=True)
class Server:
    """What the routes share."""

    live: Live | Gateway
    limits: Limits = field(default_factory=Limits)
    reload_s: float = 2.0
    """Between two looks for a newer version of the store; 0 never looks."""
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.metrics.version(len(self.live.store), False, self.live.error)


def serve(server: Server, sockets: list[socket.socket]) -> None:
    """Serve on `bind`'s sockets until told to stop, then finish what is in flight."""
    sys.setswitchinterval(SWITCH_S)
    grace = int(server.limits.deadline_s + GRACE_S)
    app = make_app(server, os.environ.get(KEY, ""))
    run_app(app, sockets, timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=grace)


def make_app(server: Server, key: str = "") -> Guard:
    """The ASGI application; with a ``key`` each request must carry it, without one it must come from this machine."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    batcher: Batcher[Ask, Answer] = Batcher(
        partial(_search, server.live), Answer.part, server.limits, server.metrics.batch
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        batcher.start()
        watcher = asyncio.create_task(_watch(server))
        yield
        watcher.cancel()
        await batcher.stop()

    routes = [
        Route(path, _door(server, name, partial(handler, server, batcher)), methods=[method])
        for method, path, name, handler in (
            ("POST", "/search", "search", _native),
            ("POST", "/retrieve", "retrieve", _retrieve),
            ("GET", "/search", "searxng", _searxng),
            ("POST", "/fetch", "fetch", _fetch),
            ("GET", "/passages/{id:path}", "passage", _passage),
            ("GET", "/documents/{id:path}", "document", _document),
            ("GET", "/health", "health", _health),
            ("GET", "/ready", "ready", _ready),
            ("GET", "/metrics", "metrics", _metrics),
        )
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), key)


def _search(live: Live | Gateway, queries: Sequence[str], ask: Ask) -> Answer:
    return live.search(queries, ask, json.loads(ask.where) if ask.where else None)


async def _watch(server: Server) -> None:
    """Open newer versions as they are committed."""
    while server.reload_s:
        await asyncio.sleep(server.reload_s)
        before = server.live.error
        try:
            renewed = await asyncio.to_thread(server.live.refresh)
        except Exception:
            log.exception("looking for a newer version failed; the one before goes on answering")
            continue
        server.metrics.version(len(server.live.store), renewed, server.live.error)
        if renewed:
            log.info("now answering from %s", server.live.store.fingerprint[:12])
        elif server.live.error and server.live.error != before:
            log.error("a newer version cannot be opened, the one before goes on answering: %s", server.live.error)


def _door(server: Server, name: str, handler: Handler) -> Handler:
    """The one place where failures become statuses, and where requests are counted."""

    async def through(request: Request) -> Response:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(server.limits.deadline_s):
                response = await handler(request)
        except (InputError, ConfigError) as error:
            response = _json({"error": str(error), "kind": type(error).__name__}, 400)
        except KeyError as error:
            response = _json({"error": str(error.args[0])}, 404)
        except OverloadedError as error:
            response = _json({"error": str(error)}, 503, {"retry-after": str(error.after_s)})
        except TimeoutError:
            response = _json({"error": f"not answered within {server.limits.deadline_s:g} s"}, 504)
        except StoreError as error:  # shards that are down; a store of our own was checked when it was opened
            response = _json({"error": str(error)}, 503, {"retry-after": "1"})
        except Exception:
            log.exception("%s failed", name)
            response = _json({"error": "internal error; the server's log has the details"}, 500)
        server.metrics.request(name, response.status_code, time.perf_counter() - started)
        return response

    return through


async def _native(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    asked = shapes.read_search(await _body(request), server.live.mode)
    return _json(shapes.write_search(await batcher.submit(asked.queries, asked.ask)))


async def _retrieve(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    asked, scores = shapes.read_retrieve(await _body(request), server.live.mode)
    return _json(shapes.write_retrieve(await batcher.submit(asked.queries, asked.ask), scores))


async def _searxng(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    asked, skipped = shapes.read_searxng(request.query_params, server.live.mode)
    answer = await batcher.submit(asked.queries, asked.ask)
    return _json(shapes.write_searxng(answer, asked.queries[0], skipped, str(request.base_url)))


async def _fetch(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    ids, store = shapes.read_ids(await _body(request)), server.live.store
    passages, fingerprint = await asyncio.to_thread(lambda: (store.fetch(ids), store.fingerprint))
    return _json({"fingerprint": fingerprint, "passages": passages})


async def _passage(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    store, wanted = server.live.store, request.path_params["id"]
    passages, fingerprint = await asyncio.to_thread(lambda: (store.fetch([wanted]), store.fingerprint))
    return _json({"fingerprint": fingerprint, "passage": passages[0]})


async def _document(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    store, wanted = server.live.store, request.path_params["id"]
    document, fingerprint = await asyncio.to_thread(lambda: (store.document(wanted), store.fingerprint))
    return _json({"fingerprint": fingerprint, "document": document})


async def _health(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    """The process lives, and what it answers from."""
    live = server.live
    fingerprint, passages, weight = await asyncio.to_thread(
        lambda: (live.store.fingerprint, len(live.store), live.store.dense_weight)
    )
    return _json({"status": "ok", "fingerprint": fingerprint, "passages": passages, "mode": live.mode,
                  "dense_weight": weight, "waiting": batcher.waiting, "reload_error": live.error})  # fmt: skip


async def _ready(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    """Whether another search would be taken on."""
    ready = batcher.waiting < server.limits.max_queue
    return _json({"ready": ready, "waiting": batcher.waiting}, 200 if ready else 503)


async def _metrics(server: Server, batcher: Batcher[Ask, Answer], request: Request) -> Response:
    from starlette.responses import Response

    body, kind = server.metrics.text(batcher.waiting)
    return Response(body, headers={"content-type": kind})


async def _body(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InputError(f"the request: expected at most {MAX_BODY_BYTES:,} bytes, found more")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request: expected JSON, found something else: {error}") from error


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    import orjson
    from starlette.responses import Response

    try:
        body = orjson.dumps(value)
    except orjson.JSONEncodeError:  # an error quotes half a surrogate pair, which goes back as the escape it came as
        body = json.dumps(value, default=asdict).encode()
    return Response(body, status, headers, "application/json")


def open_server(
    stores: str | Path | Sequence[str | Path], mode: Mode = "hybrid", device: str = "cpu", verify: bool = True,
    limits: Limits | None = None, reload_s: float = 2.0,
) -> Server:  # fmt: skip
    """A server over the newest version of a store, opened and warm, or over several stores and servers as shards;
    raises what `Datastore.open` raises."""
    chosen = limits or Limits()
    given = [stores] if isinstance(stores, str | Path) else list(stores)
    if len(given) == 1 and not is_address(given[0]):
        return Server(Live(given[0], device, verify, mode), chosen, reload_s)
    shards: dict[str, Shard] = {str(spec): open_store(spec, device, wait=False) for spec in given}
    if len(shards) < len(given):
        raise ConfigError(f"stores: expected each once, found {', '.join(map(str, given))}")
    for shard in shards.values():
        if isinstance(shard, RemoteRetriever):
            shard.timeout_s = 0.6 * chosen.deadline_s  # it says itself why it did not answer
    sharded = Sharded(shards, 0.8 * chosen.deadline_s, mode)
    sharded.search(["warm"], 1)
    return Server(Gateway(sharded), chosen, 0)
