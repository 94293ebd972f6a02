"""A scripted policy for tests: it answers from a function of the messages, so that a run's every reply is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from sleuth.agents.records import Completion, JsonSchema, Message, Sampling


class ScriptedPolicy:
    """``reply`` maps the messages to a string, a JSON value, or an exception to raise."""

    name = "scripted"

    def __init__(self, reply: Callable[[Sequence[Message]], Any], delay_s: float = 0.0) -> None:
        self.reply, self.delay_s = reply, delay_s
        self.seen: list[tuple[Message, ...]] = []
        self.schemas: list[JsonSchema | None] = []

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        self.seen.append(tuple(messages))
        self.schemas.append(schema)
        await asyncio.sleep(self.delay_s)
        reply = self.reply(messages)
        if isinstance(reply, Exception):
            raise reply
        text = reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
        prompt = sum(len(m.content.split()) for m in messages)
        return Completion(text, policy_version="scripted", prompt_tokens=prompt, completion_tokens=len(text.split()))
