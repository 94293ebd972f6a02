"""The searcher sends the current query to the search tool and records the hits; it asks no policy."""

from __future__ import annotations

from sleuth.agents.context import Context
from sleuth.agents.records import Step, ToolCall
from sleuth.agents.role import Role
from sleuth.agents.trace import Trace


async def act(trace: Trace, context: Context) -> Step:
    query, k = trace.query(), context.strategy.k
    hits = await context.tools["search"](query=query, k=k)
    seen = trace.passages()
    result = [{"passage_id": hit.passage.id, "score": round(float(hit.score), 6)} for hit in hits]
    fresh = tuple({h.passage.id: h.passage for h in hits if h.passage.id not in seen}.values())
    return Step("searcher", calls=(ToolCall("search", {"query": query, "k": k}, result),), passages=fresh)


SEARCHER = Role("searcher", act)
