"""CommaQA-E: list answers over invented films, people and awards, which no model can know.

Khot et al. 2022, arXiv 2110.08542. Names repeat between scopes, so each question searches its own scope alone. No gold
passages are marked; EM and F1 are over the set of answer items.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

COMMAQA_E = Benchmark(
    name="commaqa_e",
    load=loader("commaqa_e"),
    metrics=QUESTION_ANSWERING,
    primary="f1",
    licence="Apache-2.0",
    corpus="commaqa_e",
)
