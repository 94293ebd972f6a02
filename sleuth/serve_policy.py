"""A policy server speaks the OpenAI chat-completions protocol over any `Policy`, so that other tools can ask it.

It listens on this machine only, unless a key stands in the environment; then every request must carry the key. Each
failure is an OpenAI error object; a client that goes away takes its request out of the batch. A stream carries the
whole text in one piece, because a policy gives its completion whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from sleuth.agents.records import Completion, JsonSchema, Message, Policy, PolicyError, Sampling
from sleuth.corpora.errors import ConfigError, ModelError, SleuthError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

ALIAS = "sleuth"
"""A name for whatever policy is served, beside its own."""
KEY = "SLEUTH_SERVE_KEY"
"""Environment variable with the key that clients must send."""
MAX_BODY_BYTES = 4 * 2**20
MAX_WAITING = 256
"""Requests in flight; one more is told to come back. One counts when it has been read."""
BODY_S = 10.0
"""From the head of a request to the end of its body."""
LOCAL = ("127.0.0.1", "localhost", "::1")
STATUS = {"too_long": 400, "bad_request": 400, "slow_request": 408, "rate_limit": 429, "timeout": 504}
"""HTTP status by kind of `PolicyError`; any other kind is 502."""
ROLES = ("system", "user", "assistant")
HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: JSON can spell one alone, no tokenizer reads it."""
log = logging.getLogger("sleuth.serve_policy")


@dataclass(frozen=True, slots=True)
class Call:
    """One chat-completions request after validation."""

    messages: tuple[Message, ...]
    sampling: Sampling
    schema: JsonSchema | None
    stream: bool
    logprobs: bool
    token_ids: bool


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``, taken before anything is opened that takes time; `run_app` listens there.

    Raises `ConfigError` for an address that others can reach while the environment holds no key, and for one that is
    taken or is not of this machine.
    """
    if host not in LOCAL and not os.environ.get(KEY, ""):
        raise ConfigError(f"{host} can be reached from outside: set {KEY} first, or serve on 127.0.0.1")
    with contextlib.ExitStack() as stack:
        try:
            places = {(row[0], row[4]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            found = [stack.enter_context(_bound(*place)) for place in sorted(places)]
        except OSError as error:
            expected = "expected an address of this machine with a free port (--port 0 takes one)"
            raise ConfigError(f"cannot serve on {host}, port {port}: {expected}; found: {error.strerror}") from error
        stack.pop_all()
    return found


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the other family has a socket of its own
    try:
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def run_app(app: Any, sockets: list[socket.socket], **options: Any) -> None:
    """Answer on `bind`'s sockets until interrupted."""
    import uvicorn

    from sleuth.terminal import say

    for host, port in (place.getsockname()[:2] for place in sockets):
        say(f"serving on http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C to stop)")
    config = uvicorn.Config(app, log_level="info", access_log=False, **options)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets)


def serve(policy: Policy, sockets: list[socket.socket], adapters: bool = False) -> None:
    """Serve until interrupted."""
    run_app(make_app(policy, os.environ.get(KEY, ""), adapters), sockets, timeout_graceful_shutdown=5)


def make_app(policy: Policy, key: str = "", adapters: bool = False) -> Guard:
    """The ASGI application; with a ``key`` each request must carry it, without one it must come from this machine.

    ``adapters`` lets a client name a folder of this machine whose LoRA adapter is taken up while requests run, for a
    trainer: the routes of vLLM's runtime LoRA updating. One adapter is held at a time, whatever name a request gives;
    without it a request for another model than the one that is served gets 404.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    waiting = 0

    async def models(request: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "sleuth"} for name in (policy.name, ALIAS)]
        return JSONResponse({"object": "list", "data": data})

    async def chat(request: Request) -> Response:
        nonlocal waiting
        try:
            body = await _body(request)
            call = read_call(body)
            if not adapters and (named := body.get("model")) not in (None, "", policy.name, ALIAS):
                said = f"model: expected {policy.name} or {ALIAS}, found {named!r}"
                return _error(404, "model_not_found", said)
            if waiting >= MAX_WAITING:
                return _error(503, "overloaded", f"{MAX_WAITING} requests are in flight", {"retry-after": "1"})
            waiting += 1
            try:
                completion = await _unless_gone(request, policy.sample(call.messages, call.sampling, call.schema))
            finally:
                waiting -= 1
            return _reply(completion, call, policy.name)
        except PolicyError as error:
            return _error(STATUS.get(error.kind, 502), error.kind, str(error))
        except SleuthError as error:
            return _error(500 if isinstance(error, ModelError) else 400, "bad_request", str(error))
        except Exception:
            return _failed("a completion")

    async def load_adapter(request: Request) -> Response:
        try:
            name, folder = read_adapter(await _body(request))
            await asyncio.to_thread(cast(Any, policy).adopt, folder, name)
            return JSONResponse(f"Success: LoRA adapter '{name}' added successfully.")
        except PolicyError as error:
            return _error(STATUS.get(error.kind, 502), error.kind, str(error))
        except SleuthError as error:
            return _error(400, "bad_request", str(error))
        except Exception:
            return _failed("the loading of an adapter")

    async def unload_adapter(request: Request) -> Response:
        return JSONResponse("Success: one adapter is held at a time, the last one loaded.")

    routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    if adapters:
        routes.append(Route("/v1/load_lora_adapter", load_adapter, methods=["POST"]))
        routes.append(Route("/v1/unload_lora_adapter", unload_adapter, methods=["POST"]))
    return Guard(Starlette(routes=routes), key)


class Guard:
    """Lets a request through that carries the key; without a key, one whose Host and Origin name this machine."""

    def __init__(self, app: Starlette, key: str) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (refused := self._refused(dict(scope["headers"]))):
            await refused(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refused(self, headers: Mapping[bytes, bytes]) -> Response | None:
        if self.key:
            given = headers.get(b"authorization", b"")
            right = hmac.compare_digest(given, b"Bearer " + self.key.encode())
            return None if right else _error(401, "auth", f"expected the key of {KEY} as a bearer token")
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
        if _name(f"//{host}") not in LOCAL or (origin and _name(origin) not in LOCAL):
            return _error(403, "auth", "this server answers requests of this machine only")
        return None


def read_call(data: Any) -> Call:
    """Check a request's JSON; whatever cannot be served as asked raises `ConfigError` naming the field."""
    if not isinstance(data, dict):
        raise ConfigError(f"expected a JSON object, found {type(data).__name__}")
    for field in ("stop", "tools", "functions", "top_logprobs", "logit_bias"):
        if data.get(field):
            raise ConfigError(f"{field}: not supported here")
    if data.get("n") not in (None, 1):
        raise ConfigError(f"n: expected 1, found {data['n']!r}")
    tokens = "max_completion_tokens" if data.get("max_completion_tokens") is not None else "max_tokens"
    sampling = Sampling(
        temperature=_number(data, "temperature", 1.0, 0.0, 100.0),
        top_p=_number(data, "top_p", 1.0, 1e-6, 1.0),
        max_tokens=int(_number(data, tokens, 256, 1, 1_000_000)),
        seed=int(_number(data, "seed", secrets.randbits(32), -(2**63), 2**64)),  # none given: another draw each time
    )
    flags = (bool(data.get(flag)) for flag in ("stream", "logprobs", "return_token_ids"))
    return Call(_messages(data.get("messages")), sampling, _schema(data.get("response_format")), *flags)


def read_adapter(data: Any) -> tuple[str, Path]:
    """Name and folder of an adapter to load; `ConfigError` names the field that is wrong."""
    given = data if isinstance(data, dict) else {}
    for field in ("lora_name", "lora_path"):
        if not isinstance(given.get(field), str) or not given[field]:
            raise ConfigError(f"{field}: expected text, found {given.get(field)!r}")
    return given["lora_name"], Path(given["lora_path"])


def _messages(given: Any) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError("messages: expected a list of at least one message")
    out: list[Message] = []
    for place, item in enumerate(given):
        role, content = (item.get("role"), item.get("content")) if isinstance(item, dict) else (None, None)
        if isinstance(content, list):
            parts: list[Any] = [part.get("text") if isinstance(part, dict) else None for part in content]
            content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
        role = "system" if role == "developer" else role
        if role not in ROLES or not isinstance(content, str):
            raise ConfigError(f"messages[{place}]: expected a role of {', '.join(ROLES)} and text, found role {role!r}")
        if HALF.search(content):
            raise ConfigError(f"messages[{place}]: holds half a surrogate pair, which is no character")
        out.append(Message(cast(Literal["system", "user", "assistant"], role), content))
    return tuple(out)


def _schema(given: Any) -> JsonSchema | None:
    if given is None or given == {"type": "text"}:
        return None
    kind = given.get("type") if isinstance(given, dict) else given
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise ConfigError(f"response_format: expected text, json_object or json_schema, found {kind!r}")
    holder = given.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise ConfigError("response_format.json_schema.schema: expected a JSON Schema object")
    return schema


def _number(data: Mapping[str, Any], field: str, default: float, low: float, high: float) -> float:
    value = data.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{field}: expected a number from {low:g} to {high:g}, found {value!r}")
    return value


async def _body(request: Request) -> Any:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ConfigError(f"the request has more than {MAX_BODY_BYTES} bytes")
    except TimeoutError as error:
        said = f"expected the whole request within {BODY_S:g} s, found {len(body):,} bytes of its body"
        raise PolicyError("slow_request", said) from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the request is not JSON: {error}") from error


async def _unless_gone(request: Request, sampling: Coroutine[Any, Any, Completion]) -> Completion:
    """The completion; a client that disconnects first cancels it."""
    task = asyncio.create_task(sampling)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise PolicyError("timeout", "the client went away")
        return task.result()
    finally:
        for pending in (task, gone):
            pending.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(completion: Completion, call: Call, model: str) -> Response:
    from starlette.responses import JSONResponse, StreamingResponse

    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
    head["system_fingerprint"] = completion.policy_version
    choice: dict[str, Any] = {"index": 0, "finish_reason": completion.finish}
    extra: dict[str, Any] = {}
    if call.logprobs:
        pairs = zip(completion.token_ids, completion.logprobs, strict=True)
        choice["logprobs"] = {"content": [_token(token, logprob) for token, logprob in pairs]}
    if call.token_ids:
        choice["token_ids"], extra["prompt_token_ids"] = completion.token_ids, completion.prompt_ids
    usage = {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_tokens},
    }
    message = {"role": "assistant", "content": completion.text}
    if not call.stream:
        choice["message"] = message
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage, **extra})
    head["object"] = "chat.completion.chunk"
    first = {**head, "choices": [{"index": 0, "delta": message, "finish_reason": None}]}
    last = {**head, "choices": [{**choice, "delta": {}}], "usage": usage, **extra}
    return StreamingResponse(_events(first, last), media_type="text/event-stream")


def _token(token: int, logprob: float) -> dict[str, Any]:
    """A policy knows ids, not strings: the token is named by its id, as vLLM does on request."""
    return {"token": f"token_id:{token}", "logprob": logprob, "bytes": None, "top_logprobs": []}


async def _events(*chunks: Mapping[str, Any]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _failed(what: str) -> Response:
    """The reply to a defect of ours, which shows no traceback."""
    log.exception("%s failed", what)
    return _error(500, "internal", "internal error; the server's log has the details")


def _error(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse

    message = HALF.sub("?", message)
    code = "context_length_exceeded" if kind == "too_long" else kind
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status, headers=dict(headers or {}))


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
