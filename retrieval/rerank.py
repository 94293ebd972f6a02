"""A reranker reads the first hits again, more closely, and puts them in a new order; it wraps any retriever.

What scores is a value: a cross-encoder of sentence-transformers, or any function of a query and its passages (a policy
with a rubric, say). Time and tokens are bounded: what the budget does not reach keeps its place behind what it does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.sharded import Hits

Scorer: TypeAlias = "Callable[[str, Sequence[Passage]], Sequence[float]]"
"""``scorer(query, passages)`` gives a number a passage, higher is better; called with a batch at a time."""
CHARS_PER_TOKEN = 4
"""For budgets; a scorer that knows better cuts for itself."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """A retriever whose first ``depth`` hits are scored again, best first."""

    retriever: Retriever
    scorer: Scorer
    depth: int = 50
    """Hits that are asked for and scored."""
    seconds: float | None = None
    """Of one query; looked at between batches, and None sets no bound."""
    tokens: int | None = None
    """Of one query: the texts of query and passage, about `CHARS_PER_TOKEN` characters each; None sets no bound."""
    batch: int = 16
    name: str = "reranked"

    def __post_init__(self) -> None:
        for field_name, least in (("depth", 1), ("batch", 1), ("tokens", 1), ("seconds", 0)):
            value = getattr(self, field_name)
            if value is not None and not value >= least:
                raise ConfigError(f"rerank: expected {field_name} of at least {least}, found {value!r}")

    @property
    def fingerprint(self) -> str:
        """Of what is searched: ranking anew changes no passage."""
        return self.retriever.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """As of any retriever; scores are the scorer's for what it reached, and fall below them for what it did not.

        Where the retriever below did not look, stands in the result's ``missing``.
        """
        found = self.retriever.search(queries, max(k, self.depth), where)
        ranked = [self._ranked(query, hits)[:k] for query, hits in zip(queries, found, strict=True)]
        return Hits(ranked, getattr(found, "missing", ()))

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.retriever.fetch(passage_ids)

    def _ranked(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        scores = self._scores(query, [hit.passage for hit in hits[: self.depth]])
        order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
        floor = min(scores, default=0.0)
        ranked = [replace(hits[n], score=scores[n]) for n in order]
        ranked += [replace(hit, score=floor - n) for n, hit in enumerate(hits[len(scores) :], start=1)]
        return [replace(hit, rank=rank, retriever=self.name) for rank, hit in enumerate(ranked, start=1)]

    def _scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """Of as many as the budget reaches, in order."""
        started, left = time.monotonic(), math.inf if self.tokens is None else self.tokens
        scores: list[float] = []
        while len(scores) < len(passages):
            part: list[Passage] = []
            for passage in passages[len(scores) : len(scores) + self.batch]:
                left -= math.ceil((len(query) + len(passage.title) + len(passage.text)) / CHARS_PER_TOKEN)
                if left < 0:
                    break
                part.append(passage)
            if not part or (self.seconds is not None and time.monotonic() - started >= self.seconds):
                break
            scores += self._checked(part, self.scorer(query, part))
            if left < 0:
                break
        return scores

    def _checked(self, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        numbers = [float(score) for score in scores]
        if len(numbers) != len(passages):
            raise ModelError(f"reranker {self.name!r}: expected {len(passages)} scores, found {len(numbers)}")
        for passage, number in zip(passages, numbers, strict=True):
            if not math.isfinite(number):
                raise ModelError(f"reranker {self.name!r}: expected a finite score for {passage.id!r}, found {number}")
        return numbers


@dataclass(slots=True)
class CrossEncoder:
    """A cross-encoder of sentence-transformers, by folder or id, as a `Scorer`; loaded at the first query."""

    spec: str
    device: str = "cpu"
    _loaded: Any = field(default=None, repr=False)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        pairs = [(query, f"{p.title}\n{p.text}" if p.title else p.text) for p in passages]
        found = self._model().predict(pairs, batch_size=len(pairs), show_progress_bar=False)
        if found.ndim != 1:
            raise ModelError(
                f"cross-encoder {self.spec!r}: expected one score a pair, found an output of shape {found.shape}"
            )
        return found.tolist()

    def _model(self) -> Any:
        if self._loaded is None:
            from sentence_transformers import CrossEncoder as Model

            try:
                self._loaded = Model(
                    self.spec, device=self.device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
                )
            except (OSError, ValueError) as error:
                raise ModelError(f"cross-encoder {self.spec!r} cannot be loaded: {error}") from error
        return self._loaded
