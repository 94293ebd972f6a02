"""StrategyQA: yes/no questions whose steps are implicit; the corpus is the annotators' facts, one sentence each.

Geva et al. 2021, arXiv 2101.02235. EM is accuracy; a constant yes or no already gets about half.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

STRATEGYQA = Benchmark(
    name="strategyqa",
    load=loader("strategyqa"),
    metrics=QUESTION_ANSWERING,
    primary="em",
    licence="MIT",
    corpus="strategyqa",
)
