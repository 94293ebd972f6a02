"""A term is what lexical search counts: a lower-case word without accents, stemmed; CJK text as pairs of characters.

The index and the query must cut terms the same way, so both call `Analyzer` with the language and the version that the
store names.
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
ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
"""`WORD`, of lower-case text of these characters alone."""
_MARKS = re.compile("[\u0300-\u036f]")
_MARKS_BUT_SHORT_I = re.compile("(?<!\u0438)\u0306|[\u0300-\u0305\u0307-\u036f]")
VERSIONS = {"russian": 2}
"""Of a language's analyzer, 1 where none stands here. In 2 the Russian й stays a letter of its own: its breve is no
accent, and endings such as ый are not known to the stemmer without it."""
MAX_STEMS = 500_000
"""Words whose stems are remembered."""


@dataclass(slots=True)
class Analyzer:
    """Cuts text into terms; ``language`` is a Snowball stemmer's name or ``none``."""

    language: str = "english"
    version: int = 0
    """Of the language's analyzer (`VERSIONS`); 0 becomes the last one."""
    _marks: re.Pattern[str] = field(default=_MARKS, repr=False)
    _stemmer: Any = field(default=None, repr=False)
    _stems: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        last = VERSIONS.get(self.language, 1)
        if not 0 <= self.version <= last:
            raise ConfigError(f"analyzer of {self.language}: expected version 1 to {last}, found {self.version}")
        self.version = self.version or last
        if (self.language, self.version) == ("russian", 2):
            self._marks = _MARKS_BUT_SHORT_I
        if self.language != "none":
            import Stemmer

            if self.language not in Stemmer.algorithms():
                known = ", ".join(["none", *Stemmer.algorithms()])
                raise ConfigError(f"unknown stemmer language {self.language!r}; known: {known}")
            self._stemmer = Stemmer.Stemmer(self.language)

    def terms(self, text: str) -> list[str]:
        """In order, repetitions included."""
        if text.isascii():
            plain = ASCII_WORD.findall(text.lower())
            return self.stems([_without_possessive(word) if "'" in word else word for word in plain])
        words: list[str] = []
        for match in WORD.finditer(fold(text, self._marks)):
            word = match[0]
            if "\u3040" <= word[0] <= "\ud7af" or "\uf900" <= word[0] <= "\ufaff":
                words.extend(word[n : n + 2] for n in range(max(1, len(word) - 1)))
            else:
                words.append(_without_possessive(word))
        return self.stems(words)

    def stems(self, words: Sequence[str]) -> list[str]:
        if self._stemmer is None:
            return list(words)
        known = self._stems
        try:
            return [known[word] for word in words]
        except KeyError:
            fresh = [word for word in words if word not in known]
            if len(known) + len(fresh) > MAX_STEMS:
                return self._stemmer.stemWords(list(words))
            known.update(zip(fresh, self._stemmer.stemWords(fresh), strict=True))
            return [known[word] for word in words]

    def stops(self) -> set[str]:
        """The terms of the language's stop words."""
        return set(self.terms(" ".join(sorted(stop_words(self.language)))))


def fold(text: str, marks: re.Pattern[str] = _MARKS) -> str:
    """Lower case without accents; as long as its input only where that is ASCII."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", marks.sub("", decomposed))


def _without_possessive(word: str) -> str:
    return word[:-2] if word.endswith(("'s", "’s")) else word.replace("’", "'")


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """Words of a query that say little, as they are written; empty for languages without a list."""
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
