"""The OpenAI-compatible policy against servers on loopback that are down, slow, broken or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sleuth.agents.policy.openai import OpenAIPolicy, _retry_after
from sleuth.agents.records import Message, PolicyError, Sampling

ASK = [Message("system", "Be short."), Message("user", "Who?")]
NAN = float("nan")
CHOICE = {"message": {"content": "fine"}, "finish_reason": "stop"}
GOOD = {
    "model": "m",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "x-span": ["t"]}}}


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up first is what some tests are about."""


class Server:
    """Answers call n with ``script[n]`` (the last one for all further calls) and keeps what it was sent."""

    def __init__(self, *script: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.keys.append(self.headers.get("authorization", ""))
                script[min(len(outer.bodies), len(script)) - 1](self, body)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


def reply(status: int, content: Any, **headers: str) -> Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()

    def send(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(status)
        handler.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return send


def stall(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    time.sleep(2)


def drip(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Sends one byte at a time, so that no single read is ever slow."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.02)


def cut(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')


good = reply(200, GOOD)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    for name in ("SLEUTH_POLICY_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    started: list[Server] = []
    real = asyncio.sleep
    monkeypatch.setattr("sleuth.agents.policy.openai.asyncio.sleep", lambda seconds: real(min(seconds, 0.001)))

    def start(*script: Any) -> Server:
        started.append(Server(*script))
        return started[-1]

    yield start
    for server in started:
        server.http.shutdown()
        server.http.server_close()


def sample(policy: OpenAIPolicy, schema: Any = None) -> Any:
    async def run() -> Any:
        try:
            return await policy.sample(ASK, Sampling(0.5, 0.9, 20, 3), schema)
        finally:
            await policy.aclose()

    return asyncio.run(run())


def test_what_is_sent_and_read(serve: Callable[..., Server]) -> None:
    server = serve(good)
    done = sample(OpenAIPolicy(server.url, "m"), SCHEMA)
    assert (done.text, done.finish, done.prompt_tokens, done.cached_tokens, done.completion_tokens) == (
        "fine",
        "stop",
        7,
        3,
        2,
    )
    sent = server.bodies[0]
    assert sent["messages"] == [{"role": m.role, "content": m.content} for m in ASK]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]) == (
        "m",
        0.5,
        0.9,
        20,
        3,
    )
    assert "x-span" not in json.dumps(sent) and sent["response_format"]["json_schema"]["schema"]["properties"]
    assert "response_format" not in OpenAIPolicy(server.url, "m", constrain="none")._body(ASK, Sampling(), SCHEMA)


def test_what_a_server_does_not_count_is_estimated_so_that_a_budget_holds(serve: Callable[..., Server]) -> None:
    server = serve(reply(200, {"choices": [CHOICE]}), reply(200, {"choices": [CHOICE], "usage": {"prompt_tokens": 7}}))
    done = sample(OpenAIPolicy(server.url, "m"))
    assert (done.prompt_tokens, done.completion_tokens) == (4, 1)  # 13 and 4 characters
    done = sample(OpenAIPolicy(server.url, "m"))
    assert (done.prompt_tokens, done.completion_tokens) == (7, 1)


FAULTS = [
    (reply(429, {"error": {"message": "slow down"}}), "rate_limit", True),
    (reply(429, {"error": {"message": "no money", "code": "insufficient_quota"}}), "rate_limit", False),
    (reply(500, b"<html>oops</html>"), "server", True),
    (reply(503, b""), "server", True),
    (stall, "timeout", True),
    (drip, "timeout", True),
    (cut, "server", True),
    (reply(200, b"{not json"), "bad_reply", True),
    (reply(200, {"answer": 42}), "bad_reply", True),
    (reply(200, [1]), "bad_reply", True),
    (reply(200, {"choices": [{"message": "text"}]}), "bad_reply", True),
    (reply(200, {"choices": []}), "bad_reply", True),
    (reply(200, {"choices": [{"message": {"content": ["parts"]}}]}), "bad_reply", True),
    (reply(200, {**GOOD, "choices": [{**CHOICE, "logprobs": {"content": [{"logprob": NAN}]}}]}), "bad_reply", True),
    (reply(200, {**GOOD, "usage": {"prompt_tokens": float("inf")}}), "bad_reply", True),
    (reply(200, {**GOOD, "usage": {"completion_tokens": -1}}), "bad_reply", True),
    (reply(200, {**GOOD, "prompt_token_ids": [2**64]}), "bad_reply", True),
    (reply(200, b'{"choices":' + b"[" * 100_000), "bad_reply", True),
    (reply(200, b'{"usage":' + b"5" * 5_000 + b"}"), "bad_reply", True),
    (reply(404, b'{"error":' * 100_000), "bad_request", False),
    (reply(200, b"x" * 17 * 2**20), "bad_reply", False),
    (reply(302, b"", location="http://127.0.0.1:1/"), "bad_reply", False),
    (reply(401, {"error": {"message": "no"}}), "auth", False),
    (reply(404, {"error": {"message": "no such model"}}), "bad_request", False),
    (reply(400, {"error": "This model's maximum context length is 10 tokens"}), "too_long", False),
]


@pytest.mark.parametrize(
    ("fault", "kind", "again"), FAULTS, ids=lambda value: value if isinstance(value, str) else None
)
def test_every_fault_ends_typed_and_bounded(serve: Callable[..., Server], fault: Any, kind: str, again: bool) -> None:
    server = serve(fault)
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(server.url, "m", timeout_s=0.2 if fault in (stall, drip) else 20, retries=2))
    assert (caught.value.kind, caught.value.retryable) == (kind, again)
    assert server.url in str(caught.value) and len(server.bodies) == (3 if again else 1)


@pytest.mark.parametrize("fault", [fault for fault, _, again in FAULTS if again], ids=lambda fault: None)
def test_a_passing_fault_is_survived(serve: Callable[..., Server], fault: Any) -> None:
    server = serve(fault, good)
    policy = OpenAIPolicy(server.url, "m", timeout_s=0.5 if fault in (stall, drip) else 20, retries=20)
    assert sample(policy).text == "fine" and len(server.bodies) >= 2


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(url, "m", retries=0))
    assert caught.value.kind == "unreachable" and url in str(caught.value)


def test_a_long_retry_after_ends_at_once(serve: Callable[..., Server]) -> None:
    server = serve(reply(429, b"", retry_after="3600"))
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(server.url, "m", deadline_s=30))
    assert caught.value.kind == "rate_limit" and len(server.bodies) == 1
    assert _retry_after("2.5") == 2.5 and _retry_after("soon") == 0.0
    assert _retry_after("Wed, 21 Oct 2065 07:28:00 GMT") > 1e6
    assert _retry_after("Wed, 21 Oct 99999 07:28:00 GMT") == 0.0


def test_the_deadline_holds_over_all_attempts(serve: Callable[..., Server]) -> None:
    server = serve(stall)
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(server.url, "m", timeout_s=0.2, deadline_s=0.3, retries=50))
    assert caught.value.kind == "timeout" and len(server.bodies) <= 3


def test_fields_that_are_refused_are_left_out_from_then_on(serve: Callable[..., Server]) -> None:
    def picky(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        for field in ("logprobs", "seed", "response_format", "max_tokens"):
            if field in body:
                hint = "use max_completion_tokens" if field == "max_tokens" else f"unknown field {field}"
                return reply(400, {"error": {"message": hint}})(handler, body)
        good(handler, body)

    server = serve(picky)
    policy = OpenAIPolicy(server.url, "m")
    assert sample(policy, SCHEMA).text == "fine" and len(server.bodies) == 5
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 20 and "JSON Schema" in last["messages"][-1]["content"]
    assert sample(policy, SCHEMA).text == "fine" and len(server.bodies) == 6


def test_an_unexplained_refusal_drops_the_schema_once(serve: Callable[..., Server]) -> None:
    server = serve(reply(400, {"error": {"message": "grammar error"}}))
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(server.url, "m"), SCHEMA)
    assert caught.value.kind == "bad_request" and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ('<think>maybe {"a":1}</think>\n{"a":2}', '{"a":2}'),
        ('so far</think>{"a":2}', '{"a":2}'),
        ("<think>never ends", ""),
        ("half \ud800 a pair", "half ? a pair"),
        (None, ""),
    ],
)
def test_thinking_and_halves_of_characters_are_taken_off(serve: Callable[..., Server], said: Any, text: str) -> None:
    server = serve(reply(200, {"choices": [{"message": {"content": said}, "finish_reason": "length"}]}))
    done = sample(OpenAIPolicy(server.url, "m"))
    assert (done.text, done.finish) == (text, "length")


def test_the_key_comes_from_the_environment_and_is_never_shown(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLEUTH_POLICY_KEY", "sk-secret")
    server = serve(reply(401, {"error": {"message": "wrong key sk-secret"}}))
    with pytest.raises(PolicyError) as caught:
        sample(OpenAIPolicy(server.url.replace("http://", "http://user:word@"), "m"))
    assert server.keys[0].startswith(("Bearer sk-secret", "Basic"))
    assert (
        "sk-secret" not in str(caught.value)
        and "word" not in str(caught.value)
        and "a key was sent" in str(caught.value)
    )


def test_the_key_of_openai_goes_to_openai_alone(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = serve(good)
    sample(OpenAIPolicy(server.url, "m"))
    assert server.keys == [""]
    for url in ("https://example.org/v1", "https://api.openai.com.example.org/v1", "http://api.openai.com/v1"):
        assert OpenAIPolicy(url, "m")._key == ""
    assert OpenAIPolicy("https://api.openai.com/v1", "m")._key == "sk-secret"
    monkeypatch.setenv("SLEUTH_POLICY_KEY", "other")
    assert {OpenAIPolicy(f"{host}/v1", "m")._key for host in ("http://a.org", "https://api.openai.com")} == {"other"}


def test_one_policy_serves_many_event_loops_and_tasks(serve: Callable[..., Server]) -> None:
    server = serve(good)
    policy = OpenAIPolicy(server.url, "m")

    async def many() -> list[Any]:
        done = await asyncio.gather(*[policy.sample(ASK, Sampling(seed=seed)) for seed in range(20)])
        await policy.aclose()
        return done

    assert all(len(asyncio.run(many())) == 20 for _ in range(2))
