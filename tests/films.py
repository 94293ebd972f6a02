"""Two passages, a question over both, and the replies of a policy that answers it: the smallest whole run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sleuth.agents.context import Context, equipped
from sleuth.agents.records import Message
from sleuth.agents.roles import answerer, planner, reflector, rewriter
from sleuth.agents.strategy import STRATEGIES
from sleuth.corpora.records import Passage
from sleuth.retrieval.records import Filter, Hit
from tests.scripted import ScriptedPolicy

QUESTION = "Where was the director of Jaws born?"
FILM = "Jaws is a 1975 film directed by Steven Spielberg."
BIRTH = "Spielberg was born in Cincinnati, Ohio."
PASSAGES = [
    Passage("jaws", "jaws", 0, len(FILM) + 26, "Jaws (film)", f"{FILM} It was a great commercial success."),
    Passage("spielberg", "spielberg", 0, len(BIRTH) + 19, "Steven Spielberg", f"{BIRTH} He makes films."),
    Passage("shark", "shark", 0, 25, "Shark", "A shark is a kind of fish."),
]


class FilmStore:
    """A retriever over `PASSAGES` that ranks by shared words and counts its calls."""

    fingerprint = "films-1"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        self.batches.append(list(queries))
        return [self._rank(query)[:k] for query in queries]

    def _rank(self, query: str) -> list[Hit]:
        words = set(query.lower().split())
        scored = [(len(words & set(f"{p.title} {p.text}".lower().split())), p) for p in PASSAGES]
        ranked = sorted(scored, key=lambda pair: (-pair[0], pair[1].id))
        return [Hit(p, float(score), rank, "films") for rank, (score, p) in enumerate(ranked, 1)]

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        known = {p.id: p for p in PASSAGES}
        missing = [i for i in passage_ids if i not in known]
        if missing:
            raise KeyError(missing)
        return [known[i] for i in passage_ids]


def reply(messages: Sequence[Message]) -> Any:
    """What a perfect policy says in each role."""
    prompt, asked = messages[0].content, messages[1].content
    if prompt == planner.PROMPT:
        return {"steps": ["Who directed Jaws?", "Where was #1 born?"]}
    if prompt == rewriter.PROMPT:
        return {"query": asked.splitlines()[0].removeprefix("Question: ")}
    if prompt == reflector.PROMPT:
        if "Spielberg born" in asked.splitlines()[0]:
            return {"quote": BIRTH, "answer": "Cincinnati, Ohio"}
        return {"quote": FILM, "answer": "Steven Spielberg"}
    if prompt == answerer.CLOSED_PROMPT:
        return {"answer": "Cincinnati, Ohio"}
    return {"quotes": [FILM, BIRTH], "answer": "Cincinnati, Ohio"}


def context(name: str = "decompose", policy: Any = None, store: Any = None, **changes: Any) -> Context:
    """A context over the film store; ``changes`` are fields of `Context`."""
    store = store or FilmStore()
    fields = {"policy": policy or ScriptedPolicy(reply), "strategy": STRATEGIES[name]}
    made = Context(**{**fields, "fingerprint": store.fingerprint, **changes})
    return made if "tools" in changes else equipped(made, store)


class ChainReader:
    """A reranker that knows the chain: the film for the question, the birth for what the film leads to."""

    name = "shipped@chain"

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def load(self) -> None:
        pass

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        self.asked.append((query, [p.id for p in passages]))
        wanted = ["jaws", "spielberg", "shark"] if FILM in query else ["jaws", "shark", "spielberg"]
        return [-float(wanted.index(p.id)) if p.id in wanted else -9.0 for p in passages]


class LengthReader(ChainReader):
    """A reranker that knows nothing and is always of one mind."""

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        return [-float(len(f"{query}{p.text}") % 7) for p in passages]


def use_reranker(monkeypatch: pytest.MonkeyPatch, reader: ChainReader | None = None) -> ChainReader:
    """Whatever is named, this one reads hits again."""
    chosen = reader or ChainReader()
    monkeypatch.setattr("sleuth.retrieval.rerank.reranker", lambda spec="shipped", device=None: chosen)
    return chosen
