"""Rollouts that run ahead of the learner, and rollouts behind an address: versions, bounds, weights."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents.policy.constrain import Tokens
from sleuth.agents.policy.embedded import EmbeddedPolicy, end_tokens
from sleuth.agents.policy.models import load_model
from sleuth.agents.records import Message, PolicyError, Sampling
from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.eval.records import Task
from sleuth.serve_policy import make_app
from sleuth.training.crew import Crew
from sleuth.training.engines import RemoteEngine
from sleuth.training.rewards import RewardSpec, Term
from sleuth.training.rl import LOG, Parts, RlSpec, train
from sleuth.training.rollouts import Ahead, RolloutSpec, asker, oldest, version_step
from sleuth.training.sft import SftSpec, adapt
from tests import tiny_model
from tests.films import FilmStore, reply, use_reranker
from tests.scripted import ScriptedPolicy
from tests.test_training_rl import SPEC, TASKS

MORE = [dataclasses.replace(task, id=f"{task.id}-{n}") for n in range(4) for task in TASKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture
def engine(folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    policy.load()
    yield policy
    policy.close()


def learn(folder: Path, engine: Any, out: Path, spec: RlSpec, tasks: list[Task] = MORE, **options: Any) -> list[Any]:
    model, _ = load_model(folder, "float32", "cpu")
    parts = Parts(model, folder.name, engine, FilmStore(), tasks)
    train(spec, parts, out, progress=lambda line: None, **options)
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def test_versions_name_their_step() -> None:
    assert version_step("tiny@0123456789ab+run@12") == 12 and version_step("untrained") == 0
    assert oldest([], 3) == 3  # without a reply it is as new as can be


def test_rollouts_of_a_chain_have_their_hits_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine(ScriptedPolicy):
        max_batch = 2

    reader = use_reranker(monkeypatch)
    one = asker(Engine(reply), FilmStore(), RolloutSpec("chain"), Sampling())
    episode = asyncio.run(one(TASKS[0], 7))  # type: ignore[arg-type]  # a coroutine it is
    assert len(reader.asked) == 2 and episode.config["reranker"] == reader.name
    assert (episode.config["seed"], episode.fingerprint, episode.stop) == (7, "films-1", "answered")


def test_a_reranker_that_is_not_there_is_told_before_a_rollout(tmp_path: Path) -> None:
    class Engine(ScriptedPolicy):
        max_batch = 2

    engine = Engine(reply)
    with pytest.raises(ModelError, match="found nothing"):
        asker(engine, FilmStore(), RolloutSpec("naive-rag", {"rerank": str(tmp_path)}), Sampling())
    assert engine.seen == []


def test_a_run_ahead_is_bounded_and_corrected(tmp_path: Path, folder: Path, engine: EmbeddedPolicy) -> None:
    rollout = dataclasses.replace(SPEC.rollout, staleness=1)
    spec = dataclasses.replace(SPEC, rollout=rollout, steps=4, checkpoint_every=2, keep_every=1)
    lines = learn(folder, engine, tmp_path / "run", spec)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["staleness"] == 0 and all(0 <= line["staleness_max"] <= 1 for line in lines)
    assert any(line["staleness"] > 0 for line in lines[1:])  # rollouts did run ahead
    late = next(line for line in lines if line["staleness"] > 0)
    assert late["kl"] > 5 * lines[0]["kl"]  # what was sampled by older weights is measured against the present ones
    assert len(list((tmp_path / "run" / "episodes").glob("*.jsonl"))) == 4
    again = learn(folder, engine, tmp_path / "run", dataclasses.replace(spec, steps=5), resume=True)
    assert [line["step"] for line in again] == [1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="staleness"):
        RolloutSpec(staleness=1, rounds=2)


def test_steps_without_an_update_make_nothing_older(
    tmp_path: Path, folder: Path, engine: EmbeddedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, start = [], Ahead.start

    def counted(self: Ahead, chosen: Any, seeds: Any) -> None:
        batches.append(len(chosen))
        assert len(batches) < 20, "the same questions are asked for ever"
        start(self, chosen, seeds)

    monkeypatch.setattr(Ahead, "start", counted)
    rollout = dataclasses.replace(SPEC.rollout, staleness=1)
    alike = RewardSpec({"em": Term(1.0)}, success="em")  # an untrained model is never right: nothing to tell apart
    spec = dataclasses.replace(SPEC, rollout=rollout, reward=alike, steps=4)
    lines = learn(folder, engine, tmp_path / "run", spec)
    assert all(line["entropy"] is None and line["staleness_max"] == 0 for line in lines)
    assert len(lines) == 4 and lines[-1]["stale_dropped"] == 0
    longer = dataclasses.replace(spec, steps=7)
    assert len(learn(folder, engine, tmp_path / "run", longer, resume=True)) == 7


def test_what_is_too_old_is_dropped_and_counted(engine: EmbeddedPolicy) -> None:
    ahead = Ahead(engine, FilmStore(), SPEC.rollout)
    try:
        ahead.start([(TASKS[0], 2), (TASKS[1], 2)], lambda task, number: number)
        assert ahead.waiting() == {"t0", "t1"}
        assert ahead.take(2, since=1) == [] and ahead.dropped == 2  # weights of step 0, wanted are those since step 1
        ahead.start([(TASKS[0], 2)], lambda task, number: number)
        (row,) = ahead.take(1, since=0)
        assert row.task.id == "t0" and len(row.episodes) == 2 and not ahead.waiting()
    finally:
        ahead.close()


def test_stale_tokens_weigh_by_the_ratio_of_the_policies() -> None:
    import torch

    from sleuth.training.losses import importance

    old, sampled = torch.tensor([-1.0, -1.0, -3.0]), torch.tensor([-1.0, -2.0, -1.0])
    assert importance(old, sampled, 2.0).tolist() == pytest.approx([1.0, 2.0, 0.1353], abs=1e-4)


def test_new_weights_wait_for_replies_in_flight(engine: EmbeddedPolicy) -> None:
    import torch

    weight = torch.zeros_like(engine.ragged.model.model.layers[0].mlp.up_proj.weight)

    async def run() -> list[str]:
        first = asyncio.ensure_future(engine.sample([Message("user", "Tell me. " * 30)], Sampling(1.0, 1.0, 60)))
        while not engine._rows:
            await asyncio.sleep(0.001)
        swap = asyncio.create_task(
            asyncio.to_thread(engine.publish, [("model.layers.0.mlp.up_proj", weight)], "new@1", True)
        )
        while not engine._held and not swap.done():
            await asyncio.sleep(0.001)
        second = await engine.sample([Message("user", "Tell me.")], Sampling(1.0, 1.0, 4))
        await swap
        return [(await first).policy_version, second.policy_version]

    before = engine.policy_version
    assert asyncio.run(run()) == [before, "new@1"]


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """A policy server over the tiny model on a free port, which takes adapters."""
    import uvicorn

    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app: Any = make_app(policy, adapters=True)
    serving = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1#tiny"
    serving.should_exit = True
    thread.join()
    policy.close()


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_server_rolls_out_with_the_weights_it_is_given(
    tmp_path: Path, folder: Path, server: str, staleness: int
) -> None:
    model, tokenizer = load_model(folder, "float32", "cpu")
    tokens = Tokens(tokenizer, model.config.vocab_size, end_tokens(model))
    remote = RemoteEngine(server, tokens, tmp_path / "serving", "schema", max_batch=8)
    rollout = dataclasses.replace(SPEC.rollout, staleness=staleness, server=server)
    lines = learn(folder, remote, tmp_path / "run", dataclasses.replace(SPEC, rollout=rollout, steps=3))
    assert all(line["failed"] == 0 for line in lines), lines[0]["why"]
    assert lines[0]["mismatch"] < 1e-4 and [line["version"] for line in lines] == [f"tiny+run@{n}" for n in range(3)]
    if not staleness:  # the server's log-probabilities are those of the learner's present weights
        assert all(line["mismatch"] < 1e-3 for line in lines)
    assert len(list((tmp_path / "serving").iterdir())) == 2


def test_a_server_without_ids_or_with_other_weights_is_refused(tmp_path: Path, folder: Path, server: str) -> None:
    model, tokenizer = load_model(folder, "float32", "cpu")
    remote = RemoteEngine(server, Tokens(tokenizer, model.config.vocab_size, [2]), tmp_path)
    with pytest.raises(PolicyError, match="expected an adapter to have been given"):
        asyncio.run(remote.sample([Message("user", "Who?")], Sampling(1.0, 1.0, 4)))
    remote.adopt(adapt(model, SftSpec(rank=4), "tiny"), "run@1", Crew(rank=1))  # the first of a crew tells the server
    assert remote.policy_version == "run@1" and not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="URL#model"):
        RemoteEngine("127.0.0.1:8700", remote.tokens, tmp_path)
