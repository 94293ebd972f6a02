"""Several processes on a tiny model: each with all of the model or a part of it, they learn what one learns."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sleuth.training.crew import Crew
from sleuth.training.rl import LOG
from tests import tiny_model
from tests.crew_member import CREW, WHOLE, run

FIGURES = ("reward", "success", "episodes", "informative", "drawn", "tokens", "loss", "entropy", "norm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    return tiny_model.make(made, max_position_embeddings=4096, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def crew(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes trained."""
    out = tmp_path_factory.mktemp("crew")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = Path(__file__).resolve().parent.parent
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "PYTHONPATH": str(root)}
    members = [
        subprocess.Popen([sys.executable, "-m", "tests.crew_member", str(folder), str(out)], cwd=root, text=True,
                         env={**os.environ, **place, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [member.communicate(timeout=300) for member in members]
    finally:
        for member in members:
            member.kill()
    assert all(member.returncode == 0 for member in members), said
    assert [len(text.splitlines()) for text, _ in said] == [6, 0]  # the first tells, the other does not
    return out


def alike(one: list[dict[str, Any]], two: Path) -> None:
    """The same steps, up to the rounding of sums."""
    theirs = [json.loads(line) for line in (two / LOG).read_text(encoding="utf-8").splitlines()]
    for a, b in zip(one, theirs, strict=True):
        assert set(a) == set(b)
        for key in FIGURES:
            assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-5), key
    assert one[0]["dev_reward"] == theirs[0]["dev_reward"]


def apart(one: Path, two: Path) -> float:
    """The largest difference between two files of tensors, which have the same names and shapes."""
    from safetensors.torch import load_file

    ours, theirs = load_file(one), load_file(two)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


def quiet(*said: Any) -> None:
    """Nobody is told."""


STATE = "run/checkpoints/step-00002/state.safetensors"
ADAPTER = "run/adapter/adapter_model.safetensors"


def test_two_processes_learn_what_one_learns(tmp_path: Path, folder: Path, crew: Path) -> None:
    one = run(CREW, folder, tmp_path / "run", Crew(), quiet)
    for kind in ("plain", "adapter"):  # with all of the model each, and with a part of it
        alike(one, crew / kind / "run")
        assert apart(tmp_path / ADAPTER, crew / kind / ADAPTER) < 1e-3
        assert apart(tmp_path / STATE, crew / kind / STATE) < 1e-4


def test_all_weights_are_trained_in_parts_and_after_a_stop(tmp_path: Path, folder: Path, crew: Path) -> None:
    one = run(WHOLE, folder, tmp_path / "run", Crew(), quiet)
    alike(one, crew / "whole" / "run")
    name = "run/model/model.safetensors"
    assert all(line["norm"] > 1e-3 for line in one)
    assert apart(tmp_path / name, crew / "whole" / name) < 1e-3
    assert apart(tmp_path / STATE, crew / "whole" / STATE) < 1e-4


def test_one_process_goes_on_where_two_stopped(tmp_path: Path, folder: Path, crew: Path) -> None:
    longer = dataclasses.replace(CREW, steps=3)
    one = run(longer, folder, tmp_path / "one" / "run", Crew(), quiet)
    shutil.copytree(crew / "adapter", tmp_path / "on")
    run(dataclasses.replace(longer, shard=True), folder, tmp_path / "on" / "run", Crew(), quiet, resume=True)
    alike(one, tmp_path / "on" / "run")


def test_a_number_that_is_none_on_one_member_stops_all(crew: Path) -> None:
    assert (crew / "poisoned" / "run" / "checkpoints" / "LATEST").read_text(encoding="utf-8") == "step-00000"
    assert not (crew / "poisoned" / "run" / "adapter").exists()
