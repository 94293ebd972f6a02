"""An engine is a policy that rolls out with the learner's weights: in this process, or behind an address.

`give` hands it new weights under a version. The embedded engine takes merged weights; a server takes the adapter as a
folder that both can read, by vLLM's runtime LoRA updating (``POST /v1/load_lora_adapter``), which ``sleuth serve-policy
--adapters`` speaks too. Every reply names the weights that it came from.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sleuth.agents.policy.constrain import Mode
from sleuth.agents.policy.constrain import Tokens as Grammars
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.openai import OpenAIPolicy
from sleuth.agents.records import Completion, JsonSchema, Message, PolicyError, Sampling
from sleuth.corpora.errors import ConfigError
from sleuth.training import adapter
from sleuth.training.adapter import is_whole
from sleuth.training.crew import Crew
from sleuth.training.sft import export

KEPT = 2
"""Adapters that a server holds: the newest, and the one that requests in flight may still use."""


class Engine(Protocol):
    """What a trainer needs of a policy; `EmbeddedPolicy` and `RemoteEngine` are ones."""

    policy_version: str
    """Of the weights that the next request meets."""
    tokens: Grammars
    constrain: Mode
    max_batch: int

    @property
    def name(self) -> str: ...

    def load(self) -> None: ...

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion: ...


def give(engine: Any, adapted: Any, version: str, crew: Crew | None = None) -> None:
    """The engine goes on with the learner's weights; replies in flight end with those that they began with.

    Every member of a crew has an embedded engine of its own to give them to; a server gets them from the first.
    """
    if isinstance(engine, EmbeddedPolicy):
        engine.publish(adapter.merged(adapted), version, wait=True)
    else:
        engine.adopt(adapted, version, crew or Crew())


class RemoteEngine:
    """A `Policy` over an OpenAI-compatible server that gives token ids and takes adapters while it runs."""

    def __init__(
        self, address: str, tokens: Grammars, room: Path, constrain: Mode = "none", max_batch: int = 64
    ) -> None:
        """``address``: ``URL#model``; adapters for the server are written to ``room``, which lies in the run's folder;
        ``max_batch`` is how many requests it can work on at once."""
        self.url, mark, model = address.partition("#")
        if not self.url.startswith(("http://", "https://")) or not mark or not model:
            raise ConfigError(f"rollout.server: expected URL#model, found {address!r}")
        self.tokens, self.room, self.constrain, self.max_batch = tokens, room, constrain, max_batch
        self.policy_version = model
        self._held: list[str] = []
        self._clients: WeakKeyDictionary[Any, OpenAIPolicy] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        return f"{self.url}:training {self.room.parent.name}"

    def load(self) -> None:
        """Nothing: the server has its model."""

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        """One completion; a reply without ids, or from weights that were not given to the server, raises."""
        reply = await self._client().sample(messages, sampling, schema)
        if not reply.prompt_ids or len(reply.token_ids) != len(reply.logprobs):
            counts = f"{len(reply.prompt_ids)}, {len(reply.token_ids)}, {len(reply.logprobs)}"
            expected = "expected prompt ids, token ids and as many log-probabilities"
            raise PolicyError("bad_reply", f"{self.url}: {expected} (return_token_ids), found {counts}")
        named = [version for version in self._held if version in reply.policy_version.split()]
        if not named:
            expected = " or ".join(self._held) or "an adapter to have been given"
            raise PolicyError("bad_reply", f"{self.url}: expected {expected}, found {reply.policy_version!r}")
        return dataclasses.replace(reply, policy_version=named[-1])

    def adopt(self, adapted: Any, version: str, crew: Crew) -> None:
        """Write the adapter, let the server load it under its version, and ask for it from now on.

        The first of a crew does it for all, who share the server.
        """
        version = version.replace("/", "-")
        if is_whole(adapted):
            raise ConfigError("rollout.server takes adapters: expected a rank over 0, found 0")
        folder = export(adapted, self.room, None, version, write=crew.first)
        if crew.first:
            asyncio.run(self._post("load_lora_adapter", {"lora_name": version, "lora_path": str(folder.resolve())}))
        crew.gather(None)
        self._held = [*self._held, version]
        self.policy_version = version
        for old in self._held[:-KEPT] if crew.first else ():
            asyncio.run(self._post("unload_lora_adapter", {"lora_name": old}))
            shutil.rmtree(self.room / old, ignore_errors=True)
        self._held = self._held[-KEPT:]

    def close(self) -> None:
        """Connections close with the event loops that they belong to."""

    def _client(self) -> OpenAIPolicy:
        """A client of the running event loop: rollouts ahead and dev rollouts run on two."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = OpenAIPolicy(self.url, "", constrain=self.constrain, token_ids=True)
        self._clients[loop].model = self.policy_version
        return self._clients[loop]

    async def _post(self, route: str, body: dict[str, Any]) -> None:
        client = self._client()
        await client.post(f"/{route}", body)
        await client.aclose()
