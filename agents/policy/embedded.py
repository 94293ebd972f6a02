"""The embedded policy answers messages with a local model: many requests in one continuous batch on one thread.

Requests join and leave the batch at every step. A completion depends on the model, the prompt, the sampling and the
schema, never on what else is in the batch: on a CPU token ids and log-probabilities are bit-equal, alone or in company
(see `ragged`); ``cached_tokens`` alone tells what came before.
Tokens that the grammar forces are not sampled but appended, and fed in one go with the token before them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import random
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sleuth.agents.policy import is_shipped, lora, models
from sleuth.agents.policy.constrain import Constraint, Mode, Tokens
from sleuth.agents.policy.draw import draw
from sleuth.agents.policy.ragged import BLOCK, PrefixCache, Ragged, Segment, block_keys
from sleuth.agents.records import Completion, JsonSchema, Message, PolicyError, Sampling


@dataclass(eq=False, slots=True)
class Row:
    """One request on its way through the batch."""

    prompt: list[int]
    sampling: Sampling
    constraint: Constraint | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Completion]
    keys: list[bytes] = field(default_factory=list)
    """Of the whole blocks of the prompt, for the prefix cache."""
    rng: random.Random = field(default_factory=random.Random)
    slot: int = -1
    stored: int = 0
    """Tokens whose keys and values are in the store."""
    cached: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    cancelled: bool = False


class EmbeddedPolicy:
    """A `Policy` over a local model; the model is loaded at the first sample."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        constrain: Mode = "span",
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 16,
        prefill_tokens: int = 512,
        cache_tokens: int = 8192,
        max_context: int | None = None,
        run: str = "",
    ) -> None:
        """``path``: folder or hub id, None for the embedded model; ``adapter``: folder of a LoRA adapter, merged in.

        ``prefill_tokens`` bounds the prompt tokens of one step, ``cache_tokens`` the prefix cache, ``max_context``
        prompt and completion together (None: what the model was made for). ``run``: the training run whose weights
        `publish` will give it, which ``name`` then tells.
        """
        self.path, self.adapter = path, None if adapter is None else Path(adapter)
        self.constrain, self.device, self.dtype = constrain, device, dtype
        self.max_batch, self.prefill_tokens = max_batch, max(prefill_tokens, BLOCK)
        self.max_context, self.run = max_context, run
        self.cache = PrefixCache(cache_tokens)
        self.policy_version = ""
        self.tokenizer: Any = None
        self._loading, self._adopting = threading.Lock(), threading.Lock()
        self._wake = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._idle = True
        self._held = False
        self._base: Any = None
        self._adopted: set[str] | None = None

    @property
    def name(self) -> str:
        """Base, adapter, and where the default is not kept the constraint. A folder that somebody trained goes with the
        first digits of its weights' hash: runs of two of one name must not be taken for one another. In training the
        run stands for the adapter; each completion has the step that its weights are of."""
        base = "embedded" if self.path is None else models.model_name(self.path)
        if self.path is not None and models.is_own(self.path):
            base += f"@{self._base_hash}"
        adapter = "untrained" if self.adapter is None else self.adapter.name
        if self.adapter is not None and not is_shipped(self.adapter):
            adapter += f"@{self._adapter_hash}"
        if self.run:
            adapter = f"training {self.run}"
        kept = "" if self.constrain == "span" else f" constrain={self.constrain}"
        return f"{base}:{adapter}{kept}"

    @property
    def weights(self) -> str:
        """Base and adapter with their hashes, without loading them: what completions carry until others are
        published."""
        version = f"{models.model_name(self._folder)}@{self._base_hash}"
        return version if self.adapter is None else f"{version}+{self.adapter.name}@{self._adapter_hash}"

    @property
    def _folder(self) -> str | Path:
        return models.model_path() if self.path is None else self.path

    @functools.cached_property
    def _base_hash(self) -> str:
        return models.weights_hash(self._folder)[:12]

    @functools.cached_property
    def _adapter_hash(self) -> str:
        return lora.weights_hash(self.adapter)[:12] if self.adapter else ""

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        """One completion; cancelling the task takes the request out of the batch."""
        loop = asyncio.get_running_loop()
        row = await asyncio.to_thread(self._prepare, messages, sampling, schema, loop)
        with self._wake:
            if self._closed:
                raise PolicyError("unreachable", "the embedded policy was closed")
            self._waiting.append(row)
            self._wake.notify_all()
        try:
            return await row.future
        except asyncio.CancelledError:
            row.cancelled = True
            raise

    def load(self) -> None:
        """Load the model now rather than at the first sample."""
        with self._loading:
            if self._thread is not None:
                return
            path, version = self._folder, self.weights
            model, self.tokenizer = models.load_model(path, self.dtype, self.device)
            if self.adapter is not None:
                lora.merge(model, self.adapter, models.model_name(path))
            self.policy_version = version
            self.eos = end_tokens(model)
            self.context = self.max_context or model.config.max_position_embeddings
            self.tokens = Tokens(self.tokenizer, model.config.vocab_size, self.eos)
            self.ragged = Ragged(model, self.max_batch)
            self._free = list(range(self.max_batch))[::-1]
            self._thread = threading.Thread(target=self._run, name="sleuth-engine", daemon=True)
            self._thread.start()
            atexit.register(self.close)  # a thread that is still in torch when Python goes down aborts the process

    def publish(self, weights: Iterable[tuple[str, Any]], version: str, wait: bool = False) -> None:
        """Go on with other weights, ``(name of a layer, weight)``; completions then carry ``version``.

        A reply comes from one policy. So with requests in flight this raises `PolicyError`; with ``wait`` those in the
        batch end first, and those that have not begun get the new weights.
        """
        self.load()
        with self._wake:
            if not wait and (self._rows or self._waiting):
                raise PolicyError("bad_request", f"{len(self._rows) + len(self._waiting)} requests are in flight")
            self._held = True
            try:
                self._wake.wait_for(lambda: self._idle or self._closed)
                for name, weight in weights:
                    self.ragged.replace(name, weight)
                self.cache.clear()
                self.policy_version = version
            finally:
                self._held = False
                self._wake.notify_all()

    def adopt(self, folder: Path, version: str) -> None:
        """Go on with the base and the LoRA adapter in ``folder`` in place of the one before; `publish` with ``wait``.

        A second copy of the base stays in memory from the first call on.
        """
        self.load()
        path = self._folder
        with self._adopting:
            if self._base is None:
                self._base, _ = models.load_model(path, self.dtype, self.device)
            name = models.model_name(path)
            if self._adopted is None:
                self._adopted = {layer for layer, _ in lora.updates(self.adapter, name)} if self.adapter else set()
            found = dict(lora.merged(self._base, folder, name))
            back = {layer: self._base.get_submodule(layer).weight for layer in self._adopted - found.keys()}
            self.publish([*found.items(), *back.items()], version, wait=True)
            self._adopted = set(found)

    def close(self) -> None:
        """Stop the engine; requests in flight fail with a `PolicyError`."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            atexit.unregister(self.close)

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def _prepare(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        schema: JsonSchema | None,
        loop: asyncio.AbstractEventLoop,
    ) -> Row:
        if sampling.max_tokens < 1:
            raise PolicyError("bad_request", f"max_tokens: expected at least 1, found {sampling.max_tokens}")
        self.load()
        prompt = models.render(self.tokenizer, messages)
        if len(prompt) >= self.context:
            raise PolicyError("too_long", f"the prompt has {len(prompt)} tokens, the model's context is {self.context}")
        constraint = None if schema is None else self.tokens.constraint(schema, self.constrain)
        row = Row(prompt, sampling, constraint, loop, loop.create_future(), rng=random.Random(sampling.seed))
        row.keys = block_keys(prompt[:-1])
        self._force(row)
        return row

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._gather():
                try:
                    self._step()
                except Exception as error:  # a defect or an exhausted device ends these requests, not the engine
                    for row in list(self._rows):
                        self._leave(row)
                        _settle(row, error)

    def _gather(self) -> bool:
        """Wait for work and give waiting requests a slot; False when the engine is to stop."""
        with self._wake:
            self._idle = not self._rows
            if self._idle:
                self._wake.notify_all()
            while not ((self._waiting and not self._held) or self._rows or self._closed):
                self._wake.wait()
            if self._closed:
                for row in [*self._rows, *self._waiting]:
                    _settle(row, PolicyError("unreachable", "the embedded policy was closed"))
                return False
            while self._waiting and self._free and not self._held:
                row = self._waiting.popleft()
                if not row.cancelled:
                    row.slot = self._free.pop()
                    self._rows.append(row)
            self._idle = not self._rows
            return True

    def _step(self) -> None:
        """One forward pass over the due tokens, then one draw for each row that has none left."""
        for row in list(self._rows):
            if row.cancelled:
                self._leave(row)
            elif finish := self._ended(row):
                self._finish(row, finish)
        longest = max((len(row.prompt) + row.sampling.max_tokens for row in self._rows), default=0)
        self.ragged.reserve(min(longest, self.context), [row.slot for row in self._rows])
        plan = self._plan()
        if not plan:
            return
        logits = iter(self.ragged.forward([segment for _, segment in plan]).numpy())
        for row, segment in plan:
            row.stored = segment.start + len(segment.tokens)
            place = segment.start // BLOCK
            if row.stored <= len(row.prompt) and place < len(row.keys):
                self.cache.put(row.keys[place], self.ragged.save(row.slot, segment.start, row.stored))
            if segment.last:
                ahead = next(logits)
                try:
                    self._extend(row, ahead)
                except Exception as error:  # a grammar that grows beyond its limits is this request's alone
                    if row in self._rows:
                        self._leave(row)
                    _settle(row, error)

    def _plan(self) -> list[tuple[Row, Segment]]:
        """Prompts block by block, oldest first, up to ``prefill_tokens``; then what a row has written after its own."""
        plan: list[tuple[Row, Segment]] = []
        room, coming = self.prefill_tokens, set[bytes]()
        for row in self._rows:
            at = row.stored
            while at < len(row.prompt) and room > 0:
                key = row.keys[at // BLOCK] if at // BLOCK < len(row.keys) else b""
                if key in coming:
                    break
                tokens = tuple(row.prompt[at : at + BLOCK])
                if at == row.stored and (block := self.cache.get(key)) is not None:
                    self.ragged.load(row.slot, at, block)
                    row.stored, row.cached = at + BLOCK, row.cached + BLOCK
                else:
                    at_end = at + len(tokens) == len(row.prompt) and not row.token_ids
                    plan.append((row, Segment(row.slot, at, tokens, at_end)))
                    coming.update([key] if key else [])
                    room -= len(tokens)
                at += len(tokens)
            written = len(row.prompt) + len(row.token_ids)
            while len(row.prompt) <= at < written:
                tokens = tuple(row.token_ids[at - len(row.prompt) :][:BLOCK])
                plan.append((row, Segment(row.slot, at, tokens, at + len(tokens) == written)))
                at += len(tokens)
        return plan

    def _extend(self, row: Row, logits: Any) -> None:
        """Draw the next token and append what the grammar forces after it."""
        allowed = row.constraint.allowed() if row.constraint else None
        token, logprob = draw(logits, allowed, row.sampling.temperature, row.sampling.top_p, row.rng)
        self._append(row, token, logprob, allowed is not None and len(allowed) == 1)
        if row.constraint and token not in self.eos:
            row.constraint.take([token])
            self._force(row)
        if finish := self._ended(row):
            self._finish(row, finish)

    def _force(self, row: Row) -> None:
        """Append the tokens that must come now; at the end of the grammar that is the end of the turn."""
        if row.constraint is None:
            return
        forced = row.constraint.forced()[: self._limit(row) - len(row.token_ids)]
        for token in forced:
            self._append(row, token, 0.0, True)
        row.constraint.take(forced)
        if row.constraint.done and len(row.token_ids) < self._limit(row) and not self._said_end(row):
            self._append(row, self.eos[0], 0.0, True)

    def _ended(self, row: Row) -> Literal["stop", "length", ""]:
        if self._said_end(row) or (row.constraint is not None and row.constraint.done):
            return "stop"
        return "length" if len(row.token_ids) >= self._limit(row) else ""

    def _said_end(self, row: Row) -> bool:
        return bool(row.token_ids) and row.token_ids[-1] in self.eos

    def _limit(self, row: Row) -> int:
        return min(row.sampling.max_tokens, self.context - len(row.prompt))

    def _append(self, row: Row, token: int, logprob: float, forced: bool) -> None:
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        row.forced.append(forced)

    def _finish(self, row: Row, finish: Literal["stop", "length"]) -> None:
        self._leave(row)
        text = self.tokenizer.decode(row.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        completion = Completion(
            text=text,
            prompt_ids=tuple(row.prompt),
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            forced=tuple(row.forced),
            policy_version=self.policy_version,
            finish=finish,
            prompt_tokens=len(row.prompt),
            cached_tokens=row.cached,
            completion_tokens=len(row.token_ids),
        )
        _settle(row, completion)

    def _leave(self, row: Row) -> None:
        self._rows.remove(row)
        self._free.append(row.slot)


def _settle(row: Row, result: Completion | Exception) -> None:
    """Hand the result to the waiting task on its own event loop; a loop that is closed has nobody waiting."""

    def deliver() -> None:
        if row.future.done():
            return
        if isinstance(result, Exception):
            row.future.set_exception(result)
        else:
            row.future.set_result(result)

    with contextlib.suppress(RuntimeError):
        row.loop.call_soon_threadsafe(deliver)


def end_tokens(model: Any) -> list[int]:
    """Ids that end a turn, the one that is written first."""
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    return [ends] if isinstance(ends, int) else list(ends)
