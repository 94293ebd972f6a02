"""The OpenAI-compatible policy asks a chat-completions endpoint; whatever goes wrong there ends as a `PolicyError`.

It works with vLLM, the llama.cpp server, our own server and hosted services. Calls per sample are bounded by
``1 + retries`` and the whole sample by ``deadline_s``; the key comes from the environment and appears in no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import itertools
import json
import math
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sleuth.agents.policy.constrain import Mode, strip_extensions
from sleuth.agents.records import Completion, JsonSchema, Message, PolicyError, Sampling
from sleuth.corpora.hosts import is_local

if TYPE_CHECKING:
    import httpx

KEYS = ("SLEUTH_POLICY_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key; the second is sent to `OPENAI` alone, whose key it is."""
OPENAI = "https://api.openai.com"
MAX_REPLY_BYTES = 16 * 2**20
TOKEN_CHARS = 4
"""Characters that count as a token where a server does not say how many there were."""
OPTIONAL = ("response_format", "logprobs", "seed", "top_p", "temperature", "return_token_ids")
"""Fields that are left out from then on when the server says it does not know them."""
TOO_LONG = re.compile(r"context.{0,20}(length|window|size)|maximum context|too many tokens|too long", re.IGNORECASE)
THINK = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)


class Refusal(PolicyError):
    """A `PolicyError` with what only an HTTP reply can tell."""

    def __init__(
        self, kind: str, message: str, retryable: bool = False, after_s: float = 0.0, refused: bool = False
    ) -> None:
        super().__init__(kind, message, retryable)
        self.after_s = after_s
        """Seconds the server asks to wait."""
        self.refused = refused
        """The server did not accept the request as it was written; fewer fields may help."""


class OpenAIPolicy:
    """A `Policy` over ``POST {url}/chat/completions``."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        constrain: Mode = "span",
        timeout_s: float = 60.0,
        deadline_s: float = 180.0,
        retries: int = 4,
        token_ids: bool = False,
    ) -> None:
        """``timeout_s`` bounds one call, ``deadline_s`` a sample with all its retries and waits; ``token_ids`` asks the
        server for the ids it sampled (vLLM and ours give them)."""
        self.url, self.model, self.constrain = url.rstrip("/"), model, constrain
        self.timeout_s, self.deadline_s, self.retries, self.token_ids = timeout_s, deadline_s, retries, token_ids
        parts = urlsplit(self.url)
        self.where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        """The address without credentials, for messages."""
        self._local = is_local(self.url)
        self._key = os.environ.get(KEYS[0], "")
        if not self._key and f"{parts.scheme}://{parts.hostname}" == OPENAI:
            self._key = os.environ.get(KEYS[1], "")
        self._refused: set[str] = set()
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return f"{self.where}#{self.model}"

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        """One completion, within ``deadline_s``; transient failures are tried again with growing, jittered waits."""
        ends = time.monotonic() + self.deadline_s
        jitter = random.Random(sampling.seed)
        for attempt in itertools.count():
            body = self._body(messages, sampling, schema)
            try:
                content = await self._post(body, min(self.timeout_s, ends - time.monotonic()))
                return self._read(content, sum(len(turn["content"]) for turn in body["messages"]))
            except PolicyError as error:
                asked = error if isinstance(error, Refusal) else Refusal("", "")
                if attempt == self.retries:
                    raise
                if asked.refused and self._drops(str(error), body):
                    continue
                wait = max(0.5 * 2**attempt * jitter.uniform(0.5, 1.0), asked.after_s)
                if not error.retryable or time.monotonic() + wait >= ends:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError

    def close(self) -> None:
        """Forget the connections; they close with the event loop they belong to."""
        self._client = None

    async def aclose(self) -> None:
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    def _body(self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None) -> dict[str, Any]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": turns,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "logprobs": True,
        }
        if self.token_ids:
            body["return_token_ids"] = True
        if schema is not None and self.constrain != "none":
            plain = strip_extensions(schema, keep_quotes=self.constrain == "span")
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": plain}}
            if "response_format" in self._refused:
                ask = "\nReply with one JSON value only, valid under this JSON Schema: "
                turns[-1]["content"] += ask + json.dumps(plain, ensure_ascii=False)
        if "max_tokens" in self._refused:
            body["max_completion_tokens"] = body["max_tokens"]
        return {key: value for key, value in body.items() if key not in self._refused}

    def _drops(self, said: str, body: Mapping[str, Any]) -> bool:
        """After a refusal: leave out the field the server names, or the schema when it names none of ours."""
        if "max_completion_tokens" in said and "max_tokens" in body:
            self._refused.add("max_tokens")
            return True
        for field in (*(field for field in OPTIONAL if field in said), "response_format"):
            if field in body:
                self._refused.add(field)
                return True
        return False

    async def post(self, route: str, body: Mapping[str, Any]) -> bytes:
        """What another route of the server replies, once, within ``deadline_s``."""
        return await self._post(body, self.deadline_s, route)

    async def _post(self, body: Mapping[str, Any], timeout_s: float, route: str = "/chat/completions") -> bytes:
        """The body of the reply, status 200; every failure of the network or the server raises `PolicyError`."""
        import httpx

        content = bytearray()
        try:
            async with asyncio.timeout(timeout_s), self._open().stream("POST", route, json=body) as reply:
                async for chunk in reply.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_REPLY_BYTES:
                        raise PolicyError("bad_reply", f"{self.where}: reply of more than {MAX_REPLY_BYTES} bytes")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise PolicyError("timeout", f"{self.where}: no reply within {timeout_s:.0f} s", True) from error
        except httpx.ConnectError as error:
            raise PolicyError("unreachable", f"{self.where}: {self._clean(str(error))}", True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            said = self._clean(str(error)) or type(error).__name__
            raise PolicyError("server", f"{self.where}: the connection broke: {said}", True) from error
        if reply.status_code != 200:
            raise self._refusal(reply, bytes(content))
        return bytes(content)

    def _open(self) -> httpx.AsyncClient:
        """One client per event loop; proxies of the environment are not used for this machine."""
        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._client = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=self.timeout_s, trust_env=not self._local
            )
            self._loop = loop
        return self._client

    def _refusal(self, reply: httpx.Response, content: bytes) -> Refusal:
        status, said = reply.status_code, self._clean(_message(content))
        text, after_s = f"{self.where}: HTTP {status}: {said}", _retry_after(reply.headers.get("retry-after", ""))
        if status in (401, 403):
            given = "a key was sent" if self._key else f"no key was sent; set {KEYS[0]}"
            return Refusal("auth", f"{text} ({given})")
        if status == 429:
            return Refusal("rate_limit", text, "insufficient_quota" not in said, after_s)
        if status == 413 or (400 <= status < 500 and TOO_LONG.search(said)):
            return Refusal("too_long", text)
        if status in (408, 504):
            return Refusal("timeout", text, True, after_s)
        if status >= 500:
            return Refusal("server", text, True, after_s)
        return Refusal("bad_request" if status >= 400 else "bad_reply", text, refused=status in (400, 422))

    def _read(self, content: bytes, prompt_chars: int) -> Completion:
        """A completion from a reply's JSON; token ids stay empty where the server does not give them. What it does not
        count is estimated from the characters, so that a budget of tokens holds with any server."""
        try:
            data = json.loads(content)
            choice = data["choices"][0]
            text = _text(choice["message"].get("content") or "")
            usage = data.get("usage") or {}
            details = usage.get("prompt_tokens_details") or {}
            logprobs = [_finite(item["logprob"]) for item in (choice.get("logprobs") or {}).get("content") or ()]
            version = f"{data.get('model') or self.model} {data.get('system_fingerprint') or ''}".strip()
            completion = Completion(
                text=THINK.sub("", text).strip() if "think>" in text else text,
                prompt_ids=tuple(map(_count, data.get("prompt_token_ids") or ())),
                token_ids=tuple(map(_count, choice.get("token_ids") or ())),
                logprobs=tuple(logprobs),
                policy_version=_text(version),
                finish="length" if choice.get("finish_reason") == "length" else "stop",
                prompt_tokens=_count(usage.get("prompt_tokens")) or math.ceil(prompt_chars / TOKEN_CHARS),
                cached_tokens=_count(details.get("cached_tokens")),
                completion_tokens=_count(usage.get("completion_tokens")) or math.ceil(len(text) / TOKEN_CHARS),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            shown = self._clean(content[:200].decode("utf-8", "replace"))
            expected = "expected a chat completion with choices[0].message.content"
            said = f"{self.where}: {expected}, found {shown!r}"
            raise PolicyError("bad_reply", f"{said} ({self._clean(str(error))})", True) from error
        return completion

    def _clean(self, text: str) -> str:
        return _text(text.replace(self._key, "***") if self._key else text)[:300]


def _text(value: Any) -> str:
    """Text whose halves of surrogate pairs, which JSON can spell but are no characters, are question marks."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value.encode("utf-8", "replace").decode()


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"expected a finite number, found {number}")
    return number


def _count(value: Any) -> int:
    """A number of tokens, or a token's id: what 63 bits hold, 0 for none."""
    if not 0 <= (number := int(_finite(value or 0))) < 2**63:
        raise ValueError(f"expected a count, found {number}")
    return number


def _message(content: bytes) -> str:
    text = content[:2000].decode("utf-8", "replace")
    try:
        error = json.loads(content).get("error")
        return str(error.get("message") or error) + (f" ({error['code']})" if error.get("code") else "")
    except (ValueError, AttributeError, RecursionError):
        return text.strip() or "no message"


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, section 10.2.3); 0 when it has none."""
    try:
        return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        with contextlib.suppress(ValueError, OverflowError):  # a date of no calendar
            return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else 0.0
        return 0.0
