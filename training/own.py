"""A user's own tasks over a datastore, as a question set that examples are made from.

Tasks name documents and examples show passages: each gold document stands for its passage that holds the evidence or,
where a task marks none, the answer. Distractors are what the store's own lexical search finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Passage
from sleuth.eval.load import is_reporting, read_tasks, resolved
from sleuth.eval.records import Task
from sleuth.eval.source import refuse
from sleuth.eval.synthesis.make import row_of
from sleuth.retrieval.store import Datastore
from sleuth.training.sets import OWN, QuestionSet, find_span

PAGE = 500
"""Documents asked of the store at a time."""
MOST = 1_000_000
"""Passages that so many documents may have."""


def own(store: str | Path, questions: str | Path) -> QuestionSet:
    """The tasks of a JSONL file that have answers and gold documents, reporting rows left out, over ``store``.

    Raises `InputError` where a gold document is not in the store, or where no task can be used.
    """
    opened = Datastore.open(store)
    tasks = [task for task in read_tasks(questions) if not is_reporting(task) and task.answers and task.supporting]
    if not tasks:
        raise InputError(f"{questions}: no task with answers and gold documents ('supporting') to make examples from")
    parts = _parts(opened, sorted({id_ for task in tasks for id_ in task.supporting}))
    rows = [_row(task, parts) for task in resolved(tasks, parts.__contains__, refuse)]
    passages = {p.id: p for document in parts.values() for p in document}
    return QuestionSet(OWN, rows, passages, retriever=opened.retriever("bm25"))


def _parts(store: Datastore, doc_ids: Sequence[str]) -> dict[str, list[Passage]]:
    """The passages of each document, in order."""
    found: dict[str, list[Passage]] = {}
    for first in range(0, len(doc_ids), PAGE):
        quoted = ", ".join("'" + id_.replace("'", "''") + "'" for id_ in doc_ids[first : first + PAGE])
        query = f'SELECT id, doc_id, start, "end", title, text FROM passages WHERE doc_id IN ({quoted}) ORDER BY start'
        for values in store.sql(query, limit=MOST)[1]:
            found.setdefault(values[1], []).append(Passage(*values))
    return found


def _row(task: Task, parts: Mapping[str, Sequence[Passage]]) -> dict[str, Any]:
    """The task as a row whose gold are passages; look-ups without a question or an answer are all left out."""
    row = row_of(task)
    marked = [piece if _has(piece, "document", "text") else {} for piece in _listed(row.get("evidence"))]
    given = _listed(row.get("decomposition"))
    steps, places = [], {}
    for n, step in enumerate(given if all(_has(step, "question", "answer") for step in given) else ()):
        document, passage = step.get("passage"), ""
        if document in task.supporting:
            shown = [piece["text"] for piece in marked[n : n + 1] if piece.get("document") == document]
            passage = _holding(parts[document], [*shown, step["answer"]])
            places[passage] = document
        steps.append({**step, "passage": passage})
    for document in task.supporting:
        if document not in places.values():
            shown = [piece["text"] for piece in marked if piece.get("document") == document]
            places[_holding(parts[document], [*shown, *task.answers, *task.answer_items])] = document
    return {**row, "supporting": list(places), "hops": task.hops or len(task.supporting), "decomposition": steps}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _has(value: Any, *keys: str) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in keys)


def _holding(document: Sequence[Passage], needles: Sequence[str]) -> str:
    """The passage with the first needle, of several that with the next; the first passage where none is found."""
    return max(document, key=lambda p: [needle in p.text or bool(find_span(needle, p.text)) for needle in needles]).id
