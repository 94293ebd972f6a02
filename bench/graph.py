"""What the agent graph costs: milliseconds per node with a scripted policy, and 500 episodes at once in one process.

The same roles are also called one after another without LangGraph, in the same run, so that the difference is the
graph's own share. Usage: ``python bench/graph.py [--episodes 500]``; writes bench/results/graph.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.agents.graph import build_graph, following
from sleuth.agents.records import Episode
from sleuth.agents.roles import ROLES
from sleuth.agents.rollout import rollout
from sleuth.agents.trace import Trace
from tests.films import QUESTION, context

LIMIT_MS = 2.0


async def bare(question: str) -> int:
    """The roles in the graph's order without the graph; returns the number of steps."""
    ctx = context()
    trace = Trace(question)
    while (role := following(trace, ctx.strategy)) in ROLES:
        trace = Trace(question, (*trace.steps, await ROLES[role].act(trace, ctx)))
    return len(trace.steps)


async def sequential(rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds per node of single runs, graph and bare in turn so that noise strikes both."""
    graphs, bares = [], []
    ctx = context()
    graph = build_graph(ctx.strategy)
    for i in range(rounds):
        started = time.perf_counter()
        episode = await rollout(graph, f"{QUESTION} {i}", ctx)
        graphs.append((time.perf_counter() - started) * 1e3 / len(episode.steps))
        started = time.perf_counter()
        steps = await bare(f"{QUESTION} {i}")
        bares.append((time.perf_counter() - started) * 1e3 / steps)
    return graphs, bares


async def concurrent(episodes: int) -> tuple[float, list[Episode]]:
    ctx = context()
    graph = build_graph(ctx.strategy)
    started = time.perf_counter()
    done = await asyncio.gather(*(rollout(graph, f"{QUESTION} {i}", ctx) for i in range(episodes)))
    return time.perf_counter() - started, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=500)
    count = parser.parse_args().episodes
    asyncio.run(sequential(5))  # imports and first-use costs
    graphs, bares = asyncio.run(sequential(50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, done = asyncio.run(concurrent(count))
    nodes = sum(len(e.steps) for e in done)
    result = {
        "node_ms_graph_p50": round(statistics.median(graphs), 3),
        "node_ms_bare_p50": round(statistics.median(bares), 3),
        "node_ms_overhead_p50": round(statistics.median(graphs) - statistics.median(bares), 3),
        "limit_ms": LIMIT_MS,
        "concurrent_episodes": count,
        "concurrent_answered": sum(e.stop == "answered" for e in done),
        "concurrent_seconds": round(seconds, 3),
        "concurrent_node_ms": round(seconds * 1e3 / nodes, 3),
        "concurrent_extra_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }
    out = Path(__file__).parent / "results" / "graph.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print("| measure | value |\n|---|---|")
    print("\n".join(f"| {key} | {value} |" for key, value in result.items()))


if __name__ == "__main__":
    main()
