"""The tasks of a run come with the store that they are asked over: an invented world, question sets, or a user's own.

Rows that figures are reported on (`eval.split`) never enter, nor do rows of a data folder that ask the same, and the
dev tasks are never trained on: those of question sets are the tenth that is held out, less what a training task asks
too, those of a world are of another world, about entities that training never met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.eval.load import LOOKED_AT, corpus_path, holds, is_reporting, loader, read_tasks, resolved, select, task_of
from sleuth.eval.records import Task
from sleuth.eval.split import bucket
from sleuth.eval.synthesis.fictional import COUNTS, SMALLEST, fictional_world
from sleuth.retrieval.records import Retriever
from sleuth.training.sets import FOUND, MADE, asked, corpora_of, find_span, load, trainable

if TYPE_CHECKING:
    from sleuth.retrieval.store import Datastore

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
    spec: TaskSpec, data: str | Path | None, room: Path, seed: int, say: Callable[[str], None] = lambda line: None
) -> tuple[Retriever, list[Task], list[Task]]:
    """The store, the training tasks and the dev tasks; a store that has to be made is made in ``room`` once.

    ``say`` is told how many tasks cannot be used, why, and the first of them.
    """
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
    opened = Datastore.open(store)
    own = opened if spec.questions else None
    train, dev = _usable(train, own, "training", say), _usable(dev, own, "dev", say)
    if not train:
        raise InputError("no usable training task: every row is for reporting, held out, or cannot be used")
    trained = frozenset(text for task in train for text in _asks(task))
    dev = [task for task in dev if not _asks(task) & trained]
    return opened.retriever(spec.search), select(train, spec.limit or None, seed), select(dev, spec.dev, seed)


def _usable(tasks: Sequence[Task], store: Datastore | None, name: str, say: Callable[[str], None]) -> list[Task]:
    """Those that can be rewarded: with an answer, or said to have none, and over a user's ``store`` with its evidence.

    An answer that no gold document holds may still be right, as what is counted or compared is, and is only told of.
    """
    left_out: list[str] = []
    kept = []
    for task in tasks:
        if task.answers or task.answer_items or not task.metadata.get("answerable", True):
            kept.append(task)
        else:
            left_out.append(f"task {task.id}: expected 'answers', 'answer_items' or 'answerable': false, found none")
    if store is not None:
        kept = resolved(kept, lambda id_: holds(store, id_), left_out.append)
        seen = select(kept, LOOKED_AT, 0)
        odd = [task.id for task in seen if not _held(task, store)]
        if odd:
            say(f"{len(odd)} of {len(seen)} {name} tasks: no gold document holds the answer, the first is {odd[0]}")
    if left_out:
        say(f"{len(left_out)} of {len(tasks)} {name} tasks left out; the first: {left_out[0]}")
    return kept


def _held(task: Task, store: Datastore) -> bool:
    """Whether a gold document holds an answer, or there is nothing to look for."""
    wanted = [answer for answer in (*task.answers, *task.answer_items) if answer.lower() not in ("yes", "no")]
    documents = [store.document(id_) for id_ in task.supporting]
    texts = [f"{document.title} {document.text}" for document in documents]
    return not wanted or not texts or any(find_span(answer, text) for answer in wanted for text in texts)


def _asks(task: Task) -> set[str]:
    return asked({**task.metadata, "question": task.question})


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
