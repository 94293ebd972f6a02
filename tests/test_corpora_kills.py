"""A sample of bench/kills.py: a deletion killed, out of space and unplugged at every fourth call to the disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "bench" / "kills.py"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_disturbance_of_a_deletion_costs_a_document() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "delete", "--every", "4"], capture_output=True, text=True, timeout=300
    )
    if "could not attach" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    head, total = done.stdout.splitlines()
    tried = dict(re.findall(r"(\w+) (\d+)", head))
    assert int(tried["calls"]) > 10 and min(int(tried[kind]) for kind in ("killed", "full", "unplugged")) >= 3
    assert "none lost" in total
