"""The policy server: the OpenAI shapes, its refusals, and our own client through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sleuth import cli
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.openai import OpenAIPolicy
from sleuth.agents.records import Completion, Message, Policy, PolicyError, Sampling
from sleuth.corpora.errors import ConfigError
from sleuth.serve_policy import bind, make_app, read_call
from tests import tiny_model
from tests.scripted import ScriptedPolicy

ASK = {"model": "sleuth", "messages": [{"role": "user", "content": "Who?"}]}


def client(policy: Policy, key: str = "", **headers: str) -> httpx.AsyncClient:
    app: Any = make_app(policy, key)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8700/v1", headers=headers)


def post(policy: Policy, body: Any, key: str = "", **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(policy, key, **headers) as http:
            if isinstance(body, bytes):
                return await http.post("/chat/completions", content=body)
            return await http.post("/chat/completions", json=body)

    return asyncio.run(run())


def test_models_and_a_completion() -> None:
    async def run() -> None:
        async with client(ScriptedPolicy(lambda messages: "fine")) as http:
            listed = (await http.get("/models")).json()
            assert listed["object"] == "list" and listed["data"][0]["id"] == "scripted"
            done = (await http.post("/chat/completions", json={**ASK, "logprobs": True})).json()
            assert done["object"] == "chat.completion" and done["choices"][0]["message"]["content"] == "fine"
            assert done["choices"][0]["finish_reason"] == "stop" and done["usage"]["total_tokens"] == 2

    asyncio.run(run())


def test_another_model_than_the_one_that_is_served_is_not_found() -> None:
    policy = ScriptedPolicy(lambda messages: "fine")
    done = post(policy, {**ASK, "model": "nope"})
    assert done.status_code == 404 and done.json()["error"]["code"] == "model_not_found" and not policy.seen
    assert done.json()["error"]["message"] == "model: expected scripted or sleuth, found 'nope'"
    for named in ("scripted", "sleuth", None):
        assert post(policy, {**ASK, "model": named}).json()["model"] == "scripted"


def test_stream_ends_with_done() -> None:
    lines = post(ScriptedPolicy(lambda messages: "caf\u00e9"), {**ASK, "stream": True}).text.split("\n\n")
    assert lines[-1] == "" and lines[-2] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": "caf\u00e9"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_what_the_policy_is_asked() -> None:
    policy = ScriptedPolicy(lambda messages: "fine")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    schema = {"type": "object"}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert post(policy, {"messages": messages, "response_format": asked}).status_code == 200
    assert policy.seen[0] == (Message("system", "s"), Message("user", "ab")) and policy.schemas[0] == schema


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "messages: expected a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\]: .* role 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\]"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 0}, "max_tokens: expected a number from 1"),
        ({"seed": True}, "seed"),
        ({"n": 2}, "n: expected 1, found 2"),
        ({"stop": ["x"]}, "stop: not supported"),
        ({"response_format": {"type": "xml"}}, "found 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "expected a JSON Schema object"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, r"messages\[0\]: holds half a surrogate pair"),
    ],
)
def test_bad_requests_are_named(change: dict[str, Any], said: str) -> None:
    done = post(ScriptedPolicy(lambda messages: "fine"), json.dumps({**ASK, **change}).encode())
    assert done.status_code == 400
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(done.json()["error"]["message"])


def test_without_a_seed_each_request_draws_anew() -> None:
    assert len({read_call(ASK).sampling.seed for _ in range(4)}) > 1
    assert read_call({**ASK, "seed": 7}).sampling.seed == 7


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 100_000, b" " * (4 * 2**20 + 1)])
def test_bad_bodies_are_refused(body: bytes) -> None:
    assert post(ScriptedPolicy(lambda messages: "fine"), body).status_code == 400


@pytest.mark.parametrize(
    ("kind", "status"), [("too_long", 400), ("rate_limit", 429), ("timeout", 504), ("unreachable", 502)]
)
def test_policy_errors_keep_their_kind(kind: str, status: int) -> None:
    done = post(ScriptedPolicy(lambda messages: PolicyError(kind, "why")), ASK)
    assert done.status_code == status and done.json()["error"]["type"] == kind


@pytest.mark.parametrize("said", [ZeroDivisionError("secret"), PolicyError("server", "\ud800"), "half \ud800 a pair"])
def test_whatever_fails_is_an_error_object_without_a_traceback(said: Any) -> None:
    done = post(ScriptedPolicy(lambda messages: said), ASK)
    assert done.status_code >= 500 and set(done.json()["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in done.text


def test_who_is_let_in() -> None:
    policy = ScriptedPolicy(lambda messages: "fine")
    for headers, status in (
        ({}, 200),
        ({"host": "localhost:8700"}, 200),
        ({"host": "[::1]:8700"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ):
        assert post(policy, ASK, **headers).status_code == status, headers
    for given, status in (("Bearer right", 200), ("Bearer wrong", 401), ("right", 401), ("", 401)):
        assert post(policy, ASK, "right", authorization=given, host="far.example").status_code == status


def test_open_addresses_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLEUTH_SERVE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from outside: set SLEUTH_SERVE_KEY"):
        bind("0.0.0.0", 0)


def test_a_port_that_is_taken_is_told_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("a store or policy was opened")

    monkeypatch.setattr("sleuth.agents.policy.open_policy", opened)
    monkeypatch.setattr("sleuth.serving.app.open_server", opened)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in (["serve-policy"], ["serve", "nowhere"]):
            with pytest.raises(SystemExit, match="8"):
                cli.main([*command, "--port", port])
            said = capsys.readouterr().err
            assert said.startswith(f"error: cannot serve on 127.0.0.1, port {port}: expected") and "in use" in said
    (free,) = bind("127.0.0.1", 0)
    free.close()


def test_a_client_that_goes_away_cancels_its_request() -> None:
    cancelled = []

    class Slow(ScriptedPolicy):
        async def sample(self, *args: Any, **options: Any) -> Completion:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            raise AssertionError

    async def run() -> None:
        body = json.dumps(ASK).encode()
        events: list[Any] = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}

        async def receive() -> Any:
            await asyncio.sleep(0.02)
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        headers = [(b"host", b"127.0.0.1")]
        await make_app(Slow(lambda messages: ""))({**scope, "headers": headers, "http_version": "1.1"}, receive, send)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert cancelled == [True]


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[Callable[[Policy], str]]:
    import uvicorn

    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(policy: Policy) -> str:
        server = uvicorn.Server(uvicorn.Config(make_app(policy), port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def test_requests_that_never_end_keep_nobody_out(
    real_server: Callable[[Policy], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleuth.serve_policy.MAX_WAITING", 1)
    monkeypatch.setattr("sleuth.serve_policy.BODY_S", 1.0)
    url = real_server(ScriptedPolicy(lambda messages: "fine"))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99\r\n\r\n"
    with contextlib.ExitStack() as stack:
        place = ("127.0.0.1", int(urlsplit(url).port or 0))
        stalled = [stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(3)]
        for one in stalled:
            one.sendall(head + b'{"messages"')
        time.sleep(0.2)
        assert httpx.post(f"{url}/chat/completions", json=ASK).status_code == 200
        for one in stalled:
            said = b"".join(iter(lambda one=one: one.recv(4096), b""))
            assert said.startswith(b"HTTP/1.1 408") and b'"slow_request"' in said
            assert b"expected the whole request within 1 s, found 11 bytes of its body" in said


def test_one_more_than_are_taken_on_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleuth.serve_policy.MAX_WAITING", 1)

    async def run() -> list[httpx.Response]:
        async with client(ScriptedPolicy(lambda messages: "fine", delay_s=0.3)) as http:
            asked = await asyncio.gather(*(http.post("/chat/completions", json=ASK) for _ in range(2)))
            return [*asked, await http.post("/chat/completions", json=ASK)]

    first, second, later = asyncio.run(run())
    assert sorted((first.status_code, second.status_code)) == [200, 503] and later.status_code == 200


def test_the_embedded_policy_over_http(real_server: Callable[[Policy], str], tmp_path: Path) -> None:
    """Over a real socket the same request gives the same text, ids and log-probabilities as in-process."""
    policy = EmbeddedPolicy(tiny_model.make(tmp_path), dtype="float32", device="cpu")
    remote = OpenAIPolicy(real_server(policy), policy.name, token_ids=True)
    schema = {"type": "object", "properties": {"a": {"enum": ["one", "two", "three"]}}, "required": ["a"]}
    schema["additionalProperties"] = False

    async def run() -> None:
        for seed in range(3):
            sampling = Sampling(1.0, 1.0, 40, seed)
            here = await policy.sample([Message("user", "hi")], sampling, schema)
            there = await remote.sample([Message("user", "hi")], sampling, schema)
            assert (there.text, there.token_ids, there.prompt_ids) == (here.text, here.token_ids, here.prompt_ids)
            assert there.logprobs == here.logprobs and there.finish == here.finish
            assert here.policy_version in there.policy_version
            assert json.loads(there.text)["a"] in ("one", "two", "three")
        with pytest.raises(PolicyError) as caught:
            await remote.sample([Message("user", "hi " * 3000)], Sampling())
        assert caught.value.kind == "too_long"
        await remote.aclose()

    asyncio.run(run())
    policy.close()
