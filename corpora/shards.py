"""A shard is some files of one source, read, parsed and cleaned in a worker of its own: the unit that machines share.

`run` is a function of paths and options alone. It writes parts of documents (Parquet) with their drops, and a state
that names the next item, so that a shard which was stopped anywhere goes on after its last part and ends with the same
bytes. Before each item the worker notes which one it is, and the system ends a worker that takes more than its time
over one; `after_death` lets it be tried once more, then puts it among those that are skipped, with the reason, and the
shard goes on. An item has half of its time for each try, whatever is done with it, so it costs its limit and no more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sleuth.corpora import stages
from sleuth.corpora.documents import read_documents, write_documents
from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.files import write_file
from sleuth.corpora.pages import Page
from sleuth.corpora.read import contents, files, made
from sleuth.corpora.records import Document, Drop

PART = 1_000
"""Items of a part: what an interrupted shard does again is less than this."""
PART_CHARS = 64_000_000
"""Or so much text, whichever comes first."""
VERSION = 3
"""Goes up when the same input would become other documents."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one item may take."""

    seconds: int = 2
    """Of CPU, so that a busy machine changes nothing, over two tries: an item that takes more than half of it is ended,
    tried once more for as long, and left out."""
    memory_bytes: int = 2 << 30
    """Address space beyond what the worker had at the start of the shard."""


@dataclass(frozen=True, slots=True)
class ShardJob:
    """All that `run` needs; small, and the same wherever it runs."""

    folder: str
    """Of its parts and state; made by `run`."""
    source: str
    files: tuple[tuple[str, str], ...]
    """Path, and the name below its root that ids are made of."""
    stages: tuple[tuple[str, Mapping[str, Any]], ...]
    """Names of `stages.STAGES` that look at one document, in order, with options."""
    limits: Limits
    skip: tuple[tuple[int, int, bool, str], ...] = ()
    """Items that ended a worker: number of the file, of the item in it, whether it could not even be read (then the
    rest of the file is left out), and the reason."""
    doubted: tuple[tuple[int, int], ...] = ()
    """Items over which a worker ended once, by file and number: they are tried once more, for a machine that stood
    still for a moment, or had no memory left, looks like a hostile item, and no build may depend on that."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """How far a shard is; ``inputs == documents + drops``."""

    at: tuple[int, int] = (0, 0)
    """The next item: number of the file, and of the item in it."""
    parts: int = 0
    done: bool = False
    inputs: int = 0
    documents: int = 0
    drops: int = 0
    files: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    """UTF-8 bytes of the texts."""
    sums: tuple[str, ...] = ()
    """SHA-256 of each part's documents and drops."""


def plan(
    source: str, paths: Sequence[Path], chosen: Sequence[tuple[str, Mapping[str, Any]]], limits: Limits, work: Path,
    shard_bytes: int, shard_files: int,
) -> tuple[list[ShardJob], list[Drop]]:  # fmt: skip
    """Shards of all files below ``paths``, in order, and what cannot be one; raises `InputError` for a missing path.

    The folder of a shard is named by the files' names, sizes and times and by the stages: what changes is run anew.
    """
    if missing := [str(path) for path in paths if not path.exists()]:
        raise InputError(f"source {source!r}: no such file or folder: {', '.join(missing)}")
    drops: list[Drop] = []
    jobs: list[ShardJob] = []
    batch: list[tuple[str, str]] = []
    stamps: list[tuple[str, int, int]] = []
    named = [
        _folder_stamp(value) if (name, key) in stages.FOLDERS else _stamp(value)
        for name, options in chosen
        for key, value in options.items()
    ]

    def close() -> None:
        if batch:
            text = json.dumps([VERSION, source, stamps, list(chosen), named, asdict(limits)], sort_keys=True)
            name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
            jobs.append(ShardJob(str(work / name), source, tuple(batch), tuple(chosen), limits))
            batch.clear()
            stamps.clear()

    size = 0
    for path, below in files(paths, drops.append):
        found = path.stat()
        if batch and (size + found.st_size > shard_bytes or len(batch) >= shard_files):
            close()
            size = 0
        batch.append((str(path), below))
        stamps.append((below, found.st_size, found.st_mtime_ns))
        size += found.st_size
    close()
    return jobs, drops


def _stamp(option: object) -> object:
    """Sizes and times of the files that an option names, which decide as much as its value."""
    if isinstance(option, list | tuple):
        return [_stamp(part) for part in option]
    if isinstance(option, str) and (path := Path(option)).is_file():
        return [path.stat().st_size, path.stat().st_mtime_ns]
    return None


def _folder_stamp(option: str) -> object:
    """The same of a folder: all files in it."""
    found = sorted(path for path in Path(option).rglob("*") if path.is_file())
    return [[path.relative_to(option).as_posix(), _stamp(str(path))] for path in found]


def state_of(job: ShardJob) -> ShardState:
    """As last written; the start where nothing was. Raises `StoreError` for a damaged one."""
    path = Path(job.folder) / "STATE"
    if not path.exists():
        return ShardState()
    try:
        values = json.loads(path.read_bytes())
        return ShardState(**{**values, "at": tuple(values["at"]), "sums": tuple(values["sums"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path}: damaged, expected a shard's state: {error}; remove its folder to run it anew"
        ) from error


def run(job: ShardJob) -> ShardState:
    """Run a shard from where it stopped to its end; the parts lie in its folder. A full disk raises `StoreError`."""
    state = state_of(job)
    if state.done:
        return state
    folder = Path(job.folder)
    with kept(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _warm(job)
        with _limited(folder, job.limits) as guard:
            return _Run(job, folder, guard, state).run()


@contextlib.contextmanager
def kept(work: Path) -> Iterator[None]:
    """An error of the disk that holds ``work`` becomes a `StoreError` which says that nothing done is lost."""
    try:
        yield
    except OSError as error:
        where = error.filename or work
        raise StoreError(f"{where}: {error.strerror or error}; what was done is kept, run it again to go on") from error


def after_death(job: ShardJob, how: str) -> ShardJob:
    """The shard, to go on from its last part: with the item that ended its worker doubted, or without it where it was
    that already; raises `StoreError` where it was none of its items."""
    try:
        file, item, phase, name = json.loads((Path(job.folder) / "AT").read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{job.folder}: {how} before it met any document: {error}") from error
    entry = (file, item, phase == "read", f"{how} over this document (limits: {job.limits.seconds} s of CPU over two "
             f"tries, {job.limits.memory_bytes:,} bytes)")  # fmt: skip
    if (file, item) not in job.doubted:
        return replace(job, doubted=(*job.doubted, (file, item)))
    if any(known[:3] == entry[:3] for known in job.skip):
        raise StoreError(f"{job.folder}: {how} at {name!r} even though that is left out")
    return replace(job, skip=(*job.skip, entry))


@dataclass(slots=True)
class _Run:
    job: ShardJob
    folder: Path
    guard: Guard
    state: ShardState
    drops: list[Drop] = field(default_factory=list)
    skipping: bool = False
    """While what earlier parts hold is read over again."""

    def run(self) -> ShardState:
        items = self._items()
        while not self.state.done:
            documents: list[tuple[int, int, Document, float]] = []
            at, chars, done = (len(self.job.files), 0), 0, True
            for count, (n, number, item) in enumerate(items, start=1):
                if (document := self._made(n, number, item)) is not None:
                    documents.append((n, number, document, self.guard.left()))
                    chars += len(document.text)
                if count >= PART or chars >= PART_CHARS:
                    at, done = (n, number + 1), False
                    break
            self.guard.rest()
            inputs = len(documents) + len(self.drops)
            kept = list(stages.chain(self._noted(documents), self.job.stages, self.drops.append))
            self.guard.rest()
            self._write(kept, at, inputs, done)
        return self.state

    def _items(self) -> Iterator[tuple[int, int, Page | Document]]:
        """``(file, number in it, item)`` from the state on."""
        first_file, first_item = self.state.at
        for n in range(first_file, len(self.job.files)):
            name, below = self.job.files[n]
            self.skipping = n == first_file and first_item > 0
            found = contents(Path(name), below, self._drop)
            unreadable = {item: reason for file, item, rest, reason in self.job.skip if file == n and rest}
            for number in itertools.count():
                self.skipping = n == first_file and number < first_item
                self.guard.note(n, number, "read", f"{name}: item {number}", self.guard.seconds)
                if number in unreadable:
                    self._drop(Drop(f"{name}: from item {number} on", "read", unreadable[number]))
                    break
                item = next(found, None)
                if item is None:
                    break
                if not self.skipping:
                    yield n, number, item

    def _drop(self, drop: Drop) -> None:
        if not self.skipping:
            self.drops.append(drop)

    def _made(self, n: int, number: int, item: Page | Document) -> Document | None:
        for file, left_out, rest, reason in self.job.skip:
            if (file, left_out, rest) == (n, number, False):
                self.drops.append(Drop(item.id, "extract", reason))
                return None
        self.guard.note(n, number, "parse", item.id, self.guard.left())
        try:
            document = made(item, self.drops.append)
        except MemoryError:
            limit = self.job.limits.memory_bytes
            self.drops.append(Drop(item.id, "extract", f"needs more than {limit:,} bytes of memory"))
            return None
        if document is None or document.source not in ("", self.job.files[n][1]):
            return document
        return replace(document, source=self.job.source)

    def _noted(self, documents: Sequence[tuple[int, int, Document, float]]) -> Iterator[Document]:
        """For the stages; each document has there what its parsing left of its time."""
        for n, number, document, left in documents:
            self.guard.note(n, number, "parse", document.id, left)
            yield document

    def _write(self, documents: Sequence[Document], at: tuple[int, int], inputs: int, done: bool) -> None:
        """One more part, and the state that names it."""
        if inputs != len(documents) + len(self.drops):
            raise AssertionError(f"{inputs} inputs, but {len(documents)} documents and {len(self.drops)} drops")
        name = self.folder / f"{self.state.parts:05d}"
        lines = "".join(json.dumps(asdict(drop), ensure_ascii=False) + "\n" for drop in self.drops)
        write_file(name.with_suffix(".drops.jsonl"), lines.encode("utf-8", "backslashreplace"), sync=False)
        write_documents(name.with_suffix(".parquet"), documents)
        hasher = hashlib.sha256(lines.encode("utf-8", "backslashreplace"))
        hasher.update(name.with_suffix(".parquet").read_bytes())
        first, state = self.state.at[0], self.state
        self.state = ShardState(
            at=at, parts=state.parts + 1, done=done, inputs=state.inputs + inputs,
            documents=state.documents + len(documents), drops=state.drops + len(self.drops), files=at[0],
            bytes_in=state.bytes_in + sum(_size(path) for path, _ in self.job.files[first : at[0]]),
            bytes_out=state.bytes_out + sum(len(document.text.encode()) for document in documents),
            sums=(*state.sums, hasher.hexdigest()),
        )  # fmt: skip
        self.drops = []
        write_file(self.folder / "STATE", json.dumps(asdict(self.state)).encode())


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


@functools.lru_cache(maxsize=8)
def warm(chosen: str = "[]") -> None:
    """Load the libraries and models of pages and of stages before any item's time runs; once a process."""
    page = Page("warm", b"<html><body><p>A page that loads what all others need, once.</p></body></html>", ".html")
    document = made(page, lambda drop: None)
    list(stages.chain([document] if document else [], json.loads(chosen), lambda drop: None))


def _warm(job: ShardJob) -> None:
    warm(json.dumps(job.stages))


@dataclass(slots=True)
class Guard:
    """What a worker is at, on disk, and its time for it: a timer of the process's CPU that ends it by SIGPROF."""

    descriptor: int
    seconds: float
    """Of one try at an item."""

    def note(self, file: int, item: int, phase: str, name: str, seconds: float) -> None:
        """From here on the worker is at that item, and has ``seconds`` for it."""
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-3))
        data = json.dumps([file, item, phase, name[:500]]).encode()
        os.pwrite(self.descriptor, data.ljust(4096), 0)

    def left(self) -> float:
        return signal.getitimer(signal.ITIMER_PROF)[0]

    def rest(self) -> None:
        """What follows is at no item's cost."""
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def _limited(folder: Path, limits: Limits) -> Iterator[Guard]:
    """The limits hold inside; where they are passed, the system ends the process or memory is refused."""
    descriptor = os.open(folder / "AT", os.O_RDWR | os.O_CREAT)
    try:
        with capped(limits.memory_bytes):
            yield Guard(descriptor, limits.seconds / 2)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def capped(memory_bytes: int) -> Iterator[None]:
    """So much memory beyond what the process has, and no core of it, inside; the timer of its CPU is off afterwards."""
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)}
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, before[resource.RLIMIT_CORE][1]))
        resource.setrlimit(resource.RLIMIT_AS, (size + memory_bytes, before[resource.RLIMIT_AS][1]))
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        for kind, values in before.items():
            resource.setrlimit(kind, values)


def documents_of(job: ShardJob) -> Iterator[Document]:
    """What a finished shard holds, in order."""
    for n in range(state_of(job).parts):
        yield from read_documents(Path(job.folder) / f"{n:05d}.parquet")


def drops_of(job: ShardJob) -> Iterator[Drop]:
    for n in range(state_of(job).parts):
        with (Path(job.folder) / f"{n:05d}.drops.jsonl").open(encoding="utf-8") as lines:
            yield from (Drop(**json.loads(line)) for line in lines)
