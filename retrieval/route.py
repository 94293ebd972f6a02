"""A router chooses, per query, which of several knowledge bases to ask: which source first, then what in it.

What chooses is a value: any function from queries to rankings of names. `Probe` goes by evidence, how well samples of
each source match a query in one small index (Si and Callan 2003, ReDDE's central sample index); `Learned` is a logistic
regression over that and a few features of the query, fitted to labelled ones. Hits and ids say the source they are of.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sleuth.corpora.errors import ConfigError, InputError, SleuthError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.fuse import reciprocal_rank
from sleuth.retrieval.lexical import Lexical
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.sharded import Hits

Choose: TypeAlias = "Callable[[Sequence[str]], Sequence[Sequence[str]]]"
"""``choose(queries)`` gives names of sources, best first, for each; those it leaves out are not asked."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
PROBED = 3
"""Best samples of a source whose mean is its evidence: one may be chance."""
_ASKED = ("who", "when", "where", "what", "which", "why", "how", "how many", "how much", "is", "list")
_COUNTING = re.compile(r"\b(?:average|mean|total|sum|most|least|highest|lowest|count|number of|how many|per)\b")


class Routed:
    """A `Retriever` over named ones. Ids are ``name:id``, so that equal ids of two sources stay two."""

    def __init__(self, sources: Mapping[str, Retriever], choose: Choose, breadth: int = 1) -> None:
        """``breadth`` sources of a query's ranking are asked and fused by reciprocal rank; the next ones follow only
        where those find nothing."""
        if not sources or breadth < 1:
            raise ConfigError(
                f"expected at least one source and breadth of at least 1, found {len(sources)}, {breadth}"
            )
        for name in sources:
            if not NAME.fullmatch(name):
                raise ConfigError(f"source {name!r}: expected a name of lower-case letters, digits, - and _")
        self.sources, self.choose, self.breadth = dict(sources), choose, breadth

    @property
    def fingerprint(self) -> str:
        """Of all sources, by name."""
        listing = [f"{name} {source.fingerprint}\n" for name, source in sorted(self.sources.items())]
        return hashlib.sha256("".join(listing).encode()).hexdigest()

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """As of any retriever, each query asked of its own sources.

        A source that fails, or that a filter's field is unknown to, is left out and stands in the result's ``missing``;
        its error is raised where every source that was chosen fails.
        """
        if isinstance(queries, str):
            raise InputError("queries: expected a list of strings, found one string")
        rankings = [list(dict.fromkeys(names)) for names in self.choose(queries)]
        if len(rankings) != len(queries):
            raise ConfigError(f"router: expected a ranking for each of {len(queries)} queries, found {len(rankings)}")
        for name in {name for names in rankings for name in names}.difference(self.sources):
            raise ConfigError(f"router chose {name!r}; known sources: {', '.join(self.sources)}")
        failed: dict[str, SleuthError] = {}
        missing: list[tuple[str, str]] = []
        found: list[list[Hit]] = [[] for _ in queries]
        left = {at: list(names) for at, names in enumerate(rankings)}
        while left:
            asked = {at: [left[at].pop(0) for _ in range(min(self.breadth, len(left[at])))] for at in left}
            answers = self._asked(queries, asked, k, where, failed, missing)
            for at, names in asked.items():
                found[at] = _fused([answers[name, at] for name in names if (name, at) in answers])[:k]
            left = {at: names for at, names in left.items() if names and not found[at]}
        chosen = {name for names in rankings for name in names}
        if failed and chosen == set(failed):
            raise next(iter(failed.values()))
        return Hits(found, (*missing, *((name, str(error)) for name, error in failed.items())))

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in order; raises ``KeyError`` naming the ids that are not there."""
        groups: dict[str, list[str]] = {}
        for id_ in passage_ids:
            name, inner = self._split(id_)
            groups.setdefault(name, []).append(inner)
        found = {f"{name}:{passage.id}": _named(name, passage)
                 for name, ids in groups.items() for passage in self.sources[name].fetch(ids)}  # fmt: skip
        return [found[id_] for id_ in passage_ids]

    def document(self, doc_id: str) -> Document:
        """A whole document by id; raises ``KeyError``."""
        name, inner = self._split(doc_id)
        found: Document = self.sources[name].document(inner)  # type: ignore[attr-defined]  # of all that sources open
        return replace(found, id=doc_id)

    def _split(self, id_: str) -> tuple[str, str]:
        name, sign, inner = id_.partition(":")
        if not sign or name not in self.sources:
            raise KeyError(f"expected SOURCE:ID with one of {', '.join(self.sources)}, found {id_!r}")
        return name, inner

    def _asked(
        self, queries: Sequence[str], asked: Mapping[int, Sequence[str]], k: int, where: Filter | None,
        failed: dict[str, SleuthError], missing: list[tuple[str, str]],
    ) -> dict[tuple[str, int], list[Hit]]:  # fmt: skip
        """Hits by source and query: one search a source."""
        answers: dict[tuple[str, int], list[Hit]] = {}
        for name in self.sources:
            places = [at for at, names in asked.items() if name in names]
            if not places or name in failed:
                continue
            try:
                hits = self.sources[name].search([queries[at] for at in places], k, where)
            except SleuthError as error:
                failed[name] = error
                continue
            missing += [(f"{name}: {what}", why) for what, why in getattr(hits, "missing", ())]
            for at, own in zip(places, hits, strict=True):
                answers[name, at] = [
                    replace(hit, passage=_named(name, hit.passage), retriever=f"{name}: {hit.retriever}") for hit in own
                ]
        return answers


def _named(name: str, passage: Passage) -> Passage:
    return replace(passage, id=f"{name}:{passage.id}", doc_id=f"{name}:{passage.doc_id}")


def _fused(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """One ranking as it is; several by reciprocal rank."""
    if len(rankings) <= 1:
        return [hit for hits in rankings for hit in hits]
    by_id = {hit.passage.id: hit for hits in reversed(rankings) for hit in hits}
    ranked = reciprocal_rank([[hit.passage.id for hit in hits] for hits in rankings])
    return [replace(by_id[id_], score=score, rank=rank) for rank, (id_, score) in enumerate(ranked, 1)]


def everywhere(names: Sequence[str]) -> Choose:
    """All sources for every query, in this order; with a breadth of all of them, they are fused."""
    return lambda queries: [list(names) for _ in queries]


class Probe:
    """Chooses by how well samples of each source match, all in one index so that scores compare."""

    def __init__(self, samples: Mapping[str, Sequence[str]], language: str = "english") -> None:
        """``samples``: some texts of each source, its description among them; about as many of each is fair."""
        self.names = tuple(samples)
        self._owners = np.array([n for n, texts in enumerate(samples.values()) for _ in texts], "i8")
        self._lexical = Lexical([text for texts in samples.values() for text in texts], language)

    def scores(self, query: str) -> np.ndarray:
        """(sources,) evidence of each, 1 for the best; all 0 where nothing matches."""
        best: list[list[float]] = [[] for _ in self.names]
        for at, score in self._lexical.search(query, 50 * len(self.names)):
            own = best[self._owners[at]]
            if len(own) < PROBED:
                own.append(score)
        found = np.array([sum(own) / PROBED for own in best])
        return found / found.max() if found.any() else found

    def __call__(self, queries: Sequence[str]) -> list[list[str]]:
        return [[self.names[n] for n in np.argsort(-self.scores(query), kind="stable")] for query in queries]


def features(query: str, probe: Probe) -> np.ndarray:
    """(F,) what `Learned` sees of a query: the probe's evidence, how it begins, figures, names, counting words."""
    text = f"{query.lower().strip()} "
    words = query.split()
    begins = [float(text.startswith(f"{word} ")) for word in _ASKED]
    capitals = sum(word[:1].isupper() for word in words[1:]) / max(1, len(words))
    return np.array([
        *probe.scores(query), *begins, float(bool(re.search(r"\d", text))),
        float(bool(re.search(r"\b(?:1\d|20)\d{2}\b", text))), float(bool(_COUNTING.search(text))), capitals,
        min(len(words), 40) / 40, float("?" in text),
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Learned:
    """Chooses by a logistic regression over `features`; fitted by `fit`, kept as JSON."""

    probe: Probe
    weights: np.ndarray
    """(sources, F), in the order of the probe's names."""
    bias: np.ndarray
    """(sources,)."""

    def __call__(self, queries: Sequence[str]) -> list[list[str]]:
        logits = (self.weights @ features(query, self.probe) + self.bias for query in queries)
        return [[self.probe.names[n] for n in np.argsort(-row, kind="stable")] for row in logits]

    def save(self, path: Path) -> None:
        record = {"names": self.probe.names, "weights": self.weights.tolist(), "bias": self.bias.tolist()}
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, probe: Probe) -> Learned:
        """Raises `ConfigError` for a file that is none, or was fitted to other sources."""
        try:
            record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            names = tuple(record["names"])
            weights, bias = np.array(record["weights"], "f8"), np.array(record["bias"], "f8")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: expected a router made by `sleuth tune-router`: {error}") from error
        shape = (len(probe.names), len(features("", probe)))
        if set(names) != set(probe.names) or weights.shape != shape or bias.shape != shape[:1]:
            raise ConfigError(f"{path}: fitted to the sources {', '.join(names)}, found {', '.join(probe.names)}")
        if names != probe.names:  # the same sources in another order: columns of the probe move as rows do
            order = [names.index(name) for name in probe.names]
            weights = np.concatenate([weights[:, order], weights[:, len(names) :]], 1)[order]
            bias = bias[order]
        return cls(probe, weights, bias)


def fit(rows: Sequence[tuple[str, str]], probe: Probe, seed: int = 0) -> Learned:
    """The router learned from (query, name of its source); raises `InputError` where nothing can be learned."""
    from sklearn.linear_model import LogisticRegression

    unknown = sorted({name for _, name in rows}.difference(probe.names))
    if unknown:
        raise InputError(f"labelled queries: unknown source {unknown[0]!r}; known: {', '.join(probe.names)}")
    labels = np.array([probe.names.index(name) for _, name in rows])
    if len(set(labels.tolist())) < 2:
        raise InputError(f"labelled queries: expected at least two sources, found {len(set(labels.tolist()))}")
    data = np.array([features(query, probe) for query, _ in rows])
    model = LogisticRegression(max_iter=2000, C=3.0, random_state=seed).fit(data, labels)
    weights = np.zeros((len(probe.names), data.shape[1]))
    bias = np.full(len(probe.names), -1e3)  # a source that no query was labelled with comes last
    if len(model.classes_) == 2:
        weights[model.classes_[1]], bias[model.classes_] = model.coef_[0], (0.0, float(model.intercept_[0]))
    else:
        weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return Learned(probe, weights, bias)


def accuracy(choose: Choose, rows: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether each query's first choice is its source."""
    ranked = choose([query for query, _ in rows])
    return [bool(names) and names[0] == name for names, (_, name) in zip(ranked, rows, strict=True)]
