"""Reading turns files and folders into documents; whatever does not become one becomes a `Drop` with its reason.

Order is deterministic (paths as given, folders sorted), so that ids and builds repeat. Ids of pages are the path below
the given folder, with the folder's name in front: the same folder gives the same ids wherever it stands. Links and
hidden entries inside a folder are not followed and are named as drops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sleuth.corpora.errors import InputError
from sleuth.corpora.pages import PAGES
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.rows import jsonl, parquet

MAX_PAGE_BYTES = 256 << 20
ROWS = {".jsonl": jsonl, ".ndjson": jsonl, ".jsonl.gz": jsonl, ".ndjson.gz": jsonl, ".parquet": parquet}
"""Reader of a file of many documents by its extension in lower case."""


def read(paths: Sequence[str | Path], drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Documents of all ``paths`` in order; raises `InputError` at once when one of them does not exist."""
    roots = [Path(path) for path in paths]
    if missing := [str(root) for root in roots if not root.exists()]:
        raise InputError(f"no such file or folder: {', '.join(missing)}")
    return _read(roots, drop)


def _read(roots: list[Path], drop: Callable[[Drop], None]) -> Iterator[Document]:
    names = [root.resolve().name for root in roots]
    for root, name in zip(roots, names, strict=True):
        prefix = name if names.count(name) == 1 else root.as_posix().strip("/")
        for path, below in _walk(root, prefix, drop):
            for document in _documents(path, below, drop):
                if (checked := _checked(document, path, drop)) is not None:
                    yield checked


def _walk(path: Path, below: str, drop: Callable[[Drop], None]) -> Iterator[tuple[Path, str]]:
    """``(file, its path below the given root)``, sorted."""
    try:
        if path.is_file():
            yield path, below
            return
        if not path.is_dir():
            drop(Drop(str(path), "read", "expected a file or a folder, found a special file"))
            return
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        drop(Drop(str(path), "read", f"cannot be read: {error.strerror or error}"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            drop(Drop(str(entry), "read", "hidden; give it as a path of its own to read it"))
        elif entry.is_symlink():
            drop(Drop(str(entry), "read", "a link; give its target as a path of its own to read it"))
        else:
            yield from _walk(entry, f"{below}/{entry.name}", drop)


def _documents(path: Path, below: str, drop: Callable[[Drop], None]) -> Iterator[Document]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    last = suffixes[-1] if suffixes else ""
    if (rows := ROWS.get("".join(suffixes)) or ROWS.get(last)) is not None:
        yield from rows(path, below, drop)
        return
    page = PAGES.get(last)
    if page is None:
        known = " ".join([*PAGES, *ROWS])
        drop(Drop(str(path), "read", f"unknown extension {last!r}; known: {known}"))
        return
    try:
        if (size := path.stat().st_size) > MAX_PAGE_BYTES:
            raise InputError(f"{size} bytes, more than the {MAX_PAGE_BYTES} that one page may have")
        if not (data := path.read_bytes()):
            raise InputError("the file is empty")
        yield page(below, data, below)
    except InputError as error:
        drop(Drop(str(path), "read", str(error)))
    except OSError as error:
        drop(Drop(str(path), "read", f"cannot be read: {error.strerror or error}"))


def _checked(document: Document, path: Path, drop: Callable[[Drop], None]) -> Document | None:
    """The document with only text that UTF-8 can write, or None and a drop."""
    if not document.text.strip():
        drop(Drop(document.id, "read", f"{path}: the text is empty"))
        return None
    try:
        "".join((document.id, document.text, document.title, document.url, *map(str, document.metadata))).encode()
        "".join(str(value) for value in document.metadata.values()).encode()
        return document
    except UnicodeEncodeError:
        pass
    try:  # two halves of one character, as some PDFs and JSON escapes have them
        joined = document.text.encode("utf-16", "surrogatepass").decode("utf-16")
        repaired = dataclasses.replace(document, text=joined)
        "".join((repaired.id, repaired.text, repaired.title, *map(str, repaired.metadata.values()))).encode()
        return repaired
    except UnicodeError:
        drop(Drop(repr(document.id), "read", f"{path}: holds half a surrogate pair, which is no character"))
        return None
