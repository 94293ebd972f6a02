"""The floor and what was built on it: every strategy with the untrained model, the first policy and the shipped one.

For each multi-hop set: answer, evidence, citation and cost figures on reporting rows, which no training takes; what
retrieval alone allows (the plain question, no model); what constrained decoding alone gains (untrained, naive-rag).
Every question's figures are a line of bench/results/floor.csv, from which floor.md and floor.json are made; questions
that stand there are not run again, so later work is compared with the floor question by question, and a killed run
goes on. Several may run at once. Usage: ``python bench/floor.py --data DIR [--limit 100]``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.cells import ORDER, POLICIES, SETS, Cell, Stores, add_rows, engine_of, given_by, machine, version
from sleuth.agents.records import Answer, Episode, Step
from sleuth.agents.strategy import STRATEGIES
from sleuth.eval import report
from sleuth.eval.benchmarks import BENCHMARKS
from sleuth.eval.load import select
from sleuth.eval.metrics import answer_in_retrieved, evidence_recall
from sleuth.eval.records import Scored, Task
from sleuth.eval.report import Report, figure, grid, label
from sleuth.eval.run import run_strategies
from sleuth.eval.stats import Interval, interval, paired_difference

LOOPS = ("decompose", "chain", "iter-retgen", "iterative")
"""Compared with naive-rag, a single search, under the newest policy."""
SCORES = ("em", "f1", "cover_em", "evidence_recall", "answer_in_context")
CITATIONS = ("citation_precision", "citation_support", "quote_support", "citation_valid")
COMPARED = ("em", "f1", "evidence_recall", "citation_precision", "quote_support")
COSTS = ("searches", "prompt_tokens", "completion_tokens", "seconds")
DEPTHS = (5, 20)
CHUNK = 32
"""Questions whose lines are added together: what a kill can cost at most, beside the episodes on file."""
NOTE = """# The floor

Embedded model (SmolLM2-135M-Instruct, bf16 where the CPU has it), greedy decoding, hybrid search. Reporting rows only:
none was used, by its id, in training or in the choice of a setting (agents/adapters/shipped/README.md says which are
asked by a training row too). Mean [95 % bootstrap interval], n questions, scores times 100.
Intervals are wide because the reporting rows are few; [0.0, 0.0] says that none of the n scored, not that none ever
would. The policies share prompts, stores, decoding and seed.
"""


def cells(sets: Sequence[str], strategies: Sequence[str], policies: Sequence[str]) -> list[Cell]:
    """The most informative first: the newest policy on all sets, then the others, then the decoding modes."""
    plain = [Cell(d, s, p) for p in policies for s in strategies for d in sets]
    modes = [Cell(d, "naive-rag", "untrained", m) for m in ("none", "schema") for d in sets]
    return plain + (modes if "untrained" in policies and "naive-rag" in strategies else [])


async def run_cell(cell: Cell, tasks: Sequence[Task], store: Any, policy: Any, given: argparse.Namespace) -> None:
    """Runs the tasks that have no line in floor.csv and adds their lines."""
    started = time.monotonic()

    def tell(name: str, done: int, total: int) -> None:
        print(f"\r{cell.key}: {done}/{total}, {time.monotonic() - started:.0f} s ", end="", file=sys.stderr, flush=True)

    known = {row["task"] for row in read_rows(given.results, cell)}
    left = [task for task in tasks if task.id not in known]
    for at in range(0, len(left), CHUNK):
        (found,) = await run_strategies(
            BENCHMARKS[cell.dataset], left[at : at + CHUNK], store, policy, [STRATEGIES[cell.strategy]],
            given.out / version(cell) / cell.key, concurrency=given.concurrency, resume=True, progress=tell,
        )  # fmt: skip
        print(file=sys.stderr)
        add_rows(given.results / "floor.csv", COLUMNS, cell, found)


METRICS = (*SCORES, *CITATIONS, *COSTS)
COLUMNS = ("dataset", "strategy", "policy", "constrain", "version", "task", "stop", *METRICS)


def read_rows(folder: Path, cell: Cell | None = None) -> list[dict[str, str]]:
    """The lines of floor.csv: all, or those of one cell that were made with what it is now."""
    path = folder / "floor.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    key = {**dataclasses.asdict(cell), "version": version(cell)} if cell else {}
    return [row for row in rows if all(row[name] == value for name, value in key.items())]


def report_of(cell: Cell, rows: Sequence[dict[str, str]]) -> Report:
    """A cell's lines as a report."""
    values = [{name: float(row[name]) if row[name] else None for name in METRICS} for row in rows]
    scored = tuple(
        Scored(
            row["task"], given, {name: "not scored" for name, value in given.items() if value is None}, "", row["stop"]
        )
        for row, given in zip(rows, values, strict=True)
    )
    return Report(cell.key, cell.dataset, BENCHMARKS[cell.dataset].primary, METRICS, scored)


def figures(cell: Cell, found: Report) -> dict[str, Any]:
    """What floor.json keeps of a cell."""
    data = found.to_json()
    kept = {key: data[key] for key in ("questions", "endings", "metrics")}
    return {**dataclasses.asdict(cell), "version": version(cell), **kept}


def summed(folder: Path) -> dict[str, Any]:
    """The cells of floor.csv by key, each with its gains over the policy before it and over naive-rag of its own."""
    reports = {c: report_of(c, rows) for c in cells(SETS, ORDER, POLICIES) if (rows := read_rows(folder, c))}
    kept = {cell.key: figures(cell, found) for cell, found in reports.items()}
    for cell, found in reports.items():
        older = POLICIES[POLICIES.index(cell.policy) + 1 :][:1]
        bases = {name: dataclasses.replace(cell, policy=name) for name in older}
        if cell.policy == POLICIES[0] and cell.strategy in LOOPS:
            bases["naive-rag"] = dataclasses.replace(cell, strategy="naive-rag")
        kept[cell.key]["gains"] = {name: gains(found, reports[base]) for name, base in bases.items() if base in reports}
    return kept


def together(folder: Path) -> dict[str, Any]:
    """Over all sets at once, by strategy, paired over questions: the newest policy minus the one before it, and under
    the newest policy each loop minus the single search."""
    new, old = POLICIES[:2]
    return {
        f"{new} minus {old}": {s: _difference(folder, (s, new), (s, old)) for s in ORDER},
        f"minus naive-rag, {new}": {s: _difference(folder, (s, new), ("naive-rag", new)) for s in LOOPS},
    }


def _difference(folder: Path, ours: tuple[str, str], base: tuple[str, str]) -> dict[str, Any]:
    """What is `COMPARED` of one strategy under one policy minus that of another."""
    found: list[dict[str, dict[str, float]]] = []
    for strategy, policy in (ours, base):
        made: dict[str, dict[str, float]] = {metric: {} for metric in COMPARED}
        for cell in cells(SETS, [strategy], [policy]):
            if cell.constrain == "span":
                report_ = report_of(cell, read_rows(folder, cell))
                for metric in COMPARED:
                    made[metric] |= {f"{cell.dataset}/{key}": v for key, v in report_.values(metric).items()}
        found.append(made)
    differences = {metric: paired_difference(found[0][metric], found[1][metric]) for metric in COMPARED}
    return {metric: dataclasses.asdict(d) for metric, d in differences.items() if d}


def gains(ours: Report, base: Report) -> dict[str, Any]:
    """What is `COMPARED` of one run minus that of another, paired over questions."""
    found = {metric: paired_difference(ours.values(metric), base.values(metric)) for metric in COMPARED}
    return {metric: dataclasses.asdict(difference) for metric, difference in found.items() if difference}


def retrieved(task: Task, hits: Sequence[Any]) -> Episode:
    """An episode that only retrieved, so that the metrics of runs also judge a plain search."""
    passages = tuple(hit.passage for hit in hits)
    return Episode("", task.question, {}, "", (Step("searcher", passages=passages),), Answer(""), "answered")


def allows(tasks: Sequence[Task], store: Any) -> list[dict[str, Any]]:
    """Per retriever and depth: evidence recall and whether the answer stands in what the plain question finds."""
    rows = []
    scopes: dict[str, tuple[Any, list[Task]]] = {}
    for task in tasks:
        scopes.setdefault(repr(task.where), (task.where, []))[1].append(task)
    for name in ("bm25", "dense", "hybrid"):
        hits: dict[str, Sequence[Any]] = {}
        for where, same in scopes.values():
            found = store.search([task.question for task in same], max(DEPTHS), where, mode=name)
            hits |= {task.id: ranked for task, ranked in zip(same, found, strict=True)}
        for k in DEPTHS:
            episodes = [(task, retrieved(task, hits[task.id][:k])) for task in tasks]
            row: dict[str, Any] = {"retriever": name, "k": k}
            for metric in (evidence_recall, answer_in_retrieved):
                values = [value for pair in episodes if (value := metric(*pair)) is not None]
                mean = interval(values)
                row[metric.__name__] = dataclasses.asdict(mean) if mean else None
            rows.append(row)
    return rows


def render(state: dict[str, Any]) -> str:
    """floor.md from floor.json's content."""
    waiting = (
        f"Seconds include waiting for the other {state['concurrency'] - 1} concurrent episodes. {state['machine']}."
    )
    lines = [
        *NOTE.splitlines(),
        waiting,
        "",
        *_overview(state),
    ]
    for dataset in SETS:
        ours = [c for c in state["cells"].values() if c["dataset"] == dataset]
        if not ours and dataset not in state["retrieval"]:
            continue
        lines += [f"## {dataset}", ""]
        lines += _strategies([c for c in ours if c["constrain"] == "span"])
        lines += _decoding([c for c in ours if c["policy"] == "untrained" and c["strategy"] == "naive-rag"])
        lines += _retrieval(state["retrieval"].get(dataset))
    return "\n".join(lines).rstrip() + "\n"


def _overview(state: dict[str, Any]) -> list[str]:
    """F1 alone, one line a set, the policies beside one another."""
    rows = [[d, *(" / ".join(_f1(state, Cell(d, s, p)) for p in POLICIES) for s in ORDER)] for d in SETS]
    lines = [f"F1 of the policies ({' / '.join(POLICIES)}):", "", grid([["set", *ORDER], *rows]), ""]
    for what, strategies in state["together"].items():
        lines += [f"Over all sets together, paired over questions, {what}:", ""]
        for strategy, found in strategies.items():
            if found:
                lines.append(f"- {strategy}: {', '.join(f'{label(m)} {_interval(m, d)}' for m, d in found.items())}")
        lines.append("")
    return lines


def _f1(state: dict[str, Any], cell: Cell) -> str:
    found = state["cells"].get(cell.key)
    return f"{100 * found['metrics']['f1']['mean']:.1f}" if found and found["questions"] else "–"


def _strategies(ours: list[dict[str, Any]]) -> list[str]:
    if not ours:
        return []
    order = {name: i for i, name in enumerate(ORDER)}
    ours = sorted(ours, key=lambda c: (order[c["strategy"]], POLICIES.index(c["policy"])))
    parts = []
    for metrics in (SCORES, (*CITATIONS, *COSTS)):
        head = ["strategy", "policy", "n", *map(label, metrics)]
        rows = [[c["strategy"], c["policy"], str(c["questions"]), *(_shown(c, m) for m in metrics)] for c in ours]
        parts += [grid([head, *rows]), ""]
    paired = [(c, base, found) for c in ours for base, found in c["gains"].items()]
    if paired:
        parts += ["Differences, paired over questions:", ""]
        for c, base, found in paired:
            differences = [f"{label(m)} {_interval(m, difference)}" for m, difference in found.items()]
            parts.append(f"- {c['policy']} minus {base}, {c['strategy']}: {', '.join(differences)}")
        parts.append("")
    return parts


def _decoding(ours: list[dict[str, Any]]) -> list[str]:
    if len(ours) < 2:
        return []
    modes = ("none", "schema", "span")
    ours = sorted(ours, key=lambda c: modes.index(c["constrain"]))
    metrics = ("em", "f1", "cover_em", "citation_precision", "citation_support", "completion_tokens")
    rows = [[c["constrain"], str(c["questions"]), *(_shown(c, m) for m in metrics)] for c in ours]
    head = ["decoding", "n", *map(label, metrics)]
    return ["What constrained decoding alone gains (untrained, naive-rag):", "", grid([head, *rows]), ""]


def _retrieval(rows: list[dict[str, Any]] | None) -> list[str]:
    if not rows:
        return []
    metrics = ("evidence_recall", "answer_in_retrieved")
    head = ["retriever", "k", *map(label, metrics)]
    body = [[r["retriever"], str(r["k"]), *(_interval(m, r[m]) for m in metrics)] for r in rows]
    return ["What retrieval alone allows (the plain question, no model):", "", grid([head, *body]), ""]


def _shown(cell: dict[str, Any], metric: str) -> str:
    found = cell["metrics"][metric]
    return _interval(metric, {**{k: found[k] for k in ("mean", "low", "high")}, "n": found["scored"]})


def _interval(metric: str, found: dict[str, Any] | None) -> str:
    return figure(metric, Interval(**found) if found and found["mean"] is not None else None)


async def main() -> None:
    given = given_by(__doc__)
    stores = Stores(given.data, given.out / "stores")
    tasks = {d: select(BENCHMARKS[d].load(given.data), given.limit, reporting=True) for d in given.sets}
    await fill(given, stores, tasks)


async def fill(given: argparse.Namespace, stores: Stores, tasks: dict[str, list[Task]]) -> None:
    """Every cell in order, the results rewritten after each."""
    for dataset in given.sets:
        save(given, {dataset: allows(tasks[dataset], stores.open(dataset))})
    engine, opened = None, ("", "")
    for cell in cells(given.sets, given.strategies, given.policies):
        if (cell.policy, cell.constrain) != opened:
            if engine is not None:
                await engine.aclose()
            engine, opened = engine_of(cell), (cell.policy, cell.constrain)
        await run_cell(cell, tasks[cell.dataset], stores.open(cell.dataset), engine, given)
        save(given)
    if engine is not None:
        await engine.aclose()


def save(given: argparse.Namespace, retrieval: dict[str, Any] | None = None) -> None:
    """floor.json and floor.md from floor.csv and what retrieval alone allows."""
    path = given.results / "floor.json"
    kept = json.loads(path.read_text()).get("retrieval", {}) if path.exists() else {}
    state = {
        "machine": machine(),
        "concurrency": given.concurrency,
        "limit": given.limit,
        "cells": summed(given.results),
        "together": together(given.results),
        "retrieval": {**kept, **(retrieval or {})},
    }
    report.replace(path, json.dumps(state, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    report.replace(given.results / "floor.md", render(state))


if __name__ == "__main__":
    asyncio.run(main())
