"""A row is one document of a file that holds many: JSONL (plain or gzip) and Parquet, in any of three published shapes.

BEIR ``{_id, title, text}``, FlashRAG ``{id, contents}`` (first line is the title) and our own ``{id, title, text, url,
source, lang, date, metadata}``; further scalar fields become metadata, lists and objects are not kept. A row that
cannot be used is handed to ``drop`` with its file and line, and reading goes on.
"""

from __future__ import annotations

import datetime
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document, Drop, Scalar

MAX_LINE_BYTES = 64 << 20
_TEXT_FIELDS = {
    "title": ("title",),
    "url": ("url",),
    "source": ("source",),
    "lang": ("lang", "language"),
    "date": ("date",),
}
_USED = {"_id", "id", "text", "contents", "metadata", *(name for names in _TEXT_FIELDS.values() for name in names)}


def jsonl(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Documents of a ``.jsonl``, ``.ndjson`` file or its ``.gz``, in the order of its lines."""
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    drop(Drop(f"{path}:{number}", "read", f"line longer than {MAX_LINE_BYTES} bytes"))
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(MAX_LINE_BYTES)
                elif line.strip():
                    try:
                        yield document(_parse(line, number), source)
                    except InputError as error:
                        drop(Drop(f"{path}:{number}", "read", str(error)))
    except (OSError, EOFError, zlib.error) as error:
        drop(
            Drop(
                f"{path}:{number + 1}", "read", f"reading stopped after line {number}: {type(error).__name__}: {error}"
            )
        )
    if number == 0:
        drop(Drop(str(path), "read", "the file is empty"))


def parquet(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Documents of a Parquet file, in the order of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield document(row, source)
                    except InputError as error:
                        drop(Drop(f"{path}:{number}", "read", str(error)))
    except (OSError, pa.ArrowException) as error:
        drop(
            Drop(f"{path}:{number + 1}", "read", f"reading stopped after row {number}: {type(error).__name__}: {error}")
        )
        return
    if number == 0:
        drop(Drop(str(path), "read", "the file has no rows"))


def _parse(line: bytes, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8, found byte 0x{line[error.start]:02x} at position {error.start}") from error
    except RecursionError as error:
        raise InputError("JSON nested too deeply") from error
    except ValueError as error:
        raise InputError(f"expected a JSON object, found {_shown(line)}: {error}") from error


def document(row: Any, source: str) -> Document:
    """The document of one parsed row; raises `InputError` naming the field that is missing or of the wrong type."""
    if not isinstance(row, Mapping):
        raise InputError(f"expected a JSON object, found {type(row).__name__}")
    if "contents" in row and "text" not in row:
        head, newline, rest = _string(row, "contents").partition("\n")
        title, text = (head.strip().strip('"'), rest) if newline else ("", head)
    else:
        title, text = "", _string(row, "text")
    found = {field: _first_scalar(row, names) for field, names in _TEXT_FIELDS.items()}
    nested = row.get("metadata")
    if nested is not None and not isinstance(nested, Mapping):
        raise InputError(f"field 'metadata': expected an object, found {type(nested).__name__}")
    fields = {**(nested or {}), **{key: value for key, value in row.items() if key not in _USED}}
    found["title"] = found["title"] or title
    found["source"] = found["source"] or source
    return Document(id=_identity(row), text=text.strip().lstrip("\ufeff"), metadata=_scalars(fields), **found)


def _identity(row: Mapping[str, Any]) -> str:
    for name in ("id", "_id"):
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise InputError(f"field {name!r}: expected a string or an integer that is not empty, found {value!r:.60}")
    raise InputError(f"field 'id' (or '_id') is missing; found fields {_names(row)}")


def _string(row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        raise InputError(f"field 'text' (or 'contents') is missing; found fields {_names(row)}")
    if not isinstance(row[field], str):
        raise InputError(f"field {field!r}: expected a string, found {type(row[field]).__name__}")
    return row[field]


def _first_scalar(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, list | Mapping):
            return value.isoformat() if isinstance(value, datetime.date) else str(value).strip()
    return ""


def _scalars(fields: Mapping[Any, Any]) -> dict[str, Scalar]:
    kept: dict[str, Scalar] = {}
    for key, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            kept[str(key)] = None
        elif value is None or isinstance(value, str | int | float | bool):
            kept[str(key)] = value
        elif isinstance(value, datetime.date):
            kept[str(key)] = value.isoformat()
    return kept


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(row)[:12]) or "none"


def _shown(line: bytes) -> str:
    return repr(line[:40].decode("utf-8", "replace"))
