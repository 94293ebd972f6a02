"""The planner splits a question into simple look-ups that may refer to earlier answers as ``#1``.

Decomposed Prompting (arXiv 2210.02406) and MuSiQue (arXiv 2108.00573, section 3) write decompositions this way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sleuth.agents.context import Context
from sleuth.agents.records import JsonSchema
from sleuth.agents.role import Role, asking, parse_object, strings
from sleuth.agents.trace import Trace

PROMPT = """Split the question into simple look-ups, in order. Use #1 for the answer of the first.
Example question: Where was the director of Jaws born?
Example reply: {"steps":["Who directed Jaws?","Where was #1 born?"]}"""


def user(question: str) -> str:
    return f"Question: {question}"


def target(steps: Sequence[str]) -> dict[str, Any]:
    """The reply that a training example shows."""
    return {"steps": list(steps)}


def schema(max_steps: int) -> JsonSchema:
    steps = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": max_steps}
    return {"type": "object", "properties": {"steps": steps}, "required": ["steps"], "additionalProperties": False}


def read(text: str, max_steps: int) -> Mapping[str, Any]:
    """``{"steps": [...]}``; an unusable reply gives no steps, and the question itself is then the only goal."""
    steps = strings(parse_object(text).get("steps"))
    unique = list(dict.fromkeys(steps))
    parsed: dict[str, Any] = {"steps": unique[:max_steps]}
    if len(unique) > max_steps:
        parsed["cut"] = unique[max_steps:]
    return parsed


def _user(trace: Trace, context: Context) -> str:
    return user(trace.question)


PLANNER: Role = asking(
    "planner",
    PROMPT,
    user=_user,
    schema=lambda trace, context: schema(context.strategy.max_goals),
    read=lambda text, trace, context: read(text, context.strategy.max_goals),
    max_tokens=128,
)
