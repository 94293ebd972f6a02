"""A question set is the training side of one benchmark: its questions, its passages and a BM25 index over them.

Reporting rows, and rows that ask what one of any set asks, are gone once a set is loaded, so nothing that is built from
a set can have seen one. The formats are those of the benchmark files: ``qa/NAME[.dev].jsonl`` and
``corpora/NAME.corpus.jsonl.gz``.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document, Passage
from sleuth.corpora.text import sentences
from sleuth.eval.answers import normalise
from sleuth.eval.split import reporting_only
from sleuth.retrieval.records import Filter, Hit, Retriever

SHARED_CORPUS = {"nq_train": "nq", "nq_dev": "nq"}
"""Sets whose passages stand under another name."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class QuestionSet:
    """Questions that may be trained on, and the passages they are asked over."""

    name: str
    rows: Sequence[Row]
    passages: Mapping[str, Passage]
    starts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Where the source's own sentences begin, by passage id; only for sets that mark gold sentences."""
    ranked: bool | Literal["chain"] = False
    """Whether examples show gold passages where a search ranks them, or strategy `chain` would show them; otherwise
    anywhere among the others."""
    retriever: Retriever | None = None
    """What finds passages where ``passages`` are not all there are; None for BM25 over those."""

    def gold(self, row: Row) -> list[Passage]:
        """The gold passages, each once, in the order of the row."""
        return [self.passages[i] for i in dict.fromkeys(row["supporting"])]

    def fact(self, row: Row, passage: Passage, hints: Sequence[str]) -> str:
        """The gold sentence of a gold passage; where several are marked, the one that names most of ``hints``."""
        spans = sentences(passage.text)
        marked = [
            passage.text[start:end]
            for pid, number in row.get("supporting_facts", ())
            if pid == passage.id and number < len(self.starts.get(pid, ()))
            for start, end in spans
            if start <= self.starts[pid][number] < end or start == self.starts[pid][number]
        ]
        return max(marked, key=lambda s: sum(bool(find_span(h, s)) for h in hints), default="")

    def search(self, query: str, k: int) -> list[Passage]:
        """BM25, best first."""
        if self.retriever is not None:
            return [hit.passage for hit in self.retriever.search([query], k)[0]]
        retriever, ids, stemmer = self._index
        import bm25s

        tokens = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        found, _ = retriever.retrieve(tokens, k=min(k, len(ids)), show_progress=False)
        return [self.passages[ids[int(i)]] for i in found[0]]

    def ordered(self, query: str, k: int) -> list[Passage]:
        """What examples show beside gold passages, and the order of both: of a search, or of strategy `chain`."""
        if self.ranked != "chain":
            return self.search(query, k)
        if query not in self._chains:
            self._chains[query] = self._chain(query)
        return self._chains[query]

    def _chain(self, query: str) -> list[Passage]:
        from sleuth.agents.context import Context, equipped
        from sleuth.agents.graph import gathered
        from sleuth.agents.strategy import strategy
        from sleuth.retrieval.rerank import DEPTH

        chosen = strategy("chain", k=DEPTH, read=2 * DEPTH)
        nobody: Any = None  # is asked: the strategy only searches before it answers
        return asyncio.run(gathered(query, equipped(Context(nobody, chosen), Corpus(self))))

    @functools.cached_property
    def _chains(self) -> dict[str, list[Passage]]:
        return {}

    @functools.cached_property
    def _index(self) -> tuple[Any, list[str], Any]:
        import bm25s
        import Stemmer

        stemmer = Stemmer.Stemmer("english")
        texts = [f"{p.title} {p.text}" for p in self.passages.values()]
        retriever = bm25s.BM25()
        retriever.index(
            bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False
        )
        return retriever, list(self.passages), stemmer


@dataclass(frozen=True, slots=True)
class Corpus:
    """A set's passages as the source that questions are made from and checked against; each is a whole document."""

    qa: QuestionSet

    @property
    def fingerprint(self) -> str:
        return self.qa.name

    def documents(self) -> Iterator[Document]:
        return (self.document(id_) for id_ in sorted(self.qa.passages))

    def document(self, doc_id: str) -> Document:
        passage = self.qa.passages[doc_id]
        return Document(passage.doc_id, passage.text, title=passage.title)

    def retriever(self, mode: str) -> Corpus:
        return self

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        return [
            [Hit(passage, 1 / rank, rank, "bm25") for rank, passage in enumerate(self.qa.search(query, k), 1)]
            for query in queries
        ]

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return [self.qa.passages[id_] for id_ in passage_ids]


FICTIONAL = "fictional"
"""The one set that needs no files: worlds that are made for examples alone (`eval.synthesis.fictional`)."""
WORLDS = (1001, 1002)
"""Their seeds; a learning check's own worlds have small ones."""
ENTITIES = 120


OWN = "own"
"""The tasks that a recipe names with their store (`training.own`)."""
MADE = "made_"
"""Before the name of a set: questions made by rules from its passages (`training.made`) in place of its own."""
FOUND = "found_"
"""Before the name of a set of ``qa_no_corpus``: its questions that the passages of `POOL` answer (`training.found`)."""
POOL = ("hotpotqa_s", "hotpotqa_r1s")
"""Sets whose passages are Wikipedia's first paragraphs, as the sets without passages ask for."""


def load(data: str | Path | None, name: str) -> QuestionSet:
    """The `trainable` rows of the named set of a folder of benchmark files; `InputError` names what is missing."""
    if name == FICTIONAL:
        return _fictional()
    if data is not None and name.startswith(MADE):
        from sleuth.training.made import made

        return made(load(data, name.removeprefix(MADE)), data)
    if data is not None and name.startswith(FOUND):
        from sleuth.training.found import found

        return found(name.removeprefix(FOUND), data)
    if data is None:
        raise InputError(f"examples of {name!r} need --data, the folder with qa/ and corpora/")
    root = Path(data)
    places = [root / "qa" / f"{name}{tail}" for tail in (".dev.jsonl", ".jsonl")]
    questions = next((path for path in places if path.is_file()), None)
    if questions is None:
        raise InputError(f"no questions for {name!r}: expected {places[0]} or {places[1]}")
    corpus = root / "corpora" / f"{corpora_of(name)[0]}.corpus.jsonl.gz"
    if not corpus.is_file():
        raise InputError(f"no passages for {name!r}: expected {corpus}")
    passages: dict[str, Passage] = {}
    starts: dict[str, Sequence[int]] = {}
    for record in lines(corpus):
        text = record["text"]
        passages[record["id"]] = Passage(record["id"], record["id"], 0, len(text), record.get("title", ""), text)
        starts[record["id"]] = record.get("sents", ())
    return QuestionSet(name, [row for row in lines(questions) if trainable(row, data)], passages, starts)


def corpora_of(name: str) -> tuple[str, ...]:
    """The names under which a set's passages stand in a data folder."""
    own = name.removeprefix(MADE)
    return POOL if name.startswith(FOUND) else (SHARED_CORPUS.get(own, own),)


def trainable(row: Row, data: str | Path) -> bool:
    """Whether a row is not for reporting and asks nothing that a reporting row of any set of the folder asks.

    The split goes by ids, and one question can stand under several.
    """
    return not reporting_only(row) and not asked(row) & _reported(str(data))


@functools.cache
def _reported(data: str) -> frozenset[str]:
    """All that the reporting rows of a folder ask, those without a corpus included."""
    files = sorted(path for folder in ("qa", "qa_no_corpus") for path in (Path(data) / folder).glob("*.jsonl"))
    return frozenset(text for path in files for row in lines(path) if reporting_only(row) for text in asked(row))


def asked(row: Row) -> set[str]:
    """A row's question and the one that it goes on from, which MoreHopQA's rows over the same look-ups share."""
    asked = (row.get(key) for key in ("question", "previous_question"))
    return {normalise(text) for text in asked if isinstance(text, str)} - {""}


def _fictional() -> QuestionSet:
    """Questions of one and two look-ups over two invented worlds, as rows of the form that MuSiQue's have."""
    from sleuth.eval.synthesis.fictional import fictional_world

    rows: list[Row] = []
    passages: dict[str, Passage] = {}
    for seed in WORLDS:
        documents, tasks = fictional_world(seed, ENTITIES)
        passages |= {d.id: Passage(d.id, d.id, 0, len(d.text), d.title, d.text) for d in documents}
        for task in tasks:
            rows.append(
                {
                    "id": task.id,
                    "question": task.question,
                    "answers": list(task.answers),
                    "supporting": list(task.supporting),
                    "support_mode": task.support_mode,
                    "hops": task.hops,
                    "decomposition": task.metadata["decomposition"],
                }
            )
    return QuestionSet(FICTIONAL, rows, passages)


def find_span(needle: str, text: str) -> str:
    """The first run of whole words of ``text`` equal to ``needle`` but for case, as the text spells it, or ``""``."""
    if not needle.strip():
        return ""
    match = re.search(rf"(?<!\w){re.escape(needle.strip())}(?!\w)", text, re.IGNORECASE)
    return match[0] if match else ""


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, packed or not; `InputError` names the file where it is missing, else file and line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not a JSON line: {error}") from error
            if not isinstance(record, dict) or "id" not in record:
                raise InputError(f"{path}:{number}: expected an object with an id, found {str(record)[:80]!r}")
            yield record
