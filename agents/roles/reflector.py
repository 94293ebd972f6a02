"""The reflector reads what a search brought: it answers the goal or says unknown, and quotes the most useful sentence.

The quote is decoded among the sentences of the passages and the answer among their words, so both are verbatim where
the engine can constrain decoding; elsewhere `cite.locate` decides whether a quote stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sleuth.agents.cite import locate, quotable
from sleuth.agents.context import Context
from sleuth.agents.records import JsonSchema
from sleuth.agents.role import Role, asking, parse_object, strings
from sleuth.agents.trace import UNKNOWN, Trace, numbered
from sleuth.corpora.records import Passage

PROMPT = """Give the short answer to the question, or "unknown" if it is not there yet, \
then quote the sentence that helps most.
Example question: Where was the director of Jaws born?
[1] Jaws (film): Jaws is a 1975 film directed by Steven Spielberg. It was a success.
Example reply: {"answer":"unknown","quote":"Jaws is a 1975 film directed by Steven Spielberg."}"""


def user(goal: str, passages: Sequence[Passage], known: Sequence[str] = ()) -> str:
    lines = [f"Question: {goal}"]
    lines += [f"Known: {' '.join(quote.split())}" for quote in known]
    return "\n".join([*lines, numbered(passages)])


def target(quote: str, answer: str) -> dict[str, Any]:
    """The reply that a training example shows."""
    return {"answer": answer, "quote": quote}


def schema(passages: Sequence[Passage], known: Sequence[str] = ()) -> JsonSchema:
    quotes = quotable(passages)
    texts = [p.text for p in passages] + [p.title for p in passages if p.title] + list(known)
    answer: dict[str, Any] = {"type": "string", "enum": [UNKNOWN, "yes", "no"]}
    if texts:
        answer = {"anyOf": [answer, {"type": "string", "x-span": texts}]}
    return {
        "type": "object",
        "properties": {"answer": answer, "quote": {"type": "string", "enum": [*quotes, ""], "x-quote": True}},
        "required": ["answer", "quote"],
        "additionalProperties": False,
    }


def read(text: str, trace: Trace, context: Context) -> dict[str, Any]:
    """``{"answer", "quote", "note"}``; a quote that stands nowhere is dropped, an absent answer is unknown."""
    reply = parse_object(text)
    goal = trace.goal()
    passages = _passages(trace, context)
    quote = next(iter(strings(reply.get("quote"))), "")
    answer = next(iter(strings(reply.get("answer"))), UNKNOWN)
    place = locate(quote, passages) if quote else None
    tried = len(trace.tried(goal))
    enough, last = tried >= context.strategy.least, tried >= context.strategy.turns
    left = context.strategy.reflect == "passage" and len(trace.unread(context.strategy.k)) > 1
    note = {
        "goal": goal,
        "asked": trace.resolved(goal),
        "quote": place.quote if place else "",
        "passage_id": place.passage_id if place else "",
        "answer": answer,
        "done": (answer.lower() != UNKNOWN and enough) or (last and not left),
    }
    return {"answer": answer, "quote": quote, "note": note, "shown": [p.id for p in passages]}


def _passages(trace: Trace, context: Context) -> list[Passage]:
    """The last search's passages; with ``reflect="passage"`` the best that is unread."""
    found = trace.latest(context.strategy.k)
    return found if context.strategy.reflect == "goal" else (trace.unread(context.strategy.k) or found)[:1]


def _user(trace: Trace, context: Context) -> str:
    return user(trace.resolved(trace.goal()), _passages(trace, context), trace.known(trace.goal()))


REFLECTOR: Role = asking(
    "reflector",
    PROMPT,
    user=_user,
    schema=lambda trace, context: schema(_passages(trace, context), trace.known(trace.goal())),
    read=read,
    max_tokens=160,
)
