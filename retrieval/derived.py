"""A derived index is made from one version of a store, beside it, and can be made again at any time.

    STORE/derived/<kind>-<fingerprint>/   files of the kind, and DERIVED.json: what it was made with, checksums

It is there whole or not at all. One of another version of the store is not answered from: what it says would no longer
be what the store holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import StoreError
from sleuth.corpora.files import make_folder, sync_folder, write_file
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.layout import MALFORMED, checksum, plain, regular
from sleuth.retrieval.records import Hit
from sleuth.retrieval.store import Datastore

DERIVED = "DERIVED.json"
FORMAT = 1


def make(store: Datastore, kind: str, fill: Callable[[Path], Mapping[str, Any]]) -> Path:
    """The folder of the derived index that ``fill(folder)`` writes, which returns what is to be known of it.

    An older one of the kind goes when the new one is there, and stays where the disk does not take it, which raises
    `StoreError`.
    """
    root = store.path / "derived"
    folder, temporary, aside = root / f"{kind}-{store.fingerprint[:16]}", root / f".{kind}.new", root / f".{kind}.old"
    try:
        make_folder(root)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        facts = fill(temporary)
        sums = {}
        for path in sorted(temporary.iterdir()):
            sync_folder(path)
            sums[path.name] = checksum(path)
        record = {"format": FORMAT, "kind": kind, "fingerprint": store.fingerprint, "facts": dict(facts), "sums": sums}
        write_file(temporary / DERIVED, json.dumps(record, indent=1, sort_keys=True).encode())
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
        temporary.replace(folder)
        sync_folder(root)
        for old in (aside, *root.glob(f"{kind}-*")):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{error.filename or root}: {error.strerror or error}; the store is as it was") from error
    finally:
        if aside.exists() and not folder.exists():
            aside.replace(folder)
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find(store: Datastore, kind: str) -> tuple[Path, dict[str, Any]]:
    """The folder, and what is known of it; raises `StoreError` where none is of this version, or it is damaged."""
    root = store.path / "derived"
    folder = root / f"{kind}-{store.fingerprint[:16]}"
    again = f"`sleuth derive {kind} {store.path}` makes them"
    if not folder.is_dir():
        others = sorted(path.name.rpartition("-")[2] for path in root.glob(f"{kind}-*"))
        if others:
            raise StoreError(
                f"{store.path}: its {kind} are of version {others[0]}, the store is at {store.fingerprint[:16]}; "
                f"{again} anew"
            )
        raise StoreError(f"{store.path}: no {kind} were derived from it; {again}")
    try:
        record = json.loads(regular(folder / DERIVED).read_bytes())
        if record["format"] != FORMAT or record["fingerprint"] != store.fingerprint:
            raise ValueError(f"expected format {FORMAT} of {store.fingerprint}, found {record}")
        for name, wanted in record["sums"].items():
            if (found := checksum(folder / plain(name))) != wanted:
                raise ValueError(f"{name}: expected xxh3 {wanted}, found {found}")
        return folder, record["facts"]
    except (*MALFORMED, OSError) as error:
        raise StoreError(f"{folder}: damaged: {error}; {again} anew") from error


def documents(store: Datastore) -> Iterator[tuple[Document, list[Passage]]]:
    """Every living document of a store with its passages, in store order."""
    import numpy as np

    for segment in store._segments:
        owners = segment.spans["document"]
        for row in range(len(segment.documents)):
            if segment.alive is None or segment.alive[row]:
                first, last = np.searchsorted(owners, [row, row + 1])
                yield segment.document(row), [segment.passage(at)[0] for at in range(int(first), int(last))]


def evenly(count: int, most: int) -> range:
    """At most ``most`` positions, evenly over ``count``."""
    return range(0, count, max(1, -(-count // most)))


def placed(passages: Sequence[Passage], start: int, end: int) -> tuple[Passage, int, int] | None:
    """The passage that holds a span of its document, and the span in the passage's text; None where none does."""
    for passage in passages:
        if passage.start <= start and end <= passage.end and start < end:
            return passage, start - passage.start, end - passage.start
    return None


def hits(store: Datastore, ranked: Iterable[tuple[str, float]], name: str) -> list[Hit]:
    """Passages of a store by id and score, as hits in that order."""
    pairs = list(ranked)
    found = []
    for rank, (passage, (_, score)) in enumerate(zip(store.fetch([id_ for id_, _ in pairs]), pairs, strict=True), 1):
        document = store.document(passage.doc_id)
        found.append(Hit(passage, score, rank, name, document.url, document.source, document.date))
    return found
