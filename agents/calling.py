"""A caller asks a policy from code that does not await: retrieval's functions, which know no policy.

It has an event loop of its own in a thread, so that it can be called from any thread and its requests run beside one
another; the policy it holds should be its own too, because connections belong to the loop that opened them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from sleuth.agents.records import Completion, JsonSchema, Message, Policy, Sampling

Asked = tuple[Sequence[Message], Sampling, JsonSchema | None]


class Caller:
    """Safe to share between threads; the loop ends with the process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="policy-caller").start()

    def __call__(self, requests: Sequence[Asked]) -> list[Completion]:
        """Completions in order; raises what the policy raises."""

        async def all_of_them() -> list[Completion]:
            return await asyncio.gather(*(self.policy.sample(*request) for request in requests))

        return asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result()
