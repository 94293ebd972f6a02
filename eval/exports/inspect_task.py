"""An inspect_ai task runs a strategy as its solver and scores it with our metrics, so that its viewer and logs take it.

    inspect eval sleuth/sleuth --model none -T benchmark=hotpotqa_s -T store=STORE -T strategy=decompose

The policy is ours (``-T policy=``), so inspect's own model is not asked. inspect_ai is an optional extra
(``pip install sleuth[inspect]``); without it this module defines `build` alone and registers nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from sleuth.agents.context import Context, ready
from sleuth.agents.records import Budget, Episode
from sleuth.agents.strategy import DEFAULT
from sleuth.agents.strategy import strategy as named_strategy
from sleuth.eval.benchmarks import benchmark as find
from sleuth.eval.evaluate import score
from sleuth.eval.load import select
from sleuth.eval.metrics import answer_text
from sleuth.eval.records import Metric, Task


def parts(store: str, policy: str) -> tuple[Any, Any]:
    """The opened store and policy."""
    from sleuth.agents.policy import open_policy
    from sleuth.retrieval.store import Datastore

    return Datastore.open(store), open_policy(policy)


def build(
    benchmark: str = "hotpotqa_s",
    store: str = "",
    strategy: str = DEFAULT,
    policy: str = "embedded",
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    searches: int = 12,
    reranker: str = "",
) -> Any:
    """The inspect_ai ``Task`` of a benchmark under a strategy; arguments as of ``sleuth eval``."""
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample

    from sleuth.eval.run import runner

    chosen, path = find(benchmark)
    tasks = {task.id: task for task in select(chosen.load(path or data), limit, seed)}
    searched, engine = parts(store, policy)
    plan = named_strategy(strategy, **({"rerank": reranker} if reranker else {}))
    ready(plan)
    context = Context(engine, plan, {}, searched.fingerprint, Budget(searches=searches), seed=seed)
    episodes: dict[str, Episode] = {}
    samples = [Sample(id=i, input=task.question, target=list(task.answers)) for i, task in tasks.items()]
    return inspect_ai.Task(
        dataset=MemoryDataset(samples, name=chosen.name),
        solver=_solver(tasks, runner(context, searched), episodes),
        scorer=[_scorer(name, metric, tasks, episodes) for name, metric in chosen.metrics.items()],
        name=f"{chosen.name}-{strategy}",
        metadata=dict(context.config()),
    )


def _solver(tasks: Mapping[str, Task], run: Any, episodes: dict[str, Episode]) -> Any:
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver

    @solver(name="strategy")
    def strategy_solver() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            episode = await run(tasks[str(state.sample_id)])
            episodes[state.uuid] = episode
            state.output = ModelOutput.from_content(str(episode.config.get("policy", "sleuth")), answer_text(episode))
            state.metadata |= {"stop": episode.stop, "error": episode.error, "episode": episode.id}
            return state

        return solve

    return strategy_solver()


def _scorer(name: str, metric: Metric, tasks: Mapping[str, Task], episodes: Mapping[str, Episode]) -> Any:
    """One of our metrics; what it does not apply to is left unscored there too."""
    from inspect_ai.scorer import Score, mean, scorer, stderr

    @scorer(metrics=[mean(), stderr()], name=name)
    def figure() -> Any:
        async def of(state: Any, target: Any) -> Any:
            episode = episodes[state.uuid]
            value = score(tasks[str(state.sample_id)], episode, {name: metric}).values[name]
            return None if value is None else Score(value=value, answer=answer_text(episode))

        return of

    return figure()


if importlib.util.find_spec("inspect_ai") is not None:
    from inspect_ai import task as registered

    sleuth = registered(build, name="sleuth")
