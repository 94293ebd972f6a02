"""MoreHopQA in small: multi-hop questions whose last step is arithmetic, symbolic or common sense.

Schnitzler et al. 2024, arXiv 2406.13397; the final answer often stands in no passage, so it has to be worked out.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

MOREHOPQA_S = Benchmark(
    name="morehopqa_s",
    load=loader("morehopqa_s"),
    metrics=QUESTION_ANSWERING,
    primary="em",
    licence="CC BY 4.0",
    corpus="morehopqa_s",
)
