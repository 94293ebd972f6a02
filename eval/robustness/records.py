"""A variant is a benchmark under one known change; its tasks keep their ids, so it is paired with the unchanged run.

What is changed is the question, or the documents of the store, or both; a pure function of tasks, documents and a seed
makes it. Tasks that a change cannot be made for are left out of both sides and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sleuth.corpora.records import Document
from sleuth.eval.records import Task

_LETTER = r"[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"

Fetch = Callable[[str], Document]
"""A document of the store by id; raises ``KeyError``."""


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    tasks: tuple[Task, ...]
    """Changed tasks, with the ids of the unchanged ones."""
    documents: tuple[Document, ...] = ()
    """What is added to the store, or takes the place of a document with the same id."""
    orders: Mapping[str, str] = field(default_factory=dict)
    """By task id: the order that was planted in its evidence."""
    left_out: int = 0
    """Tasks that the change cannot be made for."""


def evidence_of(task: Task, fetch: Fetch) -> tuple[Document, str] | None:
    """The document that holds the answer, and the answer as it stands there; None where none of the marked ones does.

    Of several the last, which for a multi-hop question is the one at the end of the chain. Yes and no stand nowhere.
    """
    for doc_id in reversed(task.supporting):
        try:
            document = fetch(doc_id)
        except KeyError:
            continue
        for answer in task.answers:
            if answer.lower() not in ("yes", "no") and stands(answer, document.text):
                return document, answer
    return None


def stands(answer: str, text: str) -> bool:
    """Whether a text holds an answer word for word: ``no`` does not stand in ``known``, nor ``4`` in ``1946``."""
    return _apart(answer).search(text) is not None


def replaced(text: str, answer: str, other: str) -> str:
    """The text with ``other`` wherever ``answer`` stands."""
    return _apart(answer).sub(lambda _: other, text)


def _apart(answer: str) -> re.Pattern[str]:
    """The answer between characters that go on with no word of its; Chinese and Japanese are written without gaps."""
    before = f"(?<!{_LETTER})" if re.match(_LETTER, answer) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, answer[-1:]) else ""
    return re.compile(f"{before}{re.escape(answer)}{after}")
