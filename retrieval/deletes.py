"""A bitmap says which documents of a segment are deleted; the segment itself is never changed.

One bit a document, most significant first, as `numpy.packbits` writes it. The bitmaps of one commit lie in one file,
named by its checksum; the manifest names the file, where each begins and the checksum of each. A reader of an older
version keeps the older bitmap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from sleuth.corpora.errors import StoreError
from sleuth.retrieval import keys
from sleuth.retrieval.layout import SegmentEntry, make_folder, regular, write_file


def alive(store: Path, entry: SegmentEntry) -> np.ndarray | None:
    """(documents,) bool, false where deleted, or None where nothing is; raises `StoreError` for a damaged bitmap."""
    import xxhash

    if not entry.deletes:
        return None
    path = store / "deletes" / entry.bitmaps
    try:
        with regular(path).open("rb") as file:
            file.seek(entry.deletes_at)
            data = file.read((entry.documents + 7) // 8)
    except (OSError, OverflowError, MemoryError) as error:
        reason = getattr(error, "strerror", error)
        raise StoreError(f"{path}: the manifest names it, but it cannot be read: {reason}") from error
    if (found := xxhash.xxh3_128_hexdigest(data)) != entry.deletes:
        raise StoreError(f"{path}: damaged; expected xxh3 {entry.deletes} of {entry.id}, found {found}")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=entry.documents) == 0


def write(store: Path, kept: Mapping[str, np.ndarray], entries: Sequence[SegmentEntry]) -> list[SegmentEntry]:
    """The entries, those of the segments in ``kept`` with (documents,) bool as their bitmap, on disk on return."""
    import xxhash

    if not kept:
        return list(entries)
    bitmaps = {name: np.packbits(~mask).tobytes() for name, mask in kept.items()}
    starts = dict(zip(bitmaps, accumulate(map(len, bitmaps.values()), initial=0), strict=False))
    data = b"".join(bitmaps.values())
    name = xxhash.xxh3_128_hexdigest(data)
    make_folder(store / "deletes")
    write_file(store / "deletes" / name, data)
    written = []
    for entry in entries:
        if (mask := kept.get(entry.id)) is not None:
            first = keys.first_passages(store / "segments" / entry.id, entry.documents)
            lengths = np.diff(first, append=entry.passages)
            entry = replace(entry, deletes=xxhash.xxh3_128_hexdigest(bitmaps[entry.id]), deletes_file=name,
                            deletes_at=starts[entry.id], deleted=int(np.count_nonzero(~mask)),
                            deleted_passages=int(lengths[~mask].sum()))  # fmt: skip
        written.append(entry)
    return written
