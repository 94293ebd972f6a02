"""The keys of a segment find a document by its id or its digest without reading the segment's other files.

Two sorted arrays of 64-bit hashes, memory-mapped, 24 bytes a document; a hit is compared with the document itself, so a
collision of hashes is no match. Looking up n documents costs n binary searches a segment, whatever the store holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sleuth.corpora.errors import StoreError
from sleuth.retrieval.bm25 import load_array

if TYPE_CHECKING:
    import pyarrow as pa

HASHES, ROWS = "keys.npy", "keys.rows.npy"
"""Of a segment: (2, N) uint64, ids above digests, each sorted; (2, N) int32, the row of the document of each."""


def hashes(ids: Sequence[str], digests: Sequence[bytes]) -> np.ndarray:
    """(2, N) uint64 in the order given."""
    import xxhash

    by_id = [xxhash.xxh3_64_intdigest(id_.encode("utf-8", "surrogatepass")) for id_ in ids]
    by_digest = [int.from_bytes(digest[:8], "big") for digest in digests]
    return np.array([by_id, by_digest], np.uint64).reshape(2, len(by_id))


def save(folder: Path, ids: Sequence[str], digests: Sequence[bytes]) -> None:
    for name, array in zip((HASHES, ROWS), _sorted(ids, digests), strict=True):
        np.save(folder / name, array, allow_pickle=False)


def _sorted(ids: Sequence[str], digests: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    found = hashes(ids, digests)
    rows = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(found, rows, 1), rows.astype(np.int32)


@dataclass(slots=True)
class Keys:
    """The documents of one segment, to be looked up."""

    segment: str
    columns: dict[str, pa.Array]
    """``id`` and ``digest`` of its documents."""
    hashes: np.ndarray
    rows: np.ndarray
    alive: np.ndarray
    """(documents,) bool, its own copy."""
    met: np.ndarray = field(init=False)
    """(documents,) bool, for the caller: those that the inputs of a build have named."""

    def __post_init__(self) -> None:
        self.met = np.zeros(len(self.alive), bool)

    @classmethod
    def open(cls, folder: Path, alive: np.ndarray | None) -> Keys:
        """Raises `StoreError` where the files do not belong to the segment's documents."""
        import pyarrow as pa

        from sleuth.retrieval.segment import DOCUMENTS

        with pa.memory_map(str(folder / DOCUMENTS)) as source:
            table = pa.ipc.open_file(source).read_all()
        if any(table[name].num_chunks != 1 for name in ("id", "digest")):
            raise StoreError(f"{folder}: not a segment of this format: {DOCUMENTS}: expected one batch of rows")
        columns = {name: table[name].chunk(0) for name in ("id", "digest")}  # as they lie on disk, nothing copied
        try:
            if (folder / HASHES).exists():
                found, rows = load_array(folder / HASHES), load_array(folder / ROWS)
            else:  # a segment from before there were keys
                found, rows = _sorted(*(column.to_pylist() for column in columns.values()))
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: not a segment of this format: {error}") from error
        if (found.shape, rows.shape) != ((2, len(table)), (2, len(table))):
            raise StoreError(f"{folder}: expected keys of {len(table)} documents, found {found.shape} and {rows.shape}")
        return cls(folder.name, columns, found, rows, np.ones(len(table), bool) if alive is None else alive.copy())

    def ids(self, wanted: Sequence[str], hashed: np.ndarray) -> dict[int, int]:
        """Row of the living document for each position of ``wanted`` that has one; ``hashed`` as `hashes` gives it."""
        return self._find("id", 0, wanted, hashed[0])

    def digests(self, wanted: Sequence[bytes], hashed: np.ndarray) -> dict[int, int]:
        return self._find("digest", 1, wanted, hashed[1])

    def _find(self, name: str, n: int, wanted: Sequence[str] | Sequence[bytes], hashed: np.ndarray) -> dict[int, int]:
        known = self.hashes[n]
        if not len(known):
            return {}
        found = {}
        starts = np.searchsorted(known, hashed)
        for at in np.flatnonzero(known[np.minimum(starts, len(known) - 1)] == hashed).tolist():
            place = int(starts[at])
            while place < len(known) and known[place] == hashed[at]:
                row = int(self.rows[n, place])
                if self.alive[row] and self.columns[name][row].as_py() == wanted[at]:
                    found[at] = row
                place += 1
        return found
