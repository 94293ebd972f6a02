"""Quality of each retriever and fusion on the IR and multi-hop sets, reporting rows left out.

Runs are written in TREC form, read back and scored by pytrec_eval; intervals are percentile bootstraps over queries
(scipy). The learned fusion takes its weight from the other half of a set's queries, so no query is scored by a weight
that it helped to choose. bm25s alone and each embedder alone stand beside the store's own retrievers.

    python bench/quality.py --data ../shared/data --stores runs/quality scifact cranfield hotpotqa_s musique_s nq_dev
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from sleuth.corpora.records import Document
from sleuth.retrieval.build import BuildSpec, build_once
from sleuth.retrieval.fuse import learned_weight
from sleuth.retrieval.job import indexed_text
from sleuth.retrieval.store import Datastore

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "quality.json"
MEASURES = ("ndcg_cut_10", "recall_5", "recall_20", "recall_100")
DEPTH = 100
MAX_QUERIES = 400
Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]


def is_reporting(id_: str) -> bool:
    return int(hashlib.sha256(id_.encode()).hexdigest(), 16) % 10 < 3


def read_set(data: Path, name: str) -> tuple[list[Document], dict[str, str], Qrels]:
    """Documents, queries by id, and judgements; reporting rows left out."""
    ir = data / "ir" / name
    if ir.is_dir():
        corpus = [(row["id"], row["text"], row.get("title", "")) for row in lines(ir / "corpus.jsonl.gz")]
        queries = {row["id"]: row["text"] for row in lines(ir / "queries.dev.jsonl")}
        qrels: Qrels = {}
        for line in (ir / "qrels.dev.tsv").read_text().splitlines()[1:]:
            query, document, score = line.split("\t")
            if int(score) > 0:
                qrels.setdefault(query, {})[document] = int(score)
    else:
        path = next(p for p in (data / "qa" / f"{name}.dev.jsonl", data / "qa" / f"{name}.jsonl") if p.is_file())
        rows = [row for row in lines(path) if row["supporting"]]
        queries = {row["id"]: row["question"] for row in rows}
        qrels = {row["id"]: dict.fromkeys(row["supporting"], 1) for row in rows}
        base = "nq" if name.startswith("nq_") else name
        corpus = [(r["id"], r["text"], r["title"]) for r in lines(data / "corpora" / f"{base}.corpus.jsonl.gz")]
    kept = [id_ for id_ in queries if id_ in qrels and not is_reporting(id_)][:MAX_QUERIES]
    documents = [Document(id_, text, title=title or "", source=name) for id_, text, title in corpus if text.strip()]
    return documents, {id_: queries[id_] for id_ in kept}, {id_: qrels[id_] for id_ in kept}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def by_document(hits: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Score of each document: that of its best passage."""
    scores: dict[str, float] = {}
    for doc_id, score in hits:
        scores.setdefault(doc_id, score)
    return dict(list(scores.items())[:DEPTH])


def run_of(store: Datastore, queries: Mapping[str, str], **how: Any) -> Run:
    found = store.search(list(queries.values()), 2 * DEPTH, **how)
    return {
        id_: by_document([(hit.passage.doc_id, 1 / hit.rank) for hit in hits])
        for id_, hits in zip(queries, found, strict=True)
    }


def run_of_bm25s(store: Datastore, queries: Mapping[str, str]) -> Run:
    """bm25s as its own quick start has it: its tokenizer with the English stemmer and stop words."""
    import bm25s
    import Stemmer

    passages = [store._passage(row)[0] for row in range(len(store))]
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25()
    given = [indexed_text(passage) for passage in passages]
    index.index(bm25s.tokenize(given, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(queries.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    rows, scores = index.retrieve(asked, k=min(2 * DEPTH, len(passages)), show_progress=False)
    return {
        id_: by_document([(passages[row].doc_id, float(s)) for row, s in zip(rows[n], scores[n], strict=True) if s > 0])
        for n, id_ in enumerate(queries)
    }


def learned(store: Datastore, queries: Mapping[str, str], qrels: Qrels) -> tuple[Run, list[float]]:
    """Weighted fusion, each half of the queries with the weight that is best on the other half."""
    grid = {weight: run_of(store, queries, dense_weight=weight) for weight in [n / 10 for n in range(11)]}
    scored = {weight: per_query(run, qrels, "ndcg_cut_10") for weight, run in grid.items()}
    halves = [[id_ for n, id_ in enumerate(sorted(queries)) if n % 2 == half] for half in (0, 1)]
    run: Run = {}
    weights = []
    for own, other in (halves, halves[::-1]):
        weight, _ = learned_weight(lambda w, ids=other: float(np.mean([scored[w][i] for i in ids])), steps=10)  # type: ignore[misc]
        weights.append(weight)
        run |= {id_: grid[weight][id_] for id_ in own}
    return run, weights


def write_run(path: Path, run: Run, tag: str) -> None:
    """``qid Q0 docid rank score tag``; ids without white space, as all of ours are."""
    rows = []
    for query, scores in run.items():
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        rows += [f"{query} Q0 {doc} {rank} {score:.6f} {tag}" for rank, (doc, score) in enumerate(ranked, start=1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def per_query(run: Run, qrels: Qrels, measure: str) -> dict[str, float]:
    """A query that found nothing counts as 0."""
    import pytrec_eval

    family = measure.rpartition("_")[0]
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"{family}.{measure.rpartition('_')[2]}"})
    found = evaluator.evaluate({id_: scores for id_, scores in run.items() if scores})
    return {id_: found.get(id_, {}).get(measure, 0.0) for id_ in qrels}


def figures(path: Path, qrels: Qrels) -> dict[str, list[float]]:
    """Mean and the ends of its 95 % interval, by measure, of a run file."""
    import pytrec_eval
    from scipy.stats import bootstrap

    with path.open() as file:
        run = pytrec_eval.parse_run(file)
    found = {}
    for measure in MEASURES:
        values = np.array(list(per_query(run, qrels, measure).values()))
        interval = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
        found[measure] = [round(float(x), 4) for x in (values.mean(), interval.low, interval.high)]
    return found


def measure(data: Path, stores: Path, name: str, embedders: Sequence[str]) -> dict[str, Any]:
    documents, queries, qrels = read_set(data, name)
    runs: dict[str, Callable[[], Run]] = {}
    weights: dict[str, list[float]] = {}
    for spec in embedders:
        store = Datastore.open(build_once(documents, stores / f"{name}-{spec}", BuildSpec(spec)))
        if spec == embedders[0]:
            runs["bm25s alone"] = lambda s=store: run_of_bm25s(s, queries)  # type: ignore[misc]
            runs["bm25"] = lambda s=store: run_of(s, queries, mode="bm25")  # type: ignore[misc]
        runs[f"{spec} alone"] = lambda s=store: run_of(s, queries, mode="dense")  # type: ignore[misc]
        how = "weight 0.1" if spec.startswith("static") else "reciprocal ranks"
        runs[f"hybrid {spec}, {how}"] = lambda s=store: run_of(s, queries, mode="hybrid")  # type: ignore[misc]

        def fused(s: Datastore = store, own: str = spec) -> Run:
            run, weights[own] = learned(s, queries, qrels)
            return run

        runs[f"hybrid {spec}, learned weight"] = fused
    table = {}
    for label, make in runs.items():
        path = stores / "trec" / f"{name}.{label.replace(' ', '_').replace(',', '')}.run"
        write_run(path, make(), label.replace(" ", "_"))
        table[label] = figures(path, qrels)
        print(name, label, table[label], flush=True)
    return {"documents": len(documents), "queries": len(queries), "weights": weights, "retrievers": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--stores", type=Path, required=True, help="stores and TREC runs go here")
    parser.add_argument("--embedder", action="append", help="repeat it; default: minilm and static")
    given = parser.parse_args()
    for name in given.sets:
        found = measure(given.data, given.stores, name, given.embedder or ["minilm", "static"])
        kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        kept[name] = found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
