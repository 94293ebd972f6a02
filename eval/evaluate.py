"""Evaluation runs tasks concurrently, writes each episode as it ends, and keeps only its figures.

What runs a task is handed in, so any strategy, policy or foreign system is evaluated by the same loop. Scoring is apart
from running: with ``resume`` an episode on file is scored again, not run again, so a report can be remade at no cost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleuth.agents import episodes
from sleuth.agents.records import Episode
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval.metrics import NONE_WHEN, answer_text
from sleuth.eval.records import Metric, Scored, Task
from sleuth.eval.report import Report

Run = Callable[[Task], Awaitable[Episode]]
"""Runs one task. An `InputError` (an unusable question) is counted; anything else it raises stops the evaluation."""


async def evaluate(
    tasks: Sequence[Task],
    run: Run,
    metrics: Mapping[str, Metric],
    *,
    name: str = "",
    benchmark: str = "",
    primary: str = "",
    bad: Sequence[str] = (),
    concurrency: int = 16,
    out: str | Path | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Figures of every task under ``metrics``; memory holds ``concurrency`` episodes and one row of figures per task.

    ``out`` is the episode file; each line carries its task in ``config["task"]``. With ``resume`` the tasks that ended
    there are not run again (cancelled and failed ones are); an episode there made under another ``config`` raises
    `ConfigError`, as does a file that is there without ``resume``. ``bad`` are rows that could not be loaded.
    """
    path = Path(out) if out is not None else None
    if path is not None and path.exists() and not resume:
        raise ConfigError(f"{path}: episodes of an earlier run are here; resume it, or choose another place")
    scored: dict[str, Scored] = {}
    if path is not None and path.exists():
        scored = {task.id: score(task, episode, metrics) for task, episode in ended(path, tasks, config)}
    left = iter([task for task in tasks if task.id not in scored])

    async def work() -> None:
        for task in left:  # one iterator for all workers: each takes the next
            scored[task.id] = await _one(task, run, metrics, path)
            if progress:
                progress(len(scored), len(tasks))

    if progress:
        progress(len(scored), len(tasks))
    await _together([work() for _ in range(max(1, min(concurrency, len(tasks))))])
    rows = tuple(scored[task.id] for task in tasks)
    return Report(name, benchmark, primary, tuple(metrics), rows, tuple(bad), dict(config or {}))


async def _one(task: Task, run: Run, metrics: Mapping[str, Metric], out: Path | None) -> Scored:
    try:
        episode = await run(task)
    except InputError as error:
        why = f"not run: {error}"
        return Scored(task.id, dict.fromkeys(metrics), dict.fromkeys(metrics, why), error=why)
    if out is not None:
        episodes.append(out, tagged(episode, task))
    return score(task, episode, metrics)


async def _together(works: Sequence[Any]) -> None:
    """All of them; the first failure, or a cancellation, stops the others and waits until they have stopped."""
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*running)
    finally:
        for worker in running:
            worker.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def score(task: Task, episode: Episode, metrics: Mapping[str, Metric]) -> Scored:
    """Every metric on one episode. One that raises, or gives no finite number, is None with its cause."""
    values: dict[str, float | None] = {}
    causes: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            value = metric(task, episode)
            if value is None:
                causes[name] = NONE_WHEN.get(name, "the metric does not apply")
            elif not math.isfinite(value):
                causes[name] = f"the metric gave {value}"
                value = None
        except Exception as error:  # a metric is a stranger's code: its failure must not lose the run
            value, causes[name] = None, f"the metric raised {type(error).__name__}: {error}"
        values[name] = value
    return Scored(task.id, values, causes, answer_text(episode), episode.stop, episode.error)


def tagged(episode: Episode, task: Task) -> Episode:
    """The episode with its task's id (and what it could search) in its config, by which `ended` finds it again."""
    return dataclasses.replace(episode, config={**episode.config, "task": {"id": task.id, "where": task.where}})


def ended(path: Path, tasks: Sequence[Task], config: Mapping[str, Any] | None = None) -> Iterator[tuple[Task, Episode]]:
    """The episodes of a file that ended by themselves, each with its task; a line that was cut short is passed over.

    A later episode of the same task replaces an earlier one. ``config``, where given, must be that of each episode,
    its datastore's ``fingerprint`` included.
    """
    wanted = {task.id: task for task in tasks}
    for episode in episodes.read(path, bad=lambda message: None):
        task = wanted.get((episode.config.get("task") or {}).get("id", ""))
        if task is None or episode.stop in ("cancelled", "error"):
            continue
        if config is not None:
            theirs = {**episode.config, "fingerprint": episode.fingerprint}
            _same(path, task, config, {key: value for key, value in theirs.items() if key != "task"})
        if episode.question != task.question.strip():
            raise ConfigError(
                f"{path}: task {task.id} asks {task.question!r}; the episode there asked {episode.question!r}"
            )
        yield task, episode


def _same(path: Path, task: Task, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if keys:
        differing = "; ".join(f"{key} {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in keys)
        raise ConfigError(f"{path}: the episode of task {task.id} was made under another configuration: {differing}")
