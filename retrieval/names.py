"""A name is what text calls an entity: a title, the title without its brackets or article, or an alias.

`Names` finds them in any text, the longest first, whole words only and whatever the case or accents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sleuth.retrieval.tokens import WORD, fold, stop_words

MAX_WORDS = 12
"""Of a name that is looked for."""
BRACKET = re.compile(r"\s*\([^()]*\)\s*$")


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a text names an entity."""

    start: int
    end: int
    entities: tuple[str, ...]
    """One, or several that share the name."""


class Names:
    """Entities by name. A name of stop words alone, or of a single letter, names nothing in running text."""

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        """``aliases``: names of each entity, itself among them or not."""
        self._entities: dict[tuple[str, ...], list[str]] = {}
        self.entities = tuple(aliases)
        self._longest = 0
        for entity, names in aliases.items():
            for name in dict.fromkeys([entity, *names]):
                words = tuple(fold(match[0]) for match in WORD.finditer(name))
                if words and len(words) <= MAX_WORDS and telling(words):
                    known = self._entities.setdefault(words, [])
                    if entity not in known:
                        known.append(entity)
                    self._longest = max(self._longest, len(words))

    def find(self, text: str) -> list[Mention]:
        """Names in order, none inside another."""
        words = [(match.start(), match.end(), fold(match[0])) for match in WORD.finditer(text)]
        mentions: list[Mention] = []
        at = 0
        while at < len(words):
            for count in range(min(self._longest, len(words) - at), 0, -1):
                key = tuple(word for _, _, word in words[at : at + count])
                bare = (*key[:-1], key[-1].removesuffix("'s").removesuffix("’s"))
                for tried, cut in ((key, 0), (bare, len(key[-1]) - len(bare[-1]))):
                    if tried in self._entities and _close(text, words[at : at + count]):
                        end = words[at + count - 1][1] - cut
                        mentions.append(Mention(words[at][0], end, tuple(self._entities[tried])))
                        break
                else:
                    continue
                at += count
                break
            else:
                at += 1
        return mentions


def names_of(title: str, aliases: Iterable[str] = ()) -> list[str]:
    """What text calls a document of this title."""
    base = BRACKET.sub("", title).strip()
    found = [title, base, re.sub(r"^(?:The|A|An)\s+", "", base), *aliases]
    return [name for name in dict.fromkeys(found) if name]


def telling(words: Sequence[str]) -> bool:
    stops = stop_words("english")
    return not all(word in stops or len(word) < 2 for word in words)


def _close(text: str, words: Sequence[tuple[int, int, str]]) -> bool:
    """Whether the words stand together: no line break and no end of a sentence between them."""
    between = (text[left[1] : right[0]] for left, right in pairwise(words))
    return not any("\n" in gap or len(gap) > 3 or re.search(r"[!?;:]", gap) for gap in between)
