"""A rubric says in words what makes a passage relevant and how much; a judge that reads it gives marks from 0 to 100.

`Rubric` is a scorer for `Reranked`: it integrates several samples of a judge's mark into their mean, as Retro* does at
test time (Lan et al. 2025, arXiv 2509.24869). The judge is a function, so that no policy is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.records import Passage

Judge: TypeAlias = "Callable[[str, Sequence[str], str, int], Sequence[Sequence[float | None]]]"
"""``judge(query, texts, rubric, samples)`` gives each text's marks, None for a reply that held none."""
BEST = 100.0
RELEVANCE = """80 to 100: the passage states what answers the question, or a step that the answer needs.
60 to 80: it holds most of that, or says where it stands.
40 to 60: it is about the same thing and helps to understand the question.
20 to 40: it shares names or words with the question and little else.
0 to 20: it is about something else."""
"""Levels as the paper has them: five of twenty marks each, in our words."""


@dataclass(slots=True)
class Rubric:
    """A `Scorer`: the mean mark of each passage, 0 to 1."""

    judge: Judge
    samples: int = 3
    rubric: str = RELEVANCE
    asked: int = field(default=0, init=False)
    """Marks asked for so far."""
    unread: int = field(default=0, init=False)
    """Of them, those that no reply held, or that lay outside 0 to 100."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"rubric: expected samples of at least 1, found {self.samples}")

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """A passage without a readable mark has the mean of the others, so that nonsense moves nothing; with no mark at
        all every passage has the same, and the order stays. Raises `ModelError` for marks of another number."""
        texts = [f"{p.title}\n{p.text}" if p.title else p.text for p in passages]
        marks = self.judge(query, texts, self.rubric, self.samples)
        if len(marks) != len(passages):
            raise ModelError(f"rubric: expected marks of {len(passages)} passages, found {len(marks)}")
        means: list[float | None] = []
        for own in marks:
            read = [float(mark) for mark in own if mark is not None and math.isfinite(mark) and 0 <= mark <= BEST]
            self.asked += self.samples
            self.unread += max(0, self.samples - len(read))
            means.append(sum(read) / len(read) / BEST if read else None)
        known = [mean for mean in means if mean is not None]
        middle = sum(known) / len(known) if known else 0.0
        return [middle if mean is None else mean for mean in means]
