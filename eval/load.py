"""Loading reads question rows into tasks: one JSON object a line, in the layout that all question sets here share.

A row has ``id``, ``question``, ``answers`` and, where the set has them, ``supporting``, ``support_mode``,
``answer_items``, ``type``, ``hops``, ``scope`` (search only passages of that scope) and ``answerable``; other fields go
to the metadata. A row that cannot be used is named with file, line and what was expected; the rest is still good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import InputError
from sleuth.eval.records import Load, Task
from sleuth.eval.split import reporting_only

SHIPPED = Path(__file__).parent / "rows"
"""Five rows of each benchmark, with the passages that they need."""

_KNOWN = ("id", "question", "answers", "supporting", "support_mode", "answer_items", "type", "hops", "scope")


def loader(name: str) -> Load:
    """The `Load` of the set ``name``: its shipped rows, a folder that holds ``qa/NAME[.dev].jsonl``, or one file."""

    def load(path: str | Path | None = None, bad: Callable[[str], None] | None = None) -> list[Task]:
        return read_tasks(questions_path(name, path), bad)

    return load


def questions_path(name: str, path: str | Path | None) -> Path:
    """Where the rows of ``name`` lie; a folder without them raises `InputError` that lists the places tried."""
    if path is None:
        return SHIPPED / f"{name}.jsonl"
    if not Path(path).is_dir():
        return Path(path)
    tried = [Path(path) / "qa" / file for file in (f"{name}.dev.jsonl", f"{name}.jsonl")]
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise InputError(f"{path}: no questions of {name} here; tried {', '.join(str(file) for file in tried)}")
    return found


def corpus_path(corpus: str, path: str | Path | None) -> Path:
    """Where the passages of a corpus lie: the shipped few, or ``corpora/NAME.corpus.jsonl.gz`` of a folder."""
    if path is None:
        return SHIPPED / f"{corpus}.corpus.jsonl"
    found = Path(path) / "corpora" / f"{corpus}.corpus.jsonl.gz"
    if not found.is_file():
        raise InputError(f"{found}: no such corpus")
    return found


def read_tasks(path: str | Path, bad: Callable[[str], None] | None = None) -> list[Task]:
    """The tasks of a JSONL file in order.

    A row that cannot be used, or repeats an id, raises `InputError` naming file and line, or, with ``bad``, is handed
    there as a message and passed over.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such question file")
    tasks: dict[str, Task] = {}
    lines: dict[str, int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                task = task_of(json.loads(line))
                if task.id in tasks:
                    raise ValueError(f"id {task.id!r} stands in line {lines[task.id]} already")
            except (ValueError, RecursionError) as error:
                message = f"{path}:{number}: not a usable question row: {error}"
                if bad is None:
                    raise InputError(message) from None
                bad(message)
            else:
                tasks[task.id], lines[task.id] = task, number
    return list(tasks.values())


def task_of(row: Any) -> Task:
    """The task of one row; ``ValueError`` says which field, what was expected and what was found."""
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object; found {type(row).__name__}")
    answers = _strings(row, "answers")
    if not answers and row.get("answerable", True) is True:
        raise ValueError("'answers' is empty; expected at least one, or 'answerable': false")
    supporting = tuple(dict.fromkeys(_strings(row, "supporting")))
    mode = row.get("support_mode", "all" if supporting else "none")
    if mode not in ("all", "any", "none"):
        raise ValueError(f"'support_mode' must be all, any or none; found {mode!r}")
    hops = row.get("hops")
    if hops is not None and type(hops) is not int:
        raise ValueError(f"'hops' must be a whole number or null; found {hops!r}")
    return Task(
        id=_string(row, "id"),
        question=_string(row, "question"),
        answers=answers,
        supporting=supporting,
        support_mode=mode,
        answer_items=_strings(row, "answer_items"),
        type=str(row.get("type") or ""),
        hops=hops,
        where={"scope": _string(row, "scope")} if row.get("scope") else None,
        metadata={key: value for key, value in row.items() if key not in _KNOWN},
    )


def select(tasks: Sequence[Task], limit: int | None = None, seed: int = 0, reporting: bool = False) -> list[Task]:
    """A subset that depends on ids and seed alone: ``reporting`` keeps the reporting rows, ``limit`` that many of them.

    Tasks come in an order drawn by hash, so a smaller limit is the head of a larger one, and a run that is cut short
    has seen a random sample.
    """
    kept = [task for task in tasks if not reporting or is_reporting(task)]
    drawn = sorted(kept, key=lambda task: hashlib.sha256(f"{seed}:{task.id}".encode()).digest())
    return drawn if limit is None else drawn[:limit]


def is_reporting(task: Task) -> bool:
    """`split.reporting_only` for a task."""
    return reporting_only({"id": task.id, "base_id": task.metadata.get("base_id")})


def _string(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{key}' must be a string that is not empty; found {_shown(value)}")
    return value


def _strings(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values: Iterable[Any] | None = row.get(key)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise ValueError(f"'{key}' must be a list of strings that are not empty; found {_shown(values)}")
    return tuple(values)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
