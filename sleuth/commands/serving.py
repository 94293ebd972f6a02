"""Serving from the command line: a store behind HTTP or the Model Context Protocol, for agents of any make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sleuth.agents.strategy import DEFAULT
from sleuth.commands.asking import (
    ADAPTER,
    NAMES,
    AdapterOption,
    PolicyOption,
    RerankerOption,
    adapter_of,
    planned,
)
from sleuth.terminal import say

LOCAL = "127.0.0.1"


def serve(
    store: Annotated[
        list[Path], typer.Argument(help="A datastore; or several, and addresses of other servers: shards of one.")
    ],
    host: Annotated[str, typer.Option(help="Loopback only, unless SLEUTH_SERVE_KEY holds a key.")] = LOCAL,
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


def mcp(
    store: Annotated[Path, typer.Argument(help="A datastore, the address that serves one, or a sources file.")],
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP at /mcp; stdio by default.")] = None,
    host: Annotated[str, typer.Option(help="With --port. Loopback only, unless SLEUTH_SERVE_KEY holds a key.")] = LOCAL,
    asks: Annotated[bool, typer.Option("--ask/--no-ask", help="Offer the research agent as a tool too.")] = True,
    policy: PolicyOption = "embedded",
    adapter: AdapterOption = ADAPTER,
    plan: Annotated[str, typer.Option("--strategy", help=f"Of the agent: one of {NAMES}.")] = DEFAULT,
    reranker: RerankerOption = None,
    k: Annotated[int, typer.Option(min=1, max=100, help="Passages of a search.")] = 10,
    file: Annotated[Path | None, typer.Option("--out", help="The agent's episodes are appended here.")] = None,
) -> None:
    """Offer a datastore to clients of the Model Context Protocol: search, fetch, and ask, the research agent.

    Over stdio a client starts this command itself; with --port it is a server of its own. All tools only read.

    Example, for a client's settings: {"command": "sleuth", "args": ["mcp", "/path/to/store"]}
    """
    from sleuth.mcp_server import key, make_app, make_server
    from sleuth.serve_policy import bind, run_app
    from sleuth.session import Session

    sockets = [] if port is None else bind(host, port)
    (chosen,) = planned([plan], reranker)
    session = Session.open(store, policy=policy, adapter=adapter_of(adapter), strategy=chosen)
    server = make_server(session, k, asks, file)
    say(f"{store}: fingerprint {session.store.fingerprint[:12]}, {', '.join(('search', 'fetch', 'ask')[: 2 + asks])}")
    if port is None:
        server.run("stdio")
    else:
        run_app(make_app(server, key()), sockets, timeout_graceful_shutdown=5)
