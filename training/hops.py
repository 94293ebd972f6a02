"""What is known of a question set's row: its look-ups, the sentence that answers each, and queries that find it.

Passages are what BM25 really retrieves, so the negatives are the ones that a run would meet; quotes are whole sentences
of them and answers are runs of their words, which is also all that constrained decoding lets a policy say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sleuth.agents.roles import answerer
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.records import Passage
from sleuth.corpora.text import sentences
from sleuth.training import plans
from sleuth.training.sets import QuestionSet, Row, find_span

MAX_PASSAGE_CHARS = 1200
MAX_QUOTE_CHARS = 420
"""Longer ones cost more tokens than they teach."""
MAX_ANSWER_WORDS = 10

_STOPWORDS = frozenset(
    "a an and are as at be been both but by can could did do does for from had has have he her him his how i in into "
    "is it its many me much of on or she so than that the their them then there these they this those to was were what "
    "when where which while who whom whose why will with would you your same".split()
)


@dataclass(frozen=True, slots=True)
class Hop:
    """One look-up whose evidence is known."""

    goal: str
    passage: Passage
    quote: str
    answer: str


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
        ranked = sorted(qa.gold(row), key=lambda p: -len(content(p.title + " " + p.text) & content(row["question"])))
        candidates = [(row["question"], p, row["answers"]) for p in ranked[:1]]
    else:
        candidates = []
    for goal, passage, wanted in candidates:
        answer = answer_in(wanted, [passage.text])
        quote = sentence_with(passage, answer, goal) if answer else ""
        if quote:
            found.append(Hop(goal, passage, quote, answer))
    return found


def bridge_of(qa: QuestionSet, row: Row) -> tuple[Hop, Hop] | None:
    """First and last hop of a two-hop row that marks gold sentences; None where they cannot be told apart.

    The first alone decides nothing: a bridge whose first passage holds the answer as well is none.
    """
    gold = qa.gold(row)
    if len(gold) != 2 or not row.get("supporting_facts"):
        return None
    question, answer = row["question"], row["answers"][0]
    if row["type"] == "comparison":
        ranked = [p for p in qa.search(question, 50) if p in gold]
        order = ranked + [p for p in gold if p not in ranked]
        span = answer_in([answer], [p.text for p in gold] + [p.title for p in gold])
    else:
        holding = [p for p in gold if find_span(answer, p.text)]
        named = [p for p in holding if find_span(plans.bare_title(p.title), question)]
        last = next((p for p in holding if p not in named), holding[0] if holding else None)
        if last is None:
            return None
        order = [p for p in gold if p is not last] + [last]
        span = answer_in([answer], [last.text]) if not holds(order[0], row["answers"]) else ""
    start, end = order
    hints = [plans.bare_title(end.title), *keywords(plans.bare_title(end.title))]
    quotes = qa.fact(row, start, hints), qa.fact(row, end, [answer])
    if not span or not all(usable(q) for q in quotes):
        return None
    return Hop(question, start, quotes[0], UNKNOWN), Hop(question, end, quotes[1], span)


def asked_of(qa: QuestionSet, row: Row) -> list[tuple[str, str]]:
    """Questions of a row whose answer the passages hold, with that answer."""
    if row.get("previous_question"):  # MoreHopQA's own last step is arithmetic over an answer, which no span can be
        return [(row["previous_question"], row["previous_answer"])]
    answers = row["answers"]
    texts = [text for p in qa.gold(row) for text in (p.text, p.title)]
    return [(row["question"], next((a for a in answers if answer_in([a], texts)), answers[0]))]


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
    return chain if chain and len(chain) <= answerer.MAX_QUOTES and all(usable(quote) for _, quote in chain) else []


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
    found = qa.ordered(query, 4 * k)
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


def misleading(qa: QuestionSet, goal: str, answers: Sequence[str], barred: Collection[str]) -> list[Passage]:
    """What a search ranks among its first five though it holds no answer."""
    found = [p for p in qa.search(goal, 8) if p.id not in barred and len(p.text) <= MAX_PASSAGE_CHARS]
    return [p for p in found if not holds(p, answers)][:5]


def holds(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether an answer stands in the passage or in its title."""
    return any(find_span(answer, f"{passage.title} {passage.text}") for answer in answers)


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
    holding = [text for text in texts if find_span(needle, text) and usable(text)]
    return max(holding, key=lambda text: len(content(text) & content(hint)), default="")


def answer_in(wanted: Sequence[str], texts: Sequence[str]) -> str:
    """The first accepted answer that can be copied from the texts, as they spell it; yes and no need no copy."""
    for answer in wanted:
        if answer.lower() in ("yes", "no"):
            return answer.lower()
        if len(answer.split()) <= MAX_ANSWER_WORDS:
            for text in texts:
                if span := find_span(answer, text):
                    return span
    return ""


def usable(quote: str) -> bool:
    return bool(quote) and len(quote) <= MAX_QUOTE_CHARS and " ".join(quote.split()) == quote


def content(text: str) -> set[str]:
    return {w for w in re.findall(r"\w+", text.lower()) if w not in _STOPWORDS}
