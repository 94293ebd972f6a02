"""A tool is a typed async function that a role may call; its JSON schema comes from its signature.

`search_tool` merges the queries of all episodes that are waiting at the same moment into one batched search.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sleuth.agents.records import JsonSchema
from sleuth.corpora.errors import InputError, StoreError
from sleuth.retrieval.records import Filter, Hit, Retriever

Result = TypeVar("Result")
LINGER_S = 1.0
"""At the end of the process, for searches that nobody waits for any more: one that is still in torch would abort it."""
_AT_ONCE = threading.BoundedSemaphore(8)
"""Searches that run beside one another; more would slow all of them."""
_searching: set[threading.Thread] = set()


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    """First line of the function's docstring."""
    schema: JsonSchema
    """Of the arguments, as one JSON object."""
    run: Callable[..., Awaitable[Any]]

    async def __call__(self, **arguments: Any) -> Any:
        unknown = set(arguments) - set(self.schema["properties"])
        missing = set(self.schema.get("required", ())) - set(arguments)
        if unknown or missing:
            known = ", ".join(self.schema["properties"])
            raise InputError(f"tool {self.name} takes {known}; unknown {sorted(unknown)}, missing {sorted(missing)}")
        return await self.run(**arguments)


def tool(run: Callable[..., Awaitable[Any]]) -> Tool:
    """The tool that a typed async function is; every parameter needs an annotation."""
    from pydantic import create_model

    parameters = inspect.signature(run, eval_str=True).parameters
    fields: dict[str, Any] = {
        name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default)
        for name, p in parameters.items()
    }
    schema = create_model(run.__name__, **fields).model_json_schema()
    description = (inspect.getdoc(run) or run.__name__).splitlines()[0]
    return Tool(run.__name__, description, {**schema, "required": schema.get("required", [])}, run)


class Found(list[Hit]):
    """Hits of one query, and what they were not looked for in: `retrieval.sharded.Hits` for one of its queries."""

    def __init__(self, hits: Iterable[Hit], missing: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(hits)
        self.missing = tuple(f"{what}: {why}" for what, why in missing)


def search_tool(retriever: Retriever, where: Filter | None = None, fingerprint: str = "") -> Tool:
    """The ``search`` tool over a retriever; what ``where`` leaves out no query can reach.

    With a ``fingerprint``, hits of another version raise `StoreError`: they would be cited as this one's.
    Queries that arrive while the event loop is busy with other episodes are answered by one ``Retriever.search`` per k,
    which gets each query once, however many episodes ask it (the rollouts of a group often do).
    """
    waiting: dict[int, list[tuple[str, asyncio.Future[Found]]]] = {}
    flushes: set[asyncio.Task[None]] = set()

    def looked_up(queries: list[str], k: int) -> list[list[Hit]]:
        found = retriever.search(queries, k, where)
        if fingerprint and (now := retriever.fingerprint) != fingerprint:
            changed = f"from version {fingerprint[:12]} to {now[:12]}"
            raise StoreError(f"the store changed {changed} during the run; ask again")
        return found

    async def flush(k: int) -> None:
        await asyncio.sleep(0.002)  # two milliseconds: long against a loop turn, short against a search
        batch = waiting.pop(k)
        queries = list(dict.fromkeys(query for query, _ in batch))
        try:
            found = await _apart(functools.partial(looked_up, queries, k))
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        missing = getattr(found, "missing", ())
        hits = dict(zip(queries, found, strict=True))
        for query, future in batch:
            if not future.done():
                future.set_result(Found(hits[query], missing))

    async def search(query: str, k: int = 5) -> Found:
        """Find the passages of the datastore that answer a query, best first."""
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        first = k not in waiting
        waiting.setdefault(k, []).append((query, future))
        if first:
            task = asyncio.create_task(flush(k))
            flushes.add(task)
            task.add_done_callback(flushes.discard)
        return await future

    return tool(search)


async def _apart(work: Callable[[], Result]) -> Result:
    """What ``work`` gives, from a daemon thread of its own: a search that hangs holds up neither the end of the event
    loop nor that of the process, as one in an executor would."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            with _AT_ONCE:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        finally:
            _searching.discard(thread)

    thread = threading.Thread(target=run, daemon=True, name="search")
    _searching.add(thread)
    thread.start()
    return await asyncio.wrap_future(future)


@atexit.register
def _linger() -> None:
    ends = time.monotonic() + LINGER_S
    for thread in list(_searching):
        thread.join(max(0.0, ends - time.monotonic()))
