"""Extraction finds entities and facts in English documents by rules: titles, lead sentences, verbs, names and dates.

A document's title is its entity. A fact is taken only from a sentence that begins with that entity (its name, or a
pronoun in an unbroken run of such sentences), so much is missed and what is taken is mostly right. A value that goes
on into a list ("by A and B") is left out, because no single answer would be complete.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sleuth.corpora.records import Document
from sleuth.eval.synthesis.entity import GOES_ON_WITH, Entity, entity_of, opening
from sleuth.eval.synthesis.parse import NAME
from sleuth.eval.synthesis.records import Fact
from sleuth.eval.synthesis.statements import PLACED, Reader, life, predicates
from sleuth.eval.synthesis.wording import Grammar

MENTION_CHARS = (50, 220)
"""Least and most of a sentence that is quoted in a question."""
MOST_CHARS = 500
"""Of a sentence; longer ones are lists or tables."""
_PRONOUNS = frozenset("He She It They he she it they".split())
_FRONTED = re.compile(
    r"[A-Z][a-z]+(?:ed|en|ilt|wn)(?: and [a-z]+)? (?:by|in|on|at) [^.;]{3,120}?(?P<comma>,) (?=[A-Zits])"
)


@dataclass(frozen=True, slots=True)
class Table:
    """All entities and facts of a corpus; what questions are made of."""

    entities: dict[str, Entity]
    facts: list[Fact]
    homonyms: frozenset[str]
    """Base names, case folded, that several entities have."""
    mentions: list[Fact] = field(default_factory=list)
    """What `mentions` found; empty where it was not asked."""


def extract(documents: Iterable[Document], grammar: Grammar) -> Table:
    """The table of a corpus. Memory grows with the facts, not with the texts."""
    entities: dict[str, Entity] = {}
    facts: list[Fact] = []
    for document in documents:
        entity = entity_of(document)
        if entity is not None:
            entities.setdefault(entity.key, entity)
            facts += facts_of(document, entities[entity.key], grammar)
    bases = Counter(entity.base.casefold() for entity in entities.values())
    homonyms = frozenset(base for base, count in bases.items() if count > 1)
    # A title with a bracket says that the bare name means other things too: a sentence's bare name does not link to it.
    keys = {key.casefold(): key for key in entities}
    placed = PLACED | {name for (_, _, kind), name in grammar.verbs.items() if kind == "place"}
    linked = (_linked(fact, keys, homonyms, placed) for fact in facts)
    return Table(entities, [fact for fact in linked if fact is not None], homonyms)


def mentions(documents: Iterable[Document], table: Table) -> Iterator[Fact]:
    """Sentences that name another document's entity once, as facts of the relation ``mentions``.

    They link documents of any style, where `extract` needs sentences that its rules know.
    """
    keys = {entity.base: entity.key for entity in table.entities.values() if _telling_name(entity, table.homonyms)}
    for document in documents:
        entity = table.entities.get(document.title.strip())
        if entity is None:
            continue
        for start, end in opening(document.text):
            text = document.text[start:end]
            if MENTION_CHARS[0] <= end - start <= MENTION_CHARS[1] and not re.search(r"[\n\"“”]", text):
                for name in dict.fromkeys(found[0] for found in NAME.finditer(text)):  # in order: the seed decides
                    if name in keys and text.count(name) == 1 and keys[name] != entity.key and _alone(name, text):
                        yield Fact(
                            entity.key, entity.name, "mentions", name, document.id, start, end, text, keys[name], "is"
                        )


def _alone(name: str, text: str) -> bool:
    """Not a part of a longer term: ``the Muhammad Ali dynasty`` does not name Muhammad Ali."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?=[.,;:)]| \(| {GOES_ON_WITH}\b)", text) is not None


def _telling_name(entity: Entity, homonyms: frozenset[str]) -> bool:
    """A name of several words with a kind, so that ``the actor left out of ...`` can be asked."""
    return (
        bool(entity.head) and " " in entity.base and entity.key == entity.base and entity.key.casefold() not in homonyms
    )


def _linked(fact: Fact, keys: dict[str, str], homonyms: frozenset[str], placed: frozenset[str]) -> Fact | None:
    """The fact with its target; None for a name of one word that no document is about, too vague for an answer."""
    value = fact.value.casefold()
    target = keys.get(value, "")
    if not target and "," in value:
        target = keys.get(value.split(",")[0], "")
    if target == fact.entity or value in homonyms or value.split(",")[0] in homonyms:
        target = ""
    telling = target or fact.when or " " in value or fact.value.isupper() or fact.relation in placed
    return None if not telling else dataclasses.replace(fact, target=target)


def facts_of(document: Document, entity: Entity, grammar: Grammar) -> Iterator[Fact]:
    """The facts that a document states of its entity, links not yet resolved."""
    text, anchored = document.text, False
    begins = _subject(entity)
    for number, (start, end) in enumerate(opening(text)):
        lead, front = number == 0, _FRONTED.match(text, start, end)
        at = front.end() if front is not None and not lead else start
        found = _lead_subject(text, start, end, entity) if lead else begins.match(text, at, end)
        unnamed = found is not None and not lead and found[0] in _PRONOUNS
        anchored = found is not None and (anchored or not unnamed)
        if found is None or not anchored or end - start > MOST_CHARS or "\n" in text[start:end].strip():
            continue
        reader = Reader(text, end, grammar)
        stated = [*life(reader, start, entity, lead), *predicates(reader, found.end(), entity, lead)]
        if front is not None and not lead:
            stated += Reader(text, front.start("comma"), grammar).verb(start, "was")
        for relation, value, be, when in stated:
            yield Fact(entity.key, entity.name, relation, value, document.id, start, end, text[start:end], "", be, when)


def _subject(entity: Entity) -> re.Pattern[str]:
    names = [re.escape(entity.base)]
    if entity.person:
        names += [re.escape(entity.base.split()[-1]), "He", "She", "he", "she"]
    else:
        names += ["It", "it"] + ([f"[Tt]he {re.escape(entity.head)}"] if entity.head else [])
    return re.compile(rf"(?:[Tt]he )?(?:{'|'.join(names)})(?=,? )")


def _lead_subject(text: str, start: int, end: int, entity: Entity) -> re.Match[str] | None:
    """What comes before the verb or a bracket, where it holds a word of the name."""
    found = re.compile(r"[^()]{1,120}?(?=\s\(|,? (?:is|was|are|were) )").match(text, start, end)
    words = {word for word in re.findall(r"\w+", entity.base) if word[0].isupper() or word.isdigit()}
    return found if found is not None and words & set(re.findall(r"\w+", found[0])) else None
