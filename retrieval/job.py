"""A segment job turns some documents into the files of a segment: a function of paths, so that it runs anywhere.

The same documents give the same bytes in this process, in a worker of a pool and on another machine that has the same
model and sees the same folders.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sleuth.corpora.chunk import passages
from sleuth.corpora.dedup import digest
from sleuth.corpora.documents import read_documents
from sleuth.corpora.errors import StoreError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval import layout, segment
from sleuth.retrieval.bm25 import Postings
from sleuth.retrieval.embed import Embedder, checked, embedder
from sleuth.retrieval.tokens import Analyzer


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """All that `run` needs."""

    number: int
    documents: str
    """Parquet file, as `corpora.shards` writes it."""
    folder: str
    """Of the segment to be; made anew."""
    embedder: str
    revision: str
    """The worker's model must have it, or the store would hold vectors of two."""
    max_words: int
    language: str
    title_weight: int
    device: str


@dataclass(frozen=True, slots=True)
class Made:
    """A segment that lies in its folder, synced."""

    sums: str
    documents: int
    passages: int
    fields: dict[str, str]
    seconds: dict[str, float]
    """Wall-clock of chunk, embed, bm25 and write."""


def run(job: SegmentJob) -> Made:
    """In a worker: raises `StoreError` where the model here is another one."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers stand beside one another; read when torch is first imported
    model = _model(job.embedder, job.device)
    if model.revision != job.revision:
        raise StoreError(f"{job.folder}: expected embedder {job.embedder!r} of revision {job.revision}, found "
                         f"{model.revision} on this worker")  # fmt: skip
    documents = list(read_documents(Path(job.documents)))
    digests = [digest(document) for document in documents]
    folder = Path(job.folder)
    folder.mkdir()
    return write(folder, documents, digests, job.max_words, model, Analyzer(job.language), job.title_weight)


@functools.lru_cache(maxsize=1)
def _model(spec: str, device: str) -> Embedder:
    return embedder(spec, device)


def write(
    folder: Path, documents: Sequence[Document], digests: Sequence[bytes], max_words: int, model: Embedder,
    analyzer: Analyzer, title_weight: int, progress: Callable[[int, int], None] | None = None,
) -> Made:  # fmt: skip
    """Cut, embed and index ``documents`` into the empty ``folder``; ``progress(passages embedded, of all)``."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[stage] = time.monotonic() - started

    with timed("chunk"):
        cut = [passages(document, max_words) for document in documents]
    texts = [indexed_text(passage) for passages_ in cut for passage in passages_]
    with timed("embed"):
        tell = None if progress is None else functools.partial(_told, progress, len(texts))
        vectors = model.encode(texts, progress=tell)
        checked(vectors, [passage.id for passages_ in cut for passage in passages_], model)
    with timed("bm25"):
        weighed = [lexical_text(passage, title_weight) for passages_ in cut for passage in passages_]
        postings = Postings.of(weighed, analyzer)
    with timed("write"):
        segment.save(folder, documents, digests, cut, vectors, postings)
        sums = layout.write_sums(folder)
    return Made(sums, len(documents), len(texts), segment.field_types(documents), seconds)


def _told(progress: Callable[[int, int], None], total: int, done: int) -> None:
    progress(done, total)


def indexed_text(passage: Passage) -> str:
    """What the embedder sees of a passage: title and text."""
    return lexical_text(passage, 1)


def lexical_text(passage: Passage, title_weight: int) -> str:
    """What lexical search sees: the title as often as it weighs, then the text.

    That is BM25F with whole weights and one length normalisation: Robertson et al. 2004, "Simple BM25 extension to
    multiple weighted fields", section 4, adds up weighted term frequencies before they saturate.
    """
    return "\n".join([*[passage.title] * (title_weight if passage.title else 0), passage.text])
