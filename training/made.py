"""Questions made by rules from a set's passages, as rows of the set: more look-ups in the language of its corpus.

They are those of `eval.synthesis`, verified against the same passages. What is for reporting stays out three times: a
made question has an id that the split judges as any other, one that asks what a reporting row asks, of this set nearly
and of any word for word, is dropped, and so is one with a reporting row's answer from one of its passages.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sleuth.eval.load import is_reporting, loader
from sleuth.eval.synthesis.kinds import KINDS
from sleuth.eval.synthesis.make import Synthesis, facts_of, row_of
from sleuth.eval.synthesis.training import decontaminated
from sleuth.eval.synthesis.wording import grammar
from sleuth.training.sets import MADE, Corpus, QuestionSet, trainable

MOST = 500
"""Questions of a corpus: the kinds take turns, and beyond some hundreds only comparisons are left."""


def made(qa: QuestionSet, data: str | Path, seed: int = 0) -> QuestionSet:
    """``qa`` with at most `MOST` made questions in place of its own; the same seed gives the same ones."""
    rules, corpus = grammar(), Corpus(qa)
    tasks = Synthesis(facts_of(lambda stage: corpus.documents(), rules), rules, corpus, tuple(KINDS), seed).take(MOST)
    reporting = [task for task in loader(qa.name)(data) if is_reporting(task)]
    kept, _ = decontaminated(tasks, reporting)
    rows = [row for row in map(row_of, kept) if trainable(row, data)]
    return dataclasses.replace(qa, name=MADE + qa.name, rows=rows)
