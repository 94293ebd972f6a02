"""Three seeds beside the floor: what sampling changes of an answer, of citations, and of the distance to other runs.

The floor (bench/floor.py) decodes greedily, and a seed changes nothing there. Here the same reporting rows of the same
stores are asked at temperature 0.7 with seeds 0, 1 and 2. A question's figure is its mean over the seeds; differences
are paired over questions, intervals are bootstrapped over them. Every run's figures are a line of
bench/results/seeds.csv, and what stands there is not run again. Usage: ``python bench/seeds.py --data DIR``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.cells import SETS, Cell, Stores, add_rows, engine_of, given_by, machine, version
from sleuth.agents.records import Sampling
from sleuth.agents.strategy import STRATEGIES
from sleuth.eval.benchmarks import BENCHMARKS
from sleuth.eval.load import select
from sleuth.eval.records import Task
from sleuth.eval.report import figure, grid, label, replace
from sleuth.eval.run import run_strategies
from sleuth.eval.stats import interval, paired_difference

SEEDS = (0, 1, 2)
TEMPERATURE = 0.7
RUNS = (("chain", "shipped"), ("naive-rag", "shipped"), ("decompose", "first"))
"""The policy that ships in its best loop, the single search with the same reader, and the first policy in its loop."""
METRICS = ("em", "f1", "citation_precision", "evidence_recall", "quote_support")
COLUMNS = ("dataset", "strategy", "policy", "version", "seed", "task", *METRICS)
Found = Mapping[tuple[str, str, str], Mapping[int, Mapping[str, Mapping[str, float | None]]]]
"""By (set, strategy, policy), seed and task: its figures."""


def read(path: Path) -> dict[tuple[str, str, str], dict[int, dict[str, dict[str, float | None]]]]:
    """The lines that were made with what the cells are now."""
    found: dict[tuple[str, str, str], dict[int, dict[str, dict[str, float | None]]]] = {}
    versions: dict[tuple[str, str, str], str] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = (row["dataset"], row["strategy"], row["policy"])
                if key not in versions:
                    versions[key] = version(Cell(*key))
                if row["version"] == versions[key]:
                    values = {metric: float(row[metric]) if row[metric] else None for metric in METRICS}
                    found.setdefault(key, {}).setdefault(int(row["seed"]), {})[row["task"]] = values
    return found


async def run(cell: Cell, tasks: Sequence[Task], store: Any, policy: Any, given: argparse.Namespace) -> None:
    """The seeds that have no lines yet, each added when it is whole."""
    path = given.results / "seeds.csv"
    for seed in SEEDS:
        if seed in read(path).get((cell.dataset, cell.strategy, cell.policy), {}):
            continue
        (made,) = await run_strategies(
            BENCHMARKS[cell.dataset], tasks, store, policy, [STRATEGIES[cell.strategy]],
            given.out / version(cell) / cell.key / str(seed), seeds=[seed], sampling=Sampling(temperature=TEMPERATURE),
            concurrency=given.concurrency, resume=True, progress=_telling(f"{cell.key}, seed {seed}"),
        )  # fmt: skip
        print(file=sys.stderr)
        add_rows(path, COLUMNS, cell, made, seed=seed)


def _telling(what: str) -> Any:
    return lambda name, done, total: print(f"\r{what}: {done}/{total} ", end="", file=sys.stderr, flush=True)


def means(found: Found, sets: Sequence[str], strategy: str, policy: str, metric: str) -> dict[str, float]:
    """Each question's mean over the seeds, of the sets for which every seed is there."""
    values: dict[str, float] = {}
    for dataset in sets:
        seeds = found.get((dataset, strategy, policy), {})
        for task in seeds.get(SEEDS[0], {}) if _whole(found, dataset, strategy, policy) else ():
            told = [value for seed in SEEDS if (value := seeds[seed].get(task, {}).get(metric)) is not None]
            if told:
                values[f"{dataset}/{task}"] = fmean(told)
    return values


def render(found: Found, about: str) -> str:
    lines = [
        "# Three seeds", "",
        f"Reporting rows as in floor.md, temperature {TEMPERATURE}, seeds {', '.join(map(str, SEEDS))}. Mean over",
        "seeds and questions [95 % bootstrap interval over questions]; then each seed's mean. Scores times 100.",
        about, "",
    ]  # fmt: skip
    there = [d for d in SETS if any((d, *run_) in found for run_ in RUNS)]
    for metric in ("f1", "citation_precision"):
        rows = [[d, *(_shown(found, d, *run_, metric) for run_ in RUNS)] for d in there]
        head = ["set", *(f"{strategy}, {policy}" for strategy, policy in RUNS)]
        lines += [f"{label(metric)}:", "", grid([head, *rows]), ""]
    lines += [f"{RUNS[0][0]}, {RUNS[0][1]}, minus the others, paired over questions:", ""]
    for strategy, policy in RUNS[1:]:
        whole = [d for d in there if all(_whole(found, d, *run_) for run_ in (RUNS[0], (strategy, policy)))]
        for sets in dict.fromkeys([*((d,) for d in whole), tuple(whole)]):
            parts = []
            for metric in METRICS:
                ours, theirs = (means(found, sets, *run_, metric) for run_ in (RUNS[0], (strategy, policy)))
                both = ours.keys() & theirs.keys()
                gap = paired_difference({k: ours[k] for k in both}, {k: theirs[k] for k in both}) if both else None
                parts += [f"{label(metric)} {figure(metric, gap)}"] if gap else []
            if parts:
                lines.append(f"- {strategy} {policy}, {' + '.join(sets)}: {', '.join(parts)}")
    return "\n".join(lines) + "\n"


def _whole(found: Found, dataset: str, strategy: str, policy: str) -> bool:
    return set(SEEDS) <= set(found.get((dataset, strategy, policy), {}))


def _shown(found: Found, dataset: str, strategy: str, policy: str, metric: str) -> str:
    values = list(means(found, [dataset], strategy, policy, metric).values())
    if not values:
        return "–"
    seeds = found[dataset, strategy, policy]
    each = [fmean(v for row in seeds[s].values() if (v := row[metric]) is not None) for s in SEEDS]
    return f"{figure(metric, interval(values))} ({', '.join(f'{100 * value:.1f}' for value in each)})"


async def main() -> None:
    given = given_by(__doc__)
    stores = Stores(given.data, given.out / "stores")
    for strategy, policy in RUNS:
        if strategy not in given.strategies or policy not in given.policies:
            continue
        engine = engine_of(Cell(SETS[0], strategy, policy))
        for dataset in given.sets:
            tasks = select(BENCHMARKS[dataset].load(given.data), given.limit, reporting=True)
            await run(Cell(dataset, strategy, policy), tasks, stores.open(dataset), engine, given)
            save(given.results)
        await engine.aclose()


def save(results: Path) -> None:
    """seeds.md from seeds.csv."""
    replace(results / "seeds.md", render(read(results / "seeds.csv"), f"{machine()}."))


if __name__ == "__main__":
    asyncio.run(main())
