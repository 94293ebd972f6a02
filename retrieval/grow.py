"""A store grows by versions: documents are added, deleted, and small segments merged, and each step is one commit.

Nothing that is committed is changed in place. Adding makes a segment, deleting makes a bitmap beside one, compacting
makes a segment out of several, and a snapshot is a second pointer at a version. Readers keep what they have opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.corpora.shards import Limits
from sleuth.retrieval import deletes, keys, layout, merge
from sleuth.retrieval.build import BuildReport, BuildSpec, Progress, build
from sleuth.retrieval.layout import Manifest, SegmentEntry
from sleuth.retrieval.merge import MAX_DOCUMENTS
from sleuth.retrieval.records import Filter
from sleuth.retrieval.segment import DOCUMENTS, Segment

SNAPSHOT = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}\Z", re.ASCII)


def add(
    store: str | Path, inputs: Sequence[str | Path] | Iterable[Document], progress: Progress | None = None,
    device: str = "cpu", update: bool = True, limits: Limits | None = None,
) -> BuildReport:  # fmt: skip
    """Add ``inputs`` to a store that exists, with the embedder, passages and language it was built with.

    With ``update`` a document whose id is stored with another text takes its place. Raises as `build` does.
    """
    found, _ = layout.read_manifest(Path(store))
    spec = BuildSpec(found.embedder, found.max_words, found.language, found.title_weight)
    return build(inputs, store, spec, progress, device, update, limits=limits)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion did; ``asked == deleted + len(missing)``."""

    fingerprint: str
    asked: int
    """Distinct ids that were given or that the filter found."""
    deleted: int
    missing: tuple[str, ...]
    """Ids that no document has."""
    documents: int
    """Left in the store."""


def delete(store: str | Path, ids: Iterable[str] = (), where: Filter | None = None) -> Deletion:
    """Delete documents by id, and those that satisfy a filter, in one commit.

    By id the cost is one look-up a segment and one bitmap for each segment that holds any; a filter reads the metadata
    of all documents. Raises `InputError` for an unknown field, `StoreError` for a store that is damaged or being built.
    """
    from sleuth.retrieval.store import Datastore

    out = Path(store)
    with _changing(out) as manifest:
        wanted = dict.fromkeys(ids)
        if where:
            for entry in manifest.segments:  # what a filter reads decides what goes
                layout.check_sums(out / "segments" / entry.id, entry.sums, contents=(DOCUMENTS,))
            wanted |= dict.fromkeys(Datastore.open(out, verify=False).matching(where))
        asked = list(wanted)
        hashed = keys.hashes(asked, [b""] * len(asked))
        kept: dict[str, np.ndarray] = {}
        found: set[int] = set()
        for entry in manifest.segments:
            part = _keys(out, entry)
            rows = part.ids(asked, hashed)
            if rows:
                part.alive[list(rows.values())] = False
                kept[entry.id] = part.alive
                found |= rows.keys()
        if found:
            manifest = _published(out, manifest, deletes.write(out, kept, manifest.segments))
    missing = tuple(id_ for n, id_ in enumerate(asked) if n not in found)
    return Deletion(layout.read_manifest(out)[1], len(asked), len(found), missing, manifest.documents)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Segments before and after, and what was left behind."""

    fingerprint: str
    segments_before: int
    segments: int
    documents: int
    removed: int
    """Deleted documents that are not stored any more, but for older versions and snapshots."""


def compact(store: str | Path, max_documents: int = MAX_DOCUMENTS, progress: Progress | None = None) -> Compaction:
    """Merge neighbouring small segments and rewrite those with many deletions; nothing is embedded again.

    Segments keep their order, hold at most ``max_documents`` after a merge, and each merge is a commit: a compaction
    that is stopped has done part of the work. Searches give the same hits before and after.
    """
    if max_documents < 1:
        raise InputError(f"max_documents: expected at least 1, found {max_documents}")
    out = Path(store)
    with _changing(out) as manifest:
        before = manifest
        groups = merge.runs(manifest.segments, max_documents)
        entries = list(manifest.segments)
        for done, group in enumerate(groups):
            at = entries.index(group[0])
            entries[at : at + len(group)] = merge.merged(out, manifest, group)
            manifest = _published(out, manifest, entries)
            if progress is not None:
                progress("compact", done + 1, len(groups))
    removed = sum(entry.deleted for entry in before.segments) - sum(entry.deleted for entry in manifest.segments)
    fingerprint = layout.read_manifest(out)[1]
    return Compaction(fingerprint, len(before.segments), len(manifest.segments), manifest.documents, removed)


@contextlib.contextmanager
def _changing(out: Path) -> Iterator[Manifest]:
    """The committed manifest under the lock, leftovers swept before and after; errors of the disk become ours."""
    try:
        layout.read_manifest(out)
        with layout.locked(out):
            layout.sweep(out)
            yield layout.read_manifest(out)[0]
            layout.sweep(out)
    except OSError as error:
        raise StoreError(
            f"{error.filename or out}: {error.strerror or error}; the store is as last committed"
        ) from error


def _keys(out: Path, entry: SegmentEntry) -> keys.Keys:
    folder = out / "segments" / entry.id
    layout.check_sums(folder, entry.sums, contents=keys.FILES)
    return keys.Keys.open(folder, entry.documents, deletes.alive(out, entry))


def _published(out: Path, manifest: Manifest, entries: Sequence[SegmentEntry]) -> Manifest:
    manifest = replace(manifest, version=manifest.version + 1, segments=tuple(entries))
    layout.publish(out, manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A named version of a store that is kept until it is dropped."""

    name: str
    """Empty for the current version."""
    version: int
    fingerprint: str
    documents: int
    passages: int


def snapshots(store: str | Path) -> list[Snapshot]:
    """The current version, then the named ones by name."""
    return [_snapshot(Path(store), name) for name in ("", *layout.snapshots(Path(store)))]


def _snapshot(out: Path, name: str) -> Snapshot:
    manifest, fingerprint = layout.read_manifest(out, name)
    return Snapshot(name, manifest.version, fingerprint, manifest.documents, manifest.passages)


def pin(store: str | Path, name: str) -> Snapshot:
    """Keep the current version under ``name``; raises `InputError` for a name that is taken or no plain file name."""
    out = Path(store)
    if not SNAPSHOT.match(name):
        raise InputError(f"snapshot name {name!r}: expected letters, digits, '_', '-' and '.', not starting with '.'")
    with _changing(out):
        if name in layout.snapshots(out):
            raise InputError(f"{out}: a snapshot {name!r} is there already; drop it first")
        layout.make_folder(out / "snapshots")
        layout.write_file(out / "snapshots" / name, (out / "CURRENT").read_bytes())
        return _snapshot(out, name)


def drop(store: str | Path, name: str) -> None:
    """Forget a snapshot and remove what only it holds; raises `StoreError` for one that is not there."""
    out = Path(store)
    with _changing(out):
        layout.read_manifest(out, name)
        (out / "snapshots" / name).unlink()
        layout.sync_folder(out / "snapshots")


def restore(store: str | Path, name: str) -> Snapshot:
    """Make the documents of a snapshot the current version again, as a new version; what came later is let go."""
    out = Path(store)
    with _changing(out) as manifest:
        pinned, _ = layout.read_manifest(out, name)
        _published(out, manifest, pinned.segments)
    return _snapshot(out, "")


def content_digest(store: str | Path, snapshot: str = "") -> str:
    """SHA-256 over the documents, their passages and vectors, in order of ids: equal for stores that hold the same.

    How the documents are spread over segments, what was deleted, and versions make no difference.
    """
    out = Path(store)
    manifest, _ = layout.read_manifest(out, snapshot)
    lines: list[bytes] = []
    for entry in manifest.segments:
        part = Segment.open(out / "segments" / entry.id, manifest.dims, deletes.alive(out, entry))
        first = np.searchsorted(part.spans["document"], np.arange(len(part.documents) + 1))
        for row in range(len(part.documents)) if part.alive is None else np.flatnonzero(part.alive).tolist():
            rows = slice(int(first[row]), int(first[row + 1]))
            spans = [[int(part.spans[name][n]) for name in ("start", "end")] for n in range(rows.start, rows.stop)]
            hasher = hashlib.sha256(part.vectors[rows].tobytes())
            hasher.update(json.dumps([part.columns["id"][row].as_py(), spans]).encode())
            key = part.columns["digest"][row].as_py()
            lines.append(part.columns["id"][row].as_py().encode() + b"\0" + key + hasher.digest())
    whole = hashlib.sha256()
    for line in sorted(lines):
        whole.update(len(line).to_bytes(4, "big") + line)
    return whole.hexdigest()
