"""Renaming gives known questions invented names, in the question and in a copy of its documents alike.

What a policy has memorised of the real names helps it no more, while the wording, the evidence and the way to the
answer stay as they are: the difference to the same questions under real names is what memory contributed. After
FictionalHot (ReSeek, arXiv 2510.00568), which has a language model write its documents; here every capitalised word
of a name is replaced by one invented word everywhere, so that the copy says what the source says. Years stay.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from sleuth.corpora.records import Document
from sleuth.eval.records import Task
from sleuth.eval.synthesis.fictional import invented_word
from sleuth.eval.synthesis.parse import MONTHS
from sleuth.retrieval.records import Retriever

DISTRACTORS = 5
"""Documents of the store copied beside a question's own: the best that a search for the question finds."""
_WORD = re.compile(r"[^\W\d_][^\W_]*(?:['’-][^\W_]+)*")
_AN = re.compile(r"\b([Aa])n ([^\W_]+)")
"""Every invented word begins with a consonant."""
_KEPT = frozenset(
    "The And Of For From With This That His Her Its University College School Institute Company Records "
    "Pictures Film Films Studios Studio Press Books House River Lake Mount Mountain Island Castle Church "
    "Museum Hall Street Park Bridge Airport Station City County State Province North South East West New "
    "Saint San Los Las Band Club Orchestra Award Awards Prize Season League Cup Grand Prix World War "
    "Party Society Association Museum Theatre Theater Hospital Hotel Group Part "
    "Who Whom Whose What Which When Where Why How Name Every".split()
) | frozenset(MONTHS)
"""Words of names that say what kind of thing it is, or are no names, or begin a question: without them a copy would
read as nonsense."""


def renamed(
    tasks: Sequence[Task],
    retriever: Retriever,
    document: Callable[[str], Document],
    seed: int = 0,
) -> tuple[list[Document], list[Task], Counter[str]]:
    """The copied documents, the renamed tasks that pass their checks, and how many each check dropped.

    Only for tasks with ``evidence`` in their metadata, as `make_benchmark` makes them. A task keeps the id of its
    source as ``base_id``, so that both fall on the same side of the reporting split.
    """
    ids: dict[str, None] = {}
    for task, hits in zip(tasks, retriever.search([task.question for task in tasks], DISTRACTORS), strict=True):
        ids.update(dict.fromkeys([*task.supporting, *(hit.passage.doc_id for hit in hits)]))
    sources = {id_: document(id_) for id_ in ids}
    words = _invented(_names(tasks, sources), sources.values(), Random(f"renamed {seed}"))
    change = _replacer(words)
    copies = {
        id_: dataclasses.replace(
            source, id=f"renamed/{id_}", title=change(source.title), text=change(source.text), url=""
        )
        for id_, source in sources.items()
    }
    kept, dropped = [], Counter[str]()
    for task in tasks:
        made = _task(task, copies, change)
        failed = _failed(task, made, words)
        dropped.update([failed] if failed else [])
        kept += [] if failed else [made]
    return list(copies.values()), kept, dropped


def renaming(names: Iterable[str], sources: Iterable[Document], random: Random) -> Callable[[str], str]:
    """A function that replaces each telling word of ``names`` by an invented one that ``sources`` do not hold."""
    return _replacer(_invented(names, sources, random))


def _copy(source: Document, change: Callable[[str], str]) -> Document:
    return dataclasses.replace(
        source, id=f"renamed/{source.id}", title=change(source.title), text=change(source.text), url=""
    )


def _names(tasks: Sequence[Task], sources: Mapping[str, Document]) -> set[str]:
    """Titles of the evidence, and what it says where that is no year."""
    titles = {re.sub(r"\s*\([^)]*\)$", "", sources[id_].title) for task in tasks for id_ in task.supporting}
    return titles | {value for task in tasks for value in task.metadata["values"] if not value.isdigit()}


def _invented(names: Iterable[str], sources: Iterable[Document], random: Random) -> dict[str, str]:
    """An invented word for each capitalised word of the names, none of which occurs in the documents."""
    used = {word.lower() for source in sources for word in _WORD.findall(source.text)}
    found = {word for name in names for word in _WORD.findall(name) if len(word) > 2 and word[0].isupper()}
    made: set[str] = set()
    words: dict[str, str] = {}
    for word in sorted(found - _KEPT):
        new = invented_word(random, made)
        while new.lower() in used:
            new = invented_word(random, made)
        words[word] = new
    return words


def _replacer(words: Mapping[str, str]) -> Callable[[str], str]:
    def one(match: re.Match[str]) -> str:
        word = match[0]
        if word in words:
            return words[word]
        return re.sub(r"[^\W_]+", lambda part: words.get(part[0], part[0]), word)  # O'Neill's, Jean-Luc

    invented = frozenset(words.values())

    def article(match: re.Match[str]) -> str:
        return f"{match[1]} {match[2]}" if match[2] in invented else match[0]

    return lambda text: _AN.sub(article, _WORD.sub(one, text))


def _task(task: Task, copies: Mapping[str, Document], change: Callable[[str], str]) -> Task:
    spans: list[dict[str, Any]] = []
    for span in task.metadata["evidence"]:
        copy, text = copies[span["document"]], change(span["text"])
        start = copy.text.find(text)
        spans.append({"document": copy.id, "start": start, "end": start + len(text), "text": text})
    steps = [
        {
            "question": change(step["question"]),
            "answer": change(step["answer"]),
            "passage": copies[step["passage"]].id,
        }
        for step in task.metadata["decomposition"]
    ]
    return dataclasses.replace(
        task,
        id=f"renamed-{task.id}",
        question=_capital(change(task.question)),
        answers=tuple(map(change, task.answers)),
        answer_items=tuple(map(change, task.answer_items)),
        supporting=tuple(copies[id_].id for id_ in task.supporting),
        type=f"renamed-{task.type}",
        metadata={
            **task.metadata,
            "base_id": task.id,
            "values": list(map(change, task.metadata["values"])),
            "decomposition": steps,
            "evidence": spans,
        },
    )


def _failed(source: Task, made: Task, words: Mapping[str, str]) -> str:
    """The first check that a renamed task does not pass; empty where it passes all."""
    if any(span["start"] < 0 for span in made.metadata["evidence"]):
        return "evidence is not verbatim"
    texts = [span["text"] for span in made.metadata["evidence"]]
    if made.answer_items:
        said = all(any(item in text for text in texts) for item in made.answer_items)
    else:
        said = any(answer in texts[-1] for answer in made.answers)
    if not said:
        return "answer is not in the last evidence"
    if made.question == source.question:
        return "nothing to rename"
    if set(_WORD.findall(made.question)) & words.keys():
        return "a real name is left"
    return ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
