"""A run's page: curves of what was logged, episodes before and after, nothing from elsewhere, everything escaped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from sleuth.agents import episodes
from sleuth.training.checkpoint import read_log, trim
from sleuth.training.run_page import curves, plot, write_page
from tests.eval_episodes import episode

LINES = [
    {"step": n, "episodes": 8, "success": n / 4, "reward": n / 4, "term/em": 0.5, "entropy": None, "kl": 0.1 * n,
     "staleness": 1.0, **({"dev_success": 0.5} if n == 1 else {})}
    for n in range(1, 5)
]  # fmt: skip


def test_curves_are_those_that_were_logged() -> None:
    assert curves(LINES) == ["success", "reward", "term/em", "kl", "staleness"]
    drawn = plot(LINES, "success")
    assert drawn["raw"].split()[0] == "0.0,82.5" and drawn["raw"].split()[-1] == "300.0,0.0"
    assert drawn["dev"] == [(0.0, 55.0)] and drawn["top"] == "1" and drawn["last"] == "0.625"
    assert plot(LINES, "term/em")["raw"].split()[0] == "0.0,0.0"  # a flat line is no division by nothing


def test_the_page_stands_alone_and_escapes(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "episodes").mkdir()
    for step, question in ((1, "Who <b>first</b>?"), (11, "Who last?")):
        made = dataclasses.replace(episode("Q", None), question=question)
        episodes.append(tmp_path / "episodes" / f"step-{step:05d}.jsonl", made)
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert "Who &lt;b&gt;first" in text and "Episodes of step 11" in text and "32 episodes" in text
    assert "<script" not in text and "http:" not in text and "https:" not in text and text.count("<figure>") == 5


def test_a_log_ends_its_lines_at_newlines_alone(tmp_path: Path) -> None:
    log, odd = tmp_path / "metrics.jsonl", {**LINES[0], "why": "cut\u2028off\u0085"}
    log.write_text(json.dumps(odd, ensure_ascii=False) + '\n{"step": 2, "cut', encoding="utf-8")
    trim(log, 1)
    assert read_log(log) == [odd] and write_page(tmp_path).is_file()
