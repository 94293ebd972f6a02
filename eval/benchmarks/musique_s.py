"""MuSiQue in small: questions of two to four hops whose parts cannot be guessed from one another.

Trivedi et al. 2022, arXiv 2108.00573; one gold paragraph per hop, all of them needed.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

MUSIQUE_S = Benchmark(
    name="musique_s",
    load=loader("musique_s"),
    metrics=QUESTION_ANSWERING,
    primary="f1",
    licence="CC BY 4.0",
    corpus="musique_s",
)
