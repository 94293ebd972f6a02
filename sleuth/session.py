"""A session is a datastore, a policy and a strategy, opened once and asked any number of questions.

It is what the doors (command line, servers, notebooks) share: they choose the parts, `Session.ask` runs the graph and
writes the episode before it is returned, cancelled runs included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.agents.context import Context, equipped, ready
from sleuth.agents.records import Budget, Episode, Policy, Sampling, Step
from sleuth.agents.strategy import DEFAULT, STRATEGIES, Strategy
from sleuth.agents.strategy import strategy as strategy_named
from sleuth.corpora.errors import InputError

if TYPE_CHECKING:
    from sleuth.retrieval.remote import RemoteRetriever
    from sleuth.retrieval.route import Routed
    from sleuth.retrieval.store import Datastore


@dataclass(frozen=True, slots=True)
class Session:
    store: Datastore | RemoteRetriever | Routed
    policy: Policy
    strategy: Strategy = STRATEGIES[DEFAULT]
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0

    @classmethod
    def open(
        cls, store: str | Path, *, policy: str = "embedded", adapter: str | None = "default",
        strategy: str | Strategy = DEFAULT, **changes: Any,
    ) -> Session:  # fmt: skip
        """The parts by name: a store's folder, the address that serves it or a sources file, and what ``--policy``,
        ``--adapter`` and ``--strategy`` take; the rest as fields. Raises `ConfigError` for a name that is unknown, and
        `ModelError` for a policy, or a reranker that the strategy needs, that cannot be loaded."""
        from sleuth.agents.minds import minds
        from sleuth.agents.policy import open_policy
        from sleuth.retrieval.sources import open_any

        chosen = strategy_named(strategy) if isinstance(strategy, str) else strategy
        made = cls(open_any(store, minds=minds()), open_policy(policy, adapter=adapter), chosen, **changes)
        ready(chosen)
        return made

    def context(self) -> Context:
        """What each run is handed."""
        fingerprint = self.store.fingerprint
        plain = Context(self.policy, self.strategy, {}, fingerprint, self.budget, self.sampling, self.seed)
        return equipped(plain, self.store)

    async def ask(
        self,
        question: str,
        *,
        on_step: Callable[[Step], None] | None = None,
        out: str | Path | None = None,
        resume: bool = False,
    ) -> Episode:
        """One episode, appended to ``out`` however it ended; ``resume`` continues the same run from its checkpoint, and
        appends nothing where it adds nothing.

        Checkpoints stand beside ``out`` (suffix ``.checkpoints``); without ``out`` nothing is written.
        """
        from sleuth.agents import episodes
        from sleuth.agents.graph import build_graph, checkpoints
        from sleuth.agents.rollout import check_question, rollout

        check_question(question)
        path = Path(out) if out is not None else None
        if path is not None and path.is_dir():
            raise InputError(f"{path}: expected a file to append the episode to, found a folder")

        def written(episode: Episode) -> None:
            if path is not None and not (resume and episodes.holds(path, episode)):
                episodes.append(path, episode)

        async with contextlib.AsyncExitStack() as stack:
            saver = await stack.enter_async_context(checkpoints(f"{path}.checkpoints")) if path else None
            graph = build_graph(self.strategy, saver)
            return await rollout(
                graph, question, self.context(), on_step=on_step, on_end=written, resume=resume and path is not None
            )

    async def aclose(self) -> None:
        """Close what the policy holds open in this event loop."""
        close = getattr(self.policy, "aclose", None)
        if close is not None:
            await close()

    def urls(self, episode: Episode) -> dict[str, str]:
        """Addresses of the documents that the episode's answer cites, by document id; one that has left the store since
        has none."""
        if episode.answer is None:
            return {}
        cited = {c.passage_id for s in episode.answer.sentences for c in s.citations}
        ids = {p.doc_id for p in episode.passages().values() if p.id in cited}
        found: dict[str, str] = {}
        for doc_id in sorted(ids):
            with contextlib.suppress(KeyError):
                found[doc_id] = self.store.document(doc_id).url
        return {doc_id: url for doc_id, url in found.items() if url}
