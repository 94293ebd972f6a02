"""The searcher sends the current query to the search tool and records the hits; it asks no policy."""

from __future__ import annotations

from typing import Any

from sleuth.agents.context import Context
from sleuth.agents.records import Step, ToolCall
from sleuth.agents.role import Role
from sleuth.agents.trace import Trace
from sleuth.retrieval.records import Hit


async def act(trace: Trace, context: Context) -> Step:
    query, k = trace.query(), context.strategy.k
    hits = await context.tools["search"](query=query, k=k)
    seen = trace.passages()
    fresh = tuple({h.passage.id: h.passage for h in hits if h.passage.id not in seen}.values())
    call = ToolCall("search", {"query": query, "k": k}, [_noted(hit) for hit in hits], missing=hits.missing)
    return Step("searcher", calls=(call,), passages=fresh)


def _noted(hit: Hit) -> dict[str, Any]:
    noted = {"passage_id": hit.passage.id, "score": round(float(hit.score), 6)}
    return {**noted, "date": hit.date} if hit.date else noted


SEARCHER = Role("searcher", act)
