"""What a build knows: the documents that are stored, looked up by their keys, and those it keeps and has not committed.

Contract: `places` answers for a block of documents; what was committed or merged since is taken in before the next
block, never within one, so that a place stays good for its block. A document that takes the place of a stored one is
noted with the segment and row where it was found; `masks` finds where merges have carried it. A copy of a stored text
that may yet be replaced is held back, so that whatever the order of the inputs, no text is lost that they have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from sleuth.corpora.dedup import Seen, copy_of, taken
from sleuth.corpora.records import Document, Drop
from sleuth.retrieval import deletes, keys, layout, merge
from sleuth.retrieval.keys import Keys
from sleuth.retrieval.layout import Manifest, SegmentEntry

Place = tuple[Keys, int]
"""Where a stored document stands: its segment, and its row there."""
Replaced = list[tuple[str, int]]
"""Names of segments, and rows, of documents whose place others take."""
Added = list[tuple[Document, bytes]]
"""Documents with their digests, which go into one commit."""


@dataclass(frozen=True, slots=True)
class _Committed:
    """A new segment: its name, and what `Seen` holds until it is taken in."""

    name: str
    ids: list[str]
    digests: list[bytes]


@dataclass(frozen=True, slots=True)
class _Merged:
    """Segments with the documents (bool) that were alive, and the one that took their place; None where none was."""

    parts: dict[str, np.ndarray]
    into: SegmentEntry | None


@dataclass(frozen=True, slots=True)
class _Held:
    """A document that is held back: where it was written to, its drop unless its twin is replaced, and what it takes
    the place of itself, which stays in the store as long."""

    at: int
    drop: Drop
    replaced: Replaced


@dataclass(slots=True)
class Known:
    """The documents of the store at ``out``, while a build adds to it."""

    out: Path
    update: bool
    seen: Seen = field(default_factory=Seen)
    """Documents that are kept and not in ``stored`` yet."""
    stored: list[Keys] = field(default_factory=list)
    since: list[_Committed | _Merged] = field(default_factory=list)
    """To be taken into ``stored``, in order."""
    replaced: Replaced = field(default_factory=list)
    """What the documents of the batch being drawn take the place of."""
    updated: int = 0
    """Documents that were added in the place of a stored one."""
    held: dict[bytes, list[_Held]] = field(default_factory=dict)
    """Copies of stored documents that no input has named yet, by digest; some 500 bytes each."""
    held_ids: dict[str, bytes] = field(default_factory=dict)
    """Digests of all that were ever held, by id."""
    aside: IO[bytes] = field(init=False)
    """Of the caller: where they are written, a line of JSON each."""
    moved: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    """Segments that were merged: the one they are in, and the row there of each of their documents."""

    def open(self, manifest: Manifest) -> None:
        for entry in manifest.segments:
            folder = self.out / "segments" / entry.id
            layout.check_sums(folder, entry.sums, contents=keys.FILES)
            self.stored.append(Keys.open(folder, entry.documents, deletes.alive(self.out, entry)))

    def places(self, ids: list[str], digests: list[bytes]) -> tuple[dict[int, Place], dict[int, Place]]:
        """Stored documents with these ids and with these digests, by position."""
        self._take_in()
        hashed = keys.hashes(ids, digests)
        by_id: dict[int, Place] = {}
        by_digest: dict[int, Place] = {}
        for part in self.stored:
            by_id |= {n: (part, row) for n, row in part.ids(ids, hashed).items()}
            by_digest |= {n: (part, row) for n, row in part.digests(digests, hashed).items()}
        return by_id, by_digest

    def is_kept(self, key: bytes, named: Place | None) -> bool:
        """Whether this is the first input that names a stored document, and equals it."""
        if named is None or named[0].met[named[1]] or named[0].digest_of(named[1]) != key:
            return False
        named[0].met[named[1]] = True
        return True

    def judged(
        self, document: Document, key: bytes, named: Place | None, equal: Place | None
    ) -> tuple[Added, list[Drop]]:
        """What is added because of this input, and what is dropped; neither, where it is held back.

        In an update it takes the place of the stored document with its id, which is marked as deleted even where the
        new text stands under another id already; the first copy of the old text that was held back is added then.
        """
        added: Added = []
        drops: list[Drop] = []
        replaced: Replaced = []
        if named is not None and self.update and not named[0].met[named[1]]:
            self._release(*named, added, drops)
            replaced = [(named[0].segment, named[1])]
            named = None
        drop = self.seen.drop(document, key)
        twin = equal if equal is not None and equal[0].alive[equal[1]] else None
        lasting = twin is not None and (not self.update or bool(twin[0].met[twin[1]]))
        if drop is None and twin is not None and lasting:
            drop = copy_of(document, twin[0].id_of(twin[1]))
        if drop is None and (named is not None or self.held_ids.get(document.id, key) != key):
            drop = taken(document)
        if drop is not None:
            self.replaced += replaced
            drops.append(drop)
        elif twin is not None:
            self._hold(document, key, copy_of(document, twin[0].id_of(twin[1])), replaced)
        else:
            self._add(document, key, replaced, added)
        return added, drops

    def _release(self, part: Keys, row: int, added: Added, drops: list[Drop]) -> None:
        """A stored document is marked as deleted, and what was held back as a copy of it is judged."""
        part.met[row], part.alive[row] = True, False
        if not self.held or not (copies := self.held.pop(key := part.digest_of(row), [])):
            return
        document = self._read(copies[0].at)
        self._add(document, key, copies[0].replaced, added)
        self.replaced += [place for copy in copies[1:] for place in copy.replaced]
        drops += [Drop(copy.drop.id, "dedup", copy_of(document, document.id).reason) for copy in copies[1:]]

    def _add(self, document: Document, key: bytes, replaced: Replaced, added: Added) -> None:
        self.seen.keep(document.id, key)
        self.replaced += replaced
        self.updated += len(replaced)
        added.append((document, key))

    def _hold(self, document: Document, key: bytes, drop: Drop, replaced: Replaced) -> None:
        at = self.aside.seek(0, 2)
        self.aside.write(json.dumps(asdict(document)).encode() + b"\n")
        self.held.setdefault(key, []).append(_Held(at, drop, replaced))
        self.held_ids[document.id] = key

    def _read(self, at: int) -> Document:
        self.aside.seek(at)
        return Document(**json.loads(self.aside.readline()))

    def left(self) -> Iterator[Drop]:
        """Once there is no more input: those held back whose twins stay, which are copies then."""
        for copy in (copy for copies in self.held.values() for copy in copies):
            self.replaced += copy.replaced
            yield copy.drop
        self.held.clear()

    def draw_replaced(self) -> Replaced:
        """What the documents since the last call take the place of."""
        drawn, self.replaced = self.replaced, []
        return drawn

    def committed(self, name: str, ids: list[str], digests: list[bytes]) -> None:
        self.since.append(_Committed(name, ids, digests))

    def merged(self, group: Sequence[SegmentEntry], into: Sequence[SegmentEntry]) -> None:
        """``into`` has the living documents of ``group``, in order, or is empty where there are none."""
        parts = {entry.id: merge.alive(self.out, entry) for entry in group}
        self.since.append(_Merged(parts, next(iter(into), None)))
        first = 0
        for name, alive in parts.items() if into and self.update else ():
            self.moved[name] = into[0].id, (np.cumsum(alive) - 1 + first).astype(np.int32)
            first += int(np.count_nonzero(alive))

    def masks(self, manifest: Manifest, replaced: Replaced) -> dict[str, np.ndarray]:
        """(documents,) bool of each segment that holds any of ``replaced``, false there and where deleted before."""
        rows: dict[str, list[int]] = {}
        for name, row in replaced:
            while name in self.moved:
                name, numbers = self.moved[name]
                row = int(numbers[row])
            rows.setdefault(name, []).append(row)
        masks = {entry.id: merge.alive(self.out, entry) for entry in manifest.segments if entry.id in rows}
        for name, mask in masks.items():
            mask[rows[name]] = False
        return masks

    def _take_in(self) -> None:
        """From here on, what was committed is looked up on disk; this build has met all of it."""
        for change in self.since:
            if isinstance(change, _Merged):
                self._take_merged(change)
                continue
            for doc_id, key in zip(change.ids, change.digests, strict=True):
                self.seen.forget(doc_id, key)
            part = Keys.open(self.out / "segments" / change.name, len(change.ids), None)
            part.met[:] = True
            self.stored.append(part)
        self.since.clear()

    def _take_merged(self, change: _Merged) -> None:
        old = [part for part in self.stored if part.segment in change.parts]
        at = self.stored.index(old[0])
        new = []
        if change.into is not None:
            part = Keys.open(self.out / "segments" / change.into.id, change.into.documents, None)
            part.met = np.concatenate([one.met[change.parts[one.segment]] for one in old])
            part.alive = np.concatenate([one.alive[change.parts[one.segment]] for one in old])
            new.append(part)
        self.stored[at : at + len(old)] = new
