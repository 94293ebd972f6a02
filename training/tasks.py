"""The tasks of a run come with the store that they are asked over: an invented world, question sets, or a user's own.

Rows that figures are reported on (`eval.split`) never enter, nor do rows of a data folder that ask the same, and the
dev tasks are never trained on: those of question sets are the tenth that is held out, those of a world are of another
world, about entities that training never met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.eval.load import corpus_path, is_reporting, loader, read_tasks, select, task_of
from sleuth.eval.records import Task
from sleuth.eval.split import bucket
from sleuth.eval.synthesis.fictional import COUNTS, SMALLEST, fictional_world
from sleuth.retrieval.records import Retriever
from sleuth.training.sets import FOUND, MADE, corpora_of, load, trainable

HELD_OUT = 3
"""Bucket of rows that are looked at while training but not trained on."""


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """An invented world (`eval.synthesis.fictional`)."""

    entities: int = 0
    """0 for no world."""
    hops: tuple[int, ...] = (1,)
    seed: int = 1
    """Of the world that is trained on; the dev tasks come from the next one."""

    def __post_init__(self) -> None:
        if self.entities and self.entities < SMALLEST:
            raise ConfigError(f"entities: expected 0 for no world, or at least {SMALLEST}; found {self.entities}")
        if not self.hops or not all(count in COUNTS for count in self.hops):
            raise ConfigError(f"hops: expected some of {', '.join(map(str, COUNTS))}; found {list(self.hops)}")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Exactly one of ``world``, ``sets`` and ``questions`` with ``store``."""

    world: WorldSpec = field(default_factory=WorldSpec)
    sets: Mapping[str, int] = field(default_factory=dict)
    """At most so many training questions of each set in the data folder; ``made_`` before a name: questions made by
    rules from its passages; ``found_`` before one of ``qa_no_corpus``: those that the passages of two sets answer.
    Neither gives dev tasks."""
    questions: str = ""
    """A JSONL file of tasks over ``store``; one in ten is held out."""
    store: str = ""
    """A datastore's folder."""
    limit: int = 0
    """Training tasks at most; 0 for all."""
    dev: int = 24
    """Dev tasks at most."""
    search: Literal["hybrid", "bm25", "dense"] = "hybrid"

    def __post_init__(self) -> None:
        given = [bool(self.world.entities), bool(self.sets), bool(self.questions and self.store)]
        if sum(given) != 1:
            raise ConfigError("tasks: expected exactly one of world.entities, sets, or questions with store")


def open_tasks(
    spec: TaskSpec, data: str | Path | None, room: Path, seed: int
) -> tuple[Retriever, list[Task], list[Task]]:
    """The store, the training tasks and the dev tasks; a store that has to be made is made in ``room`` once."""
    from sleuth.retrieval.build import build_once
    from sleuth.retrieval.store import Datastore

    if spec.world.entities:
        documents, train, dev = _world(spec.world)
        store = build_once(documents, room / "store")
    elif spec.sets:
        if data is None:
            raise InputError(f"tasks.sets {', '.join(spec.sets)}: needs --data, the folder with qa/ and corpora/")
        train, dev = _sets(spec.sets, data, seed)
        corpora = dict.fromkeys(corpus for name in spec.sets for corpus in corpora_of(name))
        store = build_once([corpus_path(name, data) for name in corpora], room / "store")
    else:
        rows = read_tasks(spec.questions)
        train = [task for task in rows if not is_reporting(task) and _bucket(task) != HELD_OUT]
        dev = [task for task in rows if _bucket(task) == HELD_OUT]
        store = Path(spec.store)
    usable = [task for task in train if task.answers or task.answer_items or not task.metadata.get("answerable", True)]
    if not usable:
        raise InputError("no usable training task: every row is for reporting, held out, or has no answer")
    retriever = Datastore.open(store).retriever(spec.search)
    return retriever, select(usable, spec.limit or None, seed), select(dev, spec.dev, seed)


def _world(spec: WorldSpec) -> tuple[list[Document], list[Task], list[Task]]:
    """Both worlds' documents together: the dev world's are in reach of searches and in no training question."""
    ours, train = fictional_world(spec.seed, spec.entities, spec.hops)
    others, dev = fictional_world(spec.seed + 1, spec.entities, spec.hops)
    return [*ours, *others], train, dev


def _sets(sets: Mapping[str, int], data: str | Path, seed: int) -> tuple[list[Task], list[Task]]:
    train: list[Task] = []
    dev: list[Task] = []
    for name, count in sets.items():
        derived = name.startswith((MADE, FOUND))
        rows = [task_of(row) for row in load(data, name).rows] if derived else loader(name)(data)
        rows = [t for t in rows if trainable({**t.metadata, "id": t.id, "question": t.question}, data)]
        train += select([t for t in rows if _bucket(t) != HELD_OUT], count, seed)
        dev += [t for t in rows if _bucket(t) == HELD_OUT and not derived]
    return train, dev


def _bucket(task: Task) -> int:
    return bucket({"id": task.id, "base_id": task.metadata.get("base_id")})
