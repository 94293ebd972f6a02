"""What a datastore costs: building (seconds per stage, peak memory), opening, and searching, beside plain libraries.

Two stores are made of the passages in the given files: one of ``--passages`` with real vectors, one of ``--large``
passages that repeats the same texts under new ids with RANDOM unit vectors, which tells opening and latency, and
nothing about quality. Usage: ``python bench/retrieval.py [CORPUS...] [--passages 10000] [--large 100000]``; prints a
table and writes bench/results/retrieval.json. A small trial: ``--passages 200 --large 2000``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from sleuth.corpora.read import read
from sleuth.corpora.records import Document
from sleuth.retrieval import build as building
from sleuth.retrieval.embed import MiniLM, embedder
from sleuth.retrieval.store import Datastore

ROOT = Path(__file__).parents[1]
OPEN = (
    "import sys, time; from sleuth.retrieval.store import Datastore\n"
    "started = time.perf_counter(); store = Datastore.open(sys.argv[1]); print(time.perf_counter() - started)"
)


class RandomVectors(MiniLM):
    """MiniLM for queries; passages get random unit vectors, so that a large store can be made in a minute."""

    __slots__ = ()

    def encode(
        self, texts: Sequence[str], batch_size: int = 32, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        found = np.random.default_rng(len(texts)).standard_normal((len(texts), self.dims), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def repeated(documents: Sequence[Document], count: int) -> list[Document]:
    """``count`` documents with distinct ids and metadata; texts come again from the start where there are too few."""
    rounds = enumerate(islice(cycle(documents), count))
    return [
        dataclasses.replace(d, id=f"r{n:07d}", metadata={**d.metadata, "copy": n // len(documents)}) for n, d in rounds
    ]


def questions(documents: Sequence[Document], count: int) -> list[str]:
    """Distinct queries of 5 to 14 words, taken out of the middle of texts."""
    chooser = np.random.default_rng(0)
    found = []
    for n in chooser.permutation(len(documents)):
        words = documents[n].text.split()
        if len(words) > 20:
            start = int(chooser.integers(0, len(words) - 15))
            found.append(" ".join(words[start : start + int(chooser.integers(5, 15))]))
        if len(found) == count:
            break
    return found


def milliseconds(call: Callable[[str], object], queries: Sequence[str]) -> tuple[float, float]:
    """p50 and p95 of one call a query, after five to warm up."""
    for query in queries[:5]:
        call(query)
    taken = []
    for query in queries[5:]:
        started = time.perf_counter()
        call(query)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken), statistics.quantiles(taken, n=20)[-1]


def build_figures(report: building.BuildReport) -> dict[str, Any]:
    stages = {f"build_{stage}_s": round(seconds, 2) for stage, seconds in report.seconds.items()}
    rate = report.passages / report.seconds["embed"]
    peak = round(report.peak_bytes / 2**20)
    return {"build_passages": report.passages, **stages, "build_peak_mib": peak, "embed_passages_per_s": round(rate, 1)}


def embed_figures(documents: Sequence[Document]) -> dict[str, Any]:
    """Passages per second of this embedder and of sentence-transformers as it comes, same texts, same process."""
    from sentence_transformers import SentenceTransformer

    texts = [document.text for document in documents[:256]]
    model = embedder("minilm")
    plain = SentenceTransformer(str(getattr(model, "folder", "")), device="cpu")
    rates = {}
    for name, encode in (("ours", model.encode), ("sentence_transformers", plain.encode)):
        encode(texts[:8])
        started = time.perf_counter()
        encode(texts)
        rates[name] = len(texts) / (time.perf_counter() - started)
    return {
        "embed_sentence_transformers_per_s": round(rates["sentence_transformers"], 1),
        "embed_ratio": round(rates["ours"] / rates["sentence_transformers"], 2),
    }


def search_figures(store: Datastore, queries: Sequence[str]) -> dict[str, Any]:
    """Latency of each mode, of a filtered search and of fetching; queries are never repeated within a mode."""
    figures: dict[str, Any] = {}
    share = len(queries) // 3
    for n, mode in enumerate(("bm25", "dense", "hybrid")):
        own = queries[n * share : (n + 1) * share]
        p50, p95 = milliseconds(lambda query, mode=mode: store.search([query], 10, mode=mode), own)  # type: ignore[misc]
        figures[f"search_{mode}_p50_ms"], figures[f"search_{mode}_p95_ms"] = round(p50, 2), round(p95, 2)
    p50, _ = milliseconds(lambda query: store.search([query], 10, {"copy": 0}), queries[:share])
    figures["search_hybrid_filtered_p50_ms"] = round(p50, 2)
    ids = [row[0] for row in store.sql("select id from passages using sample 1000 (reservoir, 0)")[1]]
    store.fetch(ids[:1])
    p50, _ = milliseconds(lambda _: store.fetch(ids[:100]), queries[:50])
    figures["fetch_100_p50_ms"] = round(p50, 2)
    return figures


def bm25s_figures(store: Datastore, queries: Sequence[str], ours_ms: float) -> dict[str, Any]:
    """The same lexical search by bm25s, its scores computed ahead, without passages or ties looked up."""
    import bm25s

    from sleuth.retrieval.tokens import Analyzer

    analyzer = Analyzer(store.manifest.language, store.manifest.analyzer)
    texts = [row[0] for row in store.sql("select concat_ws(chr(10), title, text) from passages", limit=len(store))[1]]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index([analyzer.terms(text) for text in texts], show_progress=False)

    def call(query: str) -> object:
        return index.retrieve([analyzer.terms(query)], k=10, show_progress=False, n_threads=1)

    p50, _ = milliseconds(call, queries)
    return {"bm25s_p50_ms": round(p50, 2), "bm25_ratio_of_time": round(ours_ms / p50, 2)}


def open_seconds(path: Path) -> float:
    """In a new process, its imports not counted, files in the page cache; the best of three."""
    command = [sys.executable, "-c", OPEN, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment) for _ in range(3)
    ]
    return min(float(run.stdout) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", type=Path, default=[ROOT / "recipes" / "demo"], help="files or folders")
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    given = parser.parse_args()
    documents = list(read(given.corpora, lambda drop: None))
    queries = questions(documents, 300)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        figures = build_figures(building.build(repeated(documents, given.passages), small))
        figures |= embed_figures(documents)
        minilm = embedder("minilm")
        building.embedder = lambda spec, device: RandomVectors(getattr(minilm, "folder", ""))  # type: ignore[assignment]
        building.build(repeated(documents, given.large), large)
        figures |= {"large_passages_random_vectors": given.large, "open_s": round(open_seconds(large), 3)}
        store = Datastore.open(large)
        size = sum(path.stat().st_size for path in large.rglob("*"))
        figures |= {"large_bytes_per_passage": round(size / len(store)), **search_figures(store, queries)}
        figures |= bm25s_figures(store, queries[:100], figures["search_bm25_p50_ms"])
    out = Path(__file__).parent / "results" / "retrieval.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")
    print("| measure | value |\n|---|---|")
    print("\n".join(f"| {key} | {value} |" for key, value in figures.items()))


if __name__ == "__main__":
    main()
