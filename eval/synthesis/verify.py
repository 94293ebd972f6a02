"""Verification decides which candidates are kept; every check has a name under which what it drops is counted.

The checks look at the documents and search the store anew, so that a slip of the extraction is caught by another way of
reading. They are strict: a question that might have a second answer goes, because there are always more candidates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sleuth.corpora.records import Document
from sleuth.corpora.text import sentences
from sleuth.eval.answers import normalise
from sleuth.eval.synthesis.extract import Table
from sleuth.eval.synthesis.kinds import Candidate
from sleuth.eval.synthesis.parse import TIME
from sleuth.eval.synthesis.records import Fact
from sleuth.eval.synthesis.wording import Grammar
from sleuth.retrieval.records import Retriever

RIVALS = 20
"""Passages that a search for other answers looks through."""
MOST_WORDS = 45
"""Of a question: a longer one is a chain of brackets that nobody would ask."""


@dataclass(frozen=True)
class Verifier:
    """The checks over one store. Each takes a candidate and says whether it holds."""

    table: Table
    grammar: Grammar
    retriever: Retriever
    """Searches the whole store by words."""
    document: Callable[[str], Document]

    def failed(self, candidate: Candidate) -> str:
        """The name of the first check that the candidate fails; empty where it passes all."""
        return next((name for name, check in CHECKS.items() if not check(self, candidate)), "")

    @cached_property
    def values(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """What is said of each entity under each relation, normalised."""
        found: dict[tuple[str, str], set[str]] = {}
        for fact in self.table.facts:
            found.setdefault((fact.entity, fact.relation), set()).add(normalise(fact.value))
        return {key: frozenset(values) for key, values in found.items()}

    @cached_property
    def names(self) -> Counter[str]:
        """How many entities have each name."""
        return Counter(normalise(entity.name) for entity in self.table.entities.values())

    def verbatim(self, candidate: Candidate) -> bool:
        """Each evidence sentence stands at its span in its document and holds its value."""
        return all(
            self.document(fact.doc_id).text[fact.start : fact.end] == fact.text and fact.value in fact.text
            for fact in candidate.facts
        )

    def answered(self, candidate: Candidate) -> bool:
        """An accepted answer stands in the last evidence sentence, each item of a list in one."""
        if candidate.items:
            return all(any(item in fact.text for fact in candidate.facts) for item in candidate.items)
        return any(answer in candidate.facts[-1].text for answer in candidate.answers)

    def not_given_away(self, candidate: Candidate) -> bool:
        """No telling word of the answer, or of a name on the way to it, stands in the question."""
        asked = set(normalise(candidate.question).split())
        secret = {word for text in (*candidate.answers[:1], *candidate.hidden) for word in _telling(text)}
        return not secret & asked

    def single_valued(self, candidate: Candidate) -> bool:
        """The corpus gives each looked-up fact one value."""
        return all(len(self.values.get((fact.entity, fact.relation), "1")) == 1 for fact in candidate.facts)

    def unambiguous(self, candidate: Candidate) -> bool:
        """Each name in the question stands for one entity, and so does the answer's."""
        subjects = [self.table.entities[key] for key in candidate.named]
        return all(
            self.names[normalise(entity.name)] == 1
            and (
                entity.name not in (entity.base, f"the {entity.base}")
                or entity.base.casefold() not in self.table.homonyms
            )
            for entity in subjects
        )

    def no_equal(self, candidate: Candidate) -> bool:
        """Where the question describes its answer, as many entities of the table fit as are asked for."""
        return not candidate.conditions or len(candidate.matches) == len(candidate.items or candidate.answers[:1])

    def no_rival(self, candidate: Candidate) -> bool:
        """No other sentence of the store says the same relation of the same subject with another value."""
        bases = [self.table.entities[fact.entity].base for fact in candidate.facts]
        queries = [f"{base} {fact.relation}" for base, fact in zip(bases, candidate.facts, strict=True)]
        found = self.retriever.search(queries, RIVALS)
        return not any(
            _disagrees(sentence, base, fact, self.grammar.relation(fact.relation).cue)
            for base, fact, hits in zip(bases, candidate.facts, found, strict=True)
            for hit in hits
            for sentence in _split(hit.passage.text)
        )

    def no_short_cut(self, candidate: Candidate) -> bool:
        """No single passage holds an answer (or all items of a list) beside everything that the question names."""
        if len({fact.doc_id for fact in candidate.facts}) < 2:
            return True
        needed = [self.table.entities[key].base for key in candidate.named] or list(candidate.conditions)
        query = " ".join([*needed, candidate.answers[0]])
        hits = self.retriever.search([query, candidate.question], RIVALS)
        return not any(
            all(name in text for name in needed) and _answers(candidate, text)
            for found in hits
            for text in (f"{hit.passage.title} {hit.passage.text}" for hit in found)
        )

    def no_other_match(self, candidate: Candidate) -> bool:
        """No passage outside the evidence holds all the values that the question gives as conditions."""
        if not candidate.conditions:
            return True
        evidence = {fact.doc_id for fact in candidate.facts} | candidate.ruled_out
        queries = [" ".join(candidate.conditions), candidate.question]
        return not any(
            hit.passage.doc_id not in evidence and all(value in hit.passage.text for value in candidate.conditions)
            for found in self.retriever.search(queries, RIVALS)
            for hit in found
        )

    def reads_well(self, candidate: Candidate) -> bool:
        """One sentence with a capital first and a question mark (a list's: a full stop) last, no word doubled."""
        question = re.sub(r": “[^”]*”\?$", "?", candidate.question)
        return (
            re.fullmatch(r"[A-Z][^{}|<>\n]*[^\s?.,]" + (r"\." if candidate.items else r"\?"), question) is not None
            and re.search(r"\b(\w+) \1\b", question) is None
            and len(question.split()) <= MOST_WORDS
            and question.count('"') % 2 == 0
        )


CHECKS: dict[str, Callable[[Verifier, Candidate], bool]] = {
    "reads badly": Verifier.reads_well,
    "evidence is not verbatim": Verifier.verbatim,
    "answer is not in the last evidence": Verifier.answered,
    "question gives the answer away": Verifier.not_given_away,
    "several values": Verifier.single_valued,
    "ambiguous name": Verifier.unambiguous,
    "another entity fulfils it": Verifier.no_equal,
    "one passage suffices": Verifier.no_short_cut,
    "another passage fulfils it": Verifier.no_other_match,
    "another passage disagrees": Verifier.no_rival,
}
"""In order: what costs nothing first, searches last."""
_BEFORE_VALUE = "(?:by|in|at|of|for|to|from|with|after)"
_COMMON = frozenset("of in and at for on by to from de la le der von van film song album series band company".split())


def _telling(text: str) -> set[str]:
    return {word for word in normalise(text).split() if word not in _COMMON and len(word) > 1}


def _answers(candidate: Candidate, text: str) -> bool:
    if candidate.items:
        return all(item in text for item in candidate.items)
    return any(answer in text for answer in candidate.answers)


def _split(text: str) -> Iterator[str]:
    return (text[start:end] for start, end in sentences(text))


def _disagrees(sentence: str, base: str, fact: Fact, cue: str) -> bool:
    if not cue or base not in sentence or fact.value in sentence:
        return False
    if fact.when:
        return re.search(cue, sentence) is not None and TIME.search(sentence) is not None
    return re.search(rf"{cue}[a-z-]*\b[^.;]{{0,30}}? {_BEFORE_VALUE} (?:[a-z]+ ){{0,4}}[A-Z\"]", sentence) is not None
