"""A batcher answers concurrent searches together: what arrived while a batch was searched is the next batch.

It belongs to one event loop and searches in its own threads. Waiting queries are bounded, so that overload is told to
the client at once, and a search whose client gave up or whose deadline passed leaves the queue without being run.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sleuth.corpora.errors import ConfigError, InputError, SleuthError

Key = TypeVar("Key")
Found = TypeVar("Found")


class OverloadedError(SleuthError):
    """The queue is full; the message says how full."""

    def __init__(self, message: str, after_s: int) -> None:
        super().__init__(message)
        self.after_s = after_s
        """When it is worth asking again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken on at once."""

    max_batch: int = 32
    """Queries searched together. More save little work and let the last of them wait longer."""
    max_wait_s: float = 0.0
    """How long an idle server waits for company before it searches; 0 searches at once."""
    max_queue: int = 1024
    """Queries that wait; one more is refused."""
    deadline_s: float = 10.0
    """From the arrival of a request to its answer."""
    threads: int = 2
    """Batches searched beside one another."""

    def __post_init__(self) -> None:
        for name, low in (("max_batch", 1), ("max_queue", 1), ("threads", 1), ("max_wait_s", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name}: expected at least {low}, found {getattr(self, name)}")
        if self.deadline_s <= self.max_wait_s:
            raise ConfigError(f"deadline_s: expected more than max_wait_s {self.max_wait_s}, found {self.deadline_s}")


@dataclass(slots=True)
class _Job(Generic[Key, Found]):
    key: Key
    queries: Sequence[str]
    future: asyncio.Future[Found]


@dataclass
class Batcher(Generic[Key, Found]):
    """``search(queries, key)`` is called in a thread with queries of one key; ``part`` cuts its result for one job."""

    search: Callable[[Sequence[str], Key], Found]
    part: Callable[[Found, int, int], Found]
    limits: Limits = field(default_factory=Limits)
    on_batch: Callable[[int, float], None] = lambda size, seconds: None
    """Told the size and the seconds of each batch."""

    def __post_init__(self) -> None:
        self.waiting = 0
        """Queries in the queue."""
        self._jobs: dict[int, _Job[Key, Found]] = {}  # by order of arrival
        self._numbers = itertools.count()
        self._idle = 0
        self._workers: list[asyncio.Task[None]] = []
        self._seconds = 0.01  # of one query, smoothed; what Retry-After is made of

    def start(self) -> None:
        """Begin to answer, in the running loop."""
        self._wake = asyncio.Event()
        self._pool = ThreadPoolExecutor(self.limits.threads, "search")
        self._workers = [asyncio.create_task(self._work()) for _ in range(self.limits.threads)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def submit(self, queries: Sequence[str], key: Key) -> Found:
        """The result for these queries; raises `OverloadedError`, or what the search raised. Cancel it at a deadline:
        it then leaves the queue."""
        if len(queries) > self.limits.max_queue:
            raise InputError(f"queries: expected at most {self.limits.max_queue} in a request, found {len(queries)}")
        if self.waiting + len(queries) > self.limits.max_queue:
            after_s = max(1, round(self.waiting * self._seconds / self.limits.threads))
            raise OverloadedError(f"{self.waiting} queries wait, the queue holds {self.limits.max_queue}", after_s)
        number, job = next(self._numbers), _Job(key, queries, asyncio.get_running_loop().create_future())
        self._jobs[number] = job
        self.waiting += len(queries)
        self._wake.set()
        try:
            return await job.future
        finally:
            self._leave(number)

    def _leave(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            self.waiting -= len(job.queries)

    async def _work(self) -> None:
        while True:
            self._idle += 1
            try:
                while not self._jobs:
                    self._wake.clear()
                    await self._wake.wait()
                if self.limits.max_wait_s and self.waiting < self.limits.max_batch:
                    await asyncio.sleep(self.limits.max_wait_s)
                batch = self._take()
            finally:
                self._idle -= 1
            if batch:
                await self._answer(batch)

    def _take(self) -> list[_Job[Key, Found]]:
        """The oldest job and those of its key, as many as fit a batch; idle workers share what waits."""
        limit = min(self.limits.max_batch, -(-self.waiting // max(1, self._idle)))
        batch: list[_Job[Key, Found]] = []
        size = 0
        for number, job in list(self._jobs.items()):
            if batch and (job.key != batch[0].key or size + len(job.queries) > limit):
                continue
            batch.append(job)
            size += len(job.queries)
            self._leave(number)
            if size >= limit:
                break
        return batch

    async def _answer(self, batch: Sequence[_Job[Key, Found]]) -> None:
        """Give each job its part; where a search of several fails, each is searched alone, so that one query cannot
        fail its neighbours."""
        queries = [query for job in batch for query in job.queries]
        started = time.perf_counter()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, self.search, queries, batch[0].key)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, ConfigError | InputError):
                for job in batch:
                    if not job.future.done():
                        job.future.set_exception(error)
                return
            for job in batch:
                await self._answer([job])
            return
        seconds = time.perf_counter() - started
        self._seconds += 0.1 * (seconds / max(1, len(queries)) - self._seconds)
        self.on_batch(len(queries), seconds)
        start = 0
        for job in batch:
            if not job.future.done():
                job.future.set_result(self.part(found, start, start + len(job.queries)))
            start += len(job.queries)
