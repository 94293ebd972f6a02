"""Stress runs a benchmark as it is and under each variant, and reports the paired differences.

The plain run and a variant's share strategy, policy and seed, and are compared over the tasks that the variant has.
A variant with documents gets a copy of the store that they are added to. Episodes go to ``OUT/plain.jsonl`` and
``OUT/VARIANT.jsonl``; with ``resume`` those that ended are kept.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.agents.context import Context, ready
from sleuth.agents.records import Budget, Episode, Policy, Sampling
from sleuth.agents.strategy import Strategy
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval.evaluate import ended, evaluate
from sleuth.eval.metrics.answer import cover_em, em, f1, misled
from sleuth.eval.metrics.citing import citation_valid
from sleuth.eval.metrics.cost import searches
from sleuth.eval.metrics.evidence import evidence_recall
from sleuth.eval.records import Metric, Task
from sleuth.eval.robustness.documents import ORDERS, contradictions, distractors, orders, update
from sleuth.eval.robustness.effects import EFFECTS
from sleuth.eval.robustness.queries import PERTURBATIONS, perturbed
from sleuth.eval.robustness.records import Fetch, Variant
from sleuth.eval.run import runner
from sleuth.eval.stats import Interval, interval, paired_difference

if TYPE_CHECKING:
    from sleuth.retrieval.store import Datastore

METRICS: Mapping[str, Metric] = {
    "em": em,
    "f1": f1,
    "cover_em": cover_em,
    "misled": misled,
    "evidence_recall": evidence_recall,
    "citation_valid": citation_valid,
    "searches": searches,
}
PLAIN = "plain"
DOCUMENT_CHANGES = ("distractors", "contradictions", "update", "orders")
STRESSES = (*PERTURBATIONS, *DOCUMENT_CHANGES)


@dataclass(frozen=True, slots=True)
class Stressed:
    """One variant against the plain run."""

    variant: str
    tasks: int
    left_out: int
    plain: Mapping[str, Interval | None]
    """By metric, over the variant's tasks. For ``update`` and ``contradictions`` under the variant's own answers."""
    changed: Mapping[str, Interval | None]
    difference: Mapping[str, Interval | None]
    """Changed minus plain, paired bootstrap."""
    effects: Mapping[str, int]
    """Of planted orders: tasks in which each effect was seen; empty for other variants."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def variant(name: str, tasks: Sequence[Task], fetch: Fetch, seed: int = 0, texts: Sequence[str] = ORDERS) -> Variant:
    """The variant of a name in `STRESSES`; ``texts``: the orders that ``orders`` plants."""
    if name in PERTURBATIONS:
        return perturbed(name, tasks, seed)
    if name == "orders":
        return orders(tasks, fetch, seed, texts)
    made = {"distractors": distractors, "contradictions": contradictions, "update": update}
    if name not in made:
        raise ConfigError(f"unknown stress {name!r}; known: {', '.join(STRESSES)}")
    return made[name](tasks, fetch, seed)


async def stress(
    store: Datastore,
    tasks: Sequence[Task],
    variants: Sequence[Variant],
    policy: Policy,
    strategy: Strategy,
    out: str | Path,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    concurrency: int = 16,
    resume: bool = False,
    progress: Callable[[str, int, int | None], None] = lambda stage, done, total: None,
) -> list[Stressed]:
    """One line per variant, in order; ``report.md`` and ``report.json`` go to ``out`` as well."""
    from sleuth.retrieval import grow
    from sleuth.retrieval.store import Datastore

    if not tasks:
        raise InputError("no tasks to stress: expected at least one question")
    ready(strategy)
    context = Context(policy, strategy, {}, store.fingerprint, budget or Budget(), Sampling(), seed)
    folder, found = Path(out), []

    async def ran(name: str, asked: Sequence[Task], over: Datastore) -> dict[str, Episode]:
        file = folder / f"{name}.jsonl"
        here = dataclasses.replace(context, fingerprint=over.fingerprint)
        tools = ["search"] if strategy.retrieve else []
        config = {**here.config(), "tools": tools, "fingerprint": over.fingerprint}
        await evaluate(
            asked, runner(here, over, file), {}, name=name, concurrency=concurrency, out=file, resume=resume,
            config=config, progress=lambda done, total: progress(name, done, total),
        )  # fmt: skip
        return {task.id: episode for task, episode in ended(file, asked)}

    plain = await ran(PLAIN, tasks, store)
    for change in variants:
        over = store
        if change.documents:
            copy = folder / "stores" / change.name
            if copy.exists():
                shutil.rmtree(copy)
            shutil.copytree(store.path, copy)
            grow.add(copy, change.documents, update=True)
            over = Datastore.open(copy)
        found.append(compared(change, tasks, plain, await ran(change.name, change.tasks, over)))
        write(folder, found)
    return found


def compared(
    change: Variant, tasks: Sequence[Task], plain: Mapping[str, Episode], changed: Mapping[str, Episode]
) -> Stressed:
    """The paired figures of a variant, from episodes by task id.

    The plain run is scored under the plain task's accepted answers, but for what misleads: that comes from the variant.
    """
    before = {task.id: task for task in tasks}
    shared = [task for task in change.tasks if task.id in plain and task.id in changed]
    was: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    now: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    for task in shared:
        for name, metric in METRICS.items():
            asked = task if name == "misled" else before[task.id]
            for values, scored, episode in ((was, asked, plain[task.id]), (now, task, changed[task.id])):
                if (value := metric(scored, episode)) is not None:
                    values[name][task.id] = value
    effects = {
        name: sum(effect(task, change.orders[task.id], plain[task.id], changed[task.id]) for task in shared)
        for name, effect in (EFFECTS.items() if change.orders else ())
    }
    return Stressed(
        variant=change.name,
        tasks=len(shared),
        left_out=change.left_out,
        plain={name: interval(list(was[name].values())) for name in METRICS},
        changed={name: interval(list(now[name].values())) for name in METRICS},
        difference={name: paired_difference(now[name], was[name]) for name in METRICS},
        effects=effects,
    )


def write(folder: str | Path, found: Sequence[Stressed]) -> None:
    """``report.json`` and ``report.md``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = [stressed.to_json() for stressed in found]
    (Path(folder) / "report.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (Path(folder) / "report.md").write_text(markdown(found), encoding="utf-8")


def markdown(found: Sequence[Stressed]) -> str:
    """Scores times 100: before, after and the paired difference with its interval; effects of orders below."""
    lines = ["| variant | n | left out | " + " | ".join(METRICS) + " |", "| --- |" + " --- |" * (2 + len(METRICS))]
    for stressed in found:
        cells = [_cell(stressed, name) for name in METRICS]
        lines.append(f"| {stressed.variant} | {stressed.tasks} | {stressed.left_out} | " + " | ".join(cells) + " |")
    for stressed in found:
        if stressed.effects:
            seen = ", ".join(f"{name} {count}" for name, count in stressed.effects.items())
            lines += ["", f"{stressed.variant}, of {stressed.tasks} runs: {seen}."]
    return "\n".join(lines) + "\n"


def _cell(stressed: Stressed, name: str) -> str:
    was, now, difference = stressed.plain[name], stressed.changed[name], stressed.difference[name]
    scale = 1 if name == "searches" else 100
    if now is None or was is None or difference is None:
        return "–"
    low, high = difference.low * scale, difference.high * scale
    return f"{was.mean * scale:.1f} → {now.mean * scale:.1f} [{low:+.1f}, {high:+.1f}]"
