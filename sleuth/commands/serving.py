"""Serving from the command line: a store behind HTTP, for agents of any make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sleuth.terminal import say


def serve(
    store: Annotated[
        list[Path], typer.Argument(help="A datastore; or several, and addresses of other servers: shards of one.")
    ],
    host: Annotated[str, typer.Option(help="Loopback only, unless SLEUTH_SERVE_KEY holds a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    mode: Annotated[str, typer.Option(help="Of requests that name none: hybrid, bm25 or dense.")] = "hybrid",
    device: Annotated[str, typer.Option(help="cpu, or cuda:N for the embedder and the index.")] = "cpu",
    max_batch: Annotated[int, typer.Option(min=1, help="Most queries searched together.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long an idle server waits for company.")] = 0.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Most queries that wait; one more gets 503.")] = 1024,
    deadline_s: Annotated[float, typer.Option(min=0.01, help="Seconds from request to answer; later gets 504.")] = 10.0,
    threads: Annotated[int, typer.Option(min=1, help="Batches searched beside one another.")] = 2,
    reload_s: Annotated[float, typer.Option(min=0, help="Seconds between looks for a new version; 0 never.")] = 2.0,
    verify: Annotated[bool, typer.Option(help="Check every byte before answering, not the sizes alone.")] = True,
) -> None:
    """Serve a datastore over HTTP: our JSON, Search-R1's /retrieve, SearXNG's /search, health and metrics.

    A version that is committed while it serves is taken up without a failed request.

    Example: sleuth serve store --port 8000, then elsewhere: sleuth search http://127.0.0.1:8000 "lighthouse keepers"
    """
    from sleuth.serve_policy import bind
    from sleuth.serving.app import open_server
    from sleuth.serving.app import serve as run
    from sleuth.serving.batch import Limits

    limits = Limits(max_batch, max_wait_ms / 1000, max_queue, deadline_s, threads)
    sockets = bind(host, port)
    server = open_server(store, mode, device, verify, limits, reload_s)  # type: ignore[arg-type]  # checked there
    shown = ", ".join(map(str, store))
    say(f"{shown}: {len(server.live.store):,} passages, fingerprint {server.live.store.fingerprint[:12]}")
    run(server, sockets)
