"""The keys of a segment find a document by its id or its digest without reading the segment's other files.

One memory-mapped file: two sorted arrays of 64-bit hashes, and for each document 128 bits of BLAKE2b of its id, its
digest and its first passage. A hit is compared with these, so a collision of hashes is no match. Looking up n documents
costs n binary searches a segment, whatever the store holds.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sleuth.corpora.errors import StoreError
from sleuth.retrieval.bm25 import load_array

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "keys.bin"
"""Of a segment of N documents, 64 bytes each, little-endian: (2, N) uint64 hashes, ids above digests, each sorted;
(N, 4) uint64, BLAKE2b of the id and digest; (N,) int64, row of the first passage; (2, N) int32, the rows of the hashes.
"""
OLDER = ("keys.npy", "keys.rows.npy")
"""What segments of before have: the hashes, and their rows. Their ids, digests and passages are read as Arrow, and all
is in segments from before there were keys."""
FILES = (FILE, *OLDER)


def hashes(ids: Sequence[str], digests: Sequence[bytes]) -> np.ndarray:
    """(2, N) uint64 in the order given."""
    import xxhash

    by_id = [xxhash.xxh3_64_intdigest(id_.encode("utf-8", "surrogatepass")) for id_ in ids]
    by_digest = [int.from_bytes(digest[:8], "big") for digest in digests]
    return np.array([by_id, by_digest], np.uint64).reshape(2, len(by_id))


def save(folder: Path, ids: Sequence[str], digests: Sequence[bytes], first: np.ndarray) -> None:
    """``first`` (N,): row of the first passage of each document."""
    found, rows = _sorted(ids, digests)
    records = b"".join(_id_key(id_) + digest for id_, digest in zip(ids, digests, strict=True))
    parts = (found.astype("<u8").tobytes(), records, first.astype("<i8").tobytes(), rows.astype("<i4").tobytes())
    (folder / FILE).write_bytes(b"".join(parts))


def _sorted(ids: Sequence[str], digests: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    found = hashes(ids, digests)
    rows = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(found, rows, 1), rows.astype(np.int32)


def _id_key(id_: str) -> bytes:
    return hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _mapped(folder: Path, documents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Hashes, rows, records and first passages, as `FILE` has them; None where a segment has no such file."""
    path = f"{folder}/{FILE}"
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not a segment of this format: {error}") from error
    if len(data) != 64 * documents:
        raise StoreError(f"{path}: expected 64 bytes for each of {documents} documents, found {len(data)}")
    words = np.frombuffer(data, "<u8", 7 * documents)
    hashed, records, first = np.split(words, [2 * documents, 6 * documents])
    rows = np.frombuffer(data, "<i4", 2 * documents, 56 * documents)
    return hashed.reshape(2, -1), rows.reshape(2, -1), records.reshape(-1, 4), first.view(np.int64)


def first_passages(folder: Path, documents: int) -> np.ndarray:
    """(documents,) rows of the first passage of each document of a segment; raises `StoreError`."""
    if (found := _mapped(folder, documents)) is not None:
        return found[3]
    import pyarrow as pa

    from sleuth.retrieval.segment import PASSAGES, numbers

    try:
        with pa.memory_map(str(folder / PASSAGES)) as source:
            of = pa.ipc.open_file(source).read_all()["document"].chunk(0)
        return np.searchsorted(numbers(of), np.arange(documents))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{folder}: not a segment of this format: {error}") from error


def _columns(folder: Path) -> Mapping[str, pa.Array]:
    """As they lie on disk, nothing copied."""
    import pyarrow as pa

    from sleuth.retrieval.segment import DOCUMENTS

    with pa.memory_map(str(folder / DOCUMENTS)) as source:
        table = pa.ipc.open_file(source).read_all()
    if any(table[name].num_chunks != 1 for name in ("id", "digest")):
        raise StoreError(f"{folder}: not a segment of this format: {DOCUMENTS}: expected one batch of rows")
    return {name: table[name].chunk(0) for name in ("id", "digest")}


@dataclass(slots=True)
class Keys:
    """The documents of one segment, to be looked up."""

    folder: Path
    hashes: np.ndarray
    rows: np.ndarray
    records: np.ndarray | None
    """None for a segment from before there were any."""
    alive: np.ndarray
    """(documents,) bool, its own copy."""
    columns: Mapping[str, pa.Array] | None = None
    """``id`` and ``digest`` of its documents; read when they are first needed."""
    met: np.ndarray = field(init=False)
    """(documents,) bool, for the caller: those that the inputs of a build have named."""

    def __post_init__(self) -> None:
        self.met = np.zeros(len(self.alive), bool)

    @classmethod
    def open(
        cls, folder: Path, documents: int, alive: np.ndarray | None, columns: Mapping[str, pa.Array] | None = None
    ) -> Keys:
        """Raises `StoreError` where the files do not belong to the segment's ``documents``."""
        own = np.ones(documents, bool) if alive is None else alive.copy()
        if (mapped := _mapped(folder, documents)) is not None:
            return cls(folder, *mapped[:3], own, columns)
        try:
            if (folder / OLDER[0]).exists():
                found, rows = (load_array(folder / name) for name in OLDER)
            else:
                columns = columns or _columns(folder)
                found, rows = _sorted(columns["id"].to_pylist(), columns["digest"].to_pylist())
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: not a segment of this format: {error}") from error
        if (found.shape, rows.shape) != ((2, documents), (2, documents)):
            raise StoreError(f"{folder}: expected keys of {documents} documents, found {found.shape} and {rows.shape}")
        return cls(folder, found, rows, None, own, columns)

    @property
    def segment(self) -> str:
        return self.folder.name

    def id_of(self, row: int) -> str:
        return str(self._column("id")[row].as_py())

    def digest_of(self, row: int) -> bytes:
        if self.records is None:
            return bytes(self._column("digest")[row].as_py())
        return self.records[row, 2:].tobytes()

    def _column(self, name: str) -> pa.Array:
        if self.columns is None:
            self.columns = _columns(self.folder)
        return self.columns[name]

    def ids(self, wanted: Sequence[str], hashed: np.ndarray) -> dict[int, int]:
        """Row of the living document for each position of ``wanted`` that has one; ``hashed`` as `hashes` gives it."""
        return {at: row for at, row in self._find(0, hashed[0]) if self._has_id(row, wanted[at])}

    def digests(self, wanted: Sequence[bytes], hashed: np.ndarray) -> dict[int, int]:
        return {at: row for at, row in self._find(1, hashed[1]) if self.digest_of(row) == wanted[at]}

    def _has_id(self, row: int, wanted: str) -> bool:
        if self.records is None:
            return self.id_of(row) == wanted
        return self.records[row, :2].tobytes() == _id_key(wanted)

    def _find(self, n: int, hashed: np.ndarray) -> Iterator[tuple[int, int]]:
        """Positions in ``hashed`` with the rows of living documents of the same hash."""
        known = self.hashes[n]
        if not len(known):
            return
        starts = np.searchsorted(known, hashed)
        for at in np.flatnonzero(known[np.minimum(starts, len(known) - 1)] == hashed).tolist():
            place = int(starts[at])
            while place < len(known) and known[place] == hashed[at]:
                row = int(self.rows[n, place])
                if self.alive[row]:
                    yield at, row
                place += 1
