"""The Model Context Protocol's own client against the tools: in memory, over a pipe and over HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters

from sleuth import mcp_server
from sleuth.agents.strategy import STRATEGIES
from sleuth.corpora.records import Document
from sleuth.mcp_server import DOCUMENT_CHARS, make_app, make_server
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.store import Datastore
from sleuth.session import Session
from tests.films import BIRTH, FILM, QUESTION, reply
from tests.retrieval_stores import use_hash_embedder
from tests.scripted import ScriptedPolicy

URL = "https://example.org/jaws"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_hash_embedder(monkeypatch)
    documents = [
        Document("jaws", FILM, title="Jaws", url=URL, source="films", date="2020-01-02"),
        Document("spielberg", BIRTH, title="Steven Spielberg"),
        Document("long", "Sharks live in the sea. " * 6000, title="Sharks"),
    ]
    build(documents, tmp_path / "store", BuildSpec(max_words=60))
    return tmp_path / "store"


def session(store: Path) -> Session:
    return Session(Datastore.open(store), ScriptedPolicy(reply), STRATEGIES["decompose"])


def talk(server: Any, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(server) as client:
            return await work(client)

    return asyncio.run(run())


def call(server: Any, name: str, **given: Any) -> Any:
    return talk(server, lambda client: client.call_tool(name, given))


def test_tools_say_what_they_are(store: Path) -> None:
    async def listed(client: Client) -> Any:
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in talk(make_server(session(store)), listed)}
    assert set(tools) == {"search", "fetch", "ask"}
    for tool in tools.values():
        assert tool.title and tool.description and tool.output_schema
        assert tool.annotations.read_only_hint and not tool.annotations.open_world_hint
    assert [list(tools[name].input_schema["properties"]) for name in ("search", "fetch")] == [["query"], ["id"]]
    assert {tool.name for tool in talk(make_server(session(store), asks=False), listed)} == {"search", "fetch"}


def test_search_and_fetch_have_the_shapes_of_deep_research_clients(store: Path) -> None:
    server = make_server(session(store), k=2)
    found = call(server, "search", query="director of the film Jaws")
    (text,) = found.content
    assert json.loads(text.text) == found.structured_content  # one text item that holds the JSON
    first, _ = found.structured_content["results"]
    assert (first["title"], first["url"]) == ("Jaws", URL) and FILM.startswith(first["text"][:50])
    whole = call(server, "fetch", id=first["id"]).structured_content
    assert (whole["id"], whole["title"], whole["text"], whole["url"]) == (first["id"], "Jaws", FILM, URL)
    assert whole["metadata"] == {
        "document": "jaws", "source": "films", "date": "2020-01-02", "fingerprint": Datastore.open(store).fingerprint
    }  # fmt: skip
    assert call(server, "fetch", id="jaws").structured_content["text"] == FILM
    cut = call(server, "fetch", id="long").structured_content
    assert len(cut["text"]) == DOCUMENT_CHARS and cut["metadata"]["cut"].startswith("the first 100,000 of ")


def test_the_agent_answers_with_checked_quotes(store: Path, tmp_path: Path) -> None:
    server = make_server(session(store), out=tmp_path / "runs.jsonl")
    told = call(server, "ask", question=QUESTION).structured_content
    assert told["ended"] == "answered" and told["answer"]
    assert told["citations"] and all(quoted["verified"] for quoted in told["citations"])
    assert {quoted["title"]: quoted["url"] for quoted in told["citations"]}.get("Jaws", URL) == URL
    (kept,) = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert json.loads(kept)["id"] == told["episode"]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("search", {"query": "  "}, "query: expected some words, found none"),
        ("search", {"query": "x" * 100_000}, "query: expected at most 10,000 characters, found 100,000"),
        ("search", {}, "query"),
        ("fetch", {"id": "nowhere#0"}, "expected one that search gave, found 'nowhere#0'"),
        ("ask", {"question": ""}, "question"),
        ("ask", {"question": "x" * 100_000}, "question"),
    ],
)
def test_what_cannot_be_done_is_told(name: str, given: dict[str, Any], words: str, store: Path) -> None:
    told = call(make_server(session(store)), name, **given)
    assert told.is_error and words in told.content[0].text


def test_what_goes_wrong_inside_is_not_sent_out(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(mcp_server, "_search", broken)
    told = call(make_server(session(store)), "search", query="jaws")
    assert told.is_error and "secret" not in told.content[0].text


def test_over_http_a_key_or_this_machine_is_asked_for(store: Path) -> None:
    import uvicorn

    for key in ("", "k"):
        app: Any = make_app(make_server(session(store), asks=False), key)
        running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=3))
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.005)
        url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/mcp"
        try:
            if key:
                assert httpx.post(url, json={}).status_code == 401
            else:
                found = call(url, "search", query="director of the film Jaws").structured_content
                assert found["results"][0]["title"] == "Jaws"
                assert httpx.post(url, json={}, headers={"host": "evil.example"}).status_code == 403
        finally:
            running.should_exit = True
            thread.join()


def test_a_client_starts_the_command_and_talks_over_its_pipe(tmp_path: Path) -> None:
    from sleuth.commands.stores import build_store

    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "jaws.md").write_text(f"# Jaws\n\n{FILM} It was a great commercial success.\n")
    build_store([tmp_path / "pages"], tmp_path / "store")
    arguments = ["-m", "sleuth.cli", "mcp", str(tmp_path / "store"), "--no-ask"]
    found = call(StdioServerParameters(command=sys.executable, args=arguments), "search", query="film Jaws")
    assert found.structured_content["results"][0]["title"] == "Jaws"
