"""The graph is the five roles on LangGraph, wired from a strategy; this is the one place where a graph is wired.

`route` decides what comes next from the trace, the strategy and the budget alone: nothing that a policy or a passage
says reaches it except through the parsed fields of a step.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from sleuth.agents import records
from sleuth.agents.budget import exhausted, spent_out
from sleuth.agents.context import Context
from sleuth.agents.role import State, node
from sleuth.agents.roles import ROLES
from sleuth.agents.strategy import Strategy
from sleuth.agents.trace import Trace, ends_goal
from sleuth.corpora.records import Passage


def roles_of(strategy: Strategy) -> list[str]:
    """Names of the roles a strategy uses, in the order of one turn."""
    use = {
        "planner": strategy.retrieve and strategy.plan != "none",
        "rewriter": strategy.retrieve and strategy.rewrite != "none",
        "searcher": strategy.retrieve,
        "reflector": strategy.retrieve and strategy.reflect != "none",
        "answerer": True,
    }
    return [name for name, used in use.items() if used]


def following(trace: Trace, strategy: Strategy) -> str:
    """The role that acts next when nothing is short; ``END`` after the answer."""
    roles = roles_of(strategy)
    done = trace.steps[-1].role if trace.steps else ""
    if done == "answerer":
        return END
    if done == "reflector" and strategy.reflect == "passage" and _goes_on_reading(trace, strategy):
        return "reflector"
    if done == "reflector" or (done == "rewriter" and ends_goal(trace.steps[-1])):  # another turn, or the answer
        if trace.closing():
            return "searcher"
        return _asking(trace, strategy) if trace.goal() < len(trace.goals()) else "answerer"
    if done == "searcher" and (trace.closing() or _last_search(trace, strategy)):
        return "answerer"
    if done == "searcher" and strategy.reflect == "none" and len(trace.tried(trace.goal())) < strategy.turns:
        role = _asking(trace, strategy)
        # what found nothing leads nowhere: the same query would be asked again
        return role if role == "rewriter" or trace.query() not in trace.tried(trace.goal()) else "answerer"
    role = roles[roles.index(done) + 1] if done else roles[0]
    return _asking(trace, strategy) if role == "rewriter" else role


def _asking(trace: Trace, strategy: Strategy) -> str:
    """Who acts when the goal in work is to be searched: the rewriter, or at once the searcher."""
    own = strategy.rewrite == "none" or (strategy.rewrite == "further" and not trace.tried(trace.goal()))
    return "searcher" if own else "rewriter"


def _goes_on_reading(trace: Trace, strategy: Strategy) -> bool:
    return not ends_goal(trace.steps[-1]) and bool(trace.unread(strategy.k))


def _last_search(trace: Trace, strategy: Strategy) -> bool:
    """With a fixed number of searches a reading after the last one decides nothing: the answerer reads it."""
    goal = trace.goal()
    fixed = 1 < strategy.least == strategy.turns
    return fixed and goal == len(trace.goals()) - 1 and len(trace.tried(goal)) >= strategy.turns


async def gathered(question: str, context: Context) -> list[Passage]:
    """What the answerer of a strategy reads that asks no policy before it; nothing is asked here either."""
    trace = Trace(question)
    while following(trace, context.strategy) == "searcher":
        trace = Trace(question, (*trace.steps, await ROLES["searcher"].act(trace, context)))
    return trace.evidence(context.strategy.read)


def route(trace: Trace, context: Context, now: float) -> str:
    """`following`, unless a limit says to answer at once, or not even that. ``now`` is the event loop's time."""
    role = following(trace, context.strategy)
    if role == END or (role == "answerer" and not spent_out(trace, context, now)):
        return role
    if spent_out(trace, context, now):
        return END
    return "answerer" if exhausted(trace, context, now) else role


def build_graph(strategy: Strategy, checkpointer: Any = None) -> CompiledStateGraph[State, Context, State, State]:
    """The compiled graph of a strategy; `rollout` runs it."""
    builder = StateGraph(State, context_schema=Context)
    names = roles_of(strategy)

    async def next_role(state: State, runtime: Runtime[Context]) -> str:
        trace = Trace(state["question"], tuple(state["steps"]))
        return route(trace, runtime.context, asyncio.get_running_loop().time())

    for name in names:
        builder.add_node(name, node(ROLES[name]))
    for name in [START, *names]:
        builder.add_conditional_edges(name, next_role, [*names, END])
    return builder.compile(checkpointer=checkpointer, name=strategy.name)


@contextlib.asynccontextmanager
async def checkpoints(path: str | Path) -> AsyncIterator[Any]:
    """A SQLite checkpointer for `build_graph`, which lets a killed run go on (``--resume``).

    It holds nothing but our own records and is read back without running code.
    """
    import aiosqlite
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    names = ("Step", "Message", "Completion", "ToolCall", "Answer", "Sentence", "Citation")
    ours = [(records.__name__, name) for name in names]
    serde = JsonPlusSerializer(allowed_msgpack_modules=[*ours, ("sleuth.corpora.records", "Passage")])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    async with aiosqlite.connect(path) as connection:
        yield AsyncSqliteSaver(connection, serde=serde)
