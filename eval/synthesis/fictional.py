"""A fictional world is a small corpus about invented people, towns, companies, novels and colleges, with questions.

No name in it occurs outside it, so whoever answers right has read the documents. Everything follows from the seed.
Each question has one answer, its evidence sentences, and, beyond one hop, no document that answers it alone.
The idea of invented entities as a guard against memorised answers: FictionalHot (ReSeek, arXiv 2510.00568); here the
documents are written from templates rather than by renaming published ones (that is `rename`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document
from sleuth.eval.records import Task
from sleuth.eval.synthesis.compose import Chain, by_entity, chains, in_turn, phrase
from sleuth.eval.synthesis.fictional_text import (
    COLOUR,
    FIRM_WORDS,
    INTRODUCTIONS,
    KINDS,
    TITLE_NOUNS,
    TRADES,
    WORDS,
    Slot,
)
from sleuth.eval.synthesis.records import Fact, Relation, task_of

SMALLEST = 20
"""Entities a world needs so that every kind occurs a few times."""
COUNTS = (1, 2, 3)
"""Look-ups that a question can take."""
_SHARES = {"person": 0.35, "town": 0.2, "company": 0.15, "novel": 0.15, "college": 0.15}
_ONSETS = "b br c ch d dr f fl g gl gr h k l m n p pr qu r s sh sk st t th tr v w y z".split()
_VOWELS = "a e i o u a e o ae ai ei ou".split()
_CODAS = "l lm ld m n nd nt r rn rv rk s sk st th v x".split()

RELATIONS: dict[str, Relation] = {slot.relation.name: slot.relation for slots in KINDS.values() for slot in slots}


def fictional_world(seed: int, entities: int, hops: Sequence[int] = (1, 2)) -> tuple[list[Document], list[Task]]:
    """``entities`` documents, one each, and for every count in ``hops`` at most that many questions.

    ``hops``: look-ups per question, 1 to 3. The questions of one count are spread evenly over the kinds of chains.
    Raises `InputError` for fewer than `SMALLEST` entities and for other counts of hops.
    """
    if entities < SMALLEST:
        raise InputError(f"entities: a fictional world needs at least {SMALLEST}, found {entities}")
    if not hops or not set(hops) <= set(COUNTS):
        raise InputError(f"hops: expected some of 1, 2 and 3, found {list(hops)!r}")
    random = Random(f"fictional world {seed}")
    names = _names(random, entities)
    documents, facts = _write(random, seed, names)
    tasks = [task for count in sorted(set(hops)) for task in _ask(random, seed, documents, facts, count, entities)]
    return documents, tasks


def invented_word(random: Random, used: set[str], syllables: int = 2) -> str:
    """A capitalised word of five letters or more that neither holds nor stands in another of ``used``; is added there.

    ``used`` holds lower case.
    """
    while True:
        made = "".join(random.choice(_ONSETS) + random.choice(_VOWELS) for _ in range(syllables - 1))
        made = (made + random.choice(_ONSETS) + random.choice("aeiou") + random.choice(_CODAS)).capitalize()
        if len(made) >= 5 and not any(made.lower() in other or other in made.lower() for other in used):
            used.add(made.lower())
            return made


def _names(random: Random, entities: int) -> dict[str, list[str]]:
    """Names by kind; no name's telling word occurs in another name."""
    counts = {kind: int(entities * share) for kind, share in _SHARES.items()}
    counts["person"] += entities - sum(counts.values())
    used: set[str] = set()

    def word(syllables: int = 2) -> str:
        return invented_word(random, used, syllables)

    makers: dict[str, Callable[[], str]] = {
        "person": lambda: f"{word()} {word()}",
        "town": lambda: word(random.choice((2, 3))),
        "company": lambda: f"{word()} {random.choice(FIRM_WORDS)}",
        "novel": lambda: f"The {random.choice(TITLE_NOUNS)} of {word()}",
        "college": lambda: f"{word()} College",
        "river": lambda: word(),
    }
    counts["river"] = max(3, counts["town"])
    return {kind: [makers[kind]() for _ in range(count)] for kind, count in counts.items()}


def _write(random: Random, seed: int, names: dict[str, list[str]]) -> tuple[list[Document], list[Fact]]:
    ids = {name: f"fw{seed}-{_slug(name)}" for kind in KINDS for name in names[kind]}
    documents, facts = [], []
    for kind, slots in KINDS.items():
        for name in names[kind]:
            drawn = [(slot, _value(random, slot, name, names)) for slot in slots]
            text, made = _document(random, kind, name, ids[name], drawn, ids)
            documents.append(Document(ids[name], text, title=name, source=f"fictional-{seed}", lang="en"))
            facts.extend(made)
    random.shuffle(documents)
    return documents, facts


def _value(random: Random, slot: Slot, name: str, names: dict[str, list[str]]) -> str:
    if slot.values.startswith("year "):
        first, last = slot.values.removeprefix("year ").split("-")
        return str(random.randint(int(first), int(last)))
    if slot.values in WORDS:
        return random.choice(WORDS[slot.values])
    return random.choice([other for other in names[slot.values] if other != name])


def _document(
    random: Random, kind: str, name: str, id_: str, drawn: Sequence[tuple[Slot, str]], ids: dict[str, str]
) -> tuple[str, list[Fact]]:
    """An introduction, then facts and colour in any order; the text, and the facts with their sentences' spans."""
    lines: list[tuple[str, Slot | None, str]] = [
        (random.choice(slot.sentences).format(s=name, v=value), slot, value) for slot, value in drawn
    ]
    lines += [(line, None, "") for line in random.sample(COLOUR[kind], 2)]
    random.shuffle(lines)
    text = random.choice(INTRODUCTIONS[kind]).format(s=name, trade=random.choice(TRADES))
    text = re.sub(r"\ba ([aeiou])", r"an \1", text)
    facts = []
    for line, slot, value in lines:
        start = len(text) + 1
        text = f"{text} {line}"
        if slot is not None:
            facts.append(Fact(id_, name, slot.relation.name, value, id_, start, len(text), line, ids.get(value, "")))
    return text, facts


def _ask(
    random: Random, seed: int, documents: Sequence[Document], facts: Sequence[Fact], hops: int, most: int
) -> list[Task]:
    texts = {document.id: document.text for document in documents}
    about = by_entity(facts)
    found = (chain for first in facts for chain in chains((first,), hops, about) if _holds(chain, texts))
    tasks: list[Task] = []
    asked: set[str] = set()
    for chain in in_turn(random, found, lambda chain: tuple(fact.relation for fact in chain)):
        if len(tasks) == most:
            break
        question, steps = phrase(random, chain, RELATIONS.__getitem__)
        if question not in asked:
            asked.add(question)
            id_ = f"fw{seed}-{hops}h-{len(tasks):05d}"
            tasks.append(task_of(id_, f"fictional-{hops}hop", chain, question, steps))
    return tasks


def _holds(chain: Chain, texts: dict[str, str]) -> bool:
    """False where the answer is the question's own subject, or stands in an earlier document of the chain."""
    answer, earlier = chain[-1].value, [texts[fact.doc_id] for fact in chain[:-1]]
    return answer != chain[0].subject and not any(answer in text for text in earlier)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
