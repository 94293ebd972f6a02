"""Learning from stored episodes: what is chosen, and that the policy becomes likelier to say it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents import episodes as episode_files
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model
from sleuth.agents.records import Answer, Completion, Episode, Sampling, Step, ToolCall
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Passage
from sleuth.eval.evaluate import tagged
from sleuth.eval.records import Task
from sleuth.training.algorithms import algorithm
from sleuth.training.offline import OfflineSpec, Stored, accepted, behaviours, pairs, priming, stored, train
from sleuth.training.rewards import Graded, RewardSpec, Term
from sleuth.training.rl import Parts
from sleuth.training.rollouts import RolloutSpec, ask
from sleuth.training.samples import Masks
from sleuth.training.sft import SftSpec, adapt
from sleuth.training.update import Learner, UpdateSpec
from tests import tiny_model
from tests.films import FilmStore

TASKS = [
    Task("t0", "Where was Spielberg born?", ("Cincinnati, Ohio",), ("spielberg",), "all"),
    Task("t1", "Who directed the film Jaws?", ("Steven Spielberg",), ("jaws",), "all"),
]
REWARD = RewardSpec({"length": Term(-10.0)}, success="format")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    policy.load()
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def rows(folder: Path, engine: EmbeddedPolicy, tmp_path_factory: pytest.TempPathFactory) -> list[Stored]:
    path = tmp_path_factory.mktemp("episodes") / "runs.jsonl"
    parts = Parts(None, folder.name, engine, FilmStore(), TASKS)
    jobs = [(task, seed) for task in TASKS for seed in range(8)]
    rolled = ask(parts, RolloutSpec("naive-rag", {"k": 2, "read": 2}), jobs, Sampling(1.0))
    for (task, _), episode in zip(jobs, rolled, strict=True):
        episode_files.append(path, tagged(episode, task))
    episode_files.append(path, dataclasses.replace(tagged(episode, Task("other", "q", ("a",)))))
    with path.open("a") as handle:
        handle.write('{"cut": ')
    return stored([path], TASKS, REWARD)


def model(folder: Path) -> Any:
    import torch

    torch.manual_seed(0)
    return adapt(load_model(folder, "float32", "cpu")[0], SftSpec(rank=4), folder.name)


def run(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], out: Path, spec: OfflineSpec, **options: Any
) -> list[Any]:
    options.setdefault("progress", lambda line: None)
    train(spec, model(folder), Masks(engine.tokens), rows, out, base=folder.name, **options)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


SPEC = OfflineSpec(
    reward=REWARD, update=UpdateSpec(learning_rate=5e-3, warmup=1), batch=4, epochs=4, checkpoint_every=2
)


def test_rejection_sampling_makes_the_accepted_likelier(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path
) -> None:
    assert len(rows) == 16
    chosen = accepted(rows, 2)
    assert len(chosen) == 4 and all(row.graded.success for row in chosen)
    best = max(row.graded.reward or -9 for row in rows if row.task.id == "t0")
    assert chosen[0].graded.reward == best
    lines = run(folder, engine, rows, tmp_path, SPEC)
    assert len(lines) == 4 and lines[-1]["entropy"] < lines[0]["entropy"] and lines[-1]["kl"] > lines[0]["kl"]


def test_preferences_are_learned_and_pairs_share_their_prompt(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path
) -> None:
    made = pairs(rows, Masks(engine.tokens), 2, 0.02)
    assert len(made) == 2
    for better, worse in made:
        start = min(better.drawn[0], worse.drawn[0])
        assert better.ids[:start] == worse.ids[:start] and better.ids != worse.ids
    lines = run(folder, engine, rows, tmp_path, dataclasses.replace(SPEC, method="prefer", margin=0.02, epochs=6))
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-4) and lines[0]["right"] == 0.0
    assert lines[-1]["loss"] < 0.5 and lines[-1]["right"] == 1.0


def test_the_gradient_of_a_pair_is_that_of_the_loss(folder: Path, engine: EmbeddedPolicy, rows: list[Stored]) -> None:
    import torch

    from sleuth.training.losses import preference
    from sleuth.training.scoring import packs, score

    made = pairs(rows, Masks(engine.tokens), 1, 0.1)
    adapted = model(folder)
    learner = Learner(adapted, UpdateSpec(learning_rate=1e-9, clip=1e9), algorithm("grpo"))
    found: list[torch.Tensor] = []
    learner._move = lambda loss: found.extend(p.grad.clone() for p in learner.params.values()) or 0.0  # type: ignore[method-assign, func-returns-value]
    learner.prefer(made, 1, 0.3)
    adapted.zero_grad()
    sums = []
    for sample in [s for pair in made for s in pair]:
        (pack,) = packs([sample], 9999)
        sums.append(score(adapted, [sample], pack)[0].sum())
    both = torch.stack(sums).view(-1, 2)
    at_start = both.detach()
    preference(both[:, 0], both[:, 1], at_start[:, 0], at_start[:, 1], 0.3).mean().backward()
    for mine, p in zip(found, learner.params.values(), strict=True):
        assert torch.allclose(mine, p.grad, atol=1e-6)


def test_a_resumed_run_equals_an_uninterrupted_one(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path
) -> None:
    for method in ("accept", "prefer"):
        spec = dataclasses.replace(SPEC, method=method)
        run(folder, engine, rows, tmp_path / method / "whole", spec)

        def stop(line: str) -> None:
            if line.startswith("step 3/"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(folder, engine, rows, tmp_path / method / "parts", spec, progress=stop)
        run(folder, engine, rows, tmp_path / method / "parts", spec, resume=True)
        name = "adapter/adapter_model.safetensors"
        assert (tmp_path / method / "parts" / name).read_bytes() == (tmp_path / method / "whole" / name).read_bytes()


def test_behaviours_are_read_off_the_record() -> None:
    jaws = Passage("j", "j", 0, 40, "Jaws", "Jaws was directed by Steven Spielberg in 1975.")
    life = Passage("s", "s", 0, 40, "Steven Spielberg", "Spielberg, who directed Jaws, is from Ohio.")
    find = lambda query, found: Step("searcher", calls=(ToolCall("search", {"query": query}, []),), passages=(found,))  # noqa: E731
    note = lambda answer: Step("reflector", completion=Completion("{}"), parsed={"note": {"answer": answer}})  # noqa: E731
    question = "where is the maker of jaws from"
    steps = (find(question, jaws), note("unknown"), find("spielberg home", life), note("Ohio"))
    task = Task("t", question, ("Ohio",))
    run_ = Episode("e", question, {}, "", steps, Answer("Ohio"), "answered")
    assert behaviours(task, run_) == {"adaptive", "recovery"}
    assert behaviours(task, dataclasses.replace(run_, answer=Answer("directed"))) == {
        "adaptive",
        "recovery",
        "verification",
    }
    assert behaviours(task, dataclasses.replace(run_, steps=steps[:2], answer=None)) == set()
    good = Stored(task, run_, Graded(0.0, False, {}, (), ()))
    poor = Stored(task, dataclasses.replace(run_, steps=steps[:2]), Graded(1.0, True, {}, (), ()))
    assert priming([poor, good], 2, 2) == [good]  # how it went about it counts, not whether it was right


def test_nothing_to_learn_from_is_said(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"'prime' finds nothing to learn from in 16 episodes, 16 of them successful"):
        run(folder, engine, rows, tmp_path, dataclasses.replace(SPEC, method="prime"))
    with pytest.raises(ConfigError, match="beta > 0"):
        OfflineSpec(beta=0.0)
