"""Reading turns files and folders into documents; whatever does not become one becomes a `Drop` with its reason.

Order is deterministic (paths as given, folders sorted), so that ids and builds repeat. Ids of pages are the path below
the given folder, with the folder's name in front: the same folder gives the same ids wherever it stands. Links and
hidden entries inside a folder are not followed and are named as drops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sleuth.corpora.archives import warc
from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import MAX_PAGE_BYTES, inflate
from sleuth.corpora.pages import PAGES, Page, parse
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.rows import arrow, jsonl, parquet, tarred
from sleuth.corpora.wiki import xml
from sleuth.corpora.zim import zim

DESCRIPTIONS = ("dataset_info.json", "state.json", "dataset_dict.json")
"""Files of a Hugging Face datasets folder that describe its data and hold none."""
ARCHIVES = ("warc", "wet", "wat", "arc")
ROWS: dict[str, Callable[[Path, str, Callable[[Drop], None]], Iterator[Page | Document]]] = {
    **{f".{name}{packed}": jsonl for name in ("jsonl", "ndjson", "json") for packed in ("", ".gz", ".zst")},
    ".tar.gz": tarred, ".parquet": parquet, ".arrow": arrow, ".zim": zim, ".xml": xml, ".xml.bz2": xml, ".xml.gz": xml,
    **{f".{name}{packed}": warc for name in ARCHIVES for packed in ("", ".gz", ".zst")},
}  # fmt: skip
"""Reader of a file of many documents by its extension in lower case."""


def read(paths: Sequence[str | Path], drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Documents of all ``paths`` in order; raises `InputError` at once when one of them does not exist."""
    found = items(paths, drop)
    return (document for item in found if (document := made(item, drop)) is not None)


def items(paths: Sequence[str | Path], drop: Callable[[Drop], None]) -> Iterator[Page | Document]:
    """What `read` reads, before pages are parsed: for callers that hand `made` to workers that can be killed."""
    roots = [Path(path) for path in paths]
    if missing := [str(root) for root in roots if not root.exists()]:
        raise InputError(f"no such file or folder: {', '.join(missing)}")
    return _items(roots, drop)


def made(item: Page | Document, drop: Callable[[Drop], None]) -> Document | None:
    """The document of an item, holding only text that UTF-8 can write, or None and a drop."""
    try:
        return _written(parse(item) if isinstance(item, Page) else item)
    except InputError as error:
        drop(Drop(_visible(item.id), "read", str(error)))
        return None


def _items(roots: list[Path], drop: Callable[[Drop], None]) -> Iterator[Page | Document]:
    for path, below in files(roots, drop):
        yield from contents(path, below, drop)


def files(roots: Sequence[Path], drop: Callable[[Drop], None]) -> Iterator[tuple[Path, str]]:
    """``(file, the name that ids are made of)`` of all ``roots``, in order."""
    names = [root.resolve().name for root in roots]
    for root, name in zip(roots, names, strict=True):
        for path, below in _walk(root, name if names.count(name) == 1 else root.as_posix().strip("/"), drop):
            if _visible(below) == below:
                yield path, below
            else:
                drop(Drop(_visible(str(path)), "read", "the name is not UTF-8, and ids are made of it; rename it"))


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
        elif entry.name in DESCRIPTIONS:
            continue
        elif entry.is_symlink():
            drop(Drop(str(entry), "read", "a link; give its target as a path of its own to read it"))
        else:
            yield from _walk(entry, f"{below}/{entry.name}", drop)


def contents(path: Path, below: str, drop: Callable[[Drop], None]) -> Iterator[Page | Document]:
    """The items of one file, as `files` names it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    last = suffixes[-1] if suffixes else ""
    packed = last == ".gz" and suffixes[0] in PAGES
    try:
        if (rows := ROWS.get("".join(suffixes)) or ROWS.get(last)) is not None:
            yield from rows(path, below, drop)
        elif last in PAGES or packed:
            if (size := path.stat().st_size) > MAX_PAGE_BYTES:
                raise InputError(f"{size:,} bytes, more than the {MAX_PAGE_BYTES:,} that one page may have")
            data = path.read_bytes()
            yield Page(below, inflate(data, "gzip") if packed else data, suffixes[0] if packed else last, below)
        else:
            known = " ".join([*PAGES, *ROWS])
            raise InputError(f"unknown extension {last!r}; known: {known}")
    except InputError as error:
        drop(Drop(str(path), "read", str(error)))
    except OSError as error:
        drop(Drop(str(path), "read", f"cannot be read: {error.strerror or error}"))


def _written(document: Document) -> Document:
    """Raises `InputError` for a text that is empty or holds half a character; two halves are joined."""
    if not document.text.strip():
        raise InputError("the text is empty")
    named = (document.id, document.title, document.url, document.source, document.lang, document.date)
    parts = (*named, *map(str, document.metadata), *map(str, document.metadata.values()))
    try:
        "".join(parts).encode()
        document.text.encode()
        return document
    except UnicodeEncodeError:
        pass
    try:  # two halves of one character, as some PDFs and JSON escapes have them
        "".join(parts).encode()
        return dataclasses.replace(document, text=document.text.encode("utf-16", "surrogatepass").decode("utf-16"))
    except UnicodeError as error:
        raise InputError("holds half a surrogate pair, which is no character") from error


def _visible(name: str) -> str:
    """A name that can be written: as it is, or with its halves of characters escaped."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return repr(name)
