"""HotpotQA dev questions over the Wikipedia abstracts that R1-Searcher (arXiv 2503.05592) retrieved for them.

The gold passages are silver: abstracts that hold the answer string, any of which suffices; yes/no rows mark none.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

HOTPOTQA_R1S = Benchmark(
    name="hotpotqa_r1s",
    load=loader("hotpotqa_r1s"),
    metrics=QUESTION_ANSWERING,
    primary="f1",
    licence="questions CC BY-SA 4.0; passages Wikipedia CC BY-SA; collection MIT",
    corpus="hotpotqa_r1s",
)
