"""What must never break an episode, in small: bench/faults.py with fewer runs and one kill at each place of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "bench" / "faults.py"


def test_failing_servers_and_killed_processes_cost_no_episode(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    command = [sys.executable, str(SCRIPT), "--runs", "40", "--together", "40", "--kills", "1", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = json.loads(out.read_text())
    killed, flaky = found["killed"], found["flaky"]
    assert killed["points"] == 2 * killed["writes_a_run"] > 30
    assert (killed["not_killed"], killed["other_episodes"], killed["more_calls_than_a_whole_run"]) == (0, 0, 0)
    assert sum(flaky["endings"].values()) == 40 and flaky["faults"]["none"] > 40
    assert (flaky["untyped"], flaky["over_deadline"], flaky["over_calls"]) == (0, 0, 0)
