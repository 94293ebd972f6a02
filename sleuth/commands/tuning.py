"""Tuning what searches to the user's own corpus: the embedder, and the router of a sources file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.commands.stores import JsonFlag, StoreArgument
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.terminal import emit, progress, say, table

if TYPE_CHECKING:
    from sleuth.retrieval.tune import Measured

MEASURES = ("ndcg@10", "recall@10", "recall@1")
FOLDS = 5


def tune_embedder(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", help="The tuned model's folder, which --embedder takes.")],
    base: Annotated[str, typer.Option(help="minilm, or the folder or id of a sentence-transformers model.")] = "minilm",
    questions: Annotated[
        Path | None, typer.Option(help="JSONL of question and passage_id or supporting, to train on as well.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="JSONL of questions that are only measured.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Most that are trained on.")] = 4_000,
    negatives: Annotated[int, typer.Option(min=1, max=8, help="Hard negatives of each.")] = 1,
    epochs: Annotated[float, typer.Option(min=0.01)] = 1.0,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    rate: Annotated[float, typer.Option(help="Learning rate at its height.")] = 2e-5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same examples.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Fine-tune an embedder on queries made from a store's own passages, and show before and after.

    A tenth of the documents is held out and measured; so are the questions of --test. A store is then built with it.

    Example: sleuth tune-embedder store --out tuned, then: sleuth build docs/ --out better --embedder tuned
    """
    from sleuth.retrieval.store import Datastore
    from sleuth.retrieval.tune import TuneSpec, tune

    spec = TuneSpec(base, examples, negatives, epochs, batch, rate, seed=seed)
    with progress() as tell:
        done = tune(Datastore.open(store), out, spec, _rows(questions), _rows(test), tell, resume)
    parts = {"held out": done.held_out, "test": done.test}
    rows = [row for name, own in parts.items() if own for row in _scores(name, own)]
    if as_json:
        emit({"folder": done.folder, "trained": done.trained, "scores": rows})
        return
    table(
        ("measured on", "", "queries", "before", "after", "difference", "from", "to"),
        [(r["on"], r["measure"], r["queries"], r["before"]["mean"], r["after"]["mean"], r["difference"]["mean"],
          r["difference"]["low"], r["difference"]["high"]) for r in rows],
        title="Exact search over the store's passages; 95 % intervals of the difference",
    )  # fmt: skip
    say(f"trained on {', '.join(f'{count:,} {kind}s' for kind, count in done.trained.items())}")
    say(f"next: sleuth build ... --embedder {done.folder}")


def tune_router(
    sources: Annotated[Path, typer.Argument(help="A sources file.")],
    labelled: Annotated[
        Path, typer.Argument(help="JSONL of question and source, the name of the one that answers it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The router, which `route` in the sources file then names.")],
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Learn which source answers which query, and show it beside the probe that needs no labels.

    Both are measured on queries that the learned one has not seen, by folds; what is saved has seen all.

    Example: sleuth tune-router sources.toml labelled.jsonl --out router.json
    """
    import random

    from sleuth.eval.stats import interval, paired_difference
    from sleuth.retrieval.route import Probe, accuracy, fit
    from sleuth.retrieval.sources import open_sources

    rows = []
    for number, row in enumerate(_rows(labelled), 1):
        if not isinstance(row.get("question"), str) or not isinstance(row.get("source"), str):
            raise InputError(f"{labelled}:{number}: expected question and source, found {str(row)[:80]}")
        rows.append((row["question"], row["source"]))
    if len(rows) < 2 * FOLDS:
        raise InputError(f"{labelled}: expected at least {2 * FOLDS} labelled queries, found {len(rows)}")
    probe = open_sources(sources, route="probe").choose
    if not isinstance(probe, Probe):
        raise AssertionError(f"expected the probe that was asked for, found {probe!r}")
    router = fit(rows, probe, seed)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    right: dict[str, float] = {}
    for fold in range(FOLDS):
        kept = [rows[n] for at, n in enumerate(order) if at % FOLDS != fold]
        tested = [n for at, n in enumerate(order) if at % FOLDS == fold]
        found = accuracy(fit(kept, probe, seed), [rows[n] for n in tested])
        right |= {str(n): float(value) for n, value in zip(tested, found, strict=True)}
    by_probe = {str(n): float(value) for n, value in enumerate(accuracy(probe, rows))}
    router.save(out)
    shown = {
        "probe": interval(list(by_probe.values())),
        "learned": interval(list(right.values())),
        "difference": paired_difference(right, by_probe),
    }
    if as_json:
        emit({"router": str(out), "queries": len(rows), **{n: _interval(v) for n, v in shown.items()}})
        return
    table(("first choice right", "mean", "from", "to"),
          [(name, v.mean, v.low, v.high) for name, v in shown.items() if v is not None],
          title=f"{len(rows):,} queries, {FOLDS} folds, 95 % intervals")  # fmt: skip
    say(f'next: route = "{out}" in {sources}')


def _rows(path: Path | None) -> list[Mapping[str, Any]]:
    if path is None:
        return []
    found: list[Mapping[str, Any]] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: expected a JSON object, found {line[:80]}")
                found.append(row)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected one JSON object a line: {error}") from error
    if not found:
        raise ConfigError(f"{path}: expected at least one row, found none")
    return found


def _scores(name: str, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Mean before and after with intervals, and the paired difference."""
    from sleuth.eval.ranking import one_query
    from sleuth.eval.stats import interval, paired_difference

    rows = []
    for measure in MEASURES:
        values = []
        for which in ("before", "after"):
            values.append({str(n): one_query(dict.fromkeys(m.gold, 1), getattr(m, which), measure)
                           for n, m in enumerate(measured)})  # fmt: skip
        before, after = values
        rows.append({
            "on": name, "measure": measure, "queries": len(measured), "before": _interval(interval([*before.values()])),
            "after": _interval(interval([*after.values()])), "difference": _interval(paired_difference(after, before)),
        })  # fmt: skip
    return rows


def _interval(found: Any) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}
