"""A fact is one thing a sentence says of an entity; a question is made of a chain of facts.

Facts keep the span of their sentence, so every question made of them carries evidence that can be checked against
the document it came from. A relation holds the wordings; the same fact gives a question, a phrase inside one, or a
condition that its entity fulfils.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sleuth.eval.records import Task


@dataclass(frozen=True, slots=True)
class Relation:
    """How one kind of fact is asked for. ``{s}`` is the subject, ``{v}`` the value, ``{be}`` is or was."""

    name: str
    questions: tuple[str, ...]
    """Complete questions: ``Where was {s} born?``."""
    phrases: tuple[str, ...] = ()
    """The value described by its subject: ``the birthplace of {s}``. Empty: the value begins no further hop."""
    clause: str = ""
    """What the subject fulfils: ``was born in {v}``. Empty: not usable as a condition."""
    cue: str = ""
    """Regular expression of words by which another sentence may state the same relation; empty: none looked for."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one sentence says."""

    entity: str
    """Key of the subject: facts with the same key are about the same thing."""
    subject: str
    """Name of the subject as a question writes it."""
    relation: str
    """Key into the table of relations that goes with these facts."""
    value: str
    """The answer, verbatim in the sentence."""
    doc_id: str
    """The document that holds the sentence."""
    start: int
    """First character of the sentence in the document's text."""
    end: int
    """One past its last character."""
    text: str
    """The sentence: exactly ``document.text[start:end]``."""
    target: str = ""
    """Key of the entity that the value names; empty for years, places without a document and the like."""
    be: str = "was"
    """The sentence's own form: is, was, are or were."""
    when: str = ""
    """The value as an ISO 8601 date, as exact as the sentence has it; empty where it is none."""


def written(fact: Fact) -> str:
    """The value as a sentence goes on with it: with ``the`` where its own sentence has that."""
    return f"the {fact.value}" if re.search(rf"\bthe {re.escape(fact.value)}", fact.text) else fact.value


Step: TypeAlias = tuple[str, str]
"""A sub-question, where ``#1`` stands for the first one's answer (MuSiQue's notation), and its own answer."""


def task_of(
    id_: str,
    kind: str,
    facts: Sequence[Fact],
    question: str,
    steps: Sequence[Step],
    answers: Sequence[str] = (),
    items: Sequence[str] = (),
) -> Task:
    """The task that asks for the last fact's value (or ``answers``) through the others, in order.

    ``steps``: one for each of the first facts; a list has none. ``items``: what a list must hold.
    ``hops`` counts documents.
    """
    supporting = tuple(dict.fromkeys(fact.doc_id for fact in facts))
    return Task(
        id=id_,
        question=question,
        answers=tuple(answers) or (facts[-1].value,),
        supporting=supporting,
        support_mode="all",
        type=kind,
        hops=len(supporting),
        answer_items=tuple(items),
        metadata={
            "relations": [fact.relation for fact in facts],
            "values": [fact.value for fact in facts],
            "decomposition": [
                {"question": asked, "answer": answer, "passage": fact.doc_id}
                for (asked, answer), fact in zip(steps, facts, strict=False)
            ],
            "evidence": [
                {"document": fact.doc_id, "start": fact.start, "end": fact.end, "text": fact.text} for fact in facts
            ],
            "answerable": True,
        },
    )
