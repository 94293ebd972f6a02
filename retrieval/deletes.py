"""A bitmap says which documents of a segment are deleted; the segment itself is never changed.

One file a segment and generation, named by its own checksum, and named in turn by the manifest: a reader of an older
version keeps the older bitmap. One bit a document, most significant first, as `numpy.packbits` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sleuth.corpora.errors import StoreError
from sleuth.retrieval.layout import SegmentEntry, make_folder, sync_folder, write_file
from sleuth.retrieval.segment import PASSAGES, numbers


def alive(store: Path, entry: SegmentEntry) -> np.ndarray | None:
    """(documents,) bool, false where deleted, or None where nothing is; raises `StoreError` for a damaged bitmap."""
    import xxhash

    if not entry.deletes:
        return None
    path = _path(store, entry.id, entry.deletes)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: the manifest names it, but it cannot be read: {error.strerror}") from error
    if (found := xxhash.xxh3_128_hexdigest(data)) != entry.deletes:
        raise StoreError(f"{path}: damaged; expected xxh3 {entry.deletes}, found {found}")
    if len(data) != (entry.documents + 7) // 8:
        raise StoreError(f"{path}: expected one bit for each of {entry.documents} documents, found {len(data)} bytes")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=entry.documents) == 0


def write(store: Path, kept: Mapping[str, np.ndarray], entries: Sequence[SegmentEntry]) -> list[SegmentEntry]:
    """The entries, those of the segments in ``kept`` with (documents,) bool as their bitmap, on disk on return."""
    if not kept:
        return list(entries)
    make_folder(store / "deletes")
    written = [_written(store, entry, kept[entry.id]) if entry.id in kept else entry for entry in entries]
    sync_folder(store / "deletes")
    return written


def _written(store: Path, entry: SegmentEntry, kept: np.ndarray) -> SegmentEntry:
    import pyarrow as pa
    import xxhash

    with pa.memory_map(str(store / "segments" / entry.id / PASSAGES)) as source:
        of = pa.ipc.open_file(source).read_all()["document"].chunk(0)
    data = np.packbits(~kept).tobytes()
    name = xxhash.xxh3_128_hexdigest(data)
    write_file(_path(store, entry.id, name), data, sync=False)
    deleted = int(np.count_nonzero(~kept))
    return replace(entry, deletes=name, deleted=deleted, deleted_passages=int(np.count_nonzero(~kept[numbers(of)])))


def _path(store: Path, segment: str, checksum: str) -> Path:
    return store / "deletes" / f"{segment}.{checksum}"
