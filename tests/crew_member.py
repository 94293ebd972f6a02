"""One process of a crew: trains the tiny model on the films, for tests that start two of them."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sleuth.training import losses
from sleuth.training.algorithms import algorithm
from sleuth.training.checkpoint import TrainingError
from sleuth.training.crew import Crew, join
from sleuth.training.curriculum import CurriculumSpec
from sleuth.training.rl import LOG, Parts, RlSpec, train
from tests.films import FilmStore
from tests.test_training_rl import SPEC, TASKS

CREW_TASKS = [dataclasses.replace(task, id=f"{task.id}-{n}") for n in range(2) for task in TASKS]
CREW = dataclasses.replace(
    SPEC,
    steps=2,
    rollout=dataclasses.replace(SPEC.rollout, questions=3),
    curriculum=CurriculumSpec(),
    algorithm=algorithm("reinforce_pp", kl=0.01),
    update=dataclasses.replace(SPEC.update, max_tokens=300),  # the first member has more trees than the second
)
WHOLE = dataclasses.replace(
    CREW,
    rank=0,
    rollout=dataclasses.replace(CREW.rollout, questions=1),  # the second member has no sample
    algorithm=algorithm("gspo", epochs=2, clip_low=0.2, clip_high=0.2),
    update=dataclasses.replace(CREW.update, learning_rate=1e-3, checkpointing=True),
    checkpoint_every=1,
)


def run(spec: RlSpec, folder: Path, out: Path, crew: Crew, tell: Any = print, **options: Any) -> list[dict[str, Any]]:
    """Train from the base on; the log's lines."""
    from sleuth.agents.policy.embedded import EmbeddedPolicy
    from sleuth.agents.policy.models import load_model

    engine = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    model, _ = load_model(folder, "float32", "cpu")
    parts = Parts(model, folder.name, engine, FilmStore(), CREW_TASKS, TASKS, crew=crew)
    try:
        train(spec, parts, out, progress=lambda line: tell(crew.rank, line), **options)
    finally:
        engine.close()
    return [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]


def main(folder: Path, out: Path) -> None:
    import torch

    torch.set_num_threads(1)
    crew = join()
    run(CREW, folder, out / "plain" / "run", crew)
    run(dataclasses.replace(CREW, shard=True), folder, out / "adapter" / "run", crew)
    sharded = dataclasses.replace(WHOLE, shard=True)
    run(dataclasses.replace(sharded, steps=1), folder, out / "whole" / "run", crew)
    run(sharded, folder, out / "whole" / "run", crew, resume=True)
    if not crew.first:  # one member's loss is no number, and all stop
        losses.importance = lambda old, sampled, cap: old * float("nan")
    with pytest.raises(TrainingError, match="found loss nan, gradient norm nan"):
        run(dataclasses.replace(CREW, shard=True), folder, out / "poisoned" / "run", crew)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
