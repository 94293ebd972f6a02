"""A benchmark run opens a store and a policy once and puts several strategies through one benchmark, one after another.

All strategies share that policy and that store, so concurrent episodes are batched by the search tool and the engine.
Episodes go to ``OUT/STRATEGY.jsonl`` (with several seeds ``OUT/STRATEGY.seedN.jsonl``) as they end;
``OUT/report.html``, ``.md``, ``.csv`` and ``.json`` are remade after each strategy.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from sleuth.agents import episodes
from sleuth.agents.context import Context, equipped, ready
from sleuth.agents.records import Budget, Episode, Policy, Sampling
from sleuth.agents.rollout import rollout
from sleuth.agents.strategy import STRATEGIES, Strategy, strategy
from sleuth.eval import publish
from sleuth.eval.benchmarks import benchmark as find
from sleuth.eval.evaluate import Run, evaluate, rescore, tagged
from sleuth.eval.load import none_usable, outlook, select
from sleuth.eval.records import Benchmark, Task
from sleuth.eval.report import Report
from sleuth.retrieval.records import Retriever

Progress = Callable[[str, int, int], None]
"""Called with the strategy, the tasks done and all tasks."""


async def run(
    benchmark: str,
    store: str | Path,
    *,
    strategies: Sequence[str | Strategy] = tuple(STRATEGIES),
    policy: str = "embedded",
    adapter: str | None = "first",
    data: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    temperature: float = 0.0,
    out: str | Path = "runs/eval",
    concurrency: int = 16,
    reporting: bool = False,
    resume: bool = False,
    budget: Budget | None = None,
    command: str = "",
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Report]:
    """Reports of a benchmark, one per strategy in the order given.

    ``benchmark``: a name, or the path of a question file; ``data``: a folder with ``qa/`` for a name (None: the shipped
    rows); ``policy`` and ``adapter``: as on the command line; ``limit``: draw that many by ``seed``;
    ``repeats``: run every question that often, each time with the next seed (and a ``temperature`` above 0);
    ``reporting``: only the rows kept for reporting; ``command``: what a person typed, for the run card.
    ``store`` may be the address of one that is served, or a sources file. Before the policy is asked ``tell`` gets a
    line about the questions; where there are none it raises `InputError`.
    """
    from sleuth.agents.minds import minds
    from sleuth.agents.policy import open_policy
    from sleuth.retrieval.sources import open_any

    chosen, path = find(benchmark)
    named = [strategy(given) if isinstance(given, str) else given for given in strategies]
    bad: list[str] = []
    loaded = chosen.load(path or data, bad.append)
    tasks = select(loaded, limit, seed, reporting)
    if not tasks:
        raise none_usable(benchmark, len(loaded), bad)
    searched = open_any(store, minds=minds())
    if tell:
        tell(outlook(chosen.name, len(loaded), tasks, limit, searched))
    engine = open_policy(policy, adapter=adapter)
    try:
        return await run_strategies(
            chosen, tasks, searched, engine, named, out,
            bad=bad, seeds=range(seed, seed + repeats), budget=budget, sampling=Sampling(temperature=temperature),
            concurrency=concurrency, resume=resume, command=command, progress=progress,
        )  # fmt: skip
    finally:
        if hasattr(engine, "aclose"):
            await engine.aclose()


async def run_strategies(
    benchmark: Benchmark,
    tasks: Sequence[Task],
    store: Retriever,
    policy: Policy,
    strategies: Sequence[Strategy],
    out: str | Path,
    *,
    bad: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    budget: Budget | None = None,
    sampling: Sampling | None = None,
    concurrency: int = 16,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> list[Report]:
    """`run` over parts that are open already; a reranker that cannot be loaded raises `ModelError` before all runs."""
    reports: list[Report] = []

    def planned(chosen: Strategy, seed: int = 0) -> Context:
        limits = (budget or Budget(), sampling or Sampling())
        return Context(policy, chosen, {}, store.fingerprint, *limits, seed)

    for chosen in strategies:
        ready(chosen)
    for chosen, seed in itertools.product(strategies, seeds):
        context = planned(chosen, seed)
        name = chosen.name if len(seeds) == 1 else f"{chosen.name}, seed {seed}"
        path = Path(out) / f"{name.replace(', seed ', '.seed')}.jsonl"
        reports.append(
            await evaluate(
                tasks,
                runner(context, store, path),
                benchmark.metrics,
                name=name,
                benchmark=benchmark.name,
                primary=benchmark.primary,
                bad=bad,
                concurrency=concurrency,
                out=path,
                resume=resume,
                config=resolved(context, store),
                store=store,
                progress=functools.partial(progress, name) if progress else None,
            )
        )
        publish.write(out, reports, f"{benchmark.name}, {policy.name}", command)
    return reports


def resolved(context: Context, store: Retriever) -> dict[str, Any]:
    """The configuration that all episodes of a run share, as `evaluate` compares it."""
    return {**equipped(context, store).config(), "fingerprint": store.fingerprint}


def rescore_files(
    benchmark: str,
    files: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    reporting: bool = False,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Report]:
    """The reports of episode files, nothing being run; what `run` takes says which questions are expected.

    Without ``limit`` and ``reporting`` those are expected that any of the files has, otherwise all of them, and the
    missing ones count as not scored. With ``store`` causes can say what it does not hold.
    """
    from sleuth.retrieval.store import Datastore

    chosen, path = find(benchmark)
    bad: list[str] = []
    loaded = chosen.load(path or data, bad.append)
    tasks = select(loaded, limit, seed, reporting)
    if not tasks:
        raise none_usable(benchmark, len(loaded), bad)
    searched = Datastore.open(store) if store else None
    reports = [
        rescore(
            file,
            tasks,
            chosen.metrics,
            benchmark=chosen.name,
            primary=chosen.primary,
            bad=bad,
            store=searched,
            progress=functools.partial(progress, Path(file).stem) if progress else None,
        )
        for file in files
    ]
    if limit is None and not reporting:
        have = {row.task_id for report in reports for row in report.scored if row.episode_id}
        reports = [_only(report, have) for report in reports]
    return named_apart(reports)


def _only(report: Report, ids: Set[str]) -> Report:
    return dataclasses.replace(report, scored=tuple(row for row in report.scored if row.task_id in ids))


def named_apart(reports: Sequence[Report]) -> list[Report]:
    """Equal names made different: by policy where that tells them apart, otherwise by where their episodes lie."""
    counts = Counter(report.name for report in reports)
    policies = Counter((report.name, report.config.get("policy")) for report in reports)
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(report.episodes)) for report in reports] or ["."])
    renamed = []
    for report in reports:
        name, policy = report.name, report.config.get("policy")
        if counts[name] > 1 and policies[name, policy] == 1:
            name = f"{name}, {policy}"
        elif counts[name] > 1:
            name = f"{name} ({os.path.relpath(report.episodes, shared)})"
        renamed.append(dataclasses.replace(report, name=name))
    return renamed


def runner(context: Context, store: Retriever, out: str | Path | None = None) -> Run:
    """What runs one task: the context's strategy over ``store``, restricted to what the task may search.

    Of a task only the question and that filter are handed on. With ``out``, a run that is cancelled leaves its episode
    there.
    """
    from sleuth.agents.graph import build_graph

    graph = build_graph(context.strategy)
    contexts: dict[str, Context] = {}

    async def run(task: Task) -> Episode:
        key = repr(task.where)
        if key not in contexts:  # one tool per filter, so that its queries are searched in one batch
            contexts[key] = equipped(context, store, task.where)

        def keep_cancelled(episode: Episode) -> None:
            if episode.stop == "cancelled" and out is not None:
                episodes.append(out, tagged(episode, task))

        return await rollout(graph, task.question, contexts[key], on_end=keep_cancelled)

    return run
