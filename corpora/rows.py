"""A row is one document of a file that holds many: JSON lines (plain, gzip, zstd, tar), Parquet and Arrow.

Published shapes: BEIR ``{_id, title, text}``, FlashRAG ``{id, contents}`` (first line is the title), our own ``{id,
title, text, url, source, lang, date, metadata}``, arXiv's ``{id, title, abstract, ...}`` and Wikimedia Enterprise's
``{identifier, name, article_body, ...}``; further scalar fields become metadata, lists and objects are not kept. Rows
of tables (Parquet, Arrow, folders of Hugging Face datasets) that have no id are named ``<file>/<number>``. A row that
cannot be used is handed to ``drop`` with its file and line, and reading goes on.
"""

from __future__ import annotations

import datetime
import gzip
import io
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from sleuth.corpora.errors import InputError
from sleuth.corpora.exchange import arxiv
from sleuth.corpora.pages import Page
from sleuth.corpora.records import Document, Drop, Scalar
from sleuth.corpora.wiki import enterprise

MAX_LINE_BYTES = 64 << 20
_TEXT_FIELDS = {
    "title": ("title",),
    "url": ("url",),
    "source": ("source",),
    "lang": ("lang", "language"),
    "date": ("date",),
}
_USED = {"_id", "id", "text", "contents", "metadata", *(name for names in _TEXT_FIELDS.values() for name in names)}


def jsonl(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document | Page]:
    """Documents of a ``.jsonl``, ``.ndjson`` or ``.json`` file, its ``.gz`` or ``.zst``, in the order of its lines."""
    with _opened(path) as lines:
        yield from _lines(lines, path, str(path), source, drop)


def tarred(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document | Page]:
    """Documents of the ``.ndjson`` and ``.json`` files in a ``.tar.gz``, which is never unpacked on disk."""
    count = 0
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if not member.isfile() or not member.name.lower().endswith((".ndjson", ".jsonl", ".json")):
                    continue
                count += 1
                if (file := tar.extractfile(member)) is not None:
                    yield from _lines(file, path, f"{path}:{member.name}", source, drop)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        drop(Drop(str(path), "read", f"reading stopped after {count} files: {type(error).__name__}: {error}"))
        return
    if count == 0:
        drop(Drop(str(path), "read", "the archive holds no .ndjson or .json file"))


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if path.suffix.lower() == ".zst":
        import zstandard

        return io.BufferedReader(zstandard.open(path, "rb"), 1 << 16)
    return path.open("rb")


def _lines(
    lines: IO[bytes], path: Path, name: str, source: str, drop: Callable[[Drop], None]
) -> Iterator[Document | Page]:
    number = 0
    try:
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                drop(Drop(f"{name}:{number}", "read", f"line longer than {MAX_LINE_BYTES} bytes"))
                if not _skipped(lines):
                    drop(Drop(f"{name}:{number}", "read", "the line does not end: reading stopped"))
                    return
            elif line.strip():
                try:
                    yield shaped(_parse(line, number), source)
                except InputError as error:
                    drop(Drop(f"{name}:{number}", "read", str(error)))
    except Exception as error:
        if not isinstance(error, OSError | EOFError | zlib.error) and type(error).__name__ != "ZstdError":
            raise
        reason = f"reading stopped after line {number}: {type(error).__name__}: {error}"
        drop(Drop(f"{name}:{number + 1}", "read", reason))
    if number == 0:
        drop(Drop(str(path), "read", "the file is empty"))


def _skipped(lines: IO[bytes]) -> bool:
    """Reads on to the end of a line; False where it does not come within two more such lines: a bomb."""
    for _ in range(2):
        line = lines.readline(MAX_LINE_BYTES)
        if not line or line.endswith(b"\n"):
            return True
    return False


def parquet(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document | Page]:
    """Documents of a Parquet file, in the order of its rows."""
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(1024)

    yield from _table(batches(), path, source, drop)


def arrow(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document | Page]:
    """Documents of an Arrow file or stream, as folders of Hugging Face datasets hold them."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        with pa.memory_map(str(path)) as file:
            if file.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                file.seek(0)
                yield from pa.ipc.open_stream(file)

    yield from _table(batches(), path, source, drop)


def _table(batches: Iterator[Any], path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document | Page]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            for row in _rows(batch):
                number += 1
                try:
                    if isinstance(row, InputError):
                        raise row
                    if row.get("id") is None and row.get("_id") is None:
                        row = {**row, "id": f"{source}/{number}"}
                    yield shaped(row, source)
                except InputError as error:
                    drop(Drop(f"{path}:{number}", "read", str(error)))
    except (OSError, pa.ArrowException) as error:
        reason = f"reading stopped after row {number}: {type(error).__name__}: {error}"
        drop(Drop(f"{path}:{number + 1}", "read", reason))
        return
    if number == 0:
        drop(Drop(str(path), "read", "the file has no rows"))


def _rows(batch: Any) -> list[Any]:
    """Rows of a batch; an `InputError` in the place of one that Python has no values for."""
    try:
        return batch.to_pylist()
    except Exception as error:  # bytes that are no UTF-8, dates beyond the year 9999, time zones that are none
        if len(batch) > 1:
            return [row for n in range(len(batch)) for row in _rows(batch.slice(n, 1))]
        return [InputError(f"the row cannot be read: {type(error).__name__}: {error}")]


def shaped(row: Any, source: str) -> Document | Page:
    """What a parsed row holds, by its published shape; raises `InputError` naming the field that is wrong."""
    if isinstance(row, Mapping) and "text" not in row and "contents" not in row:
        if "abstract" in row and "categories" in row:
            return arxiv(row, source)
        if "article_body" in row and "identifier" in row:
            return enterprise(row, source)
    return document(row, source)


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
