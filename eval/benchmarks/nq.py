"""Natural Questions (open): single-hop questions of search users, short answers, one gold paragraph of those marked.

Kwiatkowski et al. 2019 (Q19-1026) in the open form of Lee et al. 2019, arXiv 1906.00300.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

NQ = Benchmark(
    name="nq_dev",
    load=loader("nq_dev"),
    metrics=QUESTION_ANSWERING,
    primary="em",
    licence="CC BY-SA 3.0",
    corpus="nq",
)
