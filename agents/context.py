"""A context is what a run is handed: the policy, the tools, the strategy and the limits; it never changes during a run.

A role sees only its context and the trace. Nothing a policy or a passage says can add a tool or raise a limit.
`equipped` gives it the tools of its strategy over a store; `ready` loads what a strategy needs beside the policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sleuth.agents.records import Budget, Policy, Sampling, to_json
from sleuth.agents.strategy import Strategy
from sleuth.agents.tools import Tool, search_tool
from sleuth.retrieval import rerank
from sleuth.retrieval.records import Filter, Retriever


@dataclass(frozen=True, slots=True)
class Context:
    policy: Policy
    strategy: Strategy
    tools: Mapping[str, Tool] = field(default_factory=dict)
    """By name; ``search`` is needed by every strategy that retrieves."""
    fingerprint: str = ""
    """Of the datastore behind the tools; empty without one."""
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    """Temperature and top_p of every call; each role sets its own token limit, each step derives its own seed."""
    seed: int = 0
    deadline: float | None = None
    """Event-loop time after which nothing more is asked; set by `rollout` from ``budget.seconds``."""

    def config(self) -> dict[str, Any]:
        """The resolved configuration as JSON values: enough to run the episode again.

        Of a strategy that reranks it names the reranker and a hash of its files; raises `ModelError` where there is
        none.
        """
        reranks = self.strategy.retrieve and self.strategy.rerank
        return {
            "strategy": to_json(self.strategy),
            "policy": self.policy.name,
            "budget": to_json(self.budget),
            "sampling": {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p},
            "seed": self.seed,
            "tools": sorted(self.tools),
            **({"reranker": rerank.reranker(self.strategy.rerank).name} if reranks else {}),
        }


def ready(strategy: Strategy) -> None:
    """Load the reranker of a strategy that has one, so that `ModelError` comes before a run and not in its searches."""
    if strategy.retrieve and strategy.rerank:
        rerank.reranker(strategy.rerank).load()


def equipped(context: Context, store: Retriever, where: Filter | None = None) -> Context:
    """The context with the tools that its strategy needs over a store; what ``where`` leaves out no query can reach.

    Hits of another version than its fingerprint raise, where it has one (`search_tool`).
    """
    if not context.strategy.retrieve:
        return dataclasses.replace(context, tools={})
    if context.strategy.rerank:
        scorer = rerank.reranker(context.strategy.rerank)
        depth = max(rerank.DEPTH, context.strategy.k)
        store = rerank.Reranked(store, scorer, depth, batch=rerank.DEPTH, fused=True)
    return dataclasses.replace(context, tools={"search": search_tool(store, where, context.fingerprint)})
