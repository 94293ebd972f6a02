"""A kind of question is a function from a table of facts to candidates; what a candidate is worth, `verify` decides.

``bridge``: a chain of facts, each about the value before (HotpotQA, MuSiQue). ``comparison``: the earlier of two is
chosen by its date, and something else is asked of it, so that guessing between two names does not help. ``temporal``:
the one thing of a person or body that falls before or after a year. ``tree``: conditions that together leave one
entity, one of them through a second document (InfoSeek, arXiv 2509.00375, with trees of depth two and no web pages).
``cloze``: a fact about a name that is left out of a quoted sentence; for corpora whose style the rules do not know.
``list``: every thing of one kind that has the same maker, place or the like.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TypeAlias

from sleuth.eval.answers import normalise
from sleuth.eval.synthesis.compose import Chain, ask, by_entity, chains, in_turn, phrase
from sleuth.eval.synthesis.entity import AGENT, Entity
from sleuth.eval.synthesis.extract import Table
from sleuth.eval.synthesis.records import Fact, Relation, Step, written
from sleuth.eval.synthesis.wording import Grammar

YEARS_APART = 2
"""Least difference of two dates that are compared: a source that errs by a year must not turn the answer."""

_AGES = {"birth": ("older", "younger"), "foundation": ("older", "newer")}
ITEMS = (2, 8)
"""Least and most of a list that is asked for; the answerer's grammar holds as many."""
ROUNDS = 3
"""Times that the entities of one kind are paired at random for comparisons."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that is not verified yet."""

    kind: str
    facts: Chain
    """In order of look-up; the answer stands in the sentence of the last."""
    question: str
    steps: tuple[Step, ...]
    """One for each of the first facts: a sentence that only gives a name needs none, nor does a list."""
    answers: tuple[str, ...]
    named: tuple[str, ...]
    """Keys of the entities that the question names."""
    hidden: tuple[str, ...] = ()
    """Names that lie between question and answer: they may not stand in the question."""
    conditions: tuple[str, ...] = ()
    """Values that the question gives; another document that holds them all may hold another answer."""
    ruled_out: frozenset[str] = frozenset()
    """Documents that hold the conditions' values too and are known not to fit."""
    matches: frozenset[str] = frozenset()
    """Where the question describes its answer: the keys of all entities of the table that fit it."""
    items: tuple[str, ...] = ()
    """Where the answer is a list: what it must hold."""


Make: TypeAlias = Callable[[Table, Grammar, Random], Iterator[Candidate]]


def bridge(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """Chains of two and three facts, spread over the kinds of chains."""
    about = by_entity(table.facts)
    begin = [fact for fact in table.facts if fact.target and grammar.relation(fact.relation).phrases]
    for chain in in_turn(random, _linked_chains(begin, about, grammar), lambda chain: tuple(f.relation for f in chain)):
        question, steps = phrase(random, chain, grammar.relation)
        hidden = tuple(fact.value for fact in chain[:-1])
        yield Candidate("bridge", chain, question, tuple(steps), answers(chain[-1]), (chain[0].entity,), hidden)


def _linked_chains(begin: Iterable[Fact], about: Mapping[str, list[Fact]], grammar: Grammar) -> Iterator[Chain]:
    for first in begin:
        for hops in (2, 3):
            for chain in chains((first,), hops, about):
                if all(grammar.relation(fact.relation).phrases for fact in chain[:-1]):
                    yield chain


def comparison(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """Two entities of one kind, dated by the same relation and both with the fact that is asked for."""
    groups: dict[tuple[str, str, str], list[tuple[Fact, Fact]]] = defaultdict(list)
    for key, facts in by_entity(table.facts).items():
        head = "person" if table.entities[key].person else table.entities[key].head
        for dated in facts:
            for asked in facts if dated.when and head else ():
                if asked.relation != dated.relation:
                    groups[head, dated.relation, asked.relation].append((dated, asked))
    pairs = []
    for group in groups.values():
        for _ in range(ROUNDS):
            random.shuffle(group)
            pairs += [(one, other) for one, other in pairwise(group) if _comparable(one, other)]
    for one, other in in_turn(random, pairs, lambda pair: (pair[0][0].relation, pair[0][1].relation)):
        yield _compared(one, other, grammar, random)


def _comparable(one: tuple[Fact, Fact], other: tuple[Fact, Fact]) -> bool:
    """Different entities, well apart in time, with different answers."""
    years = abs(int(one[0].when[:4]) - int(other[0].when[:4]))
    return one[0].entity != other[0].entity and years >= YEARS_APART and one[1].value != other[1].value


def _compared(one: tuple[Fact, Fact], other: tuple[Fact, Fact], grammar: Grammar, random: Random) -> Candidate:
    relation = grammar.relation(one[0].relation)
    earlier = random.random() < 0.5
    (dated, asked), loser = (one, other) if (one[0].when < other[0].when) == earlier else (other, one)

    def chosen(names: str) -> str:
        if dated.relation in _AGES:
            return f"the {_AGES[dated.relation][not earlier]} of {names}"
        verb = relation.clause.format(be="was", v="").removesuffix(" in ")
        return f"whichever of {names} {verb} {'first' if earlier else 'later'}"

    template = _ending(random, grammar.relation(asked.relation))
    facts = (loser[0], dated, asked)
    pair = " and ".join(fact.subject for fact, _ in (one, other))
    found = " and ".join(f"{fact.subject} (#{facts.index(fact) + 1})" for fact, _ in (one, other))
    steps = [(ask(relation.questions[0], fact.subject, fact.be), fact.value) for fact in facts[:2]]
    steps.append((ask(template, chosen(found), asked.be), asked.value))
    named = (one[0].entity, other[0].entity)
    return Candidate("comparison", facts, ask(template, chosen(pair), asked.be), tuple(steps), answers(asked), named)


def _ending(random: Random, relation: Relation) -> str:
    """A question that ends in its subject where there is one: a long subject in the middle reads badly."""
    ending = [question for question in relation.questions if question.endswith("{s}?")]
    return random.choice(ending or relation.questions)


def temporal(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """Things of one kind that share a maker, a place or the like, of which one alone lies before or after a year."""
    groups: dict[tuple[str, str, str, str], list[tuple[Fact, Fact]]] = defaultdict(list)
    for key, facts in by_entity(table.facts).items():
        usable = [fact for fact in facts if grammar.relation(fact.relation).clause] if table.entities[key].head else []
        for shared in (fact for fact in usable if not fact.when):
            for dated in (fact for fact in usable if fact.when):
                group = (table.entities[key].head, shared.relation, shared.value, dated.relation)
                groups[group].append((shared, dated))
    found = []
    for (head, *_), pairs in groups.items():
        pairs.sort(key=lambda pair: pair[1].when)
        if len({shared.entity for shared, _ in pairs}) == len(pairs) > 1:
            known = frozenset(fact.doc_id for pair in pairs for fact in pair)
            found += [(head, "before", pairs[0], pairs[1], known), (head, "after", pairs[-1], pairs[-2], known)]
    for head, side, pair, (_, other), known in in_turn(random, found, lambda item: (item[0], item[2][0].relation)):
        first, last = sorted((int(pair[1].when[:4]), int(other.when[:4])))
        if last - first > YEARS_APART:
            made = _dated(table, grammar, head, side, random.randint(first + 1, last - 1), pair)
            yield dataclasses.replace(made, ruled_out=known)


def _dated(table: Table, grammar: Grammar, head: str, side: str, year: int, pair: tuple[Fact, Fact]) -> Candidate:
    shared, dated = pair
    entity = table.entities[shared.entity]
    time = grammar.relation(dated.relation).clause.format(be=dated.be, v=year).replace(" in ", f" {side} ")
    fit = _with(table, shared) & {
        fact.entity
        for fact in table.facts
        if fact.relation == dated.relation and (fact.when[:4] < str(year)) == (side == "before")
    }
    facts = _named_last(pair, entity)
    when, fits = grammar.relation(dated.relation).questions[0], _clause(shared, grammar)
    steps: list[Step]
    if facts[0] is shared:
        steps = [(f"Which {head} {fits}?", entity.base), (ask(when, "#1", dated.be), dated.value)]
    else:
        on = grammar.relation(dated.relation).clause.format(be=dated.be, v="#1")
        steps = [(ask(when, f"the {head} that {fits}", dated.be), dated.value),
                 (f"Which {head} {fits} and {on}?", entity.base)]  # fmt: skip
    return Candidate(
        kind="temporal",
        facts=facts,
        question=f"Which {head} {fits} and {time}?",
        steps=tuple(steps),
        answers=(entity.base,),
        named=(),
        conditions=(shared.value,),
        matches=frozenset(fit),
    )


def tree(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """Conditions on one entity: one given outright, one through another document's entity that is only described."""
    about = by_entity([fact for fact in table.facts if grammar.relation(fact.relation).clause])
    found = [
        (plain, through, leaf)
        for key, facts in about.items()
        for through in facts
        for leaf in about.get(through.target, ())
        for plain in facts
        if table.entities[key].head
        and plain.relation != through.relation
        and leaf.entity != key
        # a maker has several works of one year, in the world if not in the store
        and (table.entities[key].person or not plain.when)
    ]
    for chain in in_turn(random, found, lambda chain: tuple(fact.relation for fact in chain)):
        middle = table.entities[chain[1].target]
        if middle.head or middle.person:
            yield _described(table, grammar, *chain)


def _described(table: Table, grammar: Grammar, plain: Fact, through: Fact, leaf: Fact) -> Candidate:
    middle, entity = table.entities[through.target], table.entities[plain.entity]
    noun = _noun(middle)
    article, pronoun = "an" if noun[0] in "aeiou" else "a", "who" if middle.person else "that"
    outer = grammar.relation(through.relation).clause
    inner = outer.format(be=through.be, v=f"{article} {noun} {pronoun} {_clause(leaf, grammar)}")
    steps = {
        leaf: (f"Which {noun} {_clause(leaf, grammar)}?", through.value),
        through: (f"Which {entity.head} {outer.format(be=through.be, v='#1')}?", entity.base),
        plain: (f"Which {entity.head} {_clause(plain, grammar)}?", entity.base),
    }
    facts = (leaf, *_named_last((plain, through), entity))
    middles = _with(table, leaf)
    fit = _with(table, plain) & {
        fact.entity for fact in table.facts if fact.relation == through.relation and fact.target in middles
    }
    return Candidate(
        kind="tree",
        facts=facts,
        question=f"Which {entity.head} {_clause(plain, grammar)} and {inner}?",
        steps=tuple(steps[fact] for fact in facts if fact in steps),
        answers=(entity.base,),
        named=(),
        hidden=(through.value,),
        conditions=(plain.value, leaf.value),
        matches=frozenset(fit),
    )


def cloze(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """A fact about whoever is left out of a quoted sentence: two documents of any style are enough."""
    about = by_entity(table.facts)
    pairs = ((mention, fact) for mention in table.mentions for fact in about.get(mention.target, ()))
    for mention, fact in in_turn(random, pairs, lambda pair: pair[1].relation):
        noun = _noun(table.entities[mention.target])
        described = f"the {noun} left out of this statement about {mention.subject}"
        asked = _ending(random, grammar.relation(fact.relation))
        question = ask(asked, described, fact.be).removesuffix("?")
        gap = mention.text.replace(mention.value, "____").strip().removesuffix(".")
        steps = (
            (f"Which {noun} is left out of this statement about {mention.subject}: “{gap}”?", mention.value),
            (ask(asked, "#1", fact.be), fact.value),
        )
        yield Candidate(
            "cloze", (mention, fact), f"{question}: “{gap}”?", steps, answers(fact), (mention.entity,), (mention.value,)
        )


def listing(table: Table, grammar: Grammar, random: Random) -> Iterator[Candidate]:
    """All things of one kind that share a maker, a place or the like; the answer is the list of them.

    Questions with many answers over many documents are QAMPARI's (arXiv 2205.12665).
    """
    groups: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
    for fact in table.facts:
        entity = table.entities[fact.entity]
        if entity.head and not fact.when and grammar.relation(fact.relation).clause:
            groups[_noun(entity), fact.relation, normalise(fact.value)].append(fact)
    found = []
    for (noun, *_), group in groups.items():
        each = {fact.entity: fact for fact in reversed(group)}
        if ITEMS[0] <= len(each) <= ITEMS[1]:
            found.append((noun, [each[key] for key in sorted(each)]))
    for noun, group in in_turn(random, found, lambda item: (item[0], item[1][0].relation)):
        listed = [table.entities[fact.entity] for fact in group]
        items = tuple(entity.base for entity in listed)
        which = "who" if listed[0].person else "that"
        yield Candidate(
            kind="list",
            facts=tuple(part for fact, entity in zip(group, listed, strict=True) for part in _with_name(fact, entity)),
            question=f"Name every {noun} {which} {_clause(group[0], grammar)}.",
            steps=(),
            answers=(", ".join(items),),
            named=(),
            conditions=(group[0].value,),
            matches=frozenset(_with(table, group[0])),
            items=items,
        )


def _with(table: Table, wanted: Fact) -> set[str]:
    """Keys of the entities that have this relation with this value."""
    value = normalise(wanted.value)
    return {f.entity for f in table.facts if f.relation == wanted.relation and normalise(f.value) == value}


def _noun(entity: Entity) -> str:
    """What kind of thing it is; for people only nouns that name a trade (``actor``), otherwise ``person``."""
    return "person" if entity.person and not entity.head.endswith(AGENT) else entity.head


def _clause(fact: Fact, grammar: Grammar) -> str:
    return grammar.relation(fact.relation).clause.format(be=fact.be, v=written(fact))


def _named_last(facts: tuple[Fact, Fact], entity: Entity) -> tuple[Fact, ...]:
    """The fact whose sentence holds the name goes last; where neither does, the lead sentence follows."""
    if any(entity.base in fact.text for fact in facts):
        return tuple(sorted(facts, key=lambda fact: entity.base in fact.text))
    return (*facts, _name_of(entity))


def _with_name(fact: Fact, entity: Entity) -> Chain:
    """The fact; where its sentence does not say whose it is, the lead sentence before it."""
    return (fact,) if entity.base in fact.text else (_name_of(entity), fact)


def _name_of(entity: Entity) -> Fact:
    """What the lead sentence says: the name."""
    doc_id, start, end, text = entity.lead
    return Fact(entity.key, entity.name, "name", entity.base, doc_id, start, end, text)


def answers(fact: Fact) -> tuple[str, ...]:
    """The value; for a place also without the wider ones."""
    first = fact.value.split(", ")[0]
    return (fact.value,) if first == fact.value or fact.when else (fact.value, first)


KINDS: dict[str, Make] = {
    "bridge": bridge,
    "comparison": comparison,
    "temporal": temporal,
    "tree": tree,
    "cloze": cloze,
    "list": listing,
}
