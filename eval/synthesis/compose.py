"""Composition puts facts into one question: chains over linked facts, phrases inside phrases, wordings by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import TypeAlias, TypeVar

from sleuth.eval.synthesis.records import Fact, Relation, Step

Chain: TypeAlias = tuple[Fact, ...]
T = TypeVar("T")


def by_entity(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    """Facts by the entity they are about, in order."""
    found: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        found[fact.entity].append(fact)
    return dict(found)


def chains(chain: Chain, hops: int, about: Mapping[str, Sequence[Fact]]) -> Iterator[Chain]:
    """Every way to go on from ``chain`` to ``hops`` facts, each about the value before, that meets no entity twice."""
    if len(chain) == hops:
        yield chain
    elif chain[-1].target and chain[-1].target not in {fact.entity for fact in chain}:
        for fact in about.get(chain[-1].target, ()):
            yield from chains((*chain, fact), hops, about)


def phrase(random: Random, chain: Chain, relation: Callable[[str], Relation]) -> tuple[str, list[Step]]:
    """The chain as one question, each inner fact as a phrase, and its steps."""
    subject, asked = chain[0].subject, ""
    steps: list[Step] = []
    for number, fact in enumerate(chain):
        asked = random.choice(relation(fact.relation).questions)
        steps.append((ask(asked, fact.subject if number == 0 else f"#{number}", fact.be), fact.value))
        if number < len(chain) - 1:
            subject = random.choice(relation(fact.relation).phrases).format(s=subject, be=fact.be)
    return ask(asked, subject, chain[-1].be), steps


def ask(template: str, subject: str, be: str) -> str:
    """A question of a template, with a capital first."""
    question = template.format(s=subject, be=be)
    return question[0].upper() + question[1:]


def in_turn(random: Random, items: Iterable[T], group: Callable[[T], Hashable]) -> Iterator[T]:
    """All items, one of each group in turn, so that common kinds do not crowd out rare ones."""
    found: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        found[group(item)].append(item)
    piles = [found[key] for key in sorted(found, key=repr)]
    for pile in piles:
        random.shuffle(pile)
    while piles:
        random.shuffle(piles)
        for pile in piles:
            yield pile.pop()
        piles = [pile for pile in piles if pile]
