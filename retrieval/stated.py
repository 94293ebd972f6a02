"""A statement is a subject, a relation and an object that one sentence of a document says, found by rules.

The subject is what the document is about, its title. Read are definitions (``X is a film``), lines of a fact sheet
(``Born: 1908``), and the words between the subject and an entity that another document is about (``was directed by``);
an entity that is named otherwise is only mentioned. What is read is what the words are: relations are not normalised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from sleuth.corpora.records import Document
from sleuth.corpora.text import sentences
from sleuth.retrieval.names import Names, names_of

Statement: TypeAlias = tuple[str, str, str, int, int]
"""Subject, relation, object, and the span of the sentence in ``document.text``."""
Extractor: TypeAlias = "Callable[[Document, Names], Iterable[Statement]]"
"""Statements of one document, given all names of the corpus; a policy, say, in place of these rules."""
MENTIONS = "mentions"
MAX_SENTENCES = 200
"""Of a document that are read."""
MAX_CHARS = 1000
"""Of a sentence; longer ones are lists or tables."""
MAX_RELATION = 60
"""Characters between a subject and an object that can be a relation."""
_PRONOUN = re.compile(r"(?:He|She|It|They|His|Her|Its|Their)\b")
_BE = re.compile(r"\s*(?:\([^()]*\)|,[^,.]{0,60},)?\s*(?P<be>is|was|are|were) (?:an?|the|one of the) ")
_KIND = re.compile(
    r"[^,.;:()\n]{2,80}?(?=[,.;:()\n]|$| (?:\w+(?:ed|en|wn) )?(?:who|which|that|by|from|about|with|where)\b)"
)
_SHEET = re.compile(r"(?P<key>[A-Z][\w /'-]{1,30})(?:: | \| | = )(?P<value>\S.{0,120})")
_WORDS = re.compile(r"[^\W\d_][\w'’ -]*")


def stated(document: Document, names: Names) -> Iterator[Statement]:
    """What the rules find in one document; nothing in one without a title."""
    title = document.title.strip()
    if not title:
        return
    called = "|".join(re.escape(name) for name in sorted(names_of(title), key=len, reverse=True))
    subject = re.compile(rf"(?:[Tt]he )?(?:{called})(?=\W|$)")
    defined = False
    for start, end in sentences(document.text)[:MAX_SENTENCES]:
        if end - start > MAX_CHARS:
            continue
        sentence = document.text[start:end]
        if sheet := _SHEET.fullmatch(sentence):
            yield title, sheet["key"].lower(), sheet["value"].strip(), start, end
        named = subject.match(sentence)
        be = _BE.match(sentence, named.end()) if named and not defined else None
        if be and (kind := _KIND.match(sentence, be.end())):
            defined = True
            yield title, f"{be['be']} a", kind[0].strip(), start, end
        yield from _linked(title, sentence, named or _PRONOUN.match(sentence), names, start, end)


def _linked(
    title: str, sentence: str, subject: re.Match[str] | None, names: Names, start: int, end: int
) -> Iterator[Statement]:
    """One statement an entity that the sentence names, the subject left out."""
    seen = {title}
    for mention in names.find(sentence):
        for entity in mention.entities if title not in mention.entities else ():  # its own name is itself
            if entity not in seen:
                seen.add(entity)
                between = sentence[subject.end() : mention.start] if subject else ""
                yield title, _relation(between), entity, start, end


def _relation(between: str) -> str:
    """``was directed by`` of `` (1975) was directed by the ``; `MENTIONS` where it is no plain run of words."""
    plain = re.sub(r"^\s*\([^()]*\)", "", between).strip()
    plain = re.sub(r"\s+(?:the|a|an)$", "", plain)
    if not plain or len(plain) > MAX_RELATION or not _WORDS.fullmatch(plain):
        return MENTIONS
    return plain.lower()
