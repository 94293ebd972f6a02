"""The loop on a tiny model: it learns, it resumes to the same bytes, and it stops where it must."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model
from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.eval.records import Task
from sleuth.training.algorithms import algorithm
from sleuth.training.checkpoint import TrainingError
from sleuth.training.curriculum import CurriculumSpec
from sleuth.training.guards import GuardSpec
from sleuth.training.rewards import RewardSpec, Term
from sleuth.training.rl import LOG, Parts, RlSpec, train
from sleuth.training.rollouts import RolloutSpec
from sleuth.training.update import UpdateSpec
from tests import tiny_model
from tests.films import BIRTH, FilmStore
from tests.scripted import ScriptedPolicy

TASKS = [
    Task("t0", "Where was Spielberg born?", ("Cincinnati, Ohio",), ("spielberg",), "all"),
    Task("t1", "Who directed the film Jaws?", ("Steven Spielberg",), ("jaws",), "all"),
]
SPEC = RlSpec(
    steps=4,
    rank=4,
    rollout=RolloutSpec("naive-rag", {"k": 2, "read": 2}, questions=2, group=4),
    reward=RewardSpec({"citation_f1": Term(1.0), "length": Term(-0.2)}, success="citation_f1"),
    update=UpdateSpec(learning_rate=5e-3, warmup=1, max_tokens=900),
    curriculum=CurriculumSpec(allocate=True),
    guards=GuardSpec(on=False),
    checkpoint_every=2,
    keep_every=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    policy.load()
    yield policy
    policy.close()


@pytest.fixture
def go(folder: Path, engine: EmbeddedPolicy) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Runs a spec into a folder; gives the log's lines."""
    version = engine.policy_version

    def run(
        out: Path, spec: RlSpec = SPEC, store: Any = None, tasks: Any = TASKS, start: Any = None, **options: Any
    ) -> Any:
        model, _ = load_model(folder, "float32", "cpu")
        engine.policy_version = version
        parts = Parts(model, folder.name, engine, store or FilmStore(), tasks, options.pop("dev", ()), start)
        options.setdefault("progress", lambda line: None)
        train(spec, parts, out, **options)
        return [json.loads(line) for line in (out / LOG).read_text().splitlines()]

    yield run
    engine.policy_version = version


def weights(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def state(out: Path) -> dict[str, Any]:
    pointer = (out / "checkpoints" / "LATEST").read_text()
    meta = json.loads((out / "checkpoints" / pointer / "state.json").read_text())
    return {"bytes": (out / "checkpoints" / pointer / "state.safetensors").read_bytes(), **meta}


def test_rewards_rise(tmp_path: Path, go: Any) -> None:
    spec = dataclasses.replace(
        SPEC,
        steps=8,
        keep_every=0,
        algorithm=algorithm("dr_grpo"),
        curriculum=CurriculumSpec(),
        reward=RewardSpec({"length": Term(-10.0)}, success="format"),
        rollout=RolloutSpec("naive-rag", {"k": 3, "read": 3}, questions=2, group=8),
    )
    lines = go(tmp_path, spec, dev=TASKS)
    first, last = lines[0]["reward"], lines[-1]["reward"]
    assert last > first + 0.2, (first, last)
    assert lines[0]["mismatch"] < 1e-4 and lines[2]["kl"] < 1e-4  # the engine has the learner's weights
    assert lines[0]["computed"] < 0.5 * lines[0]["tokens"]  # prompts are computed once for a group
    assert lines[0]["version"].endswith("@0") and lines[2]["version"].endswith(f"+{tmp_path.name}@2")
    final = json.loads((tmp_path / "final.json").read_text())
    assert final["dev_reward"] >= lines[0]["dev_reward"]


def test_killed_anywhere_and_resumed_it_writes_the_same_bytes(tmp_path: Path, go: Any) -> None:
    whole = go(tmp_path / "whole")
    for killed in (1, 3):
        out = tmp_path / f"killed-{killed}" / "whole"  # the folder's name is in the policy's version

        def stop(line: str, at: int = killed) -> None:
            if line.startswith(f"step {at}/"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            go(out, progress=stop)
        lines = go(out, resume=True)
        assert weights(out) == weights(tmp_path / "whole") and state(out) == state(tmp_path / "whole")
        timeless = [{k: v for k, v in line.items() if not k.endswith("_s")} for line in lines]
        assert timeless == [{k: v for k, v in line.items() if not k.endswith("_s")} for line in whole]
        kept = sorted(p.name for p in (out / "episodes").iterdir())
        assert kept == ["step-00001.jsonl", "step-00003.jsonl"]
    other = go(tmp_path / "other" / "whole", dataclasses.replace(SPEC, seed=1))
    assert [line["reward"] for line in other] != [line["reward"] for line in whole]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("state.safetensors", lambda held: held[:-100], "cut short or changed"),
        ("state.json", lambda held: held.replace(b'"step": 4', b'"step": 5'), "does not match its own checksum"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    name: str, damage: Callable[[bytes], bytes], words: str, tmp_path: Path, go: Any
) -> None:
    go(tmp_path / "a" / "run")
    out = tmp_path / "b" / "run"
    go(out)
    victim = out / "checkpoints" / "step-00004" / name
    victim.write_bytes(damage(victim.read_bytes()))
    said: list[str] = []
    go(out, resume=True, progress=said.append)
    assert words in said[0] and said[1].startswith("step 3/4")
    assert weights(out) == weights(tmp_path / "a" / "run")


@pytest.fixture
def succeed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the log say these rates of success, a step each, and the last one from then on."""
    from sleuth.training import rl

    describe = rl.describe

    def say(*rates: float) -> None:
        left = list(rates)

        def told(groups: Any) -> dict[str, Any]:
            rate = left.pop(0) if len(left) > 1 else left[0]
            return {**describe(groups), "success": rate, "informative": 1}

        monkeypatch.setattr(rl, "describe", told)

    return say


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


def test_a_collapse_keeps_the_checkpoint_of_the_best_window_and_goes_on_from_there(
    tmp_path: Path, go: Any, succeed: Callable[..., None]
) -> None:
    succeed(*[0.6] * 6, 0.0)
    spec = dataclasses.replace(SPEC, steps=12, checkpoint_every=1, guards=GuardSpec(window=3))
    with pytest.raises(TrainingError, match=r"step 9: success fell from 0.600 to 0.000.*checkpoint: step-00006"):
        go(tmp_path, spec)
    assert checkpoints(tmp_path) == ["step-00006", "step-00007", "step-00008"]
    succeed(0.6)
    lines = go(tmp_path, spec, resume=True)
    assert [line["step"] for line in lines] == [*range(1, 13)]
    assert checkpoints(tmp_path) == ["step-00011", "step-00012"]


def test_the_best_adapter_stays_until_a_better_window_ends(
    tmp_path: Path, go: Any, succeed: Callable[..., None]
) -> None:
    best = Path("best", "adapter_model.safetensors")
    kept = []
    for steps in (3, 4):  # saved after 3 steps, and once more where there is a fourth
        succeed(0.6, 0.6, 0.2)
        spec = dataclasses.replace(SPEC, steps=steps, checkpoint_every=3, guards=GuardSpec(on=False, window=2))
        go(tmp_path / str(steps), spec)
        kept.append((tmp_path / str(steps) / best).read_bytes())
    assert kept[0] == kept[1] != weights(tmp_path / "4")


def test_steps_that_move_nothing_keep_the_version_across_a_resumption(tmp_path: Path, go: Any) -> None:
    spec = dataclasses.replace(SPEC, reward=RewardSpec({"em": Term(0.0)}, success="em"))

    def stop(line: str) -> None:
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, spec, progress=stop)
    versions = [line["version"].rpartition("@")[2] for line in go(tmp_path, spec, resume=True)]
    assert versions == ["0"] * 4


class DeadStore(FilmStore):
    """Answers a number of batches and then no more."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def search(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("search service is gone")
        return super().search(*arguments, **options)


def test_a_dead_search_moves_no_weight_and_stops_the_run(tmp_path: Path, go: Any) -> None:
    import torch

    spec = dataclasses.replace(SPEC, steps=9, checkpoint_every=1, guards=GuardSpec(dead=2))
    with pytest.raises(TrainingError, match=r"every episode failed in 2 steps.*search service is gone.*step-0000"):
        go(tmp_path, spec, store=DeadStore(1))
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["failed"] == line["episodes"] for line in lines[-2:]] == [True, True]
    assert lines[-1]["success"] is None and "loss" not in lines[-1]
    from safetensors.torch import load_file

    saved = [load_file(p) for p in sorted((tmp_path / "checkpoints").glob("*/state.safetensors"))]
    assert all(torch.equal(saved[0][k], saved[-1][k]) for k in saved[0])


def test_not_a_number_stops_and_keeps_the_checkpoint(tmp_path: Path, go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sleuth.training import losses

    calls = 0

    def poisoned(old: torch.Tensor, sampled: torch.Tensor, cap: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return old * (float("nan") if calls > 4 else 0.0) + 1.0

    monkeypatch.setattr(losses, "importance", poisoned)
    spec = dataclasses.replace(SPEC, steps=8, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"found loss nan.*last good checkpoint: step-0000"):
        go(tmp_path, spec)
    from safetensors.torch import load_file

    pointer = (tmp_path / "checkpoints" / "LATEST").read_text()
    kept = load_file(tmp_path / "checkpoints" / pointer / "state.safetensors")
    assert all(bool(torch.isfinite(v).all()) for k, v in kept.items() if k.startswith("weight/"))
    assert not (tmp_path / "adapter").exists()


def test_what_cannot_run_says_why(tmp_path: Path, go: Any, folder: Path) -> None:
    go(tmp_path / "run", dataclasses.replace(SPEC, steps=1))
    with pytest.raises(InputError, match="already holds a run"):
        go(tmp_path / "run")
    with pytest.raises(InputError, match="rank"):
        go(tmp_path / "run", dataclasses.replace(SPEC, rank=2), resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        go(tmp_path / "nowhere", resume=True)
    with pytest.raises(InputError, match="no tasks"):
        go(tmp_path / "none", tasks=[])
    start = tmp_path / "run" / "adapter"
    go(tmp_path / "on", dataclasses.replace(SPEC, steps=1), start=start)
    with pytest.raises(ModelError, match="has r 4, this run has 2"):
        go(tmp_path / "rank", dataclasses.replace(SPEC, rank=2), start=start)
    config = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "other-model"}))
    with pytest.raises(ModelError, match=f"was made for other-model, the model is {folder.name}"):
        go(tmp_path / "base", start=start)


def test_two_runs_on_one_folder(tmp_path: Path, go: Any) -> None:
    from sleuth.training.checkpoint import locked

    with locked(tmp_path), pytest.raises(InputError, match="another run is training in this folder"):
        go(tmp_path)


def test_several_epochs_a_reference_and_step_rewards_run(tmp_path: Path, go: Any) -> None:
    choices = algorithm("ppo", kl=0.1, step_weight=0.5, entropy="kl_cov", entropy_share=0.1)
    reward = dataclasses.replace(SPEC.reward, steps={"gain": 1.0})
    lines: list[Mapping[str, Any]] = go(tmp_path, dataclasses.replace(SPEC, steps=2, algorithm=choices, reward=reward))
    assert all(line["loss"] is not None and line["norm"] > 0 for line in lines)
    spec = dataclasses.replace(SPEC, steps=1, rollout=dataclasses.replace(SPEC.rollout, rounds=3, questions=1))
    (line,) = go(tmp_path / "rounds", spec)
    assert line["informative"] >= 1 or line["groups"] == 2


def test_the_episodes_of_all_rounds_of_a_step_are_kept(tmp_path: Path, go: Any) -> None:
    rollout = dataclasses.replace(SPEC.rollout, rounds=3, questions=1)
    reward = RewardSpec({"em": Term(0.0)}, success="em")  # all rewards are equal, so a second round asks on
    (line,) = go(tmp_path, dataclasses.replace(SPEC, steps=1, rollout=rollout, reward=reward))
    assert line["groups"] == 2
    kept = (tmp_path / "episodes" / "step-00001.jsonl").read_text().splitlines()
    assert len(kept) == 8 and len({json.loads(row)["question"] for row in kept}) == 2


def test_weights_are_not_changed_under_a_request(engine: EmbeddedPolicy) -> None:
    from sleuth.agents.records import Message, PolicyError, Sampling

    async def run() -> None:
        asked = asyncio.ensure_future(engine.sample([Message("user", "Tell me much. " * 40)], Sampling(1.0, 1.0, 400)))
        while not engine._rows:
            await asyncio.sleep(0.001)
        with pytest.raises(PolicyError, match="in flight"):
            engine.publish([], "v")
        asked.cancel()
        while engine._rows:
            await asyncio.sleep(0.001)

    asyncio.run(run())
    with pytest.raises(ModelError, match="expected a weight of shape"):
        engine.publish([("model.layers.0.mlp.up_proj", __import__("torch").zeros(2, 2))], "v")


def test_a_failing_group_gets_a_true_trajectory(tmp_path: Path, go: Any, folder: Path, engine: EmbeddedPolicy) -> None:
    from sleuth.agents.records import Sampling
    from sleuth.training.inject import true_episode
    from sleuth.training.rollouts import ask
    from sleuth.training.samples import Masks, to_samples

    spec = dataclasses.replace(
        SPEC,
        steps=10,
        algorithm=algorithm("luffy"),
        curriculum=CurriculumSpec(),
        reward=RewardSpec({"em": Term(1.0)}),
        update=UpdateSpec(learning_rate=1e-2, warmup=1),
    )
    model, _ = load_model(folder, "float32", "cpu")
    parts = Parts(model, folder.name, engine, FilmStore(), TASKS)
    rolled = ask(parts, SPEC.rollout, [(TASKS[0], 1), (TASKS[0], 2)], Sampling(1.0))
    masks = Masks(engine.tokens)
    truth = true_episode(TASKS[0], rolled, masks)
    assert truth is not None and truth.answer and truth.answer.text == "Cincinnati, Ohio"
    assert [c.passage_id for s in truth.answer.sentences for c in s.citations] == ["spielberg"]
    (sample,) = to_samples(truth, [None, 1.0], masks)
    assert set(sample.logprobs) == {0.0} and sample.ids[: len(truth.steps[1].completion.prompt_ids)] == (  # type: ignore[union-attr]
        rolled[0].steps[1].completion.prompt_ids  # type: ignore[union-attr]
    )
    for mode in ("schema", "none"):  # as servers hold replies to less
        loose = Masks(engine.tokens, mode)
        made = true_episode(TASKS[0], rolled, loose)
        assert made and len(to_samples(made, [None, 1.0], loose)[0].drawn) > len(sample.drawn)
    several = dataclasses.replace(TASKS[0], answers=("Cincinnati; Ohio",), answer_items=("Cincinnati", "Ohio"))
    listed = true_episode(several, rolled, masks)
    assert listed and listed.answer and [s.text for s in listed.answer.sentences] == ["Cincinnati", "Ohio"]
    assert listed.steps[-1].parsed["items"] == ["Cincinnati", "Ohio"]
    elsewhere = dataclasses.replace(TASKS[0], supporting=("nowhere",))
    assert true_episode(elsewhere, rolled, masks) is None  # its evidence was not retrieved
    lines = go(tmp_path, spec)
    assert lines[0]["success"] == 0.0 and lines[0]["informative"] == 0 and lines[0]["norm"] > 0
    assert lines[-1]["success"] > 0.3


def test_a_hinted_answer_is_trained_on_under_the_prompt_without_the_hint(engine: EmbeddedPolicy, folder: Path) -> None:
    from sleuth.agents.records import PolicyError, Sampling
    from sleuth.training.groups import grade_groups, samples
    from sleuth.training.inject import teacher
    from sleuth.training.rollouts import ask
    from sleuth.training.samples import Masks

    parts = Parts(None, folder.name, engine, FilmStore(), TASKS)
    rolled = ask(parts, SPEC.rollout, [(TASKS[0], 1), (TASKS[0], 2)], Sampling(1.0))
    masks, reward, guide = Masks(engine.tokens), RewardSpec({"em": Term(1.0)}), algorithm("guide")
    told = ScriptedPolicy(lambda messages: {"answer": "Cincinnati, Ohio", "quotes": [BIRTH, BIRTH]})
    (group,) = grade_groups([(TASKS[0], rolled)], reward, teacher(guide, masks, told))
    ((_, hinted),) = told.seen
    plain = rolled[0].steps[-1]
    assert hinted.content == f"{plain.messages[1].content}\nHint: the answer is decided in Steven Spielberg."
    assert group.truth and group.truth_graded and group.truth_graded.success and plain.completion
    (true,) = [sample for sample in samples([group], guide, [None], masks) if sample.true]
    assert true.ids[: len(plain.completion.prompt_ids)] == plain.completion.prompt_ids
    assert list(set(true.advantages)) == [pytest.approx(2 / 3 / (1 / 3) ** 0.5)]  # 1 beside 0 and 0, by their deviation
    several = dataclasses.replace(TASKS[0], answer_items=("Cincinnati", "Ohio"))
    naming = ScriptedPolicy(lambda messages: {"answer": ["Ohio", "Cincinnati"], "quotes": [BIRTH]})
    (group,) = grade_groups([(several, rolled)], reward, teacher(guide, masks, naming))
    assert group.truth and group.truth.answer and group.truth.answer.text == "Ohio, Cincinnati"
    for said in ({"answer": "Cincinnati", "quotes": [BIRTH]}, "hm", PolicyError("timeout", "late")):
        teach = teacher(guide, masks, ScriptedPolicy(lambda messages, said=said: said))
        (group,) = grade_groups([(TASKS[0], rolled)], reward, teach)
        assert group.truth is None  # no success, no reply, nobody
    elsewhere = dataclasses.replace(TASKS[0], supporting=("nowhere",))
    assert teacher(guide, masks, told)([(elsewhere, rolled)]) == [None] and len(told.seen) == 1
    assert teacher(algorithm("grpo"), masks, told)([(TASKS[0], rolled)]) == [None]
    with pytest.raises(ConfigError, match="'hint' needs 'inject' over 0"):
        algorithm("grpo", hint=True)


def test_layers_computed_twice_give_the_same_weights(tmp_path: Path, go: Any) -> None:
    spec = dataclasses.replace(SPEC, steps=2)
    go(tmp_path / "kept", spec)
    go(tmp_path / "twice", dataclasses.replace(spec, update=dataclasses.replace(spec.update, checkpointing=True)))
    assert weights(tmp_path / "twice") == weights(tmp_path / "kept")


def test_at_rank_0_the_engine_goes_on_with_all_weights(tmp_path: Path, folder: Path, engine: EmbeddedPolicy) -> None:
    spec = dataclasses.replace(SPEC, steps=3, rank=0, update=dataclasses.replace(SPEC.update, learning_rate=1e-3))
    own = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
    own.load()
    try:
        model, _ = load_model(folder, "float32", "cpu")
        made = train(spec, Parts(model, "tiny", own, FilmStore(), TASKS), tmp_path / "run", progress=lambda line: None)
    finally:
        own.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert made == tmp_path / "run" / "model" and not (tmp_path / "run" / "adapter").exists()
    assert lines[-1]["norm"] > 0 and all(line["mismatch"] < 1e-3 for line in lines)  # engine and learner are one policy
    before, after = (load_model(path, "float32", "cpu")[0].state_dict() for path in (folder, made))
    assert all((before[name] != after[name]).any() for name in ("model.norm.weight", "model.embed_tokens.weight"))
    its = load_model(made, "float32", "cpu")[1]
    assert its.chat_template
