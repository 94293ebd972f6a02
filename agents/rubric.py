"""A policy as a judge of relevance: it reads a rubric, a question and a passage, and gives one mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sleuth.agents.calling import Caller
from sleuth.agents.records import JsonSchema, Message, Policy, Sampling
from sleuth.agents.role import parse_object
from sleuth.retrieval.rubric import Judge

PROMPT = """Give one mark from 0 to 100: how much does the passage help to answer the question?
Example rubric: 80 to 100: the passage states the answer. 0 to 20: it is about something else.
Example question: Who directed Jaws?
Example passage: Jaws is a 1975 film directed by Steven Spielberg.
Example reply: {"mark":95}"""
MAX_TOKENS = 16
PASSAGE_CHARS = 2_000
TEMPERATURE = 0.7
"""Of several samples; one alone is greedy."""


def user(query: str, text: str, rubric: str) -> str:
    return f"Rubric: {rubric}\nQuestion: {query}\nPassage: {' '.join(text[:PASSAGE_CHARS].split())}"


def schema() -> JsonSchema:
    return {
        "type": "object",
        "properties": {"mark": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["mark"],
        "additionalProperties": False,
    }


def read(text: str) -> float | None:
    """The mark, or None where the reply holds none from 0 to 100."""
    found: Any = parse_object(text).get("mark")
    try:
        mark = float(found) if not isinstance(found, bool) else -1.0
    except (TypeError, ValueError):
        return None
    return mark if 0 <= mark <= 100 else None


def judge(policy: Policy, seed: int = 0) -> Judge:
    """The judge that a policy is; all marks of a call are asked for at once, each with a seed of its own."""
    call = Caller(policy)

    def marks(query: str, texts: Sequence[str], rubric: str, samples: int) -> list[list[float | None]]:
        shown = [(Message("system", PROMPT), Message("user", user(query, text, rubric))) for text in texts]
        drawn = [Sampling(TEMPERATURE if samples > 1 else 0.0, max_tokens=MAX_TOKENS, seed=seed + n)
                 for n in range(samples)]  # fmt: skip
        replies = call([(messages, sampling, schema()) for messages in shown for sampling in drawn])
        read_ = [read(reply.text) for reply in replies]
        return [read_[at : at + samples] for at in range(0, len(read_), samples)]

    return marks
