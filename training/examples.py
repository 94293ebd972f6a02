"""An example is one thing a role could be asked, with the reply it should give; the roles' own functions render both.

Every builder is a pure function of a set's row and a seeded generator. Passages are what BM25 really retrieves, so the
negatives are the ones that a run would meet; quotes are whole sentences of them and answers are runs of their words,
which is also all that constrained decoding lets a policy say.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sleuth.agents.records import JsonSchema, Message
from sleuth.agents.roles import answerer, planner, reflector, rewriter
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.errors import ConfigError
from sleuth.corpora.records import Passage
from sleuth.corpora.text import sentences
from sleuth.training import plans
from sleuth.training.sets import QuestionSet, Row, find_span, load

MAX_PASSAGE_CHARS = 1200
MAX_QUOTE_CHARS = 420
"""Longer ones cost more tokens than they teach."""
MAX_ANSWER_WORDS = 10
MAX_STEPS = 4
"""Of a plan, as in the strategies' ``max_goals``."""

_STOPWORDS = frozenset(
    "a an and are as at be been both but by can could did do does for from had has have he her him his how i in into "
    "is it its many me much of on or she so than that the their them then there these they this those to was were what "
    "when where which while who whom whose why will with would you your same".split()
)


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


@dataclass(frozen=True, slots=True)
class Hop:
    """One look-up whose evidence is known."""

    goal: str
    passage: Passage
    quote: str
    answer: str


Builder = Callable[[QuestionSet, Row, random.Random], Iterator[Example]]


def build(
    data: str | Path | None, counts: Mapping[str, Mapping[str, int]], seed: int, tenths: Sequence[int],
    ranked: bool = False,
) -> list[Example]:  # fmt: skip
    """``counts[role][set]`` examples at most of each kind, of rows whose bucket is in ``tenths``, in a seeded order.

    ``ranked`` as `QuestionSet` has it.

    Rows take turns, so a second example of a row comes only when each row has given its first.
    """
    from sleuth.eval.split import bucket

    made: list[Example] = []
    loaded: dict[str, QuestionSet] = {}
    for role, wanted in counts.items():
        for name, count in wanted.items():
            builder = BUILDERS.get((role, name))
            if builder is None:
                known = ", ".join(f"{r}.{s}" for r, s in BUILDERS)
                raise ConfigError(f"no examples of {role!r} can be made from {name!r}; known: {known}")
            qa = loaded[name] if name in loaded else loaded.setdefault(name, replace(load(data, name), ranked=ranked))
            rows = [row for row in qa.rows if bucket(row) in tenths]
            made += take_turns(qa, rows, role, builder, count, seed)
    random.Random(seed).shuffle(made)
    return made


def take_turns(
    qa: QuestionSet, rows: Sequence[Row], role: str, builder: Builder, count: int, seed: int
) -> list[Example]:
    order = sorted(rows, key=lambda row: random.Random(f"{seed}:{role}:{row['id']}").random())
    streams = [builder(qa, row, random.Random(f"{seed}:{role}:{row['id']}:draw")) for row in order]
    made: list[Example] = []
    while streams and len(made) < count:
        alive = []
        for stream in streams:
            example = next(stream, None)
            if example is not None and len(made) < count:
                made.append(example)
                alive.append(stream)
        streams = alive
    return made


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
        if _content(title) & _content(start.quote + " " + goal):
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
            if not any(find_span(hop.answer, p.text) for p in passages):
                yield _reflector(qa, row, hop.goal, passages, "", UNKNOWN)


def reflect_question(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """The turns of a loop over a two-hop question: first hop alone, second with the first known, both, or neither."""
    bridge = bridge_of(qa, row)
    if bridge is None:
        return
    start, end = bridge
    goal, title = row["question"], plans.bare_title(end.passage.title)
    gold = {p.id for p in qa.gold(row)}

    def second() -> Example:
        passages = shown(qa, f"{title} {goal}", [end.passage], rng, 4, gold)
        return _reflector(qa, row, goal, passages, end.quote, end.answer, [start.quote])

    def first() -> Example:
        return _reflector(qa, row, goal, shown(qa, goal, [start.passage], rng, 4, gold), start.quote, UNKNOWN)

    def both() -> Example:
        passages = shown(qa, goal, [start.passage, end.passage], rng, 4)
        return _reflector(qa, row, goal, passages, end.quote, end.answer)

    def neither() -> Example:
        return _reflector(
            qa, row, goal, shown(qa, goal, [], rng, 4, gold), "", UNKNOWN, rng.choice([[], [start.quote]])
        )

    kinds = [second, rng.choice([first, both]), rng.choice([first, both]), neither]
    rng.shuffle(kinds)
    for kind in kinds:
        yield kind()


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
    near = _misleading(qa, hop.goal, [hop.answer, *row["answers"]], {hop.passage.id, *row["supporting"]})
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
    near = _misleading(qa, goal, () if both else row["answers"], {p.id for p in qa.gold(row)})
    known = [[], [start.quote]]
    made += [_reflector(qa, row, goal, [p], "", UNKNOWN, known[n % 2]) for n, p in enumerate(rng.sample(near, min(2, len(near))))]
    return made


def _misleading(qa: QuestionSet, goal: str, answers: Sequence[str], barred: Collection[str]) -> list[Passage]:
    """What a search ranks among its first five though it holds no answer."""
    found = [p for p in qa.search(goal, 8) if p.id not in barred and len(p.text) <= MAX_PASSAGE_CHARS]
    return [p for p in found if not any(find_span(a, f"{p.title} {p.text}") for a in answers)][:5]


# --- the answerer ----------------------------------------------------------------------------------------------------


def answer_multihop(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """Whole questions with their gold among negatives; facts shown fully, partly, wrongly or not at all."""
    for question, answer in asked_of(qa, row):
        chain = evidence(qa, row, answer)
        span = _answer([answer], [p.text for p, _ in chain] + [p.title for p, _ in chain])
        if not chain or not span:
            continue
        for _ in range(2):
            size = rng.choice([3, 4, 5, 5]) if len(chain) < 4 else 5
            passages = shown(qa, question, [p for p, _ in chain], rng, size)
            facts = noisy_facts(qa, row, passages, rng)
            yield _answerer(qa, row, question, passages, [quote for _, quote in chain], span, facts)


def answer_single(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """A one-hop or silver row: the sentence that holds the answer."""
    for hop in hops(qa, row):
        passages = shown(qa, row["question"], [hop.passage], rng, rng.choice([2, 3, 5]))
        yield _answerer(qa, row, row["question"], passages, [hop.quote], hop.answer, [])


def read_closely(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """The answerer over the gold and few negatives: short prompts, so that many answers are seen for their cost."""
    chain = [(hop.passage, hop.quote, hop.answer) for hop in hops(qa, row)]
    for question, wanted in asked_of(qa, row) if row["hops"] > 1 and row["support_mode"] == "all" else []:
        found = evidence(qa, row, wanted)
        answer = _answer([wanted], [text for p, _ in found for text in (p.text, p.title)])
        if found and answer:
            quotes = [quote for _, quote in found]
            passages = shown(qa, question, [p for p, _ in found], rng, len(found) + rng.randint(0, 1))
            yield _answerer(qa, row, question, passages, quotes, answer, noisy_facts(qa, row, passages, rng))
    for passage, quote, answer in chain if row["hops"] == 1 or row["support_mode"] == "any" else []:
        if len(answer.split()) <= 6 and len(passage.text) <= MAX_PASSAGE_CHARS:
            passages = shown(qa, row["question"], [passage], rng, rng.randint(1, 3))
            yield _answerer(qa, row, row["question"], passages, [quote], answer, [])


def answer_list(qa: QuestionSet, row: Row, rng: random.Random) -> Iterator[Example]:
    """CommaQA rows with one item (a list cannot be one span); passages come from the row's own scope only."""
    if len(row["answer_items"]) != 1:
        return
    answer = row["answer_items"][0]
    scope = [qa.passages[i] for i in dict.fromkeys(row["candidates"])]
    holding = [p for p in scope if find_span(answer, p.text)]
    quotes = [q for p in holding if (q := sentence_with(p, answer, row["question"]))]
    others = [p for p in scope if p not in holding]
    passages = holding[:3] + rng.sample(others, min(len(others), 5 - len(holding[:3])))
    rng.shuffle(passages)
    if quotes:
        yield _answerer(qa, row, row["question"], passages, quotes[:2], answer, [])


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


BUILDERS: dict[tuple[str, str], Builder] = {
    ("planner", "musique_s"): plan_decomposition,
    ("planner", "fictional"): plan_decomposition,
    ("planner", "morehopqa_s"): plan_decomposition,
    ("planner", "strategyqa"): plan_decomposition,
    ("planner", "hotpotqa_s"): plan_hotpot,
    ("planner", "hotpotqa_r1s"): plan_hotpot,
    ("planner", "nq_train"): plan_single,
    ("rewriter", "musique_s"): rewrite,
    ("rewriter", "morehopqa_s"): rewrite,
    ("rewriter", "hotpotqa_s"): rewrite,
    ("rewriter", "nq_train"): rewrite,
    ("reflector", "musique_s"): reflect_hop,
    ("reflector", "fictional"): reflect_hop,
    ("reflector", "morehopqa_s"): reflect_hop,
    ("reflector", "nq_train"): reflect_hop,
    ("reflector", "xquad_en"): reflect_hop,
    ("reflector", "hotpotqa_s"): reflect_question,
    ("alone", "musique_s"): reflect_alone,
    ("alone", "fictional"): reflect_alone,
    ("alone", "morehopqa_s"): reflect_alone,
    ("alone", "nq_train"): reflect_alone,
    ("alone", "xquad_en"): reflect_alone,
    ("alone", "hotpotqa_s"): reflect_alone,
    ("alone", "hotpotqa_r1s"): reflect_alone,
    ("answerer", "hotpotqa_s"): answer_multihop,
    ("answerer", "musique_s"): answer_multihop,
    ("answerer", "fictional"): answer_multihop,
    ("answerer", "morehopqa_s"): answer_multihop,
    ("answerer", "strategyqa"): answer_multihop,
    ("answerer", "hotpotqa_r1s"): answer_single,
    ("answerer", "nq_train"): answer_single,
    ("answerer", "xquad_en"): answer_single,
    ("answerer", "commaqa_e"): answer_list,
    ("reader", "hotpotqa_s"): read_closely,
    ("reader", "musique_s"): read_closely,
    ("reader", "fictional"): read_closely,
    ("reader", "morehopqa_s"): read_closely,
    ("reader", "hotpotqa_r1s"): read_closely,
    ("reader", "nq_train"): read_closely,
    ("reader", "xquad_en"): read_closely,
    ("closed", "nq_train"): answer_closed,
    ("closed", "hotpotqa_s"): answer_closed,
}
"""By kind and set; a kind is a role, ``alone`` (the reflector over one passage), ``reader`` (the answerer over few
passages) or ``closed`` (over none)."""


# --- what is known of a row ------------------------------------------------------------------------------------------


def hops(qa: QuestionSet, row: Row) -> list[Hop]:
    """The look-ups of a row whose answers stand in a marked passage: its decomposition, or a simple row's one hop."""
    found: list[Hop] = []
    if row.get("decomposition") and isinstance(row["decomposition"][0], Mapping):
        steps = plans.from_decomposition(row)
        parts = [part for part in row["decomposition"] if part["passage"]]
        answers = [part["answer"].strip() for part in parts]
        goals = plans.resolved(steps, answers) if steps else []
        candidates = [(g, qa.passages[p["passage"]], [a]) for g, p, a in zip(goals, parts, answers, strict=False)]
    elif row.get("support_mode") == "any" or row.get("hops") == 1:
        ranked = sorted(qa.gold(row), key=lambda p: -len(_content(p.title + " " + p.text) & _content(row["question"])))
        candidates = [(row["question"], p, row["answers"]) for p in ranked[:1]]
    else:
        candidates = []
    for goal, passage, wanted in candidates:
        answer = _answer(wanted, [passage.text])
        quote = sentence_with(passage, answer, goal) if answer else ""
        if quote:
            found.append(Hop(goal, passage, quote, answer))
    return found


def bridge_of(qa: QuestionSet, row: Row) -> tuple[Hop, Hop] | None:
    """First and last hop of a two-hop row that marks gold sentences; None where they cannot be told apart."""
    gold = qa.gold(row)
    if len(gold) != 2 or not row.get("supporting_facts"):
        return None
    question, answer = row["question"], row["answers"][0]
    if row["type"] == "comparison":
        ranked = [p for p in qa.search(question, 50) if p in gold]
        order = ranked + [p for p in gold if p not in ranked]
        span = _answer([answer], [p.text for p in gold] + [p.title for p in gold])
    else:
        holding = [p for p in gold if find_span(answer, p.text)]
        named = [p for p in holding if find_span(plans.bare_title(p.title), question)]
        last = next((p for p in holding if p not in named), holding[0] if holding else None)
        if last is None:
            return None
        order = [p for p in gold if p is not last] + [last]
        span = _answer([answer], [last.text])
    start, end = order
    hints = [plans.bare_title(end.title), *keywords(plans.bare_title(end.title))]
    quotes = qa.fact(row, start, hints), qa.fact(row, end, [answer])
    if not span or not all(_usable(q) for q in quotes):
        return None
    return Hop(question, start, quotes[0], UNKNOWN), Hop(question, end, quotes[1], span)


def asked_of(qa: QuestionSet, row: Row) -> list[tuple[str, str]]:
    """Questions of a row whose answer the passages hold, with that answer."""
    if row.get("previous_question"):  # MoreHopQA's own last step is arithmetic over an answer, which no span can be
        return [(row["previous_question"], row["previous_answer"])]
    answers = row["answers"]
    texts = [text for p in qa.gold(row) for text in (p.text, p.title)]
    return [(row["question"], next((a for a in answers if _answer([a], texts)), answers[0]))]


def evidence(qa: QuestionSet, row: Row, answer: str) -> list[tuple[Passage, str]]:
    """Every gold passage with the one sentence to quote from it; empty when one has none that can be quoted."""
    gold = qa.gold(row)
    if row.get("supporting_facts"):
        titles = [plans.bare_title(p.title) for p in gold]
        chain = [(p, qa.fact(row, p, [answer, *(t for t in titles if t != plans.bare_title(p.title))])) for p in gold]
    elif qa.name == "strategyqa":
        chain = [(p, p.text[slice(*sentences(p.text)[0])]) for p in gold]
    else:
        by_passage = {hop.passage.id: hop.quote for hop in hops(qa, row)}
        chain = [(p, by_passage.get(p.id, "")) for p in gold]
    return chain if chain and len(chain) <= answerer.MAX_QUOTES and all(_usable(quote) for _, quote in chain) else []


def noisy_facts(qa: QuestionSet, row: Row, passages: Sequence[Passage], rng: random.Random) -> list[tuple[str, str]]:
    """What the loop would have noted: all look-ups, a part or none; one may be wrong, so passages are trusted more."""
    facts = [(hop.goal, hop.answer) for hop in hops(qa, row)]
    draw = rng.random()
    if not facts or draw < 0.3:
        return []
    if draw < 0.55:
        facts = rng.sample(facts, rng.randint(1, len(facts)))
    elif draw < 0.7:
        wrong = rng.randrange(len(facts))
        facts[wrong] = (facts[wrong][0], plans.bare_title(rng.choice(passages).title) or facts[wrong][1])
    return facts


def shown(
    qa: QuestionSet, query: str, must: Sequence[Passage], rng: random.Random, k: int, barred: set[str] | None = None
) -> list[Passage]:
    """``k`` passages as retrieved, with all of ``must`` among them and, beside those, none of ``barred``."""
    keep = {p.id for p in must}
    texts = {p.text for p in must}
    found = qa.search(query, 4 * k)
    fill = [
        p
        for p in found
        if p.id not in keep and p.id not in (barred or ()) and p.text not in texts and len(p.text) <= MAX_PASSAGE_CHARS
    ][: max(0, k - len(keep))]
    for passage in must:
        fill.insert(rng.randint(0, len(fill)), passage)
    if qa.ranked:  # stable: what the search does not find stays where it fell, behind the rest
        ranks = {p.id: rank for rank, p in enumerate(found)}
        fill.sort(key=lambda p: ranks.get(p.id, len(ranks)))
    return fill


def first_queries(goal: str, passage: Passage) -> list[str]:
    """Queries worded from the goal alone: itself, its key words, and the gold title where the goal names it."""
    words = keywords(goal)
    title = find_span(plans.bare_title(passage.title), goal)
    queries = [goal, " ".join(words)]
    if title:
        rest = [w for w in words if not find_span(w, title)]
        queries += [" ".join([title, *rest[:n]]) for n in (6, 3)]
    return list(dict.fromkeys(q for q in queries if q))


def best_query(qa: QuestionSet, queries: Sequence[str], gold: Sequence[Passage]) -> str:
    """The query that ranks the gold highest under BM25; the earlier one when they tie."""

    def worth(query: str) -> float:
        ranks = {p.id: rank for rank, p in enumerate(qa.search(query, 20), 1)}
        return sum(1 / ranks[p.id] for p in gold if p.id in ranks)

    return max(queries, key=worth)


def keywords(text: str) -> list[str]:
    """The words of a question that a search engine would keep, in order."""
    words = (w.strip("\"'“”‘’().,;:?!") for w in text.split())
    return list(dict.fromkeys(w for w in words if w and w.lower() not in _STOPWORDS))


def sentence_with(passage: Passage, needle: str, hint: str) -> str:
    """The sentence that holds ``needle``, of several the one sharing most words with ``hint``; ``""`` without any."""
    texts = [passage.text[start:end] for start, end in sentences(passage.text)]
    holding = [text for text in texts if find_span(needle, text) and _usable(text)]
    return max(holding, key=lambda text: len(_content(text) & _content(hint)), default="")


def _answer(wanted: Sequence[str], texts: Sequence[str]) -> str:
    """The first accepted answer that can be copied from the texts, as they spell it; yes and no need no copy."""
    for answer in wanted:
        if answer.lower() in ("yes", "no"):
            return answer.lower()
        if len(answer.split()) <= MAX_ANSWER_WORDS:
            for text in texts:
                if span := find_span(answer, text):
                    return span
    return ""


def _usable(quote: str) -> bool:
    return bool(quote) and len(quote) <= MAX_QUOTE_CHARS and " ".join(quote.split()) == quote


def _content(text: str) -> set[str]:
    return {w for w in re.findall(r"\w+", text.lower()) if w not in _STOPWORDS}


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
    answer: str,
    facts: Sequence[tuple[str, str]],
) -> Example:
    user, reply = answerer.user(question, passages, facts), answerer.target(answer, list(dict.fromkeys(quotes)))
    return _example("answerer", qa, row, answerer.PROMPT, user, reply, answerer.schema(passages, facts))


def _example(
    role: str, qa: QuestionSet, row: Row, prompt: str, user: str, reply: Mapping[str, Any], schema: JsonSchema
) -> Example:
    text = json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
    return Example(role, f"{qa.name}/{row['id']}", (Message("system", prompt), Message("user", user)), text, schema)
