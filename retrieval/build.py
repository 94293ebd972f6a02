"""Building reads documents and commits them to a store, a segment at a time; the report accounts for every input.

A build that stops, for whatever reason, leaves the last committed version; run again, it skips what is committed and
goes on. Running it on more input adds segments; its cost is that of the input, for what is stored is looked up
by its keys and not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

from sleuth.corpora import parser
from sleuth.corpora.dedup import digest
from sleuth.corpora.documents import write_documents
from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.pool import Engine, run_all
from sleuth.corpora.read import read
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shards import Limits
from sleuth.retrieval import deletes, job, layout, merge
from sleuth.retrieval.embed import Embedder, embedder
from sleuth.retrieval.index import covered
from sleuth.retrieval.job import Made, SegmentJob
from sleuth.retrieval.known import Added, Known, Replaced
from sleuth.retrieval.layout import Manifest, SegmentEntry
from sleuth.retrieval.tokens import Analyzer

Progress = Callable[[str, int, int | None], None]
"""``progress(stage, done, total)``: stages ``read`` (documents), ``embed`` (passages of a segment), ``commit``
(documents in the store); total is None where it is not known."""
BLOCK = 256
"""Documents looked up at a time among those that are stored."""
HELD_BYTES = 1 << 20
"""Of documents that `Known` holds back, in memory; more of them lie in the store's folder ``work``."""
WHOLE = {"max_words": (1, 10**9), "segment_documents": (1, 10**9), "title_weight": (0, 20)}
"""Whole numbers of a spec, with the least and the most that each can be."""
_PASSAGE_ID = re.compile(r"#\d+\Z")


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """What decides the content of a store."""

    embedder: str = "minilm"
    """``minilm`` or a sentence-transformers id or folder."""
    max_words: int = 200
    """Budget of a passage, fit to the 256 tokens that MiniLM reads."""
    language: str = "english"
    """Snowball stemmer for lexical search, or ``none``."""
    title_weight: int = 3
    """What a word of the title counts for in lexical search, beside 1 for one of the text (BM25F, `job.lexical_text`);
    0 leaves titles out."""
    segment_documents: int = 2_000
    """Documents committed at a time: what an interrupted build can lose is less than this."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did; ``inputs == indexed + duplicates + rejected``, always."""

    store: str
    fingerprint: str
    inputs: int
    """Documents, and files or rows that did not become one."""
    indexed: int
    """Inputs that are in the store now."""
    added: int
    """Those of the indexed that this build added; the others were there before."""
    updated: int
    """Those of the indexed that took the place of an older text of the same id."""
    duplicates: int
    rejected: int
    documents: int
    """In the store, with those of earlier builds."""
    passages: int
    seconds: dict[str, float]
    """Wall-clock per stage: read, dedup, chunk, embed, bm25, merge, write, total."""
    peak_bytes: int
    """Largest resident memory of the process so far."""
    drops: str
    """JSONL file of the duplicates and the rejected: id, stage, reason."""


def build(
    inputs: Sequence[str | Path] | Iterable[Document],
    out: str | Path,
    spec: BuildSpec | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    update: bool = False,
    workers: int = 0,
    engine: Engine = "local",
    limits: Limits | None = None,
) -> BuildReport:
    """Add all ``inputs`` (paths, or documents) to the store at ``out``, making it where there is none.

    With ``update`` a document takes the place of a stored one with its id and another text; without, it is rejected.
    With ``workers`` that many processes embed and index segments beside one another, to the same bytes; 0 does all in
    this process. With the engine ``ray`` they are tasks of a cluster, whose machines must see the store's folder. With
    ``limits`` pages are parsed in a process of their own (`corpora.parser`), which no page can hold up or bring down.
    Raises `InputError` for a path that does not exist before anything is written, and `StoreError` where ``out`` is
    something else, is being built, or was built with another spec.
    """
    return _Build(
        Path(out), spec or BuildSpec(), progress or (lambda stage, done, total: None), device, update, workers, engine,
        limits,
    ).run(inputs)  # fmt: skip


def build_once(
    inputs: Sequence[str | Path] | Iterable[Document],
    out: str | Path,
    spec: BuildSpec | None = None,
    progress: Progress | None = None,
) -> Path:
    """``out``, made of all ``inputs`` where it is not there yet: until it is whole it has ``.part`` behind its name.

    So what finds ``out`` need not look whether an interrupted build left half of it, and one goes on where it was.
    """
    out = Path(out)
    if not out.exists():
        part = out.with_name(f"{out.name}.part")
        build(inputs, part, spec, progress)
        part.rename(out)
    return out


@dataclass(frozen=True, slots=True)
class _Batch:
    """Documents of a segment to be, and the stored ones that they take the place of."""

    documents: list[Document]
    digests: list[bytes]
    replaced: Replaced


@dataclass(slots=True)
class _Build:
    out: Path
    spec: BuildSpec
    progress: Progress
    device: str
    update: bool = False
    workers: int = 0
    engine: Engine = "local"
    limits: Limits | None = None
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("read", "kept", "added", "dedup", "rejected"), 0)
    )
    seconds: dict[str, float] = field(default_factory=dict)
    log: TextIO = field(default=sys.stderr, repr=False)
    known: Known = field(init=False)
    indexed: frozenset[str] = frozenset()
    """Segments that an index covers: they are not merged."""

    def __post_init__(self) -> None:
        self.known = Known(self.out, self.update)

    def run(self, inputs: Sequence[str | Path] | Iterable[Document]) -> BuildReport:
        started = time.monotonic()
        documents = self._documents(inputs)
        model = embedder(self.spec.embedder, self.device)
        analyzer = Analyzer(self.spec.language)  # an unknown language is refused before anything is written
        for name, (least, most) in WHOLE.items():
            value = getattr(self.spec, name)
            if type(value) is not int or not least <= value <= most:  # a recipe may hold anything
                raise InputError(f"build spec: expected a {name} of {least} to {most:,}, found {value!r}")
        fresh = self._manifest(model, analyzer)
        try:
            if not (self.out / "CURRENT").is_file():
                layout.create(self.out, fresh)
            with layout.locked(self.out):
                manifest, log_path = self._added(documents, fresh, model)
                return self._report(manifest, log_path, time.monotonic() - started)
        except OSError as error:
            raise StoreError(
                f"{error.filename or self.out}: {error.strerror or error}; what was committed before is kept, "
                "run the build again to go on"
            ) from error

    def _added(self, documents: Iterator[Document], fresh: Manifest, model: Embedder) -> tuple[Manifest, Path]:
        """Commit all new documents; the last manifest, and the log of drops."""
        manifest = self._resumed(fresh)
        layout.sweep(self.out)
        log_path = self.out / "reports" / ".drops.tmp"
        with (
            log_path.open("w", encoding="utf-8", errors="backslashreplace") as self.log,
            tempfile.SpooledTemporaryFile(HELD_BYTES, dir=str(self.out / "work")) as self.known.aside,
        ):
            for batch, folder, made in self._segments(self._new(documents), model):
                manifest = self._commit(batch, folder, made, manifest)
            if replaced := self.known.draw_replaced():
                manifest = self._publish(manifest, replaced)
        layout.sweep(self.out)
        return manifest, log_path

    def _documents(self, inputs: Sequence[str | Path] | Iterable[Document]) -> Iterator[Document]:
        if isinstance(inputs, str | Path):
            raise InputError("build: expected a list of paths or documents, found one path")
        if isinstance(inputs, Sequence) and all(isinstance(item, str | Path) for item in inputs):
            paths = [Path(item) for item in inputs if isinstance(item, str | Path)]
            return read(paths, self._drop) if self.limits is None else parser.read(paths, self._drop, self.limits)
        return map(_as_document, inputs)

    def _manifest(self, model: Embedder, analyzer: Analyzer) -> Manifest:
        """Version 0 of a store of this spec."""
        spec = self.spec
        found = Manifest(
            0, model.name, model.revision, model.dims, spec.max_words, spec.language, title_weight=spec.title_weight,
            analyzer=analyzer.version,
        )  # fmt: skip
        return replace(found, pipeline=hashlib.sha256(found.encode()).hexdigest()[:16])

    def _resumed(self, fresh: Manifest) -> Manifest:
        """The committed manifest of a store of the same spec, the keys of its documents opened."""
        current, _ = layout.read_manifest(self.out)
        if current.pipeline != fresh.pipeline:
            names = ("embedder", "revision", "dims", "max_words", "language", "title_weight", "analyzer")
            theirs, ours = ({name: getattr(m, name) for name in names} for m in (current, fresh))
            raise StoreError(f"{self.out}: built with {theirs}, but this build has {ours}; use another folder")
        self.known.open(current)
        self.indexed = covered(self.out)
        return current

    def _new(self, documents: Iterator[Document]) -> Iterator[Added]:
        """Documents to be added; all others are counted."""
        while block := self._block(documents):
            with self._timed("dedup"):
                found = [digest(document) for document in block]
                by_id, by_digest = self.known.places([document.id for document in block], found)
            for n, (document, key) in enumerate(zip(block, found, strict=True)):
                self.counts["read"] += 1
                self.progress("read", self.counts["read"], None)
                with self._timed("dedup"):
                    if self.known.is_kept(key, by_id.get(n)):
                        self.counts["kept"] += 1
                        continue
                    if (drop := _unusable(document)) is None:
                        added, drops = self.known.judged(document, key, by_id.get(n), by_digest.get(n))
                    else:
                        added, drops = [], [drop]
                for drop in drops:
                    self._drop(drop, read=False)
                if added:
                    yield added
        for drop in self.known.left():
            self._drop(drop, read=False)

    def _block(self, documents: Iterator[Document]) -> list[Document]:
        with self._timed("read"):
            return list(islice(documents, BLOCK))

    def _drop(self, drop: Drop, read: bool = True) -> None:
        self.counts["read"] += read
        duplicate = drop.stage == "dedup" and drop.reason.startswith("duplicate of")
        self.counts["dedup" if duplicate else "rejected"] += 1
        self.log.write(json.dumps(asdict(drop), ensure_ascii=False) + "\n")

    def _segments(self, new: Iterator[Added], model: Embedder) -> Iterator[tuple[_Batch, Path, Made]]:
        """Segments of the new documents in order, each in a folder of its own below ``work``."""
        if not self.workers:
            analyzer = Analyzer(self.spec.language)
            for batch in self._batches(new):
                folder = self.out / "work" / "segment"
                folder.mkdir()
                made = job.write(folder, batch.documents, batch.digests, self.spec.max_words, model, analyzer,
                                 self.spec.title_weight,
                                 lambda done, total: self.progress("embed", done, total))  # fmt: skip
                yield batch, folder, made
            return
        waiting: dict[int, _Batch] = {}
        done: dict[int, tuple[SegmentJob, Made]] = {}
        number = 0
        for ran, made in run_all(job.run, self._jobs(new, waiting, model), _lost, self.workers, self.engine):
            done[ran.number] = ran, made
            while number in done:
                ran, made = done.pop(number)
                yield waiting.pop(number), Path(ran.folder), made
                number += 1

    def _batches(self, new: Iterator[Added]) -> Iterator[_Batch]:
        rows: Added = []
        for together in new:
            rows += together
            if len(rows) >= self.spec.segment_documents:
                yield self._batch(rows)
                rows = []
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: Added) -> _Batch:
        return _Batch([document for document, _ in rows], [key for _, key in rows], self.known.draw_replaced())

    def _jobs(self, new: Iterator[Added], waiting: dict[int, _Batch], model: Embedder) -> Iterator[SegmentJob]:
        work = self.out / "work"
        for number, batch in enumerate(self._batches(new)):
            path = work / f"documents-{number:06d}" / "documents.parquet"
            path.parent.mkdir()
            write_documents(path, batch.documents)
            waiting[number] = batch
            yield SegmentJob(number, str(path), str(work / f"segment-{number:06d}"), self.spec.embedder,
                             model.revision, self.spec.max_words, self.spec.language, self.spec.title_weight,
                             self.device)  # fmt: skip

    def _commit(self, batch: _Batch, folder: Path, made: Made, manifest: Manifest) -> Manifest:
        """The manifest with one more segment, published; what is due to be merged is merged before, so that the same
        documents make the same store wherever a build was stopped."""
        with self._timed("merge"):
            while group := merge.due(manifest.segments, self.indexed):
                manifest = self._merge(group, manifest)
        with self._timed("write"):
            name = f"{manifest.version + 1:06d}-{made.sums[:12]}"
            folder.rename(self.out / "segments" / name)
            layout.sync_folder(self.out / "segments")
            entry = SegmentEntry(name, made.sums, made.documents, made.passages, made.fields)
            manifest = self._publish(manifest, batch.replaced, entry)
        for stage, seconds in made.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.known.committed(name, [document.id for document in batch.documents], batch.digests)
        self.counts["added"] += made.documents
        self.progress("commit", manifest.documents, None)
        return manifest

    def _merge(self, group: Sequence[SegmentEntry], manifest: Manifest) -> Manifest:
        into = merge.merged(self.out, manifest, group)
        self.known.merged(group, into)
        entries = list(manifest.segments)
        at = entries.index(group[0])
        entries[at : at + len(group)] = into
        manifest = replace(manifest, version=manifest.version + 1, segments=tuple(entries))
        layout.publish(self.out, manifest)
        return manifest

    def _publish(self, manifest: Manifest, replaced: Replaced, *added: SegmentEntry) -> Manifest:
        """The next version, with a segment more and without the documents that were replaced."""
        entries = deletes.write(self.out, self.known.masks(manifest, replaced), manifest.segments)
        manifest = replace(manifest, version=manifest.version + 1, segments=(*entries, *added))
        layout.publish(self.out, manifest)
        return manifest

    def _report(self, manifest: Manifest, log: Path, seconds: float) -> BuildReport:
        kept, added, duplicates, rejected = (self.counts[name] for name in ("kept", "added", "dedup", "rejected"))
        drops = self.out / "reports" / f"{manifest.version:06d}.drops.jsonl"
        log.replace(drops)
        report = BuildReport(
            store=str(self.out), fingerprint=layout.read_manifest(self.out)[1], inputs=self.counts["read"],
            indexed=kept + added, added=added, updated=self.known.updated, duplicates=duplicates,
            rejected=rejected, documents=manifest.documents,
            passages=manifest.passages, seconds={**self.seconds, "total": seconds},
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, drops=str(drops),
        )  # fmt: skip
        if report.inputs != report.indexed + report.duplicates + report.rejected:
            raise AssertionError(f"the report does not add up: {report}")
        text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
        (self.out / "reports" / f"{manifest.version:06d}.json").write_text(text + "\n", encoding="utf-8")
        return report

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started


def _as_document(item: object) -> Document:
    if not isinstance(item, Document):
        raise InputError(f"build: expected documents, or paths alone, found {type(item).__name__}")
    return item


def _lost(ran: SegmentJob, how: str) -> SegmentJob:
    raise StoreError(f"{ran.folder}: {how} while it embedded documents; run the build again to go on")


def _unusable(document: Document) -> Drop | None:
    if not document.id or not document.text.strip():
        return Drop(document.id, "read", "expected an id and a text that are not empty")
    if _PASSAGE_ID.search(document.id):
        return Drop(
            document.id, "chunk", "the id ends in #<number>, which names passages of longer documents; rename it"
        )
    return None
