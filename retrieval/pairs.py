"""A pair is a question that a sentence of a passage answers, and the answer: a unit of retrieval of its own.

Questions are nearer to questions than passages are; a hit on one leads to the passage it came from (QA-Memory). The
pairs of a store are derived from it: made by a function that is handed in, read from a file, or by a small rule here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document, Passage
from sleuth.corpora.text import sentences
from sleuth.retrieval import derived
from sleuth.retrieval.build import Progress
from sleuth.retrieval.embed import Embedder, checked, embedder
from sleuth.retrieval.fuse import reciprocal_rank
from sleuth.retrieval.lexical import Lexical
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.static import QUERY_CHARS
from sleuth.retrieval.store import Datastore

KIND, FILE, VECTORS = "pairs", "pairs.parquet", "vectors.npy"
DEPTH = 100
"""Pairs of each ranking that fusion sees, or four for each passage wanted where that is more."""
_DEFINED = re.compile(r"[^.;:\n]{0,120}?\s(?P<be>is|was|are|were) (?P<what>(?:an?|the|one of the) [^.;\n]{2,200})")


@dataclass(frozen=True, slots=True)
class Pair:
    question: str
    answer: str
    passage_id: str
    start: int
    """First character of the sentence that answers, in the passage's text."""
    end: int


Asked: TypeAlias = tuple[str, str, int, int]
"""Question, answer, and the span of what answers it in ``document.text``."""
Maker: TypeAlias = "Callable[[Document], Iterable[Asked]]"
"""Pairs of one document; a policy, say, in place of the rule below."""


def defined(document: Document) -> Iterator[Asked]:
    """``What is X?`` with the rest of the first sentence that says it, in a document titled X."""
    title = re.sub(r"\s*\([^()]*\)$", "", document.title).strip()
    for start, end in sentences(document.text)[:1] if title else ():
        found = _DEFINED.match(document.text, start, end)
        if found and set(title.lower().split()) & set(document.text[start : found.start("be")].lower().split()):
            yield f"What {found['be']} {title}?", found["what"].strip(), start, end


def derive(
    store: Datastore, make: Maker = defined, rows: str | Path | None = None, dense: bool = True,
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """The pairs of a store's current version; with ``dense`` their questions are embedded as the store's texts are.

    ``rows`` reads them from a JSONL file in place of ``make``: ``question``, ``answer``, ``passage_id``; the sentence
    with the answer is looked for in the passage. Raises `InputError` naming file and line of a row that cannot be used.
    """

    def fill(folder: Path) -> Mapping[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        made = _read(store, Path(rows)) if rows is not None else _made(store, make, progress)
        found = list(dict.fromkeys(made))
        if not found:
            raise InputError(f"{store.path}: expected at least one question and answer, found none to make")
        columns = {name: [getattr(pair, name) for pair in found] for name in Pair.__slots__}
        pq.write_table(pa.table(columns), folder / FILE)
        if dense:
            model = embedder(store.manifest.embedder, store.device)
            tell = progress or (lambda stage, done, total: None)
            texts = [pair.question for pair in found]
            vectors = model.encode(texts, progress=lambda done: tell("embed", done, len(texts)))
            np.save(folder / VECTORS, checked(vectors, texts, model).astype(np.float16), allow_pickle=False)
        return {"pairs": len(found), "dense": dense}

    return derived.make(store, KIND, fill)


def _made(store: Datastore, make: Maker, progress: Progress | None) -> Iterator[Pair]:
    for number, (document, passages) in enumerate(derived.documents(store), 1):
        for question, answer, start, end in make(document):
            if (place := derived.placed(passages, start, end)) is not None:
                yield Pair(question, answer, place[0].id, place[1], place[2])
        if progress is not None:
            progress(KIND, number, store.manifest.documents)


def _read(store: Datastore, path: Path) -> Iterator[Pair]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, answer, id_ = (str(row[key]).strip() for key in ("question", "answer", "passage_id"))
            (passage,) = store.fetch([id_])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}:{number}: expected question, answer and a passage_id of {store.path}, "
                             f"found {line[:80]}: {error}") from error  # fmt: skip
        if not question:
            raise InputError(f"{path}:{number}: expected a question, found an empty one")
        spans = sentences(passage.text)
        holds = (span for span in spans if answer and answer.lower() in passage.text[slice(*span)].lower())
        start, end = next(holds, (0, len(passage.text)))
        yield Pair(question, answer, id_, start, end)


class Pairs:
    """A `Retriever` over the passages that pairs came from; `Pairs.open` reads what `derive` wrote."""

    def __init__(self, store: Datastore, pairs: Sequence[Pair], vectors: np.ndarray | None) -> None:
        self.store, self._pairs, self._vectors = store, pairs, vectors
        texts = [f"{pair.question} {pair.answer}" for pair in pairs]
        self._lexical = Lexical(texts, store.manifest.language)

    @classmethod
    def open(cls, store: Datastore) -> Pairs:
        """Raises `StoreError` where none were derived from this version of the store."""
        import pyarrow.parquet as pq

        folder, facts = derived.find(store, KIND)
        pairs = [Pair(**row) for row in pq.read_table(folder / FILE).to_pylist()]
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False) if facts["dense"] else None
        return cls(store, pairs, vectors)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def fingerprint(self) -> str:
        """The store's: passages are its own."""
        return self.store.fingerprint

    def shown(self, most: int) -> list[str]:
        """At most so many texts that show what is asked: questions with their answers."""
        chosen = (self._pairs[n] for n in derived.evenly(len(self), most))
        return [f"{pair.question} {pair.answer}" for pair in chosen]

    def pairs(self, query: str, k: int, where: Filter | None = None) -> list[tuple[Pair, float]]:
        """The pairs whose question is nearest, best first: words and, where questions were embedded, vectors, fused."""
        allowed = None
        if where:
            documents = set(self.store.matching(where))
            owners = {p.id: p.doc_id for p in self.store.fetch(list({pair.passage_id for pair in self._pairs}))}
            allowed = np.array([owners[pair.passage_id] in documents for pair in self._pairs], bool)
        text = query[:QUERY_CHARS].encode("utf-8", "replace").decode()
        depth = max(DEPTH, k)
        ranked = self._lexical.search(text, depth, allowed)
        if self._vectors is not None and text.strip():
            model: Embedder = embedder(self.store.manifest.embedder, self.store.device)
            scores = self._vectors.astype(np.float32) @ checked(model.encode_queries([text]), [text], model)[0]
            if allowed is not None:
                scores = np.where(allowed, scores, -np.inf)
            near = [int(at) for at in np.argsort(-scores, kind="stable")[:depth] if np.isfinite(scores[at])]
            ranked = reciprocal_rank([[at for at, _ in ranked], near])
        return [(self._pairs[at], score) for at, score in ranked[:k]]

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """Passages that the nearest pairs came from, each once, with the score of its best pair."""
        if isinstance(queries, str) or k < 1:
            raise InputError(f"expected a list of queries and k of at least 1, found {queries!r}, {k}")
        found = []
        for query in queries:
            best: dict[str, float] = {}
            for pair, score in self.pairs(query, max(DEPTH, 4 * k), where):
                best.setdefault(pair.passage_id, score)
            found.append(derived.hits(self.store, list(best.items())[:k], KIND))
        return found

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.store.fetch(passage_ids)

    def document(self, doc_id: str) -> Document:
        return self.store.document(doc_id)
