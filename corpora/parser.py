"""A parser is a process that pages pass through one by one: what a hostile page can cost is that process and its time.

Contract: what `read` gives, in its order, but that a page which passes its limits in two tries, or ends the process, is
a `Drop` that says how. Rows and the members of archives are read in the process of the caller, within `limits`. The
process is begun at the first page, by importing the caller's main module, as Python's own process pools do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import StoreError
from sleuth.corpora.pages import Page
from sleuth.corpora.pool import bound_to, how_it_ended
from sleuth.corpora.read import items, made
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shards import Limits, capped, warm

LIMITS = Limits(seconds=240, memory_bytes=4 << 30)
"""Of a page where nobody sets others: far above what a sound one takes, a book of a thousand pages too."""


def read(paths: Sequence[str | Path], drop: Callable[[Drop], None], limits: Limits) -> Iterator[Document]:
    """Documents of all ``paths`` in order; raises `InputError` at once when one of them does not exist."""
    return _through(items(paths, drop), drop, limits)


def _through(found: Iterator[Page | Document], drop: Callable[[Drop], None], limits: Limits) -> Iterator[Document]:
    pool: Any = None
    try:
        for item in found:
            if isinstance(item, Page):
                pool = pool or _begun()
                document, drops = _tried(pool, item, limits)
                for lost in drops:
                    drop(lost)
            else:
                document = made(item, drop)
            if document is not None:
                yield document
    except BrokenProcessPool as error:
        raise StoreError("the process that parses pages was killed between two; run it again to go on") from error
    finally:
        if pool is not None:
            pool.stop()
            pool.join()


def _begun() -> Any:
    """A pool of one worker, which has loaded what parsing needs."""
    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(1, context=context, initializer=bound_to, initargs=(os.getpid(),))
    try:
        pool.schedule(warm).result()
    except (ProcessExpired, BrokenProcessPool) as error:
        pool.stop()
        pool.join()
        raise StoreError(
            "the process that parses pages does not start; a program that builds with limits needs its code below "
            '`if __name__ == "__main__":`'
        ) from error
    return pool


def _tried(pool: Any, page: Page, limits: Limits) -> tuple[Document | None, list[Drop]]:
    """The page in the worker; once more where that died over it, for a machine without memory looks like the page."""
    from pebble import ProcessExpired

    how = ""
    for _ in range(2):
        try:
            found: tuple[Document | None, list[Drop]] = pool.schedule(_parsed, args=(page, limits)).result()
            return found
        except ProcessExpired as error:
            how = how_it_ended(error.exitcode)
    return None, [Drop(page.id, "read", f"{how} over this document (limits: {limits.seconds} s of CPU over two tries, "
                                        f"{limits.memory_bytes:,} bytes)")]  # fmt: skip


def _parsed(page: Page, limits: Limits) -> tuple[Document | None, list[Drop]]:
    """In the worker: the document, or why there is none."""
    drops: list[Drop] = []
    with capped(limits.memory_bytes):
        signal.setitimer(signal.ITIMER_PROF, limits.seconds / 2)
        try:
            return made(page, drops.append), drops
        except MemoryError:
            return None, [Drop(page.id, "read", f"needs more than {limits.memory_bytes:,} bytes of memory")]
