"""The answerer gives the answer, then quotes the sentences that decide it; each quote becomes a checked citation.

The answer comes first because a small model reads it off the passages better than it picks a sentence by its first
word, and finds the deciding sentence easily once the answer stands (docs/LOG.md). Without retrieval it answers alone.
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
MAX_ITEMS = 8
"""Of a question that asks for several things."""

PROMPT = """Give the shortest answer to the question, then quote the sentences that decide it.
Example question: Where was the director of Jaws born?
[1] Jaws (film): Jaws is a 1975 film directed by Steven Spielberg. It was a success.
[2] Steven Spielberg: Spielberg was born in Cincinnati, Ohio.
Example reply: {"answer":"Cincinnati, Ohio","quotes":["Jaws is a 1975 film directed by Steven Spielberg.",\
"Spielberg was born in Cincinnati, Ohio."]}"""

CLOSED_PROMPT = """Give the shortest answer to the question.
Example question: Where was the director of Jaws born?
Example reply: {"answer":"Cincinnati, Ohio"}"""


def user(question: str, passages: Sequence[Passage] = (), facts: Sequence[tuple[str, str]] = ()) -> str:
    lines = [f"Question: {question}"]
    lines += [f"Known: {asked} {answer}" for asked, answer in facts]
    return "\n".join(lines + ([numbered(passages)] if passages else []))


def target(answer: str | Sequence[str], quotes: Sequence[str] | None) -> dict[str, Any]:
    """The reply that a training example shows; several answers as a list, ``quotes`` None for the closed-book form."""
    said = answer if isinstance(answer, str) else list(answer)
    return {"answer": said} if quotes is None else {"answer": said, "quotes": list(quotes)}


def schema(passages: Sequence[Passage], facts: Sequence[tuple[str, str]] = ()) -> JsonSchema:
    properties: dict[str, Any] = {"answer": {"type": "string", "minLength": 1}}
    if passages:
        texts = [p.text for p in passages] + [p.title for p in passages if p.title] + [a for _, a in facts]
        span = {"type": "string", "x-span": texts}
        several = {"type": "array", "items": span, "minItems": 2, "maxItems": MAX_ITEMS}
        properties["answer"] = {"anyOf": [{"type": "string", "enum": ["yes", "no"]}, span, several]}
        item = {"type": "string", "enum": quotable(passages), "x-quote": True}
        properties["quotes"] = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_QUOTES}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read(text: str, passages: Sequence[Passage]) -> dict[str, Any]:
    """``{"answer", "items", "quotes", "shown"}``; a reply without JSON is taken as a bare answer, its first line only.

    ``items`` are the answers of a list, each once, with ``answer`` as the line that names them; a single one has none.
    """
    reply = parse_object(text)
    found = list(dict.fromkeys(strings(reply.get("answer"))))
    bare = "" if text.lstrip().startswith("{") else next(iter(text.strip().splitlines()), "")
    return {
        "answer": ", ".join(found) or bare.strip(),
        "items": found if len(found) > 1 else [],
        "quotes": strings(reply.get("quotes", [])),
        "shown": [p.id for p in passages],
    }


def _passages(trace: Trace, context: Context) -> list[Passage]:
    return trace.evidence(context.strategy.read, quoted=context.strategy.reflect == "passage")


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
    said = step.parsed
    answer = checked(trace.question, said["answer"], said["quotes"], passages, context.fingerprint, said["items"])
    return dataclasses.replace(step, answer=answer)


ANSWERER = Role("answerer", act, PROMPT)
