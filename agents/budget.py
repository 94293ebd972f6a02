"""A budget's state is counted from the steps: what was spent, which limit is near, which is gone.

Two lines are drawn. `exhausted` says to stop gathering and answer while there is still room to; `spent_out` says that
not even an answer fits, and `best_so_far` then answers from the notes without asking the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleuth.agents.cite import checked
from sleuth.agents.records import Answer, Spent
from sleuth.agents.trace import UNKNOWN, Trace

if TYPE_CHECKING:
    from sleuth.agents.context import Context

ANSWER_TOKENS = 2_500
"""Room kept for the answering call: five passages and a reply."""
ANSWER_SHARE = 0.3
"""Share of the seconds kept for the answering call."""


def spent(trace: Trace) -> Spent:
    completions = [step.completion for step in trace.steps if step.completion]
    return Spent(
        searches=sum(call.tool == "search" for step in trace.steps for call in step.calls),
        prompt_tokens=sum(c.prompt_tokens for c in completions),
        cached_tokens=sum(c.cached_tokens for c in completions),
        completion_tokens=sum(c.completion_tokens for c in completions),
    )


def exhausted(trace: Trace, context: Context, now: float) -> str | None:
    """The limit that leaves room for an answer only: ``searches``, ``tokens``, ``seconds``; None when there is none."""
    budget, used = context.budget, spent(trace)
    if budget.searches is not None and used.searches >= budget.searches:
        return "searches" if not _reading_is_due(trace, context) else None
    if budget.tokens is not None:
        room = min(ANSWER_TOKENS, budget.tokens / 2)
        if used.prompt_tokens + used.completion_tokens > budget.tokens - room:
            return "tokens"
    kept = ANSWER_SHARE * (budget.seconds or 0.0)
    return "seconds" if context.deadline is not None and now > context.deadline - kept else None


def spent_out(trace: Trace, context: Context, now: float) -> str | None:
    """The limit that leaves no room at all."""
    budget, used = context.budget, spent(trace)
    if budget.tokens is not None and used.prompt_tokens + used.completion_tokens >= budget.tokens:
        return "tokens"
    if context.deadline is not None and now >= context.deadline:
        return "seconds"
    return None


def best_so_far(trace: Trace, context: Context) -> Answer:
    """The last answer that was noted, with the noted quotes that hold as its citations; `UNKNOWN` without one."""
    notes = trace.notes()
    text = next((n.answer for n in reversed(notes) if n.answer.lower() != UNKNOWN), UNKNOWN)
    if text == UNKNOWN:
        return Answer(text)
    quotes = [n.quote for n in notes if n.quote]
    return checked(trace.question, text, quotes, list(trace.passages().values()), context.fingerprint)


def _reading_is_due(trace: Trace, context: Context) -> bool:
    """The last search was paid for but not read yet."""
    return context.strategy.reflect != "none" and bool(trace.steps) and trace.steps[-1].role == "searcher"
