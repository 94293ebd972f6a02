"""A merge makes one segment out of neighbours, without what was deleted of them; nothing is embedded again.

Which segments are merged is a function of the manifest alone, so that a build which was stopped goes on to the same
store. A growing store merges as it grows (`due`), like the tiers of a log-structured merge tree (O'Neil et al. 1996):
its segments number some tens and one more for every half of `MAX_PASSAGES`, and a document is written again once for
each digit of that number at most.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from sleuth.retrieval import deletes, layout, segment
from sleuth.retrieval.layout import Manifest, SegmentEntry
from sleuth.retrieval.segment import Segment

MAX_DOCUMENTS = 32_000
"""Documents of a merged segment: what merging holds in memory at a time is bounded by them."""
MAX_PASSAGES = 32_000
"""Passages of a segment that a growing store merges on its own, for long documents: some 9 kB each in memory."""
MAX_DELETED = 0.2
"""Compacting rewrites a full segment where a greater share of it is deleted."""
FAN_IN = 10
"""Neighbours of a size that a growing store merges."""


def due(entries: Sequence[SegmentEntry], indexed: Container[str] = ()) -> list[SegmentEntry]:
    """The neighbours to be merged before a store grows on, or none.

    Ten segments whose numbers of documents have as many digits become one, with smaller ones that stand among them.
    They are looked for among the last segments, back to one that is more than half full, or that an index covers: its
    vectors would be compared one by one until the index is made anew.
    """
    last: list[SegmentEntry] = []
    for entry in reversed(entries):
        if _full(entry) or entry.id in indexed:
            break
        last.insert(0, entry)
    for digits in range(1, len(str(MAX_DOCUMENTS)) + 1):
        sizes = [len(str(_alive(entry))) for entry in last]
        first = next((n + 1 for n in range(len(sizes) - 1, -1, -1) if sizes[n] > digits), 0)
        if sizes[first:].count(digits) >= FAN_IN:
            return _fitting(last[first:], digits)
    return []


def _fitting(run: Sequence[SegmentEntry], digits: int) -> list[SegmentEntry]:
    """Up to the tenth of its digits, and to the largest segment; two at least, since none is more than half full."""
    group: list[SegmentEntry] = []
    documents = passages = same = 0
    for entry in run:
        documents, passages = documents + _alive(entry), passages + entry.passages - entry.deleted_passages
        if same == FAN_IN or documents > MAX_DOCUMENTS or passages > MAX_PASSAGES:
            break
        group.append(entry)
        same += len(str(_alive(entry))) == digits
    return group


def _full(entry: SegmentEntry) -> bool:
    passages = entry.passages - entry.deleted_passages
    return _alive(entry) > MAX_DOCUMENTS // 2 or passages > MAX_PASSAGES // 2


def _alive(entry: SegmentEntry) -> int:
    return entry.documents - entry.deleted


def runs(entries: Sequence[SegmentEntry], max_documents: int) -> list[list[SegmentEntry]]:
    """For compacting: neighbours to be rewritten as one segment each, or as none where all is deleted."""
    groups: list[list[SegmentEntry]] = []
    run: list[SegmentEntry] = []
    size = 0
    for entry in [*entries, None]:
        alive = 0 if entry is None else _alive(entry)
        if entry is None or size + alive > max_documents:
            if len(run) > 1 or any(one.deleted > MAX_DELETED * one.documents for one in run):
                groups.append(run)
            run, size = [], 0
        if entry is not None:
            run.append(entry)
            size += alive
    return groups


def merged(out: Path, manifest: Manifest, group: Sequence[SegmentEntry]) -> list[SegmentEntry]:
    """The segment of what is alive in ``group``, committed to the folder of segments; none where nothing is."""
    if all(entry.deleted == entry.documents for entry in group):
        return []
    parts = []
    for entry in group:
        folder = out / "segments" / entry.id
        layout.check_sums(folder, entry.sums)
        parts.append(Segment.open(folder, manifest.dims, deletes.alive(out, entry)))
    work = out / "work" / "merge"
    work.mkdir()
    num_documents, num_passages = segment.merge(work, parts)
    sums = layout.write_sums(work)
    name = f"{manifest.version + 1:06d}-{sums[:12]}"
    work.rename(out / "segments" / name)
    layout.sync_folder(out / "segments")
    fields = segment.merged_types(entry.fields for entry in group)
    return [SegmentEntry(name, sums, num_documents, num_passages, fields)]


def alive(out: Path, entry: SegmentEntry) -> np.ndarray:
    """(documents,) bool: which documents of a segment a merge takes with it."""
    mask = deletes.alive(out, entry)
    return np.ones(entry.documents, bool) if mask is None else mask
