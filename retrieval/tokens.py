"""A term is what lexical search counts: a lower-case word without accents, stemmed; CJK text as pairs of characters.

The index and the query must cut terms the same way, so both call `Analyzer` with the language that the store names.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sleuth.corpora.errors import ConfigError

TERM_BYTES = 40
"""Longer terms are cut here: they are hashes and addresses, and the vocabulary has fixed width."""
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)*")
_MARKS = re.compile("[\u0300-\u036f]")


@dataclass(slots=True)
class Analyzer:
    """Cuts text into terms; ``language`` is a Snowball stemmer's name or ``none``."""

    language: str = "english"
    _stemmer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.language != "none":
            import Stemmer

            if self.language not in Stemmer.algorithms():
                known = ", ".join(["none", *Stemmer.algorithms()])
                raise ConfigError(f"unknown stemmer language {self.language!r}; known: {known}")
            self._stemmer = Stemmer.Stemmer(self.language)

    def terms(self, text: str) -> list[str]:
        """In order, repetitions included."""
        words: list[str] = []
        for match in WORD.finditer(fold(text)):
            word = match[0]
            if "\u3040" <= word[0] <= "\ud7af" or "\uf900" <= word[0] <= "\ufaff":
                words.extend(word[n : n + 2] for n in range(max(1, len(word) - 1)))
            else:
                words.append(_without_possessive(word))
        return self.stems(words)

    def stems(self, words: Sequence[str]) -> list[str]:
        return list(words) if self._stemmer is None else self._stemmer.stemWords(list(words))


def fold(text: str) -> str:
    """Lower case without accents; as long as its input only where that is ASCII."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _MARKS.sub("", decomposed))


def _without_possessive(word: str) -> str:
    return word[:-2] if word.endswith(("'s", "’s")) else word.replace("’", "'")


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """Words of a query that say little, unstemmed; empty for languages without a list."""
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
