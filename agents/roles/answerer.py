"""The answerer quotes the sentences that decide the question, then answers; each quote becomes a checked citation.

Quotes come before the answer so that the answer is read off them (as AutoRefine, arXiv 2505.11277, refines before it
answers). Without retrieval it gives the answer alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sleuth.agents.cite import checked, quotable
from sleuth.agents.context import Context
from sleuth.agents.records import JsonSchema, Step
from sleuth.agents.role import Role, asking, parse_object, strings
from sleuth.agents.trace import Trace, numbered
from sleuth.corpora.records import Passage

MAX_QUOTES = 4

PROMPT = """Quote the sentences that decide the question, then give the shortest answer.
Example question: Where was the director of Jaws born?
[1] Jaws (film): Jaws is a 1975 film directed by Steven Spielberg. It was a success.
[2] Steven Spielberg: Spielberg was born in Cincinnati, Ohio.
Example reply: {"quotes":["Jaws is a 1975 film directed by Steven Spielberg.",\
"Spielberg was born in Cincinnati, Ohio."],"answer":"Cincinnati, Ohio"}"""

CLOSED_PROMPT = """Give the shortest answer to the question.
Example question: Where was the director of Jaws born?
Example reply: {"answer":"Cincinnati, Ohio"}"""


def user(question: str, passages: Sequence[Passage] = (), facts: Sequence[tuple[str, str]] = ()) -> str:
    lines = [f"Question: {question}"]
    lines += [f"Known: {asked} {answer}" for asked, answer in facts]
    return "\n".join(lines + ([numbered(passages)] if passages else []))


def target(answer: str, quotes: Sequence[str] | None) -> dict[str, Any]:
    """The reply that a training example shows; ``quotes`` None for the closed-book form."""
    return {"answer": answer} if quotes is None else {"quotes": list(quotes), "answer": answer}


def schema(passages: Sequence[Passage], facts: Sequence[tuple[str, str]] = ()) -> JsonSchema:
    properties: dict[str, Any] = {}
    answer: dict[str, Any] = {"type": "string", "minLength": 1}
    if passages:
        item = {"type": "string", "enum": quotable(passages), "x-quote": True}
        properties["quotes"] = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_QUOTES}
        texts = [p.text for p in passages] + [p.title for p in passages if p.title] + [a for _, a in facts]
        answer = {"anyOf": [{"type": "string", "enum": ["yes", "no"]}, {"type": "string", "x-span": texts}]}
    properties["answer"] = answer
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read(text: str, passages: Sequence[Passage]) -> dict[str, Any]:
    """``{"quotes", "answer", "shown"}``; a reply without JSON is taken as a bare answer, its first line only."""
    reply = parse_object(text)
    found = strings(reply.get("answer"))
    bare = "" if text.lstrip().startswith("{") else next(iter(text.strip().splitlines()), "")
    return {
        "quotes": strings(reply.get("quotes", [])),
        "answer": found[0] if found else bare.strip(),
        "shown": [p.id for p in passages],
    }


def _passages(trace: Trace, context: Context) -> list[Passage]:
    return trace.evidence(context.strategy.read)


_GROUNDED = asking(
    "answerer",
    PROMPT,
    user=lambda trace, context: user(trace.question, _passages(trace, context), trace.facts()),
    schema=lambda trace, context: schema(_passages(trace, context), trace.facts()),
    read=lambda text, trace, context: read(text, _passages(trace, context)),
    max_tokens=320,
)
_CLOSED = asking(
    "answerer",
    CLOSED_PROMPT,
    user=lambda trace, context: user(trace.question),
    schema=lambda trace, context: schema(()),
    read=lambda text, trace, context: read(text, ()),
    max_tokens=48,
)


async def act(trace: Trace, context: Context) -> Step:
    passages = _passages(trace, context)
    step = await (_GROUNDED if passages else _CLOSED).act(trace, context)
    answer = checked(trace.question, step.parsed["answer"], step.parsed["quotes"], passages, context.fingerprint)
    return dataclasses.replace(step, answer=answer)


ANSWERER = Role("answerer", act, PROMPT)
