"""The index of a store: compressed vectors of the segments it covers, beside them and made from them.

    index/CURRENT              name of the index and SHA-256 of its SUMS
    index/<hash>/              the arrays of `retrieval.codes`, index.json (plan, segments, measured curve), SUMS

It is no part of the manifest, because it changes no passage: a store without it, or with segments it does not cover,
searches those vectors exactly. `build_index` replaces it in one step; a build that dies leaves the one before.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sleuth.corpora.errors import ConfigError, StoreError
from sleuth.retrieval import codes as coding
from sleuth.retrieval import layout
from sleuth.retrieval.codes import Codes
from sleuth.retrieval.layout import Manifest
from sleuth.retrieval.plan import IndexPlan, Kind, plan
from sleuth.retrieval.recall import Point, curve, held_back
from sleuth.retrieval.segment import open_vectors

FORMAT = 1
TARGET = 0.98
"""Share of the true ten nearest that a default search is to find."""
Progress = Callable[[str, int, int | None], None]
"""Stages ``train``, ``encode``, ``measure``."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index as its folder has it, opened; arrays are memory-mapped."""

    plan: IndexPlan
    segments: tuple[str, ...]
    """Ids of the segments it covers, in the order in which it numbers their vectors."""
    lengths: tuple[int, ...]
    """Vectors of each of those segments."""
    pipeline: str
    """Of the store it was made for."""
    curve: tuple[Point, ...]
    """What was measured when it was built, cheapest first; the plan's own nprobe and depth are one of them."""
    codes: Codes | None
    """None for a flat plan."""

    @property
    def recall(self) -> float | None:
        """Measured recall@10 of the default search; None for a flat plan, which is exact."""
        found = [p.recall for p in self.curve if (p.nprobe, p.depth) == (self.plan.nprobe, self.plan.depth)]
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What building an index did."""

    store: str
    kind: str
    width: int
    num_vectors: int
    dims: int
    bytes_per_vector: float
    recall: float | None
    nprobe: int
    depth: int
    vectors_per_s: float
    """Encoded and written, training and measuring left out."""
    seconds: dict[str, float]
    peak_bytes: int


def build_index(
    store: str | Path,
    memory: int | None = None,
    kind: Kind | None = None,
    target: float = TARGET,
    progress: Progress | None = None,
) -> IndexReport:
    """Index all vectors of the committed version within ``memory`` bytes and tune it to a recall@10 of ``target``.

    Raises `ConfigError` where the budget is too small or the target is no share, `StoreError` for a damaged store or a
    full disk; what was there before stays. The recall is measured on corpus vectors that the training did not see.
    """
    path, tell = Path(store), progress or (lambda stage, done, total: None)
    if not 0 < target <= 1:
        raise ConfigError(f"target: expected a recall above 0 and at most 1, found {target}")
    layout.read_manifest(path)
    try:
        with layout.locked(path):
            return _build(path, layout.read_manifest(path)[0], memory, kind, target, tell)
    except OSError as error:
        raise StoreError(
            f"{error.filename or path}: {error.strerror or error}; the index of before is kept, if there was one"
        ) from error


def _build(
    store: Path, manifest: Manifest, memory: int | None, kind: Kind | None, target: float, tell: Progress
) -> IndexReport:
    vectors = [
        open_vectors(store / "segments" / entry.id, entry.passages, manifest.dims) for entry in manifest.segments
    ]
    n = sum(map(len, vectors))
    chosen = plan(n, manifest.dims, memory, kind)
    if kind is None and n < 64 and chosen.kind != "flat":
        chosen = plan(n, manifest.dims, None, "flat")
    home = store / "index"
    layout.make_folder(home)
    work = home / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    seconds: dict[str, float] = {}
    points: tuple[Point, ...] = ()
    try:
        if chosen.kind != "flat":
            sample, queries = held_back(vectors, chosen.num_training)
            tell("train", 0, chosen.num_lists)
            started = time.monotonic()
            trained, rotation = coding.train(chosen, sample)
            seconds["train"] = time.monotonic() - started
            tell("train", chosen.num_lists, chosen.num_lists)
            del sample
            started = time.monotonic()
            coding.write(work, chosen, trained, rotation, lambda: _chunks(vectors), lambda at: tell("encode", at, n))
            seconds["encode"] = time.monotonic() - started
            del trained
            started = time.monotonic()
            points, chosen = curve(chosen, Codes.load(work, chosen), vectors, queries, target, tell)
            seconds["measure"] = time.monotonic() - started
        segments = [entry.id for entry in manifest.segments]
        described = {"format": FORMAT, "pipeline": manifest.pipeline, "segments": segments,
                     "lengths": [entry.passages for entry in manifest.segments], "plan": asdict(chosen),
                     "curve": [asdict(point) for point in points]}  # fmt: skip
        (work / "index.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        _publish(home, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _report(store, chosen, points, seconds)


def _report(store: Path, chosen: IndexPlan, points: Sequence[Point], seconds: dict[str, float]) -> IndexReport:
    import resource

    recall = [point.recall for point in points if (point.nprobe, point.depth) == (chosen.nprobe, chosen.depth)]
    return IndexReport(
        str(store), chosen.kind, chosen.width, chosen.num_vectors, chosen.dims, round(chosen.bytes_per_vector, 1),
        recall[0] if recall else None, chosen.nprobe, chosen.depth,
        round(chosen.num_vectors / seconds["encode"], 1) if seconds.get("encode") else 0.0,
        {stage: round(taken, 2) for stage, taken in seconds.items()},
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )  # fmt: skip


def _chunks(vectors: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """(n, D) float16 at a time; small segments come together."""
    held: list[np.ndarray] = []
    for segment in vectors:
        for start in range(0, len(segment), coding.CHUNK):
            held.append(segment[start : start + coding.CHUNK])
            if sum(map(len, held)) >= coding.CHUNK:
                yield np.concatenate(held)
                held = []
    if held:
        yield np.concatenate(held)


def _publish(home: Path, work: Path) -> None:
    """Synced, summed, renamed, then named by CURRENT; older indexes go."""
    name = layout.write_sums(work)
    final = home / name[:16]
    try:
        layout.check_sums(final, name)
    except StoreError:  # not there, or damaged
        shutil.rmtree(final, ignore_errors=True)
        work.replace(final)
        layout.sync_folder(home)
    layout.write_file(home / "CURRENT", json.dumps([final.name, name]).encode())
    for old in home.iterdir():
        if old.is_dir() and old.name != final.name:
            shutil.rmtree(old, ignore_errors=True)


def load_index(store: Path, manifest: Manifest, verify: bool = True) -> Index | None:
    """The store's index, None where it has none; raises `StoreError` for a damaged one or one of another store."""
    pointer = store / "index" / "CURRENT"
    while True:
        seen = pointer.read_bytes() if pointer.is_file() else None
        try:
            return _load(pointer, manifest, verify)
        except StoreError:
            if seen == (pointer.read_bytes() if pointer.is_file() else None):
                raise  # nobody put another in its place while we looked


def covered(store: Path) -> frozenset[str]:
    """Ids of the segments whose vectors the store's index has as codes; none where it cannot be read, which opening the
    store tells of."""
    try:
        name, _ = json.loads(layout.regular(store / "index" / "CURRENT").read_bytes())
        found = json.loads(layout.regular(store / "index" / layout.plain(name) / "index.json").read_bytes())
        return frozenset(found["segments"] if found["plan"]["kind"] != "flat" else ())
    except (*layout.MALFORMED, OSError):
        return frozenset()


def _load(pointer: Path, manifest: Manifest, verify: bool) -> Index | None:
    try:
        name, sums = json.loads(layout.regular(pointer).read_bytes())
        folder = pointer.parent / layout.plain(name)
    except FileNotFoundError:
        return None
    except (*layout.MALFORMED, OSError) as error:
        raise StoreError(f"{pointer}: expected [name, sha256], found something else: {error}; {_MEND}") from error
    try:
        layout.check_sums(folder, sums, contents=verify)
        return _decode(folder, manifest)
    except (StoreError, *layout.MALFORMED, OSError) as error:
        raise StoreError(f"{error}; {_MEND}") from error


_MEND = "`sleuth index STORE` makes it anew from the vectors"


def _decode(folder: Path, manifest: Manifest) -> Index:
    found = json.loads((folder / "index.json").read_bytes())
    if found["format"] != FORMAT or found["pipeline"] != manifest.pipeline:
        raise StoreError(
            f"{folder}: expected an index of format {FORMAT} for pipeline {manifest.pipeline}, found format "
            f"{found['format']!r} for {found['pipeline']!r}"
        )
    chosen = IndexPlan(**found["plan"])
    if chosen.dims != manifest.dims:
        raise StoreError(f"{folder}: expected vectors of {manifest.dims} dimensions, found {chosen.dims}")
    points = tuple(Point(**point) for point in found["curve"])
    codes = None if chosen.kind == "flat" else Codes.load(folder, chosen)
    segments, lengths = tuple(found["segments"]), tuple(found["lengths"])
    if len(segments) != len(lengths) or sum(lengths) != chosen.num_vectors:
        raise StoreError(f"{folder}: expected {chosen.num_vectors} vectors in its segments, found {sum(lengths)}")
    held = {entry.id: entry.passages for entry in manifest.segments}
    for id_, length in zip(segments, lengths, strict=True):
        if held.get(id_, length) != length:
            raise StoreError(f"{folder}: expected {held[id_]} vectors of segment {id_}, found {length}")
    return Index(chosen, segments, lengths, found["pipeline"], points, codes)
