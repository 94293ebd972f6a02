"""The structure of a text is its headings, tables and pieces of code, read back from light Markdown as spans.

Contract: `units` are in order, disjoint, trimmed, and hold every character that is not white space, as `sentences` do;
tables and code are one unit each. `sections` nest by heading level: each names its parent, so that a passage can be
shown within its part of the document, or widened to it.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sleuth.corpora.text import sentences

Kind = Literal["sentence", "heading", "table", "code"]
_BLOCK = re.compile(
    r"""(?P<code>^```[^\n]*\n)
      | (?P<table>(?:^[^\S\n]*\|[^\n]*\|[^\S\n]*(?:\n|\Z)){2,})
      | (?P<heading>^\#{1,6}[^\S\n]+[^\n]+$)""",
    re.VERBOSE | re.MULTILINE,
)
"""A table, a heading, or the line that opens code."""
_CODE_END = re.compile(r"^```[^\S\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a passage is made of."""

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with all that stands under it, further headings of a lower level included."""

    title: str
    level: int
    """1 to 6, as its number of ``#``."""
    start: int
    """First character of the heading."""
    end: int
    """One past the last character before the next heading of this level or a higher one."""
    parent: int | None
    """Index of the section around it; None at the top."""


def units(text: str) -> Iterator[Unit]:
    """Sentences, headings, tables and code of a text; code that nothing closes is sentences."""
    code_ends = [match.span() for match in _CODE_END.finditer(text)]  # once: looked for anew they would cost a square
    at = look = 0
    while match := _BLOCK.search(text, look):
        first, last = match.span()
        look = last
        if match["code"]:
            n = bisect.bisect_left(code_ends, (last, last))
            if n == len(code_ends):
                continue
            look = last = code_ends[n][1]
        yield from _sentences(text, at, first)
        block = text[first:last]
        start = first + len(block) - len(block.lstrip())
        yield Unit(match.lastgroup, start, first + len(block.rstrip()))  # type: ignore[arg-type]  # of the pattern
        at = last
    yield from _sentences(text, at, len(text))


def _sentences(text: str, start: int, end: int) -> Iterator[Unit]:
    for first, last in sentences(text[start:end]):
        yield Unit("sentence", start + first, start + last)


def sections(text: str) -> list[Section]:
    """The sections of a text in the order of their headings; a ``#`` within code is no heading."""
    found: list[Section] = []
    open_: list[int] = []
    for unit in units(text):
        if unit.kind != "heading":
            continue
        line = text[unit.start : unit.end]
        level = len(line) - len(line.lstrip("#"))
        _close(found, open_, level, text, unit.start)
        found.append(Section(line.strip("# \t"), level, unit.start, len(text), open_[-1] if open_ else None))
        open_.append(len(found) - 1)
    _close(found, open_, 1, text, len(text))
    return found


def _close(found: list[Section], open_: list[int], level: int, text: str, end: int) -> None:
    """The open sections of this level or below end before ``end``, trimmed."""
    while end and text[end - 1].isspace():
        end -= 1
    while open_ and found[open_[-1]].level >= level:
        at = open_.pop()
        found[at] = dataclasses.replace(found[at], end=end)


def path_at(found: list[Section], offset: int) -> tuple[Section, ...]:
    """The sections around a character, outermost first; empty before the first heading."""
    inner = next((n for n in range(len(found) - 1, -1, -1) if found[n].start <= offset < found[n].end), None)
    path: list[Section] = []
    while inner is not None:
        path.append(found[inner])
        inner = found[inner].parent
    return tuple(reversed(path))
