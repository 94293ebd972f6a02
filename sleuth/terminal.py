"""A terminal is two streams: results on stdout, everything about how they come to be on stderr.

Colours and moving bars appear only where a person looks (a terminal, without NO_COLOR); ``--json`` turns stdout into
NDJSON, one object a line. Text from pages and policies is shown through `plain`, so that it can move no cursor.
"""

from __future__ import annotations

import codecs
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
"""Columns where nobody told us: a pipe or a file."""
QUIET_S = 5.0
"""Without a terminal a bar becomes one line every so many seconds."""
_CONTROLS = dict.fromkeys([*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F)])


def plain(text: str) -> str:
    """Text without control characters and direction overrides; tabs and line breaks stay."""
    return text.translate(_CONTROLS)


@functools.cache
def _console(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def out() -> Console:
    """Where results go."""
    return _console(False)


def err() -> Console:
    """Where progress, traces and errors go."""
    return _console(True)


def say(line: str) -> None:
    """One line of progress."""
    err().print(plain(line), style="dim")


def emit(record: Mapping[str, Any]) -> None:
    """One NDJSON line on stdout; half a character, as names of files may hold, is escaped.

    So is all that is not ASCII where stdout is not UTF-8: of other escapes not all are JSON's.
    """
    utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    line = json.dumps(record, ensure_ascii=not utf8, default=str)
    sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "", raw: bool = False) -> None:
    """A table on stdout; numbers stand right, and ``raw`` leaves them as they are: some are years."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [tuple(row) for row in rows]
    shown = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        shown.add_column(Text(plain(name)), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(plain(_cell(value, raw))) for value in row))
    out().print(shown)


def _cell(value: Any, raw: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if raw:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """``tell(stage, done, total)`` for any number of stages: bars on a terminal, a line now and then elsewhere."""
    if not err().is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=err(), transient=True) as bars:

        def tell(stage: str, done: int, total: int | None = None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(plain(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tell


def _lines() -> Callable[[str, int, int | None], None]:
    last: dict[str, float] = {}
    ended: set[str] = set()

    def tell(stage: str, done: int, total: int | None = None) -> None:
        if stage in ended:
            return
        now, finished = time.monotonic(), total is not None and done >= total
        if finished:
            ended.add(stage)
        if finished or now - last.setdefault(stage, now) >= QUIET_S:
            last[stage] = now
            say(f"{stage}: {done:,}" + (f" of {total:,}" if total is not None else ""))

    return tell
