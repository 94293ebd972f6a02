"""Episodes on disk: append-only JSONL, one episode a line, the resolved config and the datastore's fingerprint in each.

A line is written with one write and flushed to the disk before `append` returns; a line that was cut by a crash is
named when it is read, and the others are still good.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sleuth.agents.records import Episode, episode_from_json, to_json
from sleuth.corpora.errors import InputError


def append(path: str | Path, episode: Episode) -> None:
    """Add one line; creates the file and its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(to_json(episode), ensure_ascii=False, allow_nan=False) + "\n"
    with open(path, "ab") as file:
        if file.tell() and not _ends_with_newline(path):
            file.write(b"\n")  # a crash cut the last line: keep it apart from this one
        file.write(line.encode("utf-8", errors="surrogatepass"))
        file.flush()
        os.fsync(file.fileno())


def holds(path: str | Path, episode: Episode) -> bool:
    """Whether the file has this very episode, whenever it was made."""
    same = episode_from_json(json.loads(json.dumps(to_json(episode))))
    stored = read(path, bad=lambda message: None) if Path(path).is_file() else ()
    return any(dataclasses.replace(old, timing=same.timing) == same for old in stored)


def read(path: str | Path, bad: Callable[[str], None] | None = None) -> Iterator[Episode]:
    """The episodes of a file in order. A line that is not an episode raises `InputError` naming it, or, with ``bad``,
    is handed there as a message and passed over."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such episode file")
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield episode_from_json(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                message = f"{path}:{number}: expected one episode as JSON; found {_what(line, error)}"
                if bad is None:
                    raise InputError(message) from None
                bad(message)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _what(line: bytes, error: Exception) -> str:
    shown = line[:60].decode("utf-8", errors="replace").strip()
    return f"{shown!r}{'…' if len(line) > 60 else ''} ({type(error).__name__}: {error})"
