"""Rollouts of a step: how questions are asked, one episode per task and seed, at once or ahead of the learner.

`ask` runs a batch and waits for it. `Ahead` keeps rollouts running in a thread of their own while the learner learns,
so that an episode may come from weights that are a bounded number of updates old (AReaL, arXiv 2505.24298, section 5).
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sleuth.agents.context import Context, equipped, ready
from sleuth.agents.records import Budget, Episode, Sampling
from sleuth.agents.rollout import rollout
from sleuth.agents.strategy import Strategy, strategy
from sleuth.corpora.errors import ConfigError
from sleuth.eval.records import Task
from sleuth.retrieval.records import Retriever


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """How questions are asked."""

    strategy: str = "naive-rag"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the strategy's choices."""
    questions: int = 8
    """Per step."""
    group: int = 8
    """Rollouts per question."""
    temperature: float = 1.0
    searches: int = 4
    """Most per rollout."""
    rounds: int = 1
    """At most so many times as many questions, until ``questions`` groups tell their rollouts apart (DAPO's dynamic
    sampling, arXiv 2503.14476, section 3.2)."""
    staleness: int = 0
    """Updates that the weights behind a reply may be behind; over 0, rollouts of later steps run while a step updates
    (`Ahead`). Such a run goes on after a kill, but not to the same bytes."""
    server: str = ""
    """``URL#model`` of a server that rolls out (`training.engines`); empty for the embedded engine."""
    constrain: Literal["schema", "none"] = "none"
    """What a server's replies are held to: nothing, or the plain JSON schema, where its grammar is ours
    (``sleuth serve-policy``)."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"rollout.temperature must be over 0, or all rollouts are one; found {self.temperature}")
        if self.group < 2 or self.questions < 1 or self.rounds < 1 or self.staleness < 0:
            found = f"{self.group}, {self.questions}, {self.rounds}, {self.staleness}"
            raise ConfigError(
                f"rollout: expected group >= 2, questions >= 1, rounds >= 1, staleness >= 0; found {found}"
            )
        if self.staleness and self.rounds > 1:
            raise ConfigError("rollout: rounds > 1 looks at a step's rewards before it asks on; it needs staleness = 0")
        self.chosen()  # a slip in its name or choices shows before anything is trained

    def chosen(self) -> Strategy:
        return strategy(self.strategy, **self.changes)


Ask = Callable[[Task, int], Awaitable[Episode]]


def rollout_seed(seed: int, step: int, task: str, number: int) -> int:
    """A seed of its own for every rollout of a run."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{step}:{task}:{number}".encode(), digest_size=4).digest())


def asker(engine: Any, store: Retriever, spec: RolloutSpec, sampling: Sampling) -> Ask:
    """The coroutine function that rolls out one (task, seed); for one event loop, on which it bounds what runs."""
    from sleuth.agents.graph import build_graph

    chosen = spec.chosen()
    ready(chosen)
    graph = build_graph(chosen)
    plain = Context(engine, chosen, budget=Budget(searches=spec.searches), sampling=sampling)
    contexts: dict[str, Context] = {}
    turns = asyncio.Semaphore(4 * engine.max_batch)

    async def one(task: Task, seed: int) -> Episode:
        key = repr(task.where)
        if key not in contexts:
            contexts[key] = equipped(plain, store, task.where)
        context = dataclasses.replace(contexts[key], fingerprint=store.fingerprint, seed=seed)
        async with turns:
            return await rollout(graph, task.question, context)

    return one


def ask(parts: Any, spec: RolloutSpec, jobs: Sequence[tuple[Task, int]], sampling: Sampling) -> list[Episode]:
    """One episode per (task, seed), all at once; the engine and the search tool batch what waits."""

    async def run() -> list[Episode]:
        one = asker(parts.engine, parts.store, spec, sampling)
        return list(await asyncio.gather(*(one(task, seed) for task, seed in jobs)))

    return asyncio.run(run())


def version_step(version: str) -> int:
    """The step whose weights gave a reply: the number after the last ``@`` of its version; 0 where there is none."""
    found = re.search(r"@(\d+)$", version)
    return int(found[1]) if found else 0


def oldest(episodes: Sequence[Episode], without: int) -> int:
    """The step of the oldest weights that any reply of some episodes came from; ``without`` any reply, that."""
    replies = (step.completion for episode in episodes for step in episode.steps)
    return min((version_step(reply.policy_version) for reply in replies if reply is not None), default=without)


class Rolled(NamedTuple):
    task: Task
    episodes: tuple[Episode, ...]


class Ahead:
    """Groups of rollouts that run in a thread while the learner learns; `start` puts in, `take` waits for and gives."""

    def __init__(self, engine: Any, store: Retriever, spec: RolloutSpec) -> None:
        self.engine, self.store, self.spec = engine, store, spec
        self.started = 0
        """Batches put in so far, in this process."""
        self.dropped = 0
        """Groups that were too old when they were wanted."""
        self._done: list[Rolled | BaseException] = []
        self._running: dict[str, Task] = {}
        self._wake = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._one: Ask | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="sleuth-rollouts", daemon=True)
        self._thread.start()

    def start(self, chosen: Sequence[tuple[Task, int]], seeds: Callable[[Task, int], int]) -> None:
        """Roll out each task as often as is said; ``seeds(task, number)``."""
        self.started += 1
        with self._wake:
            self._running |= {task.id: task for task, _ in chosen}
        for task, count in chosen:
            jobs = [seeds(task, number) for number in range(count)]
            asyncio.run_coroutine_threadsafe(self._group(task, jobs), self._loop)

    def waiting(self) -> set[str]:
        """Ids of the tasks that are put in and were not taken."""
        with self._wake:
            return set(self._running) | {row.task.id for row in self._done if isinstance(row, Rolled)}

    def take(self, count: int, since: int) -> list[Rolled]:
        """At most ``count`` finished groups, first come first served, as soon as so many are there or none runs.

        Those with a reply from weights before step ``since`` are dropped and counted.
        """
        taken: list[Rolled] = []
        with self._wake:
            while len(taken) < count and (self._done or self._running):
                self._wake.wait_for(lambda: bool(self._done))
                row = self._done.pop(0)
                if isinstance(row, BaseException):
                    raise row
                if oldest(row.episodes, since) < since:
                    self.dropped += 1
                else:
                    taken.append(row)
        return taken

    def close(self) -> None:
        """Cancel what runs and end the thread."""

        async def cancel() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _group(self, task: Task, jobs: Sequence[int]) -> None:
        found: Rolled | BaseException
        try:
            if self._one is None:
                sampling = Sampling(temperature=self.spec.temperature)
                self._one = asker(self.engine, self.store, self.spec, sampling)
            one = self._one
            found = Rolled(task, tuple(await asyncio.gather(*(one(task, seed) for seed in jobs))))
        except BaseException as error:  # handed to the learner's thread, which stops with it
            found = error
        with self._wake:
            self._running.pop(task.id, None)
            self._done.append(found)
            self._wake.notify_all()
