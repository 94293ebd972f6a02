"""An example is one thing a role could be asked, with the reply it should give; the roles' own functions render both.

Every builder is a pure function of a set's row and a seeded generator, which yields that row's examples of one kind.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleuth.agents.records import JsonSchema, Message
from sleuth.agents.roles import answerer, planner, reflector, rewriter
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.records import Passage
from sleuth.corpora.text import sentences
from sleuth.training import plans
from sleuth.training.hops import (
    MAX_PASSAGE_CHARS,
    Hop,
    answer_in,
    asked_of,
    best_query,
    bridge_of,
    content,
    evidence,
    first_queries,
    holds,
    hops,
    keywords,
    misleading,
    noisy_facts,
    sentence_with,
    shown,
    usable,
)
from sleuth.training.sets import QuestionSet, Row, find_span

SEVERAL_READ = 5
"""Passages of an example with several answers: what strategies read."""
MAX_STEPS = 4
"""Of a plan, as in the strategies' ``max_goals``."""


@dataclass(frozen=True, slots=True)
class Example:
    role: str
    source: str
    """``set/row id``."""
    messages: tuple[Message, ...]
    completion: str
    """The reply as compact JSON, without the end-of-turn token."""
    schema: JsonSchema | None = None
    """What the role would ask the policy for; None trains on every token of the reply alike."""


# --- the planner -----------------------------------------------------------------------------------------------------


def plan_decomposition(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    steps = plans.from_strategy(row) if qa.name == "strategyqa" else plans.from_decomposition(row)
    if steps:
        yield _planner(qa, row, row["question"], steps)
        if row.get("previous_question"):
            yield _planner(qa, row, row["previous_question"], steps)


def plan_hotpot(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """Look-ups for a comparison; a bridge question is its own single step, and the search loop hops by itself."""
    steps = plans.from_comparison(qa, row) if row["type"] == "comparison" else [row["question"].strip()]
    if steps:
        yield _planner(qa, row, row["question"], steps)


def plan_single(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    yield _planner(qa, row, row["question"], [row["question"].strip()])


# --- the rewriter ----------------------------------------------------------------------------------------------------


def rewrite(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """First queries for every hop, then second ones that follow a known sentence or a failed try."""
    chain = hops(qa, row)
    for hop in chain:
        first = best_query(qa, first_queries(hop.goal, hop.passage), [hop.passage])
        yield _rewriter(qa, row, hop.goal, first)
    bridge = bridge_of(qa, row)
    if bridge is None:
        return
    start, end = bridge
    goal = row["question"]
    if end.passage.id != start.passage.id:
        yield _rewriter(qa, row, goal, best_query(qa, first_queries(goal, start.passage), [start.passage, end.passage]))
        title = plans.bare_title(end.passage.title)
        if content(title) & content(start.quote + " " + goal):
            rest = [w for w in keywords(goal) if not find_span(w, f"{start.quote} {start.passage.title} {title}")]
            queries = [" ".join([title, *rest[:n]]) for n in (4, 6, 2, 0)]
            tried = rng.choice([goal, " ".join(keywords(goal)[:8])])
            yield _rewriter(qa, row, goal, best_query(qa, queries, [end.passage]), [start.quote], [tried])


# --- the reflector ---------------------------------------------------------------------------------------------------


def reflect_hop(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """A look-up with its passage (answered) or without it (unknown, no quote), three to one."""
    for hop in hops(qa, row):
        if rng.random() < 0.75:
            passages = shown(qa, hop.goal, [hop.passage], rng, 4)
            yield _reflector(qa, row, hop.goal, passages, hop.quote, hop.answer)
        else:
            barred = {hop.passage.id, *row["supporting"]}
            passages = shown(qa, hop.goal, [], rng, 4, barred)
            if not any(holds(p, [hop.answer]) for p in passages):
                yield _reflector(qa, row, hop.goal, passages, "", UNKNOWN)


def reflect_question(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """The turns of a loop over a two-hop question: first hop alone, second with the first known, both, or neither.

    What is "unknown" shows no passage that holds an answer; those of a comparison hold it and decide nothing alone.
    """
    bridge = bridge_of(qa, row)
    if bridge is None:
        return
    start, end = bridge
    goal, title = row["question"], plans.bare_title(end.passage.title)
    gold = {p.id for p in qa.gold(row)}
    telling = () if row["type"] == "comparison" else row["answers"]

    def second() -> Example:
        passages = shown(qa, f"{title} {goal}", [end.passage], rng, 4, gold)
        return _reflector(qa, row, goal, passages, end.quote, end.answer, [start.quote])

    def unknown(must: Sequence[Passage], quote: str, known: Sequence[str]) -> Example | None:
        passages = shown(qa, goal, must, rng, 4, gold)
        told = any(holds(p, telling) for p in passages)
        return None if told else _reflector(qa, row, goal, passages, quote, UNKNOWN, known)

    def first() -> Example | None:
        return unknown([start.passage], start.quote, [])

    def both() -> Example:
        passages = shown(qa, goal, [start.passage, end.passage], rng, 4)
        return _reflector(qa, row, goal, passages, end.quote, end.answer)

    def neither() -> Example | None:
        return unknown([], "", rng.choice([[], [start.quote]]))

    kinds: list[Callable[[], Example | None]] = [second, rng.choice([first, both]), rng.choice([first, both]), neither]
    rng.shuffle(kinds)
    for kind in kinds:
        if example := kind():
            yield example


def reflect_alone(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """The reflector over one passage, as a strategy that reads passages one by one asks it.

    A passage that holds the answer is answered from, one that holds a hop before it is quoted from, and one that a
    search ranks high and that holds neither is "unknown" without a quote; in turns, in a seeded order.
    """
    made = [example for hop in hops(qa, row) for example in _alone_single(qa, row, hop, rng)]
    made += _alone_bridge(qa, row, rng)
    rng.shuffle(made)
    yield from made


def _alone_single(qa: QuestionSet, row: Row, hop: Hop, rng: random.Random) -> list[Example]:
    made = [_reflector(qa, row, hop.goal, [hop.passage], hop.quote, hop.answer)]
    near = misleading(qa, hop.goal, [hop.answer, *row["answers"]], {hop.passage.id, *row["supporting"]})
    if near:
        made.append(_reflector(qa, row, hop.goal, [rng.choice(near)], "", UNKNOWN))
    return [example for example in made if len(hop.passage.text) <= MAX_PASSAGE_CHARS]


def _alone_bridge(qa: QuestionSet, row: Row, rng: random.Random) -> list[Example]:
    bridge = bridge_of(qa, row)
    if bridge is None:
        return []
    start, end = bridge
    goal, both = row["question"], row["type"] == "comparison"
    made = [
        _reflector(qa, row, goal, [start.passage], start.quote, UNKNOWN),
        _reflector(qa, row, goal, [end.passage], end.quote, end.answer, [start.quote]),
        _reflector(qa, row, goal, [end.passage], end.quote, UNKNOWN if both else end.answer),
    ]
    if both:
        made.append(_reflector(qa, row, goal, [start.passage], start.quote, end.answer, [end.quote]))
    near = misleading(qa, goal, () if both else row["answers"], {p.id for p in qa.gold(row)})
    known = [[], [start.quote]]
    made += [
        _reflector(qa, row, goal, [p], "", UNKNOWN, known[n % 2])
        for n, p in enumerate(rng.sample(near, min(2, len(near))))
    ]
    return made


# --- the answerer ----------------------------------------------------------------------------------------------------


def answer_multihop(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """Whole questions with their gold among negatives; facts shown fully, partly, wrongly or not at all."""
    if row.get("answer_items"):
        yield from answer_list(qa, row, rng)
        return
    for question, answer in asked_of(qa, row):
        chain = evidence(qa, row, answer)
        span = answer_in([answer], [p.text for p, _ in chain] + [p.title for p, _ in chain])
        if not chain or not span:
            continue
        for _ in range(2):
            size = rng.choice([3, 4, 5, 5]) if len(chain) < 4 else 5
            passages = shown(qa, question, [p for p, _ in chain], rng, size)
            facts = noisy_facts(qa, row, passages, rng) if qa.ranked != "chain" else []  # nobody takes notes there
            yield _answerer(qa, row, question, passages, [quote for _, quote in chain], span, facts)


def answer_single(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """A one-hop or silver row: the sentence that holds the answer."""
    for hop in hops(qa, row):
        passages = shown(qa, row["question"], [hop.passage], rng, rng.choice([2, 3, 5]))
        yield _answerer(qa, row, row["question"], passages, [hop.quote], hop.answer, [])


def read_closely(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """The answerer over the gold and few negatives: short prompts, so that many answers are seen for their cost."""
    if row.get("answer_items"):
        yield from answer_list(qa, row, rng)
        return
    chain = [(hop.passage, hop.quote, hop.answer) for hop in hops(qa, row)]
    for question, wanted in asked_of(qa, row) if row["hops"] > 1 and row["support_mode"] == "all" else []:
        found = evidence(qa, row, wanted)
        answer = answer_in([wanted], [text for p, _ in found for text in (p.text, p.title)])
        if found and answer:
            quotes = [quote for _, quote in found]
            passages = shown(qa, question, [p for p, _ in found], rng, len(found) + rng.randint(0, 1))
            yield _answerer(qa, row, question, passages, quotes, answer, noisy_facts(qa, row, passages, rng))
    for passage, quote, answer in chain if row["hops"] == 1 or row["support_mode"] == "any" else []:
        if len(answer.split()) <= 6 and len(passage.text) <= MAX_PASSAGE_CHARS:
            passages = shown(qa, row["question"], [passage], rng, rng.randint(1, 3))
            yield _answerer(qa, row, row["question"], passages, [quote], answer, [])


def answer_list(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """A list: those of its items that the passages shown hold, each with the sentence that names it.

    The passages of a row with a scope (CommaQA) come from there alone: what a search ranks first, then other choices.
    """
    items = row["answer_items"]
    if row.get("scope"):
        found = [p for p in qa.search(row["question"], len(qa.passages)) if p.id in row["candidates"]]
    else:
        found = list({p.id: p for p in [*qa.search(row["question"], 4 * SEVERAL_READ), *qa.gold(row)]}.values())
    gold = row["supporting"] or [p.id for p in found]
    holding = [p for p in found if p.id in gold and any(find_span(item, f"{p.title} {p.text}") for item in items)]
    rest = [p for p in found if p not in holding]
    for draw in range(6):
        passages = found[:SEVERAL_READ]
        if draw:
            few = rng.sample(holding, min(len(holding), rng.randint(2, SEVERAL_READ - 1)))
            passages = few + rng.sample(rest, min(len(rest), SEVERAL_READ - len(few)))
            passages.sort(key=found.index)
        read = "\n".join(f"{p.title} {p.text}" for p in passages)
        places = (next((n for p in passages if (n := _naming(p, item, row["question"]))), None) for item in items)
        quotes = dict(place for place in places if place)
        named = sorted(quotes, key=read.find)[: answerer.MAX_ITEMS]
        if named:
            answer = named if len(named) > 1 else named[0]
            best = list(dict.fromkeys(quotes[item] for item in named))[: answerer.MAX_QUOTES]
            yield _answerer(qa, row, row["question"], passages, best, answer, [])


def _naming(passage: Passage, item: str, question: str) -> tuple[str, str] | None:
    """An item as the passage spells it, and the sentence that names it; the first where only the title does."""
    if quote := sentence_with(passage, item, question):
        return find_span(item, quote), quote
    first = next((passage.text[start:end] for start, end in sentences(passage.text)), "")
    spelled = find_span(item, passage.title)
    return (spelled, first) if spelled and usable(first) else None


def answer_closed(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    answer = row["answers"][0] if row["answers"] else ""
    if answer and len(answer.split()) <= 5:
        yield _example(
            "answerer",
            qa,
            row,
            answerer.CLOSED_PROMPT,
            answerer.user(row["question"]),
            answerer.target(answer, None),
            answerer.schema(()),
        )


# --- rendering -------------------------------------------------------------------------------------------------------


def _planner(qa: QuestionSet, row: Row, question: str, steps: Sequence[str]) -> Example:
    schema = planner.schema(MAX_STEPS)
    return _example("planner", qa, row, planner.PROMPT, planner.user(question), planner.target(steps), schema)


def _rewriter(
    qa: QuestionSet, row: Row, goal: str, query: str, known: Sequence[str] = (), tried: Sequence[str] = ()
) -> Example:
    user = rewriter.user(goal, known, tried)
    return _example("rewriter", qa, row, rewriter.PROMPT, user, rewriter.target(query), rewriter.schema())


def _reflector(
    qa: QuestionSet,
    row: Row,
    goal: str,
    passages: Sequence[Passage],
    quote: str,
    answer: str,
    known: Sequence[str] = (),
) -> Example:
    user, reply = reflector.user(goal, passages, known), reflector.target(quote, answer)
    schema = reflector.schema(passages, known)
    return _example("reflector", qa, row, reflector.PROMPT, user, reply, schema)


def _answerer(
    qa: QuestionSet,
    row: Row,
    question: str,
    passages: Sequence[Passage],
    quotes: Sequence[str],
    answer: str | Sequence[str],
    facts: Sequence[tuple[str, str]],
) -> Example:
    user, reply = answerer.user(question, passages, facts), answerer.target(answer, list(dict.fromkeys(quotes)))
    return _example("answerer", qa, row, answerer.PROMPT, user, reply, answerer.schema(passages, facts))


def _example(
    role: str, qa: QuestionSet, row: Row, prompt: str, user: str, reply: Mapping[str, Any], schema: JsonSchema
) -> Example:
    text = json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
    return Example(role, f"{qa.name}/{row['id']}", (Message("system", prompt), Message("user", user)), text, schema)
