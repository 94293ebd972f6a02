"""The benchmarks by name: one literal table; a path to a question file works wherever a name does."""

from __future__ import annotations

import difflib
from pathlib import Path

from sleuth.corpora.errors import ConfigError
from sleuth.eval.benchmarks.commaqa_e import COMMAQA_E
from sleuth.eval.benchmarks.hotpotqa_r1s import HOTPOTQA_R1S
from sleuth.eval.benchmarks.hotpotqa_s import HOTPOTQA_S
from sleuth.eval.benchmarks.morehopqa_s import MOREHOPQA_S
from sleuth.eval.benchmarks.musique_s import MUSIQUE_S
from sleuth.eval.benchmarks.nq import NQ
from sleuth.eval.benchmarks.strategyqa import STRATEGYQA
from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "hotpotqa_s": HOTPOTQA_S,
    "hotpotqa_r1s": HOTPOTQA_R1S,
    "musique_s": MUSIQUE_S,
    "morehopqa_s": MOREHOPQA_S,
    "strategyqa": STRATEGYQA,
    "commaqa_e": COMMAQA_E,
    "nq_dev": NQ,
}


def benchmark(name: str) -> tuple[Benchmark, Path | None]:
    """The benchmark of a name, or of a path to a question file (then with that path).

    A file named after a known set (``musique_s.jsonl``, ``nq_dev.dev.jsonl``) is scored as that set, any other by the
    metrics for question answering. An unknown name raises `ConfigError`.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name], None
    path = Path(name)
    if path.is_file():
        stem = path.name.split(".", 1)[0]
        return BENCHMARKS.get(stem) or Benchmark(stem, loader(stem), QUESTION_ANSWERING, "f1", "as given"), path
    close = difflib.get_close_matches(name, BENCHMARKS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(f"unknown benchmark {name!r}{hint}; known: {', '.join(BENCHMARKS)}, or a path to a question file")
