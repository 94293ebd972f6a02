"""Chunking cuts a document into passages at sentence ends and headings, within a budget that fits the embedder.

Contract: ``document.text[p.start:p.end] == p.text``; every character that is not white space is in exactly one passage.
A document within the budget stays one passage and gives it its id. A heading stays with what follows it, tables and
code stay whole where they fit the budget and are cut between lines where they do not. The budget counts words as
`word_starts` finds them, or an embedder's own tokens (`token_starts`).
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sleuth.corpora.records import Document, Passage
from sleuth.corpora.structure import Kind, Unit, units

_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af\u0e00-\u0eff\U00020000-\U0003ffff]|\w{1,16}")
"""One word of the budget: a CJK, Hangul, Thai or Lao character, or up to 16 letters or digits."""
Starts = Callable[[str], Sequence[int]]
"""Where each counted word or token of a text begins, in order."""
_SECTION_SHARE = 0.5
"""A heading begins a new passage once the last one has this share of what each is to have."""


def word_starts(text: str) -> list[int]:
    """Words, with what an embedder's tokens follow: long words several times, characters of scripts without spaces."""
    return [match.start() for match in _UNIT.finditer(text)]


def count_words(text: str) -> int:
    return sum(1 for _ in _UNIT.finditer(text))


def token_starts(tokenizer: Any) -> Starts:
    """Tokens of a `tokenizers.Tokenizer`, or of a fast tokenizer of transformers; a budget in them holds exactly.

    The embedder's special tokens and the title that is put before a passage come on top.
    """
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(
        getattr(tokenizer, "backend_tokenizer", tokenizer).to_str()
    )  # keeps the caller's truncation
    own.no_truncation()
    own.no_padding()

    def starts(text: str) -> list[int]:
        found = own.encode(text, add_special_tokens=False).offsets
        return [start for start, end in found if end > start]

    return starts


def passages(document: Document, max_words: int = 200, starts: Starts = word_starts) -> list[Passage]:
    """Passages in order, of about equal length; empty for a document of white space alone."""
    spans = list(_packed(document.text, max_words, starts(document.text)))
    ids = [document.id] if len(spans) == 1 else [f"{document.id}#{n}" for n in range(len(spans))]
    return [
        Passage(id_, document.id, start, end, document.title, document.text[start:end])
        for id_, (start, end) in zip(ids, spans, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    kind: Kind
    start: int
    end: int
    cost: int


def _packed(text: str, most: int, counted: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(counted) <= most:
        if stripped := text.strip():
            start = text.index(stripped)
            yield start, start + len(stripped)
        return
    target = math.ceil(len(counted) / math.ceil(len(counted) / most))  # equal shares: no tail of a few words
    held: list[_Piece] = []
    words = 0
    for group in _with_headings(_pieces(text, most, counted), most):
        cost = sum(piece.cost for piece in group)
        section = group[0].kind == "heading" and words >= _SECTION_SHARE * target
        if held and (words + cost > most or words >= target or section):
            yield held[0].start, held[-1].end
            held, words = [], 0
        held += group
        words += cost
    if held:
        yield held[0].start, held[-1].end


def _with_headings(pieces: Iterator[_Piece], most: int) -> Iterator[list[_Piece]]:
    """Pieces alone, or behind the headings that stand directly before them, as far as all fit."""
    group: list[_Piece] = []
    cost = 0
    for piece in pieces:
        if group and cost + piece.cost > most:
            yield group
            group, cost = [], 0
        group.append(piece)
        cost += piece.cost
        if piece.kind != "heading":
            yield group
            group, cost = [], 0
    if group:
        yield group


def _pieces(text: str, most: int, counted: Sequence[int]) -> Iterator[_Piece]:
    """Units within the budget; a table or code beyond it in lines, anything else beyond it between words."""
    for unit in units(text):
        if unit.kind in ("table", "code") and _cost(counted, unit.start, unit.end) > most:
            parts = [Unit(unit.kind, start, end) for start, end in _lines(text, unit.start, unit.end)]
        else:
            parts = [unit]
        for part in parts:
            yield from _cut(text, part, most, counted)


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in re.compile(r"\S[^\n]*").finditer(text, start, end):
        yield match.start(), match.start() + len(match[0].rstrip())


def _cut(text: str, unit: Unit, most: int, counted: Sequence[int]) -> Iterator[_Piece]:
    first, last = bisect.bisect_left(counted, unit.start), bisect.bisect_left(counted, unit.end)
    if last - first <= most:
        yield _Piece(unit.kind, unit.start, unit.end, last - first)
        return
    cuts = [unit.start, *(counted[n] for n in range(first + most, last, most)), unit.end]
    for left, right in itertools.pairwise(cuts):
        piece = text[left:right]
        start = left + len(piece) - len(piece.lstrip())
        if piece.strip():
            yield _Piece(unit.kind, start, left + len(piece.rstrip()), _cost(counted, left, right))


def _cost(counted: Sequence[int], start: int, end: int) -> int:
    return bisect.bisect_left(counted, end) - bisect.bisect_left(counted, start)
