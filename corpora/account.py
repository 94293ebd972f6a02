"""An account says what became of every input of each source: documents, or drops by stage and reason with samples.

``inputs == documents + drops`` holds for every source once a corpus is finished.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sleuth.corpora.records import Drop

SAMPLES = 3
MAX_REASONS = 200
"""Different reasons kept for one source; the rest are counted together, by stage."""
_VARIES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?<!\w)\d[\d.,:]*%?|(?:/[^\s:,']+)+|0x[0-9a-f]+")
"""What differs between two drops for one reason: quoted names, numbers, paths."""


@dataclass(slots=True)
class Reason:
    """Drops of one stage for one reason."""

    stage: str
    reason: str
    """With an ellipsis for numbers and names."""
    count: int = 0
    samples: list[tuple[str, str]] = field(default_factory=list)
    """(id, reason in full) of the first few."""


@dataclass(slots=True)
class SourceAccount:
    """One source, or the whole."""

    inputs: int = 0
    """Files, rows, pages and records, and whatever of a folder could not be read."""
    documents: int = 0
    words: int = 0
    """Of the documents, counted as passages count them."""
    files: int = 0
    bytes_in: int = 0
    """Of files as they lie on disk, compressed or not."""
    bytes_out: int = 0
    """UTF-8 bytes of the documents' texts."""
    reasons: list[Reason] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)
    """Documents of 1, 2-3, 4-7, ... words."""

    @property
    def drops(self) -> int:
        return sum(reason.count for reason in self.reasons)

    def by_stage(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for reason in self.reasons:
            found[reason.stage] = found.get(reason.stage, 0) + reason.count
        return found


@dataclass(slots=True)
class Account:
    """All sources, in the order of the recipe."""

    sources: dict[str, SourceAccount] = field(default_factory=dict)

    def open(self, source: str) -> SourceAccount:
        return self.sources.setdefault(source, SourceAccount())

    def add(self, source: str, **counts: int) -> None:
        account = self.open(source)
        for name, value in counts.items():
            setattr(account, name, getattr(account, name) + value)

    def lengths(self, source: str, words: np.ndarray) -> None:
        """Note the lengths (N,) of a source's documents."""
        self.open(source).histogram = np.bincount(_bins(words)).tolist() if len(words) else []

    def drop(self, source: str, drop: Drop) -> None:
        account = self.open(source)
        text = _VARIES.sub("…", drop.reason)
        for reason in account.reasons:
            if (reason.stage, reason.reason) == (drop.stage, text):
                break
        else:
            if len(account.reasons) >= MAX_REASONS:
                text = "other reasons"
            reason = next((r for r in account.reasons if (r.stage, r.reason) == (drop.stage, text)), None) or Reason(
                drop.stage, text
            )
            if reason.count == 0:
                account.reasons.append(reason)
        reason.count += 1
        if len(reason.samples) < SAMPLES:
            reason.samples.append((drop.id, drop.reason))

    def lose(self, source: str, drop: Drop, words: int, size: int) -> None:
        """A document that was counted, its length too, is dropped after all."""
        self.add(source, documents=-1, words=-words, bytes_out=-size)
        self.open(source).histogram[int(_bins(np.array([words]))[0])] -= 1
        self.drop(source, drop)

    def unbalanced(self) -> list[str]:
        """Sources of which the inputs do not add up; empty, always."""
        return [name for name, a in self.sources.items() if a.inputs != a.documents + a.drops]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Account:
        found = cls()
        for name, fields in values["sources"].items():
            reasons = [Reason(r["stage"], r["reason"], r["count"], [(a, b) for a, b in r["samples"]])
                       for r in fields["reasons"]]  # fmt: skip
            found.sources[name] = SourceAccount(**{**fields, "reasons": reasons})
        return found


def _bins(words: np.ndarray) -> np.ndarray:
    return np.log2(np.maximum(words, 1)).astype(int)
