"""What the measurements of policies under strategies share: a cell, its version, its lines in a file, its store.

`bench/floor.py` and `bench/seeds.py` run cells; every question's figures are a line of a CSV file.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import fcntl
import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sleuth.agents.policy import ADAPTERS, open_policy
from sleuth.agents.strategy import STRATEGIES
from sleuth.eval.benchmarks import BENCHMARKS
from sleuth.eval.load import corpus_path
from sleuth.eval.report import Report
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.rerank import SHIPPED
from sleuth.retrieval.store import Datastore

SETS = ("hotpotqa_s", "musique_s", "hotpotqa_r1s", "morehopqa_s", "commaqa_e", "strategyqa")
ORDER = ("decompose", "chain", "iter-retgen", "naive-rag", "iterative", "closed-book")
POLICIES = ("shipped", "first", "untrained")
"""Each is compared with the next, question by question."""
MADE = {"decompose": 4, "chain": 1, "iter-retgen": 3, "iterative": 4, "naive-rag": 2, "closed-book": 1}
"""Raised with each change of code that changes a strategy's answers, so that older lines are not taken for its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One policy under one strategy on one set."""

    dataset: str
    strategy: str
    policy: str
    """One of `POLICIES`."""
    constrain: str = "span"

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.strategy}/{self.policy}/{self.constrain}"


def version(cell: Cell) -> str:
    """Names the weights and the code that a cell ran with, so that other ones' episodes are never taken for its own."""
    weights = ADAPTERS / cell.policy / "adapter_model.safetensors"
    name = "" if cell.policy == "untrained" else f"-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
    reader = SHIPPED / "adapter_model.safetensors"
    if STRATEGIES[cell.strategy].rerank and reader.is_file():
        name += f"-{hashlib.sha256(reader.read_bytes()).hexdigest()[:8]}"
    return f"{cell.policy}{name}.{MADE[cell.strategy]}"


def add_rows(path: Path, columns: Sequence[str], cell: Cell, found: Report, **more: Any) -> None:
    """Appends a cell's lines under a lock, since several runs may share the file. A blank is "not scored"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        head = {**dataclasses.asdict(cell), "version": version(cell), **more}
        for row in found.scored:
            shown = {name: "" if value is None else f"{value:.6g}" for name, value in row.values.items()}
            writer.writerow({**shown, **head, "task": row.task_id, "stop": row.stop})


def engine_of(cell: Cell) -> Any:
    spec = "embedded:untrained" if cell.policy == "untrained" else f"embedded:{cell.policy}"
    return open_policy(spec, constrain=cell.constrain)  # type: ignore[arg-type]


class Stores:
    """A datastore per set, built from its corpus (or gone on with, where a build was killed) and opened once."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.opened: dict[str, Any] = {}

    def open(self, dataset: str) -> Any:
        corpus = BENCHMARKS[dataset].corpus
        if corpus not in self.opened:
            spec = BuildSpec(title_weight=1)  # as when the floor was first measured
            made = build([corpus_path(corpus, self.data)], self.folder / corpus, spec)
            print(f"{corpus}: {made.passages} passages, {made.added} documents added", file=sys.stderr)
            self.opened[corpus] = Datastore.open(self.folder / corpus)
        return self.opened[corpus]


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def given_by(about: str | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with qa/ and corpora/")
    parser.add_argument("--limit", type=int, default=100, help="questions of a set at most")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--strategies", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/floor"), help="stores and episodes")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()
