"""A research agent whose only search is the endpoint that Search-R1's agents ask, on a store of any size.

`sleuth serve` is started on STORE; a client that knows nothing but the published request (``{"queries", "topk",
"return_scores"}`` to ``/retrieve``) and its reply stands behind the search tool; the embedded policy answers questions
of a benchmark's held-out rows (`training.recipe`: neither trained on nor reported). Several questions run at once, so
the server batches their searches. Usage: ``python bench/search_r1.py STORE --data DIR [--questions 24]``; writes
bench/results/search_r1.json. Citations are checked against the store itself afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx

from bench.serving import free_port, ours, server
from sleuth.agents import episodes
from sleuth.agents.cite import verify
from sleuth.agents.context import Context
from sleuth.agents.policy import open_policy
from sleuth.agents.records import Episode
from sleuth.agents.strategy import strategy
from sleuth.corpora.records import Passage
from sleuth.eval.benchmarks import BENCHMARKS
from sleuth.eval.evaluate import evaluate
from sleuth.eval.metrics.answer import cover_em, em, f1
from sleuth.eval.report import Report
from sleuth.eval.run import runner
from sleuth.eval.split import bucket
from sleuth.eval.stats import interval
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.store import Datastore
from sleuth.training.recipe import HELD_OUT_TENTHS

RESULTS = Path(__file__).parent / "results"
METRICS = {"em": em, "f1": f1, "cover_em": cover_em}


class SearchR1:
    """A retriever that speaks the published shape alone, which has no fetch: what a search brought is kept."""

    def __init__(self, url: str, fingerprint: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)
        self.fingerprint = fingerprint
        self.seconds: list[float] = []
        self.queries = 0
        self.passages: dict[str, Passage] = {}

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        started = time.perf_counter()
        reply = self.client.post("/retrieve", json={"queries": list(queries), "topk": k, "return_scores": True})
        reply.raise_for_status()
        self.seconds.append(time.perf_counter() - started)
        self.queries += len(queries)
        return [[self._hit(row, rank) for rank, row in enumerate(rows, 1)] for rows in reply.json()["result"]]

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return [self.passages[id_] for id_ in passage_ids]

    def _hit(self, row: dict[str, Any], rank: int) -> Hit:
        title, _, text = row["document"]["contents"].partition("\n")
        id_ = row["document"]["id"]
        passage = self.passages.setdefault(id_, Passage(id_, id_, 0, len(text), title.strip('"'), text))
        return Hit(passage, row["score"], rank, "search-r1")


async def answered(retriever: SearchR1, given: argparse.Namespace, folder: Path) -> tuple[Report, list[Episode]]:
    """The figures of every question and its episode."""
    benchmark = BENCHMARKS[given.benchmark]
    tasks = [task for task in benchmark.load(given.data) if bucket({"id": task.id}) in HELD_OUT_TENTHS]
    context = Context(open_policy(given.policy), strategy(given.strategy), {}, retriever.fingerprint)
    out = folder / "episodes.jsonl"
    report = await evaluate(
        tasks[: given.questions], runner(context, retriever, out), METRICS, out=out,
        progress=lambda done, all_: print(f"\r{done} of {all_} ", end="", file=sys.stderr, flush=True),
    )  # fmt: skip
    return report, list(episodes.read(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--benchmark", default="hotpotqa_s")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--strategy", default="iterative")
    parser.add_argument("--policy", default="embedded")
    parser.add_argument("--mode", default="hybrid")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_r1.json")
    given = parser.parse_args()
    store, port = Datastore.open(given.store), free_port()
    with server(ours(given.store, port, given.mode), port) as (url, _), tempfile.TemporaryDirectory() as folder:
        retriever = SearchR1(url, store.fingerprint)
        started = time.perf_counter()
        report, ran = asyncio.run(answered(retriever, given, Path(folder)))
        seconds = time.perf_counter() - started
    checks = [check for episode in ran for check in verify(episode, store)]
    figures = {
        "passages": len(store), "strategy": given.strategy, "mode": given.mode, "questions": len(ran),
        "endings": Counter(episode.stop for episode in ran), "seconds": round(seconds, 1),
        "searches": retriever.queries, "requests": len(retriever.seconds),
        "request_p50_ms": round(statistics.median(retriever.seconds) * 1e3, 1),
        "request_max_ms": round(max(retriever.seconds) * 1e3, 1),
        **{name: round(interval(list(report.values(name).values())).mean * 100, 1) for name in METRICS},
        "citations": len(checks), "citations_that_hold": sum(check.holds for check in checks),
    }  # fmt: skip
    given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
