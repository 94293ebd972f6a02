"""A triple is a statement of a passage: subject, relation, object, and the span that says so, so that it can be cited.

The triples of a store are a graph derived from it (`derived`): entities are titles of documents, linked by their names.
A chain is triples of which each shares an entity with the one before; chains are made by walking the graph, so every
chain is well formed and each of its steps can be read in a passage (Li et al. 2024, "Decoding on graphs", arXiv
2410.18415, where a model walks; here the words of the question do, or any `Weigh` that is handed in).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sleuth.corpora.errors import InputError, nearest
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval import derived
from sleuth.retrieval.build import Progress
from sleuth.retrieval.names import Names, names_of
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.stated import MENTIONS, Extractor, stated
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.tokens import Analyzer

KIND, FILE, NAMES_FILE = "triples", "triples.parquet", "names.parquet"
MAX_HOPS = 4
"""Of a path: beyond, everything is near everything."""
MAX_DEGREE = 300
"""Triples of one entity that a walk looks at: of a hub the first of each relation go before repeats."""
BEAM = 16
"""Chains that a walk goes on from."""
STEP_COST = 0.05
"""Of each step after the first: a longer chain has to bring more."""


@dataclass(frozen=True, slots=True)
class Triple:
    subject: str
    """An entity: the title of a document."""
    relation: str
    """In the sentence's words, lower case, or a name that the extractor gave."""
    object: str
    """An entity, or what the sentence says."""
    passage_id: str
    start: int
    """First character of the sentence in the passage's text."""
    end: int


Chain: TypeAlias = tuple[Triple, ...]
Weigh: TypeAlias = "Callable[[str, Sequence[Triple]], Sequence[float]]"
"""``weigh(question, triples)``: how much each brings the question forward, 0 to 1."""


def derive(store: Datastore, extract: Extractor = stated, progress: Progress | None = None) -> Path:
    """The triples of a store's current version, in its folder; two readings of it, one for names and one for facts.

    ``extract`` gives statements by document spans; one that no passage holds whole is left out and counted.
    """

    def fill(folder: Path) -> Mapping[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        aliases = _aliases(store)
        names = Names(aliases)
        columns: dict[str, list[Any]] = {name: [] for name in _schema().names}
        seen: set[bytes] = set()
        cut = 0
        for number, (document, passages) in enumerate(derived.documents(store), 1):
            for subject, relation, value, start, end in extract(document, names):
                place = derived.placed(passages, start, end)
                if place is None:
                    cut += 1
                    continue
                triple = Triple(subject, relation, value, place[0].id, place[1], place[2])
                key = hashlib.blake2b(repr((subject, relation, value, document.id)).encode(), digest_size=12).digest()
                if key not in seen:
                    seen.add(key)
                    for name in columns:
                        columns[name].append(getattr(triple, name))
            if progress is not None:
                progress(KIND, number, store.manifest.documents)
        pq.write_table(pa.table(columns, _schema()), folder / FILE)
        pairs = [(entity, name) for entity, known in aliases.items() for name in known]
        pq.write_table(pa.table({"entity": [e for e, _ in pairs], "name": [n for _, n in pairs]}), folder / NAMES_FILE)
        return {"triples": len(columns["subject"]), "entities": len(aliases), "cut": cut}

    return derived.make(store, KIND, fill)


def _aliases(store: Datastore) -> dict[str, list[str]]:
    """Names of each title; a metadata field ``aliases`` brings more, with a vertical bar between them."""
    found: dict[str, list[str]] = {}
    for document, _ in derived.documents(store):
        if title := document.title.strip():
            more = str(document.metadata.get("aliases") or "").split("|")
            found.setdefault(title, []).extend(names_of(title, [name.strip() for name in more]))
    return {title: list(dict.fromkeys(names)) for title, names in found.items()}


def _schema() -> Any:
    import pyarrow as pa

    texts = [(name, pa.large_string()) for name in ("subject", "relation", "object", "passage_id")]
    return pa.schema([*texts, ("start", pa.int64()), ("end", pa.int64())])


class Triples:
    """A `Retriever` over the passages that triples stand in; `Triples.open` reads what `derive` wrote."""

    def __init__(
        self, store: Datastore, columns: Mapping[str, Any], aliases: Mapping[str, Sequence[str]],
        weigh: Weigh | None = None, hops: int = 2,
    ) -> None:  # fmt: skip
        if not 1 <= hops <= MAX_HOPS:
            raise InputError(f"hops: expected 1 to {MAX_HOPS}, found {hops}")
        self.store, self.names, self.hops = store, Names(aliases), hops
        self.weigh = weigh or self._overlap
        self._columns = columns
        self._nodes: dict[str, int] = {}
        ends = [[self._nodes.setdefault(name, len(self._nodes)) for name in columns[end].to_pylist()]
                for end in ("subject", "object")]  # fmt: skip
        self._ends = np.array(ends, "i8").reshape(2, -1)  # (2, T): node of subject and of object
        flat = self._ends.ravel()
        self._order = np.argsort(flat, kind="stable")
        self._starts = np.searchsorted(flat[self._order], np.arange(len(self._nodes) + 1))
        self._open = {self._nodes[name] for name in self.names.entities if name in self._nodes}
        """Nodes that are entities: a walk goes on from these alone, or all films would meet in the word."""
        self._analyzer = Analyzer(store.manifest.language)
        self._stops = self._analyzer.stops()

    @classmethod
    def open(cls, store: Datastore, weigh: Weigh | None = None, hops: int = 2) -> Triples:
        """Raises `StoreError` where none were derived from this version of the store."""
        import pyarrow.parquet as pq

        folder, _ = derived.find(store, KIND)
        table = pq.read_table(folder / FILE)
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        aliases: dict[str, list[str]] = {}
        for row in pq.read_table(folder / NAMES_FILE).to_pylist():
            aliases.setdefault(row["entity"], []).append(row["name"])
        return cls(store, columns, aliases, weigh, hops)

    @property
    def fingerprint(self) -> str:
        """The store's: passages are its own."""
        return self.store.fingerprint

    def __len__(self) -> int:
        return self._ends.shape[1]

    def entities(self, text: str) -> list[str]:
        """Entities that a text names, in order, each once; homonyms stand together."""
        return list(dict.fromkeys(entity for mention in self.names.find(text) for entity in mention.entities))

    def shown(self, most: int) -> list[str]:
        """At most so many texts that show what is in the graph: statements."""
        chosen = (self._triple(n) for n in derived.evenly(len(self), most))
        return [f"{triple.subject} {triple.relation} {triple.object}" for triple in chosen]

    def about(self, entity: str) -> list[Triple]:
        """Triples that an entity is subject or object of; raises `InputError` for one that is not known."""
        return [self._triple(row) for row in self._rows(self._node(entity))]

    def following(self, chain: Chain) -> list[Triple]:
        """Triples that may come next: those that share the chain's open end and do not lead back."""
        if not chain:
            raise InputError("a chain has at least one triple")
        if not is_chain(chain):
            raise InputError(f"not a chain: {' | '.join(f'{t.subject} {t.relation} {t.object}' for t in chain)}")
        open_ends, visited = _open_ends(chain), {end for triple in chain for end in (triple.subject, triple.object)}
        return [triple for end in open_ends if self._is_open(end) for triple in self.about(end)
                if triple not in chain and _other(triple, end) not in visited]  # fmt: skip

    def paths(self, start: str, end: str, hops: int = 3, limit: int = 10) -> list[Chain]:
        """Chains from one entity to another of at most ``hops`` triples, the shortest first.

        Empty where they are further apart. Raises `InputError` for an entity that is not known.
        """
        if not 1 <= hops <= MAX_HOPS:
            raise InputError(f"hops: expected 1 to {MAX_HOPS}, found {hops}")
        first, last = self._node(start), self._node(end)
        found: list[Chain] = []
        if first == last:
            return found
        near = self._distances(last, hops)
        level: list[tuple[int, tuple[int, ...], frozenset[int]]] = [(first, (), frozenset([first]))]
        for used in range(1, hops + 1):
            grown = []
            for node, rows, visited in level:
                for row in self._rows(node):
                    other = self._across(row, node)
                    if other == last:
                        found.append(tuple(map(self._triple, (*rows, row))))
                        if len(found) >= limit:
                            return found
                    elif other in self._open and other not in visited and near.get(other, MAX_HOPS + 1) <= hops - used:
                        grown.append((other, (*rows, row), visited | {other}))
            level = grown[: BEAM * limit]
        return found

    def chains(self, question: str, k: int = 10, allowed: frozenset[str] | None = None) -> list[tuple[Chain, float]]:
        """The chains that answer a question best, with weights: walks of at most ``hops`` from the entities it names.

        Weights of steps are joined as chances that one of them helps (noisy or), so a step that brings nothing lowers
        the chain, and one that joins two of the question's entities lifts it. ``allowed`` are documents; None is all.
        """
        linked = [entity for entity in self.entities(question) if entity in self._nodes]
        best: dict[Chain, float] = {}
        beam: list[tuple[Chain, str]] = [((), entity) for entity in linked]
        for _ in range(self.hops):
            grown: list[tuple[Chain, str]] = []
            for chain, end in beam:
                taken = {end} | {e for t in chain for e in (t.subject, t.object)}
                after = [t for t in self.about(end) if self._is_allowed(t, allowed) and _other(t, end) not in taken]
                for triple, weight in zip(after, self.weigh(question, after), strict=True):
                    longer = (*chain, triple)
                    joins = _other(triple, end) in linked
                    both = 1 - (1 - best.get(chain, 0.0)) * (1 - weight) * (0.5 if joins else 1)
                    best[longer] = both - (STEP_COST if chain else 0.0)
                    if self._is_open(_other(triple, end)):
                        grown.append((longer, _other(triple, end)))
            beam = sorted(grown, key=lambda pair: -best[pair[0]])[:BEAM]
        return sorted(best.items(), key=lambda pair: (-pair[1], len(pair[0])))[:k]

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """Passages that carry the best chains, in the order of the chains; nothing where a query names no entity."""
        if isinstance(queries, str) or k < 1:
            raise InputError(f"expected a list of queries and k of at least 1, found {queries!r}, {k}")
        allowed = frozenset(self.store.matching(where)) if where else None
        found = []
        for query in queries:
            scores: dict[str, float] = {}
            for chain, weight in self.chains(query, 4 * k, allowed):
                for place, triple in enumerate(chain):
                    scores[triple.passage_id] = max(scores.get(triple.passage_id, 0.0), weight - 1e-3 * place)
            best = sorted(scores.items(), key=lambda pair: -pair[1])[:k]
            found.append(derived.hits(self.store, best, KIND))
        return found

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.store.fetch(passage_ids)

    def document(self, doc_id: str) -> Document:
        return self.store.document(doc_id)

    def _is_open(self, entity: str) -> bool:
        return self._nodes.get(entity, -1) in self._open

    def _is_allowed(self, triple: Triple, allowed: frozenset[str] | None) -> bool:
        return allowed is None or self.store.fetch([triple.passage_id])[0].doc_id in allowed

    def _overlap(self, question: str, triples: Sequence[Triple]) -> list[float]:
        """Share of the question's words, its entities' own left out, that the sentence of a triple holds."""
        words = self._terms(question) - {term for e in self.entities(question) for term in self._terms(e)}
        if not words:
            return [0.5 if triple.relation != MENTIONS else 0.25 for triple in triples]
        found = []
        for triple, passage in zip(triples, self.store.fetch([t.passage_id for t in triples]), strict=True):
            own = self._terms(f"{triple.relation} {triple.object}")
            near = self._terms(passage.text[triple.start : triple.end])
            share = (len(words & own) + 0.5 * len(words & (near - own))) / len(words)
            found.append(min(1.0, share) if triple.relation != MENTIONS else 0.8 * share)
        return found

    def _terms(self, text: str) -> set[str]:
        return set(self._analyzer.terms(text)) - self._stops

    def _node(self, entity: str) -> int:
        if entity not in self._nodes:
            raise InputError(f"no entity {entity!r} in the triples{nearest(entity, self.names.entities)}")
        return self._nodes[entity]

    def _rows(self, node: int) -> list[int]:
        """Triples of a node, in order of the corpus; of a hub, one a relation before seconds."""
        rows = (self._order[self._starts[node] : self._starts[node + 1]] % max(1, len(self))).tolist()
        rows = list(dict.fromkeys(rows))
        if len(rows) <= MAX_DEGREE:
            return rows
        first: dict[str, int] = {}
        for row in rows:
            first.setdefault(self._columns["relation"][row].as_py(), row)
        return list(dict.fromkeys([*first.values(), *rows]))[:MAX_DEGREE]

    def _across(self, row: int, node: int) -> int:
        subject, object_ = self._ends[:, row].tolist()
        return object_ if subject == node else subject

    def _distances(self, node: int, most: int) -> dict[int, int]:
        """Steps to each node that is near."""
        found, level = {node: 0}, [node]
        for steps in range(1, most):
            level = [other for at in level for row in self._rows(at) if (other := self._across(row, at)) not in found]
            found |= dict.fromkeys(level, steps)
            level = list(dict.fromkeys(level))
        return found

    def _triple(self, row: int) -> Triple:
        return Triple(**{name: column[row].as_py() for name, column in self._columns.items()})


def is_chain(triples: Sequence[Triple]) -> bool:
    """Whether each triple shares an end with the one before, and that end is not the one it came by."""
    return not triples or any(True for _ in _walks(triples))


def _walks(triples: Sequence[Triple]) -> Iterator[str]:
    """Ends that reading the triples in order may lead to."""
    for start in dict.fromkeys((triples[0].subject, triples[0].object)):
        at = start
        for triple in triples:
            if at not in (triple.subject, triple.object):
                break
            at = _other(triple, at)
        else:
            yield at


def _open_ends(chain: Chain) -> list[str]:
    return list(dict.fromkeys(_walks(chain)))


def _other(triple: Triple, end: str) -> str:
    return triple.object if triple.subject == end else triple.subject
