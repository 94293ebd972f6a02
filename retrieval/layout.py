"""A store on disk: immutable segments under one atomically renamed pointer, every byte under a checksum.

    CURRENT                    version and SHA-256 of its manifest
    manifests/000012.json      pipeline, embedder and segments; the last two versions are kept
    segments/<n>-<hash>/       data files, and SUMS (written last) with the size and XXH3-128 of each
    deletes/<hash>             bitmaps of the documents that one commit deleted, of each segment that it met
    snapshots/<name>           pointers like CURRENT, to versions that are to be kept
    reports/000012.*           what each build did and dropped
    work/  LOCK                a build in progress; one builder at a time

The chain CURRENT -> manifest -> SUMS -> files means that a reader sees one committed version, whole, or an error that
names the file. XXH3 finds damage at the speed of memory; it is no defence against a forger, but no file of a store is
ever executed or unpickled, a name in one leads to no other folder, and what is no plain file is not waited on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Container
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sleuth.corpora import files
from sleuth.corpora.errors import StoreError
from sleuth.corpora.files import make_folder as make_folder  # part of this module's face, as the next two are
from sleuth.corpora.files import sync_folder, write_file

FORMAT = 1
"""Version of this layout; a store of another one is refused."""
FOLDERS = ("manifests", "segments", "reports", "work")
KEPT_MANIFESTS = 2
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What taking apart a file raises that holds something else than ours do."""


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment as the manifest names it."""

    id: str
    sums: str
    """SHA-256 of the segment's SUMS file."""
    documents: int
    passages: int
    fields: dict[str, str]
    """Metadata fields and their types: ``bool``, ``int``, ``float``, ``str``, and ``null`` where there is no value; in
    stores from before ``null`` that is ``str`` as well, so the field is text in the whole store."""
    deletes: str = ""
    """XXH3-128 of the bitmap of deleted documents (`retrieval.deletes`); empty where none is deleted."""
    deleted: int = 0
    """Documents of this segment that are deleted."""
    deleted_passages: int = 0
    deletes_file: str = ""
    """Of the folder ``deletes``, where the bitmap is; empty in stores from before commits had one file, where each
    bitmap has its own. Not written where it is empty, as the next is not where it is 0."""
    deletes_at: int = 0
    """Byte of that file where the bitmap begins."""

    @property
    def bitmaps(self) -> str:
        """Name of the file of the folder ``deletes`` that has the bitmap."""
        return self.deletes_file or f"{self.id}.{self.deletes}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One committed version of a store. Holds no times: the same build gives the same bytes."""

    version: int
    embedder: str
    revision: str
    dims: int
    max_words: int
    language: str
    segments: tuple[SegmentEntry, ...] = ()
    format: int = FORMAT
    pipeline: str = field(default="")
    """Hash over all that decides what a document becomes; equal pipelines can share a store."""
    title_weight: int = 1
    """Written only where it is not 1, so that stores from before it are what they were; the next one too."""
    analyzer: int = 1
    """Version of the language's analyzer (`retrieval.tokens`) that cut the terms; a search cuts a query's with it."""

    def encode(self) -> bytes:
        values = {name: value for name, value in asdict(self).items()
                  if name not in ("title_weight", "analyzer") or value != 1}  # fmt: skip
        values["segments"] = [
            {name: value for name, value in entry.items() if value or name not in ("deletes_file", "deletes_at")}
            for entry in values["segments"]
        ]
        return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def documents(self) -> int:
        return sum(segment.documents - segment.deleted for segment in self.segments)

    @property
    def passages(self) -> int:
        return sum(segment.passages - segment.deleted_passages for segment in self.segments)


def read_manifest(store: Path, snapshot: str = "") -> tuple[Manifest, str]:
    """The committed manifest, or that of a named snapshot, and its SHA-256, the fingerprint; raises `StoreError`."""
    if not store.is_dir():
        raise StoreError(f"{store}: no datastore here; expected a folder made by a build")
    pointer = store / "CURRENT"
    if snapshot:
        pointer = store / "snapshots" / snapshot
        if snapshot not in (names := snapshots(store)):
            raise StoreError(f"{store}: no snapshot {snapshot!r}; known: {', '.join(names) or 'none'}")
    try:
        version, expected = json.loads(regular(pointer).read_bytes())
        path = store / "manifests" / f"{int(version):06d}.json"
    except FileNotFoundError:
        raise StoreError(f"{store}: not a datastore; expected a file CURRENT in it") from None
    except (*MALFORMED, OSError) as error:
        raise StoreError(f"{pointer}: expected [version, sha256], found something else: {error}") from error
    try:
        data = regular(path).read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {pointer} names it, but it cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise StoreError(f"{path}: damaged; expected sha256 {expected}, found {found}")
    return _decode(path, data), found


def _decode(path: Path, data: bytes) -> Manifest:
    try:
        values: dict[str, Any] = json.loads(data)
        if values.get("format") != FORMAT:
            raise StoreError(f"{path}: expected store format {FORMAT}, found {values.get('format')!r}; build it anew")
        segments = tuple(SegmentEntry(**entry) for entry in values.pop("segments"))
        manifest = Manifest(**values, segments=segments)
        _check_types(manifest)
        for entry in segments:
            _check_types(entry)
            plain(entry.id)
            plain(entry.bitmaps)
            if not all(isinstance(kind, str) for kind in entry.fields.values()):
                raise TypeError(f"fields: expected names of types, found {entry.fields}")
        return manifest
    except MALFORMED as error:
        raise StoreError(f"{path}: expected a manifest of format {FORMAT}, found something else: {error}") from error


def _check_types(record: Manifest | SegmentEntry) -> None:
    """Raise `TypeError` where a field has another type than it is declared with, or a negative number."""
    for known in fields(record):
        value = getattr(record, known.name)
        if type(value).__name__ != str(known.type).partition("[")[0] or (isinstance(value, int) and value < 0):
            raise TypeError(f"{known.name}: expected {known.type}, found {value!r}")


def plain(name: object) -> str:
    """A name that can only be that of an entry of a folder; raises `ValueError` for another."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected the name of a folder or a file, found {name!r}")
    return name


def regular(path: Path) -> Path:
    """The path of a file; raises `OSError` for a pipe or a device, which reading could wait on for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "expected a plain file", str(path))
    return path


def snapshots(store: Path) -> list[str]:
    """Names of the snapshots, sorted."""
    folder = store / "snapshots"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def publish(store: Path, manifest: Manifest) -> None:
    """Make ``manifest`` the committed version: files and folders are synced before the pointer is renamed."""
    data = manifest.encode()
    write_file(store / "manifests" / f"{manifest.version:06d}.json", data)
    write_file(store / "CURRENT", json.dumps([manifest.version, hashlib.sha256(data).hexdigest()]).encode())


def write_sums(folder: Path) -> str:
    """Sync every file of a segment, write SUMS over them, and return its SHA-256."""
    sums = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sums[path.name] = [path.stat().st_size, checksum(path)]
    data = (json.dumps(sums, indent=1, sort_keys=True) + "\n").encode()
    write_file(folder / "SUMS", data)
    return hashlib.sha256(data).hexdigest()


def check_sums(folder: Path, expected: str, contents: bool | Container[str] = True) -> None:
    """Raise `StoreError` naming the file that is missing or damaged; ``contents=False`` compares sizes alone, names of
    files compare those."""
    path = folder / "SUMS"
    home = f"{folder}/"  # a text: joining paths is most of the cost where a store has many segments
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file() and not entry.is_dir():
                    raise StoreError(f"{entry.path}: expected a plain file")
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise StoreError(f"{path}: damaged; expected sha256 {expected}, found {found}")
        for name, (size, wanted) in json.loads(data).items():
            plain(name)
            if (actual := os.stat(home + name).st_size) != size:
                raise StoreError(f"{home}{name}: damaged; expected {size} bytes, found {actual}")
            read = contents if isinstance(contents, bool) else name in contents
            if read and (actual_sum := checksum(folder / name)) != wanted:
                raise StoreError(f"{home}{name}: damaged; expected xxh3 {wanted}, found {actual_sum}")
    except OSError as error:
        where = error.filename or folder
        raise StoreError(f"{where}: the manifest names it, but it cannot be read: {error.strerror}") from error
    except MALFORMED as error:
        raise StoreError(f"{path}: expected names with sizes and checksums, found something else: {error}") from error


def checksum(path: Path) -> str:
    """XXH3-128 of a plain file; raises `OSError`."""
    import mmap

    import xxhash

    with regular(path).open("rb") as file:
        if not path.stat().st_size:
            return xxhash.xxh3_128_hexdigest(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return xxhash.xxh3_128_hexdigest(data)


def create(store: Path, manifest: Manifest) -> None:
    """An empty store of version 0, there whole or not at all; raises `StoreError` where something else stands."""
    if store.exists() and (not store.is_dir() or any(store.iterdir())):
        raise StoreError(
            f"{store}: expected a datastore, an empty folder or nothing, found something else; left as it is"
        )
    store.parent.mkdir(parents=True, exist_ok=True)
    temporary = store.parent / f".{store.name}.new"
    shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed here
    try:
        for name in FOLDERS:
            (temporary / name).mkdir(parents=True)
        (temporary / "LOCK").touch()
        publish(temporary, manifest)
        temporary.replace(store)
        sync_folder(store.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def locked(store: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the store against other builders."""
    return files.locked(store / "LOCK")


def sweep(store: Path) -> None:
    """Remove what no kept manifest names: unfinished work, orphaned segments, older manifests. Under the lock only.

    Kept are the last `KEPT_MANIFESTS` versions and those of snapshots; a damaged snapshot ends the sweep, with an error
    and nothing removed.
    """
    for name in FOLDERS:
        (store / name).mkdir(exist_ok=True)  # copies by way of an object store or an archive lack what was empty
    current, _ = read_manifest(store)
    pinned = [read_manifest(store, name)[0] for name in snapshots(store)]
    kept = {*range(current.version - KEPT_MANIFESTS + 1, current.version + 1), *(found.version for found in pinned)}
    manifests = [current, *pinned]
    for path in sorted((store / "manifests").iterdir()):
        if path.name not in {f"{version:06d}.json" for version in kept}:
            path.unlink()
        elif path.name != f"{current.version:06d}.json":
            with contextlib.suppress(StoreError, OSError):
                manifests.append(_decode(path, regular(path).read_bytes()))
    segments = {entry.id for manifest in manifests for entry in manifest.segments}
    bitmaps = {entry.bitmaps for manifest in manifests for entry in manifest.segments}
    for folder in ("segments", "work"):
        for path in (store / folder).iterdir():
            if folder == "work" or path.name not in segments:
                shutil.rmtree(path, ignore_errors=True)
    if (store / "deletes").is_dir():
        for path in (store / "deletes").iterdir():
            if path.name not in bitmaps:
                path.unlink()
