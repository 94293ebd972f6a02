"""A rollout is one run of a graph over one question, and the only way into agents/.

It owns the budget, the seed, the deadline, cancellation, the checkpoint and the capture of errors: whatever happens
inside, an `Episode` comes out, and its ``stop`` and ``error`` say what happened.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from sleuth.agents.budget import best_so_far, exhausted, spent, spent_out
from sleuth.agents.context import Context
from sleuth.agents.records import Answer, Episode, PolicyError, Step
from sleuth.agents.trace import Trace
from sleuth.corpora.errors import InputError

MAX_QUESTION_CHARS = 20_000


async def rollout(
    graph: Any,
    question: str,
    context: Context,
    *,
    on_step: Callable[[Step], None] | None = None,
    on_end: Callable[[Episode], None] | None = None,
    resume: bool = False,
) -> Episode:
    """Run ``graph`` (of `build_graph`, for ``context.strategy``) over one question.

    ``on_step`` sees each step as it ends and ``on_end`` the episode, a cancelled one too: cancellation is passed on
    after ``on_end`` has had the episode so far. With ``resume`` the checkpoint of the same episode id is continued.
    An empty or oversized question raises `InputError`; errors of policies, tools and roles are recorded, not raised.
    """
    question = check_question(question)
    loop = asyncio.get_running_loop()
    started, clock = time.time(), loop.time()
    if context.budget.seconds is not None:
        context = dataclasses.replace(context, deadline=clock + context.budget.seconds)
    steps: list[Step] = []
    stop = error = ""
    cancelled: asyncio.CancelledError | None = None
    try:
        async with asyncio.timeout_at(context.deadline):
            async for step in _steps(graph, question, context, steps, resume):
                if on_step:
                    on_step(step)
    except TimeoutError as late:
        stop, error = ("budget:seconds", "") if context.deadline is not None else ("error", _describe(late))
    except asyncio.CancelledError as request:
        stop, cancelled = "cancelled", request
    except Exception as failure:
        stop, error = "error", _describe(failure)
    trace = Trace(question, tuple(steps))
    episode = Episode(
        id=episode_id(question, context),
        question=question,
        config=context.config(),
        fingerprint=context.fingerprint,
        steps=trace.steps,
        answer=_answer(trace, context),
        stop=stop or _stop(trace, context, loop.time()),
        error=error and f"{_acting(trace, context)}: {error}",
        spent=spent(trace),
        timing={"started": round(started, 3), "seconds": round(loop.time() - clock, 4)},
    )
    if on_end:
        on_end(episode)
    if cancelled:
        raise cancelled
    return episode


async def _steps(graph: Any, question: str, context: Context, steps: list[Step], resume: bool) -> AsyncIterator[Step]:
    """The steps as the graph makes them, each appended to ``steps``; a resumed run first gives those it had."""
    thread = episode_id(question, context)
    config = {"configurable": {"thread_id": thread}, "recursion_limit": 1_000}
    start: dict[str, Any] | None = {"question": question, "steps": []}
    if graph.checkpointer:
        state = await graph.aget_state(config)
        if resume and state.values:
            start = None
            for step in state.values.get("steps", []):
                steps.append(step)
                yield step
            if not state.tasks:  # `next` leaves out a task whose writes stand but whose checkpoint was not reached
                return
        elif state.values:  # a run from scratch must not append to an older run of the same id
            await graph.checkpointer.adelete_thread(thread)
    async for update in graph.astream(start, config, context=context, stream_mode="updates"):
        if (update.get("__metadata__") or {}).get("cached"):
            continue  # such writes are among the state's values already
        for change in update.values():
            for step in (change or {}).get("steps", ()):
                steps.append(step)
                yield step


def check_question(question: str) -> str:
    """The question trimmed; an empty one, or one of over `MAX_QUESTION_CHARS` characters, raises `InputError`."""
    question = question.strip()
    if not question:
        raise InputError("the question is empty; expected some text")
    if len(question) > MAX_QUESTION_CHARS:
        raise InputError(f"the question has {len(question):,} characters; expected at most {MAX_QUESTION_CHARS:,}")
    return question


def episode_id(question: str, context: Context) -> str:
    """Sixteen hex digits over all that decides an episode: question, resolved configuration, datastore."""
    parts: Sequence[Any] = (question, context.config(), context.fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _answer(trace: Trace, context: Context) -> Answer | None:
    given = trace.last("answerer")
    if given and given.answer and given.answer.text:
        return given.answer
    return best_so_far(trace, context)


def _stop(trace: Trace, context: Context, now: float) -> str:
    """``answered``, or the budget that cut the run short: the step before the answer would have led elsewhere."""
    from sleuth.agents.graph import following

    answered = bool(trace.steps) and trace.steps[-1].role == "answerer"
    before = Trace(trace.question, trace.steps[:-1]) if answered else trace
    if answered and following(before, context.strategy) == "answerer":
        return "answered"
    return f"budget:{spent_out(before, context, now) or exhausted(before, context, now) or 'tokens'}"


def _acting(trace: Trace, context: Context) -> str:
    from sleuth.agents.graph import following

    return following(trace, context.strategy)


def _describe(error: BaseException) -> str:
    """``PolicyError(timeout): no reply in 3 s``: a policy's failure by its kind, others by their class."""
    name = f"PolicyError({error.kind})" if isinstance(error, PolicyError) else type(error).__name__
    return f"{name}: {error}"
