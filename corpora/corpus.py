"""A corpus is what a recipe makes of its sources: shards in workers, stages over all of it in order, then the mix.

Contract: the parts depend on the recipe and the input alone, never on workers, engine or interruptions. What a shard
did is kept and used again while its files and stages are the same; the stages over the corpus run anew when any shard
changed. Every input is a document of the corpus or a drop with its source, stage and reason.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sleuth.corpora import mix, stages
from sleuth.corpora.account import Account
from sleuth.corpora.chunk import count_words
from sleuth.corpora.documents import read_documents, write_documents
from sleuth.corpora.errors import StoreError
from sleuth.corpora.files import locked, write_file
from sleuth.corpora.pool import Engine, run_all
from sleuth.corpora.recipe import Recipe, Source
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shards import (
    ShardJob,
    after_death,
    documents_of,
    drops_of,
    kept,
    plan,
    run,
    state_of,
)

Progress = Callable[[str, int, int | None], None]
PART = 2_000
"""Documents of a part of the corpus."""
PART_CHARS = 4_000_000
"""Or so much text, whichever comes first: what the driver holds at a time."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A finished corpus on disk."""

    folder: Path
    parts: int
    documents: int
    digest: str
    """SHA-256 over the parts and the choice of the mix; equal corpora have equal digests."""
    account: Account
    seconds: dict[str, float]
    """Wall-clock of shards, stages over the corpus, and mix; 0 for what was there already."""

    def __iter__(self) -> Iterator[Document]:
        """The documents that the mix chose, in order."""
        return (document for _, document in self.sourced())

    def sourced(self) -> Iterator[tuple[str, Document]]:
        """The same, with the source of each."""
        taken = np.load(self.folder / "taken.npy", allow_pickle=False)
        names = list(self.account.sources)
        number = 0
        for n in range(self.parts):
            for document in read_documents(_part(self.folder, n)):
                if taken[number]:
                    yield names[int(taken[number]) - 1], document
                number += 1


def make(
    recipe: Recipe, work: Path, workers: int = 0, engine: Engine = "local", progress: Progress | None = None,
    embedder: Callable[[str], Any] | None = None,
) -> Corpus:  # fmt: skip
    """The corpus of a recipe, made in ``work`` or found there; ``embedder`` opens one by name, for stages that need it.

    Raises `InputError` for a path that does not exist, `StoreError` where a worker ends over nothing that can be left
    out or the disk is full; run again, it goes on.
    """
    tell = progress or (lambda stage, done, total: None)
    with kept(work):
        _open(work)
        with locked(work / "LOCK"):
            return _made(recipe, work, workers, engine, tell, embedder)


def _made(
    recipe: Recipe, work: Path, workers: int, engine: Engine, tell: Progress, embedder: Callable[[str], Any] | None
) -> Corpus:
    started = time.monotonic()
    jobs, walked = _shards(recipe, work)
    _run_shards(jobs, workers, engine, tell)
    shards_s = time.monotonic() - started
    key = hashlib.sha256(json.dumps([
        [(job.source, state_of(job).sums) for job in jobs], recipe.corpus_stages,
        [asdict(source) | {"paths": ()} for source in recipe.sources], recipe.seed,
    ], sort_keys=True).encode()).hexdigest()[:24]  # fmt: skip
    folder = work / f"corpus-{key}"
    if not (folder / "CORPUS").exists():
        _Assembly(recipe, jobs, walked, work, folder, tell, embedder).run()
    return _opened(folder, {"shards": shards_s})


def _open(work: Path) -> None:
    """Make the work folder; raises `StoreError` for one that is something else, for parts of it are removed later."""
    if work.exists() and not (work.is_dir() and ((work / "LOCK").exists() or not any(work.iterdir()))):
        raise StoreError(f"{work}: expected an empty folder or the work of an earlier build, found something else")
    work.mkdir(parents=True, exist_ok=True)
    (work / "LOCK").touch()


def plan_shards(recipe: Recipe, work: Path) -> list[ShardJob]:
    """The shards of a recipe in order, for those that run them elsewhere, as an array of jobs does."""
    with kept(work):
        _open(work)
        return _shards(recipe, work)[0]


def run_here(job: ShardJob) -> None:
    """One shard in a worker of its own; what ends the worker is left out, with the reason."""
    for _ in run_all(run, [job], after_death, workers=1):
        pass


def _shards(recipe: Recipe, work: Path) -> tuple[list[ShardJob], dict[str, list[Drop]]]:
    """Shards of all sources in order, and by source what its folders hold that is no file to read."""
    jobs: list[ShardJob] = []
    walked: dict[str, list[Drop]] = {}
    for source in recipe.sources:
        paths = [Path(path) for path in source.paths]
        found, walked[source.name] = plan(source.name, paths, recipe.stages, recipe.limits, work / "shards",
                                          recipe.shard_bytes, recipe.shard_files)  # fmt: skip
        jobs += found
    return jobs, walked


def _run_shards(jobs: list[ShardJob], workers: int, engine: Engine, tell: Progress) -> None:
    waiting = [job for job in jobs if not state_of(job).done]
    done = len(jobs) - len(waiting)
    tell("shards", done, len(jobs))
    for _ in run_all(run, waiting, after_death, workers, engine) if waiting else ():
        done += 1
        tell("shards", done, len(jobs))


def _opened(folder: Path, seconds: dict[str, float]) -> Corpus:
    try:
        values = json.loads((folder / "CORPUS").read_bytes())
        account = Account.from_json(values["account"])
        return Corpus(folder, values["parts"], values["documents"], values["digest"], account,
                      seconds | values["seconds"])  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{folder / 'CORPUS'}: damaged: {error}; remove {folder} to make it anew") from error


def _part(folder: Path, n: int) -> Path:
    return folder / f"part-{n:05d}.parquet"


def _batch(documents: Iterator[tuple[str, Document]]) -> list[tuple[str, Document]]:
    """The next part's; none at the end."""
    batch: list[tuple[str, Document]] = []
    chars = 0
    for source, document in documents:
        batch.append((source, document))
        chars += len(document.text)
        if len(batch) >= PART or chars >= PART_CHARS:
            break
    return batch


@dataclass(slots=True)
class _Assembly:
    """The stages over the corpus, and the mix; a serial pass over the shards in order."""

    recipe: Recipe
    jobs: list[ShardJob]
    walked: dict[str, list[Drop]]
    work: Path
    folder: Path
    tell: Progress
    embedder: Callable[[str], Any] | None = None
    account: Account = field(default_factory=Account)
    passing: dict[str, list[str]] = field(default_factory=dict)
    """Source of each document that is inside the stages now, by id, which two may share."""

    def run(self) -> None:
        for old in self.work.glob("corpus-*"):
            shutil.rmtree(old)
        self.folder.mkdir(parents=True)
        started = time.monotonic()
        with (self.folder / "drops.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as self.log:
            self._count_shards()
            rows, sums = self._write_parts(self._staged())
            staged = time.monotonic()
            taken = self._mixed(rows)
        np.save(self.folder / "taken.npy", np.where(taken, rows[:, 0] + 1, 0).astype(np.uint16), allow_pickle=False)
        digest = hashlib.sha256("".join(sums).encode() + np.packbits(taken).tobytes()).hexdigest()
        state = {"parts": len(sums), "documents": int(taken.sum()), "digest": digest, "account": self.account.to_json(),
                 "seconds": {"corpus": staged - started, "mix": time.monotonic() - staged}}  # fmt: skip
        write_file(self.folder / "CORPUS", json.dumps(state, ensure_ascii=False).encode("utf-8", "backslashreplace"))

    log: TextIO = field(init=False, repr=False)

    def _drop(self, source: str, drop: Drop) -> None:
        self.account.drop(source, drop)
        self.log.write(json.dumps({"source": source, **asdict(drop)}, ensure_ascii=False) + "\n")

    def _count_shards(self) -> None:
        for source in self.recipe.sources:
            self.account.open(source.name)
            for drop in self.walked[source.name]:
                self.account.add(source.name, inputs=1)
                self._drop(source.name, drop)
        for job in self.jobs:
            state = state_of(job)
            self.account.add(job.source, inputs=state.inputs, files=len(job.files), bytes_in=state.bytes_in)
            for drop in drops_of(job):
                self._drop(job.source, drop)

    def _incoming(self) -> Iterator[tuple[str, Document]]:
        """Source and document of what the shards hold, in order."""
        licences = {source.name: source.licence for source in self.recipe.sources}
        for job in self.jobs:
            licence = licences[job.source]
            for document in documents_of(job):
                if licence and "licence" not in document.metadata:
                    document = replace(document, metadata={**document.metadata, "licence": licence})
                yield job.source, document

    def _entering(self) -> Iterator[Document]:
        """The same, noted as passing."""
        total = sum(state_of(job).documents for job in self.jobs)
        for done, (source, document) in enumerate(self._incoming(), start=1):
            self.passing.setdefault(document.id, []).append(source)
            if done % 1_000 == 0 or done == total:
                self.tell("corpus", done, total)
            yield document

    def _left(self, doc_id: str) -> str:
        """The source of a document that is out of the stages now."""
        sources = self.passing[doc_id]
        source = sources.pop(0)
        if not sources:
            del self.passing[doc_id]
        return source

    def _staged(self) -> Iterator[tuple[str, Document]]:
        """What the stages keep, with its source."""
        documents: Iterable[Document] = self._entering()
        for name, options in self.recipe.corpus_stages:
            work = self.folder / f"work-{name}"
            work.mkdir()
            context = stages.Corpus(lambda: (document for _, document in self._incoming()), work, self.embedder)
            stage = stages.factory(name)(corpus=context, **options)
            documents = stage(documents, lambda drop: self._drop(self._left(drop.id), drop))
        for document in documents:
            yield self._left(document.id), document
        for name, _ in self.recipe.corpus_stages:
            shutil.rmtree(self.folder / f"work-{name}")

    def _write_parts(self, documents: Iterator[tuple[str, Document]]) -> tuple[np.ndarray, list[str]]:
        """Rows (source, key, words) of the documents, and the checksum of each part."""
        order = {source.name: n for n, source in enumerate(self.recipe.sources)}
        rows: list[np.ndarray] = []
        sums: list[str] = []
        while batch := _batch(documents):
            path = _part(self.folder, len(sums))
            write_documents(path, [document for _, document in batch])
            with path.open("rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").hexdigest())
            values = [(order[s], mix.key_of(d.id, self.recipe.seed), count_words(d.text), len(d.text.encode()))
                      for s, d in batch]  # fmt: skip
            rows.append(np.array(values, np.uint64))
            del batch  # before the next is drawn
        return np.concatenate([np.zeros((0, 4), np.uint64), *rows]), sums

    def _mixed(self, rows: np.ndarray) -> np.ndarray:
        """(documents,) bool; those that are not taken are drops."""
        of, keys, words = rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64)
        sources = self.recipe.sources
        totals = {source.name: int(words[of == n].sum()) for n, source in enumerate(sources)}
        left = {}
        for n, source in enumerate(sources):
            first = mix.chosen(keys[of == n], words[of == n], np.inf, source.max_documents)
            left[source.name] = int(words[of == n][first].sum())
        wanted = mix.targets(left, sources)
        taken = np.zeros(len(rows), bool)
        for n, source in enumerate(sources):
            own = np.flatnonzero(of == n)
            if len(own):
                taken[own] = mix.chosen(keys[own], words[own], wanted[source.name], source.max_documents)
        for n, source in enumerate(sources):
            own = taken & (of == n)
            self.account.add(source.name, documents=int(own.sum()), words=int(words[own].sum()),
                             bytes_out=int(rows[own, 3].sum()))  # fmt: skip
            self.account.lengths(source.name, words[own])
        if not taken.all():
            self._record_rest(taken, of, wanted, totals)
        return taken

    def _record_rest(self, taken: np.ndarray, of: np.ndarray, wanted: dict[str, float], totals: dict[str, int]) -> None:
        number = 0
        for path in sorted(self.folder.glob("part-*.parquet")):
            for document in read_documents(path):
                if not taken[number]:
                    source: Source = self.recipe.sources[int(of[number])]
                    cap = f", at most {source.max_documents:,} documents" if source.max_documents else ""
                    reason = f"beyond the share of {source.name!r}: {wanted[source.name]:,.0f} of " \
                             f"{totals[source.name]:,} words{cap}"  # fmt: skip
                    self._drop(source.name, Drop(document.id, "mix", reason))
                number += 1
