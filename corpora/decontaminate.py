"""A document is contaminated where its title and text hold n words in a row of a benchmark's question or gold passage.

n is 13, as for GPT-3 (Brown et al. 2020, "Language models are few-shot learners", appendix C, where 8 is the least for
short texts). There, a match is cut out of the text; here the document is dropped, and the drop names the item and the
share of the item's n-grams that the document holds, so that a report shows what was near. Items shorter than n words
are compared whole, and those shorter than `MIN_WORDS` not at all.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shingle import batches, shingles
from sleuth.corpora.stages import Stage

MIN_WORDS = 8
BATCH = 256
_TEXTS = ("question", "query", "claim", "text", "contents", "passage")


class Benchmark:
    """N-grams of the items of benchmarks, looked up in sorted arrays: 12 bytes each."""

    def __init__(self, items: Sequence[tuple[str, str]], ngram: int = 13) -> None:
        """``items`` are (name, text)."""
        if ngram < MIN_WORDS:
            raise ConfigError(f"decontaminate: expected n-grams of at least {MIN_WORDS} words, found {ngram}")
        self.sizes: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        """By number of words: the n-grams, sorted, and the item of each."""
        self.names = [name for name, _ in items]
        counts = np.diff(shingles([text for _, text in items], 1).starts)
        self.totals = np.zeros(len(items), np.int64)
        self.short = int(np.count_nonzero(counts < MIN_WORDS))
        """Items that are not compared."""
        for size in np.unique(np.minimum(counts[counts >= MIN_WORDS], ngram)).tolist():
            chosen = np.flatnonzero(counts == size if size < ngram else counts >= ngram).tolist()
            found = shingles([items[n][1] for n in chosen], size)
            of = np.repeat(chosen, np.diff(found.starts))
            pairs = np.unique(np.stack([found.hashes, of.astype(np.uint64)]), axis=1)
            self.sizes[size] = pairs[0], pairs[1].astype(np.int32)
            np.add.at(self.totals, pairs[1].astype(np.int64), 1)

    def overlap(self, texts: Sequence[str]) -> list[tuple[str, float] | None]:
        """For each text the item that it holds most of, and the share of its n-grams; None where it holds none."""
        best: list[tuple[str, float] | None] = [None] * len(texts)
        for size, (hashes, items) in self.sizes.items():
            found = shingles(texts, size)
            starts = np.searchsorted(hashes, found.hashes)
            hits = np.flatnonzero(hashes[np.minimum(starts, len(hashes) - 1)] == found.hashes)
            seen: dict[tuple[int, int], set[int]] = {}
            for hit in hits.tolist():
                text = int(np.searchsorted(found.starts, hit, "right")) - 1
                place = int(starts[hit])
                while place < len(hashes) and hashes[place] == found.hashes[hit]:
                    seen.setdefault((text, int(items[place])), set()).add(int(found.hashes[hit]))
                    place += 1
            for (text, item), ngrams in seen.items():
                share = len(ngrams) / int(self.totals[item])
                known = best[text]
                if known is None or share > known[1]:
                    best[text] = self.names[item], share
        return best


def decontaminate(
    benchmarks: Sequence[str], ngram: int = 13, share: float = 0.0, fields: Sequence[str] = _TEXTS
) -> Stage:
    """Drop documents that hold more than ``share`` of the n-grams of an item; 0 drops for any n-gram.

    ``benchmarks`` are JSONL files (plain or gzip) of questions or passages; ``fields`` name the texts of a row.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"decontaminate: expected a share of at least 0 and below 1, found {share}")
    benchmark = _benchmark(tuple(map(str, benchmarks)), ngram, tuple(fields))

    def run(documents: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for batch in batches(documents, BATCH):
            texts = [f"{d.title}\n{d.text}" for d in batch]  # as they are indexed
            for document, found in zip(batch, benchmark.overlap(texts), strict=True):
                if found is None or found[1] <= share:
                    yield document
                else:
                    reason = f"holds {found[1]:.0%} of the {ngram}-grams of benchmark item {found[0]!r}"
                    drop(Drop(document.id, "decontaminate", reason))

    return run


@functools.lru_cache(maxsize=2)
def _benchmark(paths: tuple[str, ...], ngram: int, fields: tuple[str, ...]) -> Benchmark:
    return Benchmark([item for path in paths for item in _items(Path(path), fields)], ngram)


def _items(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``(file:id, text)`` of each text of each row; raises `InputError` where there is none."""
    number = count = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                row: Mapping[str, Any] = json.loads(line)
                name = f"{path.name}:{row.get('id', row.get('_id', number))}"
                for field in fields:
                    if isinstance(text := row.get(field), str) and text.strip():
                        count += 1
                        yield name, text
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise InputError(f"{path}:{number + 1}: expected a benchmark's rows in JSONL: {error}") from error
    if not count:
        raise InputError(f"{path}: expected texts in one of the fields {', '.join(fields)}, found none")
