"""HotpotQA in small: two-hop Wikipedia questions (bridge, comparison), gold and distractor paragraphs as the corpus.

Yang et al. 2018, arXiv 1809.09600; both gold paragraphs are needed. Scored with the official EM and F1.
"""

from __future__ import annotations

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

HOTPOTQA_S = Benchmark(
    name="hotpotqa_s",
    load=loader("hotpotqa_s"),
    metrics=QUESTION_ANSWERING,
    primary="f1",
    licence="CC BY-SA 4.0",
    corpus="hotpotqa_s",
)
