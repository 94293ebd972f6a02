"""Dense and lexical search over one large store: recall, latency and memory beside peers; same data, same queries.

Questions are those of the question sets in DATA (reporting rows left out), which is what users send; the truth is
exhaustive search over the same half-precision vectors. Every query is asked by itself on one thread; CPU milliseconds
stand beside wall-clock ones because a machine is rarely quiet. Results go to bench/results/index.json, by stage.

    python bench/index.py STORE --data ../shared/data --stage ours --stage faiss --stage hnswlib --stage usearch
    python bench/index.py STORE --data ../shared/data --stage lexical --stage open --stage search
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from bench.lexical_peers import PEERS
from sleuth.retrieval import codes as coding
from sleuth.retrieval.embed import embedder
from sleuth.retrieval.index import build_index, load_index
from sleuth.retrieval.job import indexed_text
from sleuth.retrieval.layout import read_manifest
from sleuth.retrieval.plan import Kind, plan
from sleuth.retrieval.recall import K, candidates, compared, gather, nearest_lists, similarities, tenth
from sleuth.retrieval.segment import open_vectors
from sleuth.retrieval.store import Datastore

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "index.json"
SETS = ("nq_dev", "hotpotqa_s", "musique_s")
NUM_QUESTIONS = 300
LINKS, WIDTH = 32, 200
"""Of a graph: links a vector, candidates while it is built."""
REFINED = 1200
"""Candidates of plain faiss that are compared exactly."""
EXPANSIONS = (50, 200, 800, 3200)
"""Candidates that a search in a graph holds."""
Row = dict[str, Any]


def questions(data: Path, count: int = NUM_QUESTIONS) -> list[str]:
    """The same number of each set, reporting rows left out."""
    found: list[str] = []
    for name in SETS:
        path = next(p for p in (data / "qa" / f"{name}.dev.jsonl", data / "qa" / f"{name}.jsonl") if p.is_file())
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [r["question"] for r in rows if int(hashlib.sha256(r["id"].encode()).hexdigest(), 16) % 10 >= 3]
        found += kept[: count // len(SETS)]
    return found


@functools.cache
def bandwidth() -> float:
    """Bytes a second that one thread reads from memory: the best of thirty inner products of 128 MB with themselves."""
    numbers, taken = np.ones(1 << 25, np.float32), []
    for _ in range(30):
        started = time.perf_counter()
        np.dot(numbers, numbers)
        taken.append(time.perf_counter() - started)
    return numbers.nbytes / min(taken)


class Bench:
    """A store's vectors, the questions' vectors and the score of the tenth true neighbour of each."""

    def __init__(self, store: Path, data: Path) -> None:
        self.store, self.manifest = store, read_manifest(store)[0]
        folders = [(store / "segments" / entry.id, entry.passages) for entry in self.manifest.segments]
        self.vectors = [open_vectors(folder, rows, self.manifest.dims) for folder, rows in folders]
        self.first = np.cumsum([0, *map(len, self.vectors)])
        self.count = int(self.first[-1])
        self.questions = questions(data)
        self.queries = embedder(self.manifest.embedder).encode_queries(self.questions)
        self.truth = tenth(self.vectors, self.queries)

    def all(self) -> np.ndarray:
        """(N, D) float32, for peers that want it whole."""
        return np.concatenate(self.vectors).astype(np.float32)

    def point(self, search: Callable[[np.ndarray], np.ndarray]) -> Row:
        """``search(query)`` gives row numbers; they count where their exact score reaches that of the tenth."""
        taken, cpu, found = [], [], []
        for query in self.queries[:10]:
            search(query)
        for query, least in zip(self.queries, self.truth, strict=True):
            started, used = time.perf_counter(), time.process_time()
            rows = search(query)[:K]
            taken.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
            scores = similarities(gather(self.vectors, self.first, np.sort(np.asarray(rows, np.int64))), query)
            found.append(min(K, int((scores >= least - 1e-5).sum())) / K)
        return {"recall": round(float(np.mean(found)), 4), **milliseconds(taken, cpu)}


def ours(bench: Bench, kinds: Sequence[Kind | None]) -> list[Row]:
    """The planned index as `sleuth index` makes it (kind None), and other codes for comparison."""
    rows = []
    for kind in kinds:
        started, used = time.perf_counter(), time.process_time()
        report = build_index(bench.store, kind=kind)
        built, cpu = time.perf_counter() - started, time.process_time() - used
        rows += as_it_is(bench)
        rows.append({"method": f"sleuth {report.kind}{report.width} build", "seconds": round(built, 1),
                     "cpu_s": round(cpu, 1), **dataclasses.asdict(report)})  # fmt: skip
        say(rows[-1])
    return rows


def as_it_is(bench: Bench, _: Any = None) -> list[Row]:
    """The index that the store has. ``lists`` is the mean of the lists that the questions looked into, which each
    chooses by itself."""
    index = load_index(bench.store, bench.manifest, verify=False)
    assert index is not None and index.codes is not None
    codes, lists = index.codes, index.plan.num_lists
    ready = coding.searchable(index.plan, codes)

    def search(query: np.ndarray, nprobe: int, depth: int) -> np.ndarray:
        asked = query[None]
        return compared(bench.vectors, bench.first, asked, candidates(ready, codes, asked, nprobe, depth), K)[0][0]

    rows = []
    turned = bench.queries @ codes.rotation.T if codes.rotation.size else bench.queries
    for nprobe in (n for n in (64, 128, 256, 384, 512, 640, 768, 1024) if n <= lists):
        seen = nearest_lists(codes, turned, nprobe)[0]
        scanned = np.where(seen >= 0, codes.sizes[seen], 0).sum(axis=1).mean() * index.plan.code_bytes
        for depth in (200, 400, 800, 1200, 1600):
            point = bench.point(functools.partial(search, nprobe=nprobe, depth=depth))
            bound = codes.coarse.nbytes + scanned + depth * 2 * index.plan.dims
            rows.append(
                {"method": f"sleuth {index.plan.kind}{index.plan.width}", "nprobe": nprobe, "depth": depth, **point,
                 "lists": round(float((seen >= 0).sum(axis=1).mean())),
                 "bytes_per_vector": round(index.plan.bytes_per_vector, 1),
                 "bandwidth_bound_ms": round(bound / bandwidth() * 1e3, 3)}
            )  # fmt: skip
            say(rows[-1])
    return rows


def plain_faiss(bench: Bench, _: Any = None) -> list[Row]:
    """What one line of faiss gives: the same lists and a code alone, the code with exact vectors behind it in memory,
    8-bit scalars, and no index at all."""
    import faiss

    whole, lists = bench.all(), plan(bench.count, bench.manifest.dims, kind="pq").num_lists
    rows = []
    code = f"IVF{lists},PQ{bench.manifest.dims // 4}x4fs"
    for name in (code, f"{code},Refine(SQfp16)", f"IVF{lists},SQ8"):
        used = time.process_time()
        index: Any = faiss.index_factory(bench.manifest.dims, name, faiss.METRIC_INNER_PRODUCT)
        ivf: Any = faiss.extract_index_ivf(index)
        ivf.cp.niter = coding.ITERATIONS
        refined = 2 * bench.manifest.dims if "Refine" in name else 0
        if refined:
            index.k_factor = REFINED / K
        sample = whole[np.random.default_rng(0).permutation(bench.count)[: 16 * lists]]
        before = resident()
        index.train(sample)
        index.add(whole)
        memory, cpu = resident() - before, time.process_time() - used
        for nprobe in (64, 256, 1024):
            weight = ivf.code_size + 8 + 4 * bench.manifest.dims * lists / bench.count + refined
            if nprobe <= lists:
                ivf.nprobe = nprobe
                point = bench.point(lambda q: index.search(q[None], K)[1][0])  # noqa: B023
                rows.append({"method": f"faiss {name}", "nprobe": nprobe, **point, "build_cpu_s": round(cpu, 1),
                             "bytes_per_vector": round(weight, 1),
                             "resident_bytes_per_vector": round(memory / bench.count, 1)})  # fmt: skip
                say(rows[-1])
    half = faiss.IndexScalarQuantizer(bench.manifest.dims, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    half.add(whole)
    bound = 2 * bench.manifest.dims * bench.count / bandwidth() * 1e3
    rows.append({"method": "faiss flat fp16", **bench.point(lambda q: half.search(q[None], K)[1][0]),
                 "bytes_per_vector": 2 * bench.manifest.dims, "bandwidth_bound_ms": round(bound, 2)})  # fmt: skip
    say(rows[-1])
    return rows


def hnswlib_graph(bench: Bench, _: Any = None) -> list[Row]:
    import hnswlib

    used, before = time.process_time(), resident()
    index = hnswlib.Index("ip", bench.manifest.dims)
    index.init_index(bench.count, ef_construction=WIDTH, M=LINKS, random_seed=1)
    index.set_num_threads(1)
    for n, part in enumerate(bench.vectors):
        index.add_items(part.astype(np.float32), np.arange(bench.first[n], bench.first[n + 1]))
    memory, cpu = resident() - before, time.process_time() - used
    rows = []
    for ef in EXPANSIONS:
        index.set_ef(ef)
        point = bench.point(lambda q: index.knn_query(q, K)[0][0])
        rows.append({"method": f"hnswlib M{LINKS} float32", "ef": ef, **point, "build_cpu_s": round(cpu, 1),
                     "resident_bytes_per_vector": round(memory / bench.count, 1)})  # fmt: skip
        say(rows[-1])
    return rows


def usearch_graph(bench: Bench, _: Any = None) -> list[Row]:
    from usearch.index import Index

    used, before = time.process_time(), resident()
    index: Any = Index(ndim=bench.manifest.dims, metric="cos", dtype="f16", connectivity=LINKS, expansion_add=WIDTH)
    for n, part in enumerate(bench.vectors):
        index.add(np.arange(bench.first[n], bench.first[n + 1]), part.astype(np.float32), threads=1)
    memory, cpu = resident() - before, time.process_time() - used
    rows = []
    for ef in EXPANSIONS:
        index.expansion_search = ef
        point = bench.point(lambda q: index.search(q, K, threads=1).keys)
        rows.append({"method": f"usearch M{LINKS} f16", "ef": ef, **point, "build_cpu_s": round(cpu, 1),
                     "resident_bytes_per_vector": round(memory / bench.count, 1)})  # fmt: skip
        say(rows[-1])
    return rows


def lexical(bench: Bench, peers: Sequence[str] = ("bm25s", "tantivy")) -> list[Row]:
    """BM25 of ours, of bm25s and of tantivy: the same terms, top 10, each query by itself."""
    store = Datastore.open(bench.store, verify=False)
    analyzer = store._bm25.analyzer
    rows = [{"method": "sleuth bm25", **timed(lambda q: store._lexical([q], K, None), bench.questions)}]
    rows.append({"method": "sleuth bm25, 100 best", **timed(lambda q: store._lexical([q], 100, None), bench.questions)})
    say(rows[-2])
    say(rows[-1])
    if not peers:
        return rows
    texts = [indexed_text(store._passage(row)[0]) for row in range(bench.count)]
    truth = [[row for row, _ in store._lexical([q], K, None)[0]] for q in bench.questions]
    cut = [" ".join(analyzer.terms(text)) for text in texts]
    asked = [[t for t in analyzer.terms(q) if t not in store._bm25.stops] for q in bench.questions]
    for name in peers:
        used = time.process_time()
        call = PEERS[name](cut, K)
        cpu = time.process_time() - used
        agree = np.mean([len({*truth[n]} & {*call(asked[n])}) / max(1, len(truth[n])) for n in range(len(asked))])
        rows.append(
            {"method": name, **timed(call, asked), "build_cpu_s": round(cpu, 1), "same_top10": round(float(agree), 3)}
        )
        say(rows[-1])
    return rows


def timed(call: Callable[[Any], object], queries: Sequence[Any]) -> Row:
    for query in queries[:10]:
        call(query)
    taken, cpu = [], []
    for query in queries:
        started, used = time.perf_counter(), time.process_time()
        call(query)
        taken.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return milliseconds(taken, cpu)


def milliseconds(taken: Sequence[float], cpu: Sequence[float]) -> Row:
    median, last = np.median(taken), np.quantile(taken, 0.95)
    figures = {"p50_ms": median, "p95_ms": last, "cpu_p50_ms": np.median(cpu), "cpu_p95_ms": np.quantile(cpu, 0.95)}
    return {name: round(float(seconds) * 1e3, 3) for name, seconds in figures.items()}


def searches(bench: Bench, _: Any = None) -> list[Row]:
    """Whole searches of the store, encoding and passages included: alone and in batches, processor ms a query."""
    store = Datastore.open(bench.store, verify=False)
    rows = []
    for mode in ("bm25", "dense", "hybrid"):
        alone = timed(lambda q, m=mode: store.search([q], 10, mode=m), bench.questions)  # type: ignore[misc]
        batches: Row = {}
        for size in (1, 8, 64):
            parts = [bench.questions[n : n + size] for n in range(0, len(bench.questions), size)]
            used = time.process_time()
            for part in parts:
                store.search(part, 10, mode=mode)
            batches[f"cpu_ms_in_{size}"] = round((time.process_time() - used) / len(bench.questions) * 1e3, 3)
        rows.append({"method": f"search {mode}", **alone, **batches})
        say(rows[-1])
    return rows


OPEN = """
import json, sys, time
import faiss, pyarrow, xxhash
from sleuth.retrieval.store import Datastore

def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

before, started = anonymous(), time.perf_counter()
store = Datastore.open(sys.argv[1])
opened, started = time.perf_counter() - started, time.perf_counter()
hit = store.search(["a first question about rivers"], 10)[0][0]
first = time.perf_counter() - started
store.fetch([hit.passage.id])
print(json.dumps({"open_s": opened, "first_search_s": first, "anonymous_bytes": anonymous() - before}))
"""


def opening(bench: Bench, _: Any = None) -> list[Row]:
    """A new process opens the store, checksums included, and holds it ready for dense and lexical search."""
    runs = []
    for _run in range(3):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(bench.store)], capture_output=True, text=True, check=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        runs.append(json.loads(done.stdout))
    best = min(runs, key=lambda run: run["open_s"])
    row = {"method": "open", **{k: round(v, 3) for k, v in best.items()},
           "anonymous_bytes_per_passage": round(best["anonymous_bytes"] / bench.count, 1)}  # fmt: skip
    say(row)
    return [row]


def resident() -> int:
    """Bytes of anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def say(row: Row) -> None:
    """On stdout at once, so that a run that is stopped has shown what it has."""
    print(json.dumps(row), flush=True)


STAGES: dict[str, Callable[[Bench, Any], list[Row]]] = {
    "ours": lambda bench, _: ours(bench, [None if plan(bench.count, bench.manifest.dims).kind != "flat" else "pq"]),
    "again": as_it_is,
    "codes": lambda bench, _: ours(bench, ["pq", "rabitq", "sq8"]),
    "faiss": plain_faiss,
    "hnswlib": hnswlib_graph,
    "usearch": usearch_graph,
    "lexical": lambda bench, _: lexical(bench),
    "lexical-ours": lambda bench, _: lexical(bench, ()),
    "open": opening,
    "search": searches,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stage", action="append", choices=list(STAGES), required=True)
    given = parser.parse_args()
    import faiss

    faiss.omp_set_num_threads(1)
    bench = Bench(given.store, given.data)
    for stage in given.stage:
        rows = STAGES[stage](bench, None)
        kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        kept.setdefault(f"{bench.count}", {})[stage] = {
            "machine_load": os.getloadavg()[0], "embedder": bench.manifest.embedder, "dims": bench.manifest.dims,
            "gb_per_second": round(bandwidth() / 1e9, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "queries": len(bench.queries),
            "rows": rows,
        }  # fmt: skip
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
