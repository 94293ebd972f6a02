"""Benchmarks from the command line: which there are, what a set holds, and what a datastore alone finds of it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.terminal import emit, progress, say, table

if TYPE_CHECKING:
    from sleuth.corpora.records import Document
    from sleuth.eval.records import Benchmark, Task
    from sleuth.eval.report import Report
    from sleuth.retrieval.records import Retriever

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
PlaceOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A folder, a file (JSONL, JSON, CSV, TSV, Parquet) or hf:OWNER/NAME; the five shipped rows if none.",
    ),
]
SHOWN_BAD = 5


def benchmarks(
    name: Annotated[str | None, typer.Argument(help="A set to look into; without it all are listed.")] = None,
    data: PlaceOption = None,
    documents: Annotated[
        Path | None, typer.Option(help="Write the texts that the rows carry here, for `sleuth build`.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Name the questions whose documents this datastore does not hold.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the benchmarks, or load one and say what it holds; rows that cannot be used are named.

    Example: sleuth benchmarks hotpotqa --data hotpot_dev_distractor_v1.json --documents corpus.jsonl
    """
    from sleuth.eval.benchmarks import BENCHMARKS, benchmark

    if name is None:
        listed = [_listed(chosen) for chosen in BENCHMARKS.values()]
        if as_json:
            for row in listed:
                emit(row)
        else:
            table(["name", "scored by", "texts", "licence"], [tuple(row.values()) for row in listed])
        return
    chosen, place = benchmark(name)
    bad: list[str] = []
    tasks = chosen.load(data or place, bad.append)
    found = _held(chosen, tasks, bad)
    if store is not None:
        from sleuth.eval.load import holds, resolved
        from sleuth.retrieval.store import Datastore

        kept = resolved(tasks, functools.partial(holds, Datastore.open(store)), bad.append)
        found["evidence not in the store"] = len(tasks) - len(kept)
    if documents is not None:
        found["documents"] = _written(chosen, data or place, documents)
    if as_json:
        emit(found)
        return
    table(["what", "value"], [(key, _shown(value)) for key, value in found.items() if key != "bad"])
    say_bad(bad)


def rank(
    store: Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`.")],
    benchmark: Annotated[str, typer.Argument(help="A benchmark, a question file, or a folder in BEIR's layout.")],
    data: PlaceOption = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Passages searched for each question.")] = 100,
    mode: Annotated[str, typer.Option(help="hybrid, bm25 or dense.")] = "hybrid",
    limit: Annotated[int | None, typer.Option(min=1, help="Draw this many questions by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
    reporting: Annotated[bool, typer.Option("--reporting", help="Only rows that no training takes.")] = False,
    run: Annotated[Path | None, typer.Option("--out", help="Write the episodes here, a JSONL file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a datastore's search alone, without a policy: nDCG, MRR, recall by trec_eval, with bootstrap intervals.

    Each question is searched once, as it stands. Example: sleuth rank store scifact --data data
    """
    from sleuth.eval.benchmarks import benchmark as find
    from sleuth.eval.load import holds, none_usable, resolved, select
    from sleuth.retrieval.store import Datastore

    chosen, place = find(benchmark)
    bad: list[str] = []
    found = chosen.load(data or place, bad.append)
    loaded = [task for task in found if task.supporting]
    drawn = select(loaded, limit, seed, reporting)
    if not found or (loaded and not drawn):
        raise none_usable(benchmark, len(found), bad)
    if not loaded:
        raise ConfigError(f"{benchmark}: no question marks its documents, so that nothing can be ranked")
    opened = Datastore.open(store)
    retriever = opened.retriever(mode)  # type: ignore[arg-type] # it says itself which modes there are
    tasks = resolved(drawn, functools.partial(holds, opened), bad.append)
    if not tasks:
        raise InputError(f"{benchmark}: expected questions with their documents in {store}, found 0 of {len(drawn)}; "
                         f"{bad[-1]}")  # fmt: skip
    with progress() as tell:
        report = asyncio.run(_ranked(chosen, tasks, bad, retriever, k, run, functools.partial(tell, "questions")))
    if as_json:
        emit(_figures(report, k))
    else:
        rows = [(s.metric, *_interval(s.interval), s.unscored) for s in report.summaries()]
        table(
            ["measure", "mean", "95 % from", "to", "questions", "not scored"],
            rows,
            f"{chosen.name}, first {k} passages",
        )
    say_bad(bad)


async def _ranked(
    chosen: Benchmark, tasks: list[Task], bad: list[str], store: Retriever, k: int, path: Path | None, tell: Any
) -> Report:
    from sleuth.eval.evaluate import evaluate
    from sleuth.eval.metrics import RANKING, evidence_recall
    from sleuth.eval.ranking import searching

    metrics = {**RANKING, "evidence_recall": evidence_recall}
    return await evaluate(
        tasks,
        searching(store, k),
        metrics,
        name="search",
        benchmark=chosen.name,
        primary="ndcg@10",
        bad=bad,
        concurrency=64,
        out=path,
        progress=tell,
    )


def _figures(report: Report, k: int) -> dict[str, Any]:
    found = {
        s.metric: {"interval": asdict(s.interval) if s.interval else None, "causes": s.causes}
        for s in report.summaries()
    }
    return {
        "benchmark": report.benchmark,
        "k": k,
        "questions": len(report.scored),
        "bad": list(report.bad),
        "measures": found,
    }


def _interval(found: Any) -> tuple[Any, ...]:
    return (
        ("–", "–", "–", 0) if found is None else (f"{found.mean:.4f}", f"{found.low:.4f}", f"{found.high:.4f}", found.n)
    )


def _listed(chosen: Benchmark) -> dict[str, str]:
    texts = "in its rows" if chosen.documents else chosen.corpus or "yours"
    return {"name": chosen.name, "primary": chosen.primary, "texts": texts, "licence": chosen.licence}


def _held(chosen: Benchmark, tasks: list[Task], bad: list[str]) -> dict[str, Any]:
    """What the rows of a set are, in counts."""
    from sleuth.eval.load import is_reporting

    return {
        **_listed(chosen),
        "questions": len(tasks),
        "reporting": sum(map(is_reporting, tasks)),
        "metrics": list(chosen.metrics),
        "types": dict(Counter(task.type or "–" for task in tasks).most_common(12)),
        "hops": {str(hops): n for hops, n in sorted(Counter(t.hops or 0 for t in tasks).items())},
        "marked": sum(bool(task.supporting) for task in tasks),
        "unanswerable": sum(task.metadata.get("answerable", True) is False for task in tasks),
        "bad": bad,
    }


def _written(chosen: Benchmark, place: str | Path | None, path: Path) -> int:
    """Writes the carried texts as JSONL in the corpus layout; returns how many."""
    if chosen.documents is None:
        raise ConfigError(
            f"{chosen.name}: its rows carry no texts; its corpus is {chosen.corpus or 'for you to bring'}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for document in chosen.documents(place):
            file.write(json.dumps(_row(document), ensure_ascii=False) + "\n")
            count += 1
    say(f"{count} texts in {path}")
    return count


def _row(document: Document) -> dict[str, str]:
    return {"id": document.id, "title": document.title, "text": document.text, "source": document.source}


def say_bad(bad: list[str]) -> None:
    """The first few rows or lines that could not be used, on stderr."""
    for message in bad[:SHOWN_BAD]:
        say(message)
    if len(bad) > SHOWN_BAD:
        say(f"... and {len(bad) - SHOWN_BAD} more rows that cannot be used; --json lists all")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {n}" for key, n in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
