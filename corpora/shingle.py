"""A shingle is n words that follow one another, as a 64-bit hash; here many texts are shingled at once, in numpy.

Words are runs of letters and digits, lower case and NFKC; each Chinese, Japanese or Korean character is a word, because
those scripts put no space between words. Hashes depend on the words alone and are the same on every machine, so they
may be kept on disk. They find equal texts; they are no defence against a text that was made to collide.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sleuth.corpora.records import Document

BATCH_CHARS = 1 << 20
SPAN = 1 << 17
"""Characters whose words are hashed at a time; a single longer word is one span."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that it has an inverse modulo 2^64: a word's hash is made free of the place where the word stands."""
_STEP = 0xD6E8FEB86659FD93
_WIDE = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


@dataclass(frozen=True, slots=True)
class Shingles:
    """Shingles of several texts, flat."""

    hashes: np.ndarray
    """(S,) uint64, text by text, in the order of the words, repetitions included."""
    starts: np.ndarray
    """(T + 1,) int64: text t has ``hashes[starts[t]:starts[t + 1]]``; none where it has no word."""


def batches(documents: Iterable[Document], count: int) -> Iterator[list[Document]]:
    """At most ``count`` documents at a time, and at most about `BATCH_CHARS` of text: shingling takes 16 bytes a
    character."""
    batch: list[Document] = []
    chars = 0
    for document in documents:
        if batch and (len(batch) >= count or chars + len(document.text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(document)
        chars += len(document.text)
    if batch:
        yield batch


def shingles(texts: Sequence[str], size: int) -> Shingles:
    """Hashes of every ``size`` words in a row; a text of fewer words has one shingle, of all of them."""
    words, firsts = _words(texts)
    text_of = np.repeat(np.arange(len(texts)), np.diff(firsts))
    hashed = words.copy()
    full = np.ones(len(words), bool)
    for k in range(1, size):
        if k >= len(words):
            full[:] = False
            break
        same = text_of[k:] == text_of[:-k]
        hashed[:-k] += np.where(same, words[k:] * np.uint64(pow(_STEP, k, 1 << 64)), np.uint64(0))
        full[:-k] &= same
        full[-k:] = False
    counts = np.diff(firsts)
    short = firsts[:-1][(counts > 0) & (counts < size)]
    full[short] = True
    found = mixed(hashed[full])
    starts = np.concatenate([[0], np.cumsum(full)])[firsts]
    return Shingles(found, starts)


def _words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hash of each word, (W,) uint64, and where each text's words start, (T + 1,)."""
    normal = [(t if t.isascii() else unicodedata.normalize("NFKC", t)).lower() for t in texts]
    codes = np.frombuffer("\n".join([*normal, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    ends = np.cumsum([len(text) + 1 for text in normal], dtype=np.int64) if normal else np.zeros(0, np.int64)
    kind = _kinds()[codes]
    before = np.concatenate([np.zeros(1, np.uint8), kind[:-1]])
    starts = np.flatnonzero((kind > 0) & ((before == 0) | (kind == 2) | (before == 2)))
    firsts = np.concatenate([[0], np.searchsorted(starts, ends)])
    if not len(starts):
        return np.zeros(0, np.uint64), firsts
    words = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + SPAN)) - 1)
        end = int(starts[last]) if last < len(starts) else len(codes)
        words[first:last] = _hashed(codes[starts[first] : end], kind[starts[first] : end], starts[first:last])
        first = last
    return mixed(words), firsts


def _hashed(codes: np.ndarray, kind: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(W,) uint64: of each word the sum of its codes, each times a power of the base by its place in the word."""
    powers, inverses = _powers(SPAN) if len(codes) <= SPAN else _powers.__wrapped__(len(codes))
    values = codes.astype(np.uint64)
    values *= powers[: len(codes)]
    values *= kind > 0
    own = starts - starts[0]
    return np.add.reduceat(values, own) * inverses[own]


def mixed(values: np.ndarray) -> np.ndarray:
    """Every bit of the input changes every bit of the output: the finaliser of SplitMix64 (Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@functools.cache
def _kinds() -> np.ndarray:
    """By code point: 0 between words, 1 in a word, 2 a word of its own."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    for first, last in _WIDE:
        kinds[first : last + 1] *= 2
    return kinds


@functools.cache
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """``_BASE ** n`` and its inverse for n below ``count``, modulo 2^64."""
    inverse = np.uint64(pow(int(_BASE), -1, 1 << 64))
    return tuple(np.cumprod(np.concatenate([[np.uint64(1)], np.full(count - 1, base)])) for base in (_BASE, inverse))  # type: ignore[return-value]
