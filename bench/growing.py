"""What it costs to change a store: adding 1,000 documents and deleting 500, in stores of sizes that are far apart.

Texts are passages of the given corpora under new ids, repeated where there are too few; vectors are RANDOM, so that
the figures are those of the store and not of an embedder. Beside them stand the physical limit (the bytes that a change
writes, written and synced plainly) and building anew. Usage: ``python bench/growing.py CORPUS... [--sizes 10000
100000]``; prints a table and writes bench/results/growing.json. A small trial: ``--sizes 1000 10000``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from sleuth.corpora.read import read
from sleuth.corpora.records import Document
from sleuth.retrieval import build as building
from sleuth.retrieval import grow, layout, merge
from sleuth.retrieval.store import Datastore

ROOT = Path(__file__).parents[1]
ADDED, DELETED, ROUNDS = 1_000, 500, 5


@dataclasses.dataclass(frozen=True)
class RandomVectors:
    """Unit vectors that say nothing, at once."""

    name: str = "random"
    revision: str = "0"
    dims: int = 384

    def encode(
        self, texts: Sequence[str], batch_size: int = 32, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        found = np.random.default_rng(len(texts)).standard_normal((len(texts), self.dims), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def renamed(documents: Sequence[Document], count: int, first: int = 0) -> list[Document]:
    rounds = islice(enumerate(cycle(documents)), first, first + count)
    return [dataclasses.replace(d, id=f"r{n:08d}", metadata={"copy": n // len(documents)}) for n, d in rounds]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started, time.process_time() - cpu


def plain_write(store: Path, folder: Path) -> float:
    """Seconds to write and sync, file by file, as many bytes as the newest segment has."""
    entry = layout.read_manifest(store)[0].segments[-1]
    blobs = [path.read_bytes() for path in (store / "segments" / entry.id).iterdir()]

    def write() -> None:
        for n, blob in enumerate(blobs):
            with (folder / f"plain{n}").open("wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())

    return timed(write)[0]


def one_round(documents: Sequence[Document], store: Path, size: int, n: int) -> dict[str, float]:
    """Seconds of adding and of deleting, checked by what is found afterwards."""
    new = renamed(documents, ADDED, size + n * ADDED)
    added = timed(lambda: grow.add(store, new))
    plain = plain_write(store, store.parent)
    gone = [f"r{row:08d}" for row in np.random.default_rng(n).choice(size, DELETED, replace=False)]
    deleted = timed(lambda: grow.delete(store, gone))
    opened = Datastore.open(store, verify=False)
    found = opened.sql(f"select count(*) from documents where id in {(*gone, new[0].id)}")[1][0][0]
    if found != 1:
        raise AssertionError(f"expected the added document and none of the deleted, found {found}")
    return {"add_s": added[0], "add_cpu_s": added[1], "delete_s": deleted[0], "delete_cpu_s": deleted[1],
            "plain_write_s": plain}  # fmt: skip


def measured(documents: Sequence[Document], sizes: Sequence[int], folder: Path) -> list[dict[str, float]]:
    """A row a size: medians over `ROUNDS`, the sizes taken in turn so that they meet the same load."""
    stores = {size: folder / f"store{size}" for size in sizes}
    building_s = {size: timed(partial(building.build, renamed(documents, size), stores[size]))
                  for size in sizes}  # fmt: skip
    os.sync()  # or a round would wait for what the builds wrote
    rounds = [{size: one_round(documents, stores[size], size, n) for size in sizes} for n in range(ROUNDS)]
    rows = []
    for size in sizes:
        medians = {name: statistics.median(one[size][name] for one in rounds) for name in rounds[0][size]}
        before = len(layout.read_manifest(stores[size])[0].segments)
        merging = merging_add(documents, stores[size], size)
        compact_s = timed(partial(grow.compact, stores[size]))[0]
        rows.append({"documents": size, "segments": before, "build_s": building_s[size][0],
                     "build_cpu_s": building_s[size][1], **medians, "merging_add_s": merging[0],
                     "merging_add_cpu_s": merging[1], "compact_s": compact_s})  # fmt: skip
    return rows


def merging_add(documents: Sequence[Document], store: Path, size: int) -> tuple[float, float]:
    """Of the next addition that merges segments; one in ten does."""
    for n in range(ROUNDS, ROUNDS + merge.FAN_IN + 1):
        before = len(layout.read_manifest(store)[0].segments)
        took = timed(partial(grow.add, store, renamed(documents, ADDED, size + n * ADDED)))
        if len(layout.read_manifest(store)[0].segments) <= before:
            return took
    raise AssertionError(f"expected a merge within {merge.FAN_IN + 1} additions, found none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000])
    options = parser.parse_args()
    building.embedder = lambda spec, device: RandomVectors()  # type: ignore[assignment,return-value]
    documents = list(read(options.corpus, lambda drop: None))
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0]
        rows = measured(documents, options.sizes, Path(folder))
    for row in rows:
        print("  ".join(f"{name} {value:,.3f}" for name, value in row.items()))
    ratios = {
        name: rows[-1][name] / rows[0][name] for name in ("build_s", "add_s", "add_cpu_s", "delete_s", "delete_cpu_s")
    }
    print("largest over smallest:", "  ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    results = {
        "rows": rows,
        "largest_over_smallest": ratios,
        "load_before": load,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "added": ADDED,
        "deleted": DELETED,
        "cpus": os.cpu_count(),
    }
    (ROOT / "bench" / "results" / "growing.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
