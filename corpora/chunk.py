"""Chunking cuts a document into passages at sentence ends, within a budget of words that fits the embedder.

Contract: ``document.text[p.start:p.end] == p.text``; every character that is not white space is in exactly one passage.
A document within the budget stays one passage and gives it its id. The budget counts what an embedder's tokens follow:
words, long words several times, and each character of scripts without spaces.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from sleuth.corpora.records import Document, Passage
from sleuth.corpora.text import sentences

_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af\u0e00-\u0eff\U00020000-\U0003ffff]|\w{1,16}")
"""One word of the budget: a CJK, Hangul, Thai or Lao character, or up to 16 letters or digits."""


def count_words(text: str) -> int:
    return sum(1 for _ in _UNIT.finditer(text))


def passages(document: Document, max_words: int = 200) -> list[Passage]:
    """Passages in order, of about equal length; empty for a document of white space alone."""
    spans = list(_packed(document.text, max_words))
    ids = [document.id] if len(spans) == 1 else [f"{document.id}#{n}" for n in range(len(spans))]
    return [
        Passage(id_, document.id, start, end, document.title, document.text[start:end])
        for id_, (start, end) in zip(ids, spans, strict=True)
    ]


def _packed(text: str, max_words: int) -> Iterator[tuple[int, int]]:
    total = count_words(text)
    if total <= max_words:
        if stripped := text.strip():
            start = text.index(stripped)
            yield start, start + len(stripped)
        return
    target = math.ceil(total / math.ceil(total / max_words))  # equal shares: no tail of a few words
    first: int | None = None
    last = words = 0
    for start, end, cost in _pieces(text, max_words):
        if first is not None and (words + cost > max_words or words >= target):
            yield first, last
            first, words = None, 0
        first, last, words = start if first is None else first, end, words + cost
    if first is not None:
        yield first, last


def _pieces(text: str, max_words: int) -> Iterator[tuple[int, int, int]]:
    """``(start, end, words)`` of sentences; one that is longer than the budget is cut between words."""
    for start, end in sentences(text):
        cost = count_words(text[start:end])
        if cost <= max_words:
            yield start, end, cost
            continue
        units = [match.start() for match in _UNIT.finditer(text, start, end)]
        cuts = [start, *(units[n] for n in range(max_words, len(units), max_words)), end]
        for n, (left, right) in enumerate(itertools.pairwise(cuts)):
            piece = text[left:right].rstrip()
            yield left, left + len(piece), min(max_words, len(units) - n * max_words)
