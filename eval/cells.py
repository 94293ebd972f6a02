"""A cell of a matrix is one strategy with one policy on one store over one benchmark: one episode file, one report.

`plan` says what there is to do and what it will cost before anything runs, `run` fills the cells and ends with one
report over all of them. A cell's file is named after the digest of its resolved configuration: a second run goes on
where the first stopped, and another configuration never mixes with it. Episodes of other folders are taken over where
everything that decides them is equal (`stored.key_of`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sleuth.agents.context import Context, ready
from sleuth.agents.records import Episode, Policy
from sleuth.agents.strategy import Strategy
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval import publish
from sleuth.eval.benchmarks import benchmark as find
from sleuth.eval.evaluate import Run, evaluate
from sleuth.eval.load import corpus_path, select
from sleuth.eval.matrix import OWN, Matrix, named_strategy, read
from sleuth.eval.metrics import money
from sleuth.eval.records import Benchmark, Task
from sleuth.eval.report import Report
from sleuth.eval.run import resolved, runner
from sleuth.eval.stored import Stored, index, key_of, load

Progress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy with one policy on one store over one benchmark."""

    benchmark: Benchmark
    tasks: tuple[Task, ...]
    bad: tuple[str, ...]
    """Rows that could not be loaded."""
    store: str
    """The folder."""
    policy: str
    strategy: Strategy
    seed: int
    label: str
    """What tells its run from the others over this benchmark."""
    config: Mapping[str, Any]
    """What every episode of it shares, the store's fingerprint included."""
    weights: str
    """The policy's version where it is known before a run; empty otherwise."""
    path: Path
    """Its episode file."""

    def key(self, task: Task) -> str:
        return key_of(self.config, self.weights, task.id, task.question.strip(), task.where)


@dataclass(frozen=True, slots=True)
class Planned:
    """What is left of a cell, and what that will take by the cells that were run: None where none is like it."""

    cell: Cell
    done: int
    reused: int
    """Questions with an episode to take over from elsewhere."""
    left: int
    seconds: float | None
    tokens: float | None
    money: float | None
    currency: str = ""


UNBUILT = SimpleNamespace(fingerprint="")
"""Stands for an own store in a plan: no episode is over it yet."""


class Opened:
    """The stores and policies of a matrix, each opened once; the own stores built where they are missing."""

    def __init__(self, matrix: Matrix, out: Path, progress: Progress) -> None:
        self.matrix, self.out, self.progress = matrix, out, progress
        self._stores: dict[str, Any] = {}
        self._policies: dict[str, Any] = {}

    def folder(self, store: str, benchmark: Benchmark) -> str:
        if store != OWN and "{corpus}" not in store:
            return store
        if not benchmark.corpus:
            raise ConfigError(f"benchmark {benchmark.name} has no corpus of its own: name a store for it")
        return str(self.out / "stores" / benchmark.corpus) if store == OWN else store.format(corpus=benchmark.corpus)

    def store(self, store: str, benchmark: Benchmark, build: bool = True) -> Any:
        """Without ``build``, an own store that is missing is `UNBUILT`."""
        from sleuth.retrieval.build import build_once
        from sleuth.retrieval.store import Datastore

        folder = self.folder(store, benchmark)
        if folder not in self._stores:
            if store == OWN and not Path(folder).exists():
                source = corpus_path(benchmark.corpus, self.matrix.data or None)
                if not build:
                    return UNBUILT
                build_once([source], folder, progress=lambda stage, *state: self.progress(f"build {stage}", *state))
            self._stores[folder] = Datastore.open(folder)
        return self._stores[folder]

    def policy(self, spec: str) -> Any:
        from sleuth.agents.policy import open_policy

        if spec not in self._policies:
            self._policies[spec] = open_policy(spec)
        return self._policies[spec]

    async def aclose(self) -> None:
        for policy in self._policies.values():
            if hasattr(policy, "aclose"):
                await policy.aclose()
        self._policies.clear()


def weights_of(policy: Policy) -> str:
    """The version that an embedded policy's completions will carry, without loading it; empty for other policies."""
    from sleuth.agents.policy.embedded import EmbeddedPolicy

    return policy.weights if isinstance(policy, EmbeddedPolicy) else ""


def cells(matrix: Matrix, out: Path, opened: Opened, build: bool = True) -> list[Cell]:
    """All cells, policy by policy (one engine at a time), then strategy by strategy over all benchmarks."""
    tasks: dict[str, tuple[Benchmark, tuple[Task, ...], tuple[str, ...]]] = {}
    for name in matrix.benchmarks:
        chosen, path = find(name)
        bad: list[str] = []
        loaded = chosen.load(path or matrix.data or None, bad.append)
        tasks[name] = chosen, tuple(select(loaded, matrix.limit or None, matrix.seed, matrix.reporting)), tuple(bad)
    weights = {spec: weights_of(opened.policy(spec)) for spec in matrix.policies}
    named = list(map(named_strategy, matrix.strategies))
    seeds = range(matrix.seed, matrix.seed + matrix.repeats)
    made = []
    for spec, (label, chosen_strategy), store, seed in itertools.product(matrix.policies, named, matrix.stores, seeds):
        run = [label, *([spec] if len(matrix.policies) > 1 else ())]
        run += [store] if len(matrix.stores) > 1 else []
        run += [f"seed {seed}"] if matrix.repeats > 1 else []
        for chosen, drawn, bad_rows in tasks.values():
            searched = opened.store(store, chosen, build)
            context = _context(matrix, opened.policy(spec), chosen_strategy, searched, seed)
            config = resolved(context, searched)
            path = out / "episodes" / _file(chosen.name, run, config, weights[spec])
            what = (chosen, drawn, bad_rows, store, spec, chosen_strategy, seed)
            made.append(Cell(*what, ", ".join(run), config, weights[spec], path))
    return made


def _context(matrix: Matrix, policy: Policy, chosen: Strategy, store: Any, seed: int) -> Context:
    return Context(policy, chosen, {}, store.fingerprint, matrix.budget, matrix.sampling, seed)


def _file(benchmark: str, run: Sequence[str], config: Mapping[str, Any], weights: str) -> str:
    digest = hashlib.sha256(json.dumps([dict(config), weights], sort_keys=True).encode()).hexdigest()[:8]
    parts = [re.sub(r"[^\w.=-]+", "-", part).strip("-") for part in (benchmark, *run)]
    return f"{parts[0]}/{'.'.join(parts[1:])}.{digest}.jsonl"


def plan(matrix: Matrix, made: Sequence[Cell], stored: Mapping[str, Stored]) -> list[Planned]:
    """What is left of each cell; time and tokens by the mean of the same strategy and policy, benchmark first."""
    known: dict[tuple[str, ...], list[Stored]] = {}
    for cell in made:
        have = [stored[key] for task in cell.tasks if (key := cell.key(task)) in stored]
        for group in _alike(cell):
            known.setdefault(group, []).extend(have)
    planned = []
    for cell in made:
        have = [stored[key] for task in cell.tasks if (key := cell.key(task)) in stored]
        done = sum(_same(entry.path, cell.path) for entry in have)
        left = len(cell.tasks) - len(have)
        like = next((known[group] for group in _alike(cell) if known[group]), [])
        planned.append(_estimate(matrix, cell, done, len(have) - done, left, like))
    return planned


def _estimate(matrix: Matrix, cell: Cell, done: int, reused: int, left: int, like: Sequence[Stored]) -> Planned:
    price = matrix.price.get(cell.policy)
    if not like and left:
        return Planned(cell, done, reused, left, None, None, None, price.currency if price else "")
    share = left / len(like) if left else 0.0
    prompt, completion = sum(e.prompt_tokens for e in like) * share, sum(e.completion_tokens for e in like) * share
    # an episode's seconds hold its waiting for the others beside it, so that many of them pass at once
    seconds = sum(e.seconds for e in like) * share / min(matrix.concurrency, max(left, 1))
    money = (price.prompt * prompt + price.completion * completion) / 1e6 if price else None
    return Planned(cell, done, reused, left, seconds, prompt + completion, money, price.currency if price else "")


def _alike(cell: Cell) -> list[tuple[str, ...]]:
    label = cell.label
    return [(cell.benchmark.name, cell.policy, label), (cell.policy, label), (cell.strategy.name, cell.policy)]


def _same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


async def run(
    path: str | Path,
    out: str | Path,
    *,
    reuse: Sequence[str | Path] = (),
    stored_only: bool = False,
    show: Callable[[Sequence[Planned]], bool] | None = None,
    command: str = "",
    progress: Progress | None = None,
    **changes: Any,
) -> list[Report]:
    """The reports of all cells, in the order of the benchmarks; written to ``out`` even when the run is stopped.

    ``reuse``: folders whose episodes are taken over; with ``stored_only`` nothing is run: the reports are over what
    there is; ``show`` is handed the plan first, before stores are built, and says whether to go on;
    ``changes`` replace keys of the file.
    """
    matrix, out = read(path, **changes), Path(out)
    tell = progress or (lambda stage, done, total: None)
    opened = Opened(matrix, out, tell)
    made = cells(matrix, out, opened, build=stored_only or show is None)
    own = out / "episodes"
    stored = {**index(reuse), **index([own] if own.is_dir() else [])}
    if stored_only:
        kept = (dataclasses.replace(c, tasks=tuple(t for t in c.tasks if c.key(t) in stored)) for c in made)
        made = [cell for cell in kept if cell.tasks]
        if not made:
            looked = ", ".join(map(str, [own, *reuse]))
            raise InputError(f"{path}: expected episodes with these settings, weights and stores; none in {looked}")
    if show and not show(plan(matrix, made, stored)):
        return []
    if any(cell.config["fingerprint"] == UNBUILT.fingerprint for cell in made):
        made = cells(matrix, out, opened)
    for cell in () if stored_only else made:
        ready(cell.strategy)
    reports: list[Report] = []
    engine = None
    try:
        for cell in made:
            policy = opened.policy(cell.policy)
            if engine is not None and engine is not policy and hasattr(engine, "aclose"):
                await engine.aclose()  # one model in memory at a time
            engine = policy
            reports.append(await fill(matrix, cell, policy, opened.store(cell.store, cell.benchmark), stored, tell))
    finally:
        await opened.aclose()
        if reports:
            order = {find(name)[0].name: place for place, name in enumerate(matrix.benchmarks)}
            reports.sort(key=lambda report: order[report.benchmark])
            publish.write(out, reports, matrix.name, command, lambda done, total: tell("page", done, total))
    return reports


async def fill(
    matrix: Matrix, cell: Cell, policy: Policy, store: Any, stored: Mapping[str, Stored], tell: Progress
) -> Report:
    """The report of one cell: what its file has is scored, what lies elsewhere is taken over, the rest is run."""
    context = _context(matrix, policy, cell.strategy, store, cell.seed)
    taken: dict[Path, int] = {}
    metrics, price = dict(cell.benchmark.metrics), matrix.price.get(cell.policy)
    if price:
        metrics["money"] = money(price.prompt, price.completion)
    report = await evaluate(
        cell.tasks,
        reusing(cell, runner(context, store, cell.path), stored, taken),
        metrics,
        name=cell.label,
        benchmark=cell.benchmark.name,
        primary=cell.benchmark.primary,
        bad=cell.bad,
        concurrency=matrix.concurrency,
        out=cell.path,
        resume=True,
        config=cell.config,
        store=store,
        progress=lambda done, total: tell(f"{cell.benchmark.name} {cell.label}", done, total),
    )
    notes = [f"{count} episodes were taken over from {source}" for source, count in taken.items()]
    return dataclasses.replace(report, notes=(*report.notes, *notes))


def reusing(cell: Cell, run: Run, stored: Mapping[str, Stored], taken: dict[Path, int]) -> Run:
    """``run``, unless an episode that it would make is stored; ``taken`` counts those by file."""

    async def go(task: Task) -> Episode:
        entry = stored.get(cell.key(task))
        if entry is None or _same(entry.path, cell.path):
            return await run(task)
        taken[entry.path] = taken.get(entry.path, 0) + 1
        return load(entry)

    return go
