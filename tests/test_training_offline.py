"""Learning from stored episodes: what is chosen, and that the policy becomes likelier to say it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents import episodes as episode_files
from sleuth.agents.cite import checked
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model
from sleuth.agents.records import Answer, Completion, Episode, PolicyError, Sampling, Step, ToolCall
from sleuth.agents.roles import answerer
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Passage
from sleuth.eval.evaluate import tagged
from sleuth.eval.records import Task
from sleuth.training.algorithms import algorithm
from sleuth.training.checkpoint import TrainingError
from sleuth.training.offline import OfflineSpec, Stored, _units, accepted, behaviours, pairs, priming, stored, train
from sleuth.training.reflect import PROMPT, refined, reflect, verdict
from sleuth.training.rewards import Graded, RewardSpec, Term, grade
from sleuth.training.rl import Parts
from sleuth.training.rollouts import RolloutSpec, ask
from sleuth.training.samples import Masks
from sleuth.training.sft import SftSpec, adapt
from sleuth.training.update import Learner, UpdateSpec
from tests import tiny_model
from tests.films import BIRTH, FILM, PASSAGES, FilmStore
from tests.scripted import ScriptedPolicy

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


@pytest.mark.parametrize("method", ["accept", "prefer"])
def test_not_a_number_stops_and_keeps_the_checkpoint(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path, method: Any
) -> None:
    import torch

    spec = dataclasses.replace(SPEC, method=method, margin=0.02, epochs=6)
    learning = model(folder)

    def poison(line: str) -> None:
        if line.startswith("step 3/"):
            with torch.no_grad():
                next(p for p in learning.parameters() if p.requires_grad).fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"step 4: expected finite numbers.*step-00002"):
        train(spec, learning, Masks(engine.tokens), rows, tmp_path, base=folder.name, progress=poison)
    assert not (tmp_path / "adapter").exists()


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
        whole = run(folder, engine, rows, tmp_path / method / "whole", spec)
        for step in (1, 3):  # before the first checkpoint, and after it

            def stop(line: str, last: str = f"step {step}/") -> None:
                if line.startswith(last):
                    raise KeyboardInterrupt

            parts, name = tmp_path / method / f"parts-{step}", "adapter/adapter_model.safetensors"
            with pytest.raises(KeyboardInterrupt):
                run(folder, engine, rows, parts, spec, progress=stop)
            assert run(folder, engine, rows, parts, spec, resume=True) == whole
            assert (parts / name).read_bytes() == (tmp_path / method / "whole" / name).read_bytes()


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


EXACT = RewardSpec({"em": Term(1.0)})
MENDED = {"answer": "Cincinnati, Ohio", "quotes": [BIRTH]}


def failed(rows: Sequence[Stored]) -> list[Stored]:
    """The episodes that the answer checker rejects; one of another question that it accepts."""
    graded = [Stored(row.task, row.episode, grade(row.task, row.episode, EXACT)) for row in rows]
    won = dataclasses.replace(next(row for row in graded if row.task.id == "t1"), graded=Graded(1.0, True, {}, (), ()))
    return [*[row for row in graded if row.task.id == "t0" and not row.graded.success], won]


def test_a_failed_answer_is_mended_by_a_reflector_that_is_told_no_gold(
    engine: EmbeddedPolicy, rows: list[Stored]
) -> None:
    asked = failed(rows)
    policy = ScriptedPolicy(lambda messages: MENDED)
    made = asyncio.run(reflect(asked, 2, Masks(engine.tokens), policy))
    assert len(made) == len(policy.seen) == 2 and {task.id for task, _ in made} == {"t0"}
    before = {row.episode.steps[-1].messages: row.episode.steps[-1] for row in asked}
    for (_, user), (task, episode) in zip(policy.seen, made, strict=True):
        last = episode.steps[-1]
        told = user.content.removesuffix(last.messages[-1].content).splitlines()
        assert len(told) == 2 and told[0].startswith("Earlier reply: {") and told[1].startswith("Verdict: The answer ")
        assert not any(answer in told[1] for answer in task.answers)
        assert last.completion and last.completion.prompt_ids == before[last.messages].completion.prompt_ids  # type: ignore[union-attr]
        graded = grade(task, episode, EXACT)
        assert graded.success and [c.quote for s in episode.answer.sentences for c in s.citations] == [BIRTH]  # type: ignore[union-attr]
    for beside in ({"answer": "Paris", "quotes": [BIRTH]}, {"answer": "Cincinnati, Ohio", "quotes": ["No."]}, "hm"):
        assert asyncio.run(reflect(asked, 2, Masks(engine.tokens), ScriptedPolicy(lambda m, b=beside: b))) == []
    gone = ScriptedPolicy(lambda messages: PolicyError("unreachable", "nobody there"))
    with pytest.raises(PolicyError, match="nobody there"):
        asyncio.run(reflect(asked, 2, Masks(engine.tokens), gone))


def test_only_the_mended_reply_is_trained_on_and_a_run_that_goes_on_asks_nobody(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reflector(ScriptedPolicy):
        async def aclose(self) -> None: ...

    def says(answer: str) -> None:
        reply = {**MENDED, "answer": answer}
        monkeypatch.setattr("sleuth.agents.policy.open_policy", lambda *_, **__: Reflector(lambda messages: reply))

    spec = dataclasses.replace(SPEC, method="reflect", reward=EXACT, epochs=6)
    parts = Parts(None, folder.name, engine, FilmStore(), TASKS)
    rolled = ask(parts, RolloutSpec("iterative", {"k": 2}), [(TASKS[0], seed) for seed in range(4)], Sampling(1.0))
    asked = failed([*(Stored(TASKS[0], episode, rows[0].graded) for episode in rolled), rows[-1]])[:-1]
    assert len(asked) >= 2 and all(len([s for s in row.episode.steps if s.completion]) > 1 for row in asked)
    masks, path = Masks(engine.tokens), tmp_path / "refined.jsonl"
    says("Cincinnati")  # can be said, and is not the answer
    assert refined(asked, spec, masks, path) == [] and path.exists()
    says("Cincinnati, Ohio")
    assert refined(asked, spec, masks, path, resume=True) == []
    mended = refined(asked, spec, masks, path)
    assert mended and refined(asked, spec, masks, path, resume=True) == mended
    for unit, row in zip(_units(spec, masks, [*asked, *mended]), mended, strict=True):
        assert {place for sample in unit for place in sample.steps} == {len(row.episode.steps) - 1}
    lines = run(folder, engine, [*asked, *mended], tmp_path / "out", spec)
    assert lines[0]["units"] == len(mended) and lines[-1]["entropy"] < lines[0]["entropy"]


def test_a_verdict_says_what_was_wrong_and_the_prompts_own_example_is_read() -> None:
    task = TASKS[0]
    told = lambda text, quotes=(): verdict(task, _answered(task, text, quotes))  # noqa: E731
    assert told("Paris") == "The answer is wrong. The quotes do not carry the answer."
    assert told("unknown").startswith("The answer declines, but the question has one.")
    assert told("Cincinnati, Ohio") == "The quotes do not carry the answer."
    assert told("Cincinnati, Ohio", [BIRTH]) == "Other quotes decide it."
    shown = [Passage("j", "j", 0, len(FILM), "Jaws (film)", FILM), Passage("s", "s", 0, len(BIRTH), "S", BIRTH)]
    replies = [answerer.read(text, shown) for text in re.findall(r"^Example .*reply: (.*)", PROMPT, re.MULTILINE)]
    assert [reply["answer"] for reply in replies] == ["Jaws", "Cincinnati, Ohio"]
    assert all(reply["quotes"] for reply in replies)


def _answered(task: Task, text: str, quotes: Sequence[str]) -> Episode:
    answer = checked(task.question, text, quotes, PASSAGES, "f")
    step = Step("answerer", parsed={"quotes": list(quotes)}, passages=tuple(PASSAGES), answer=answer)
    return Episode("e", task.question, {}, "f", (step,), answer, "answered")


def test_nothing_to_learn_from_is_said(
    folder: Path, engine: EmbeddedPolicy, rows: list[Stored], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"'prime' finds nothing to learn from in 16 episodes, 16 of them successful"):
        run(folder, engine, rows, tmp_path, dataclasses.replace(SPEC, method="prime"))
    with pytest.raises(ConfigError, match="beta > 0"):
        OfflineSpec(beta=0.0)
