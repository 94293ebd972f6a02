"""A strategy is a handful of independent choices; a published system is a named strategy, never a loop of its own.

`build_graph` (graph.py) is the one reader of these choices. Names are looked up in the literal table below.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from sleuth.corpora.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Strategy:
    name: str
    retrieve: bool = True
    """False answers from the policy's own memory and cites nothing."""
    plan: Literal["none", "decompose"] = "none"
    """``decompose``: a planner splits the question into steps that may refer to earlier answers."""
    rewrite: Literal["none", "every", "further"] = "none"
    """A rewriter words queries from the goal and what is known: ``every`` one, or the ``further`` ones, after a first
    search for the goal itself; with ``none`` the goal itself is searched."""
    reflect: Literal["none", "goal", "passage"] = "none"
    """``goal``: a reflector reads each search, notes a quote, and says whether the goal is answered. ``passage``: it
    reads the passages of a search one by one, best first, until one answers the goal."""
    rerank: str = ""
    """What reads the first hits of each search again before the best k are kept: a spec of `retrieval.rerank.reranker`
    (``shipped``, a folder, a hub id); empty for nothing."""
    k: int = 5
    """Passages per search."""
    read: int = 5
    """Passages the answerer reads."""
    turns: int = 1
    """Searches per goal at most."""
    least: int = 1
    """Searches per goal at least: what a reading answers sooner is noted, and the search goes on with its quote.
    Without a reading as many as ``turns``, each with the passage that stood first in the one before."""
    max_goals: int = 4
    """Steps of a plan at most; what the planner writes beyond is cut and said so in the step."""


STRATEGIES: dict[str, Strategy] = {
    # No retrieval: what the policy remembers. The floor of every comparison.
    "closed-book": Strategy("closed-book", retrieve=False),
    # Lewis et al. 2020 (arXiv 2005.11401) reduced to its common form: retrieve once with the question, then read.
    "naive-rag": Strategy("naive-rag"),
    # A reason-search loop in the manner of IRCoT (arXiv 2212.10509) and Search-R1 (arXiv 2503.09516): each reading
    # words the next query. Differs: reading and querying are two roles, and both are decoded under a schema.
    "iterative": Strategy("iterative", rewrite="further", reflect="goal", k=4, turns=3),
    # Retrieval and reading in turn, a fixed number of times (ITER-RETGEN, arXiv 2305.15294): each search asks the
    # question with what the last reading found. Differs: a sentence quoted from a passage stands for generated text.
    "iter-retgen": Strategy("iter-retgen", reflect="goal", turns=2, least=2),
    # A chain of two passages: the second search asks the question with the first one's best passage, and a trained
    # cross-encoder orders both (PathRetriever, arXiv 1911.10470; Beam Retrieval, arXiv 2308.08973, with one beam).
    # Differs: one encoder for both hops, over the hits of a search instead of links or all passages; always two hops.
    "chain": Strategy("chain", rerank="shipped", turns=2, least=2, read=4),
    # One paragraph at a time, as the single-paragraph reader of Min et al. 2019 (arXiv 1906.02900): what a small reader
    # does well. Differs: it stops at the first paragraph that answers, and hands on the sentence of a hop before it.
    "close-reading": Strategy("close-reading", rewrite="further", reflect="passage", k=5, read=2, turns=2),
    # Decomposed Prompting (arXiv 2210.02406) in small: sub-questions with references, each searched and read in turn.
    "decompose": Strategy("decompose", plan="decompose", rewrite="further", reflect="goal", k=4, turns=2),
}
DEFAULT = "decompose"


def strategy(name: str, /, **changes: Any) -> Strategy:
    """The named strategy with some choices changed; an unknown name, key or value raises `ConfigError`."""
    if name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}; known: {', '.join(STRATEGIES)}")
    types = get_type_hints(Strategy)
    for key, value in changes.items():
        if key not in types or key == "name":
            known = [k for k in types if k != "name"]
            raise ConfigError(f"unknown strategy key {key!r}{nearest(key, known)}; known: {', '.join(known)}")
        _check(key, value, types[key])
    made = dataclasses.replace(STRATEGIES[name], **changes)
    if made.least > made.turns:
        raise ConfigError(f"strategy key 'least' must be at most 'turns'; found {made.least} and {made.turns}")
    if made.least > 1 and made.reflect == "passage":
        raise ConfigError("strategy key 'least' above 1 needs 'reflect' = 'goal' or 'none'; found 'passage'")
    if made.turns > 1 and made.reflect == "none":
        if made.least != made.turns:
            raise ConfigError(
                "strategy key 'least' must equal 'turns' with 'reflect' = 'none', where no reading ends a goal sooner; "
                f"found {made.least} and {made.turns}"
            )
        if made.plan != "none":
            raise ConfigError(
                f"strategy key 'plan' = {made.plan!r} with 'turns' above 1 needs a 'reflect' that answers its goals; "
                "found 'none'"
            )
    return made


def _check(key: str, value: Any, kind: Any) -> None:
    choices = get_args(kind)
    if choices and value not in choices:
        raise ConfigError(f"strategy key {key!r} must be one of {', '.join(choices)}; found {value!r}")
    if not choices and type(value) is not kind:
        raise ConfigError(f"strategy key {key!r} must be {kind.__name__}; found {value!r}")
    if kind is int and value < 1:
        raise ConfigError(f"strategy key {key!r} must be at least 1; found {value}")
