"""Samples are exact: every sampled token once, at the log-probability it was drawn with; a trainer finds it again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleuth.agents.graph import build_graph
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model
from sleuth.agents.records import Budget, Completion, Episode, Message, Sampling, Step, to_json
from sleuth.agents.rollout import rollout
from sleuth.agents.strategy import STRATEGIES
from sleuth.agents.tools import search_tool
from sleuth.corpora.errors import InputError
from sleuth.training.adapter import merged
from sleuth.training.samples import Masks, Sample, answered, to_samples
from sleuth.training.scoring import packs, score
from sleuth.training.sft import SftSpec, adapt
from tests import tiny_model
from tests.films import QUESTION, FilmStore

Context = Any


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def policy(folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=4)
    yield policy
    policy.close()


def episodes(policy: Any, count: int, temperature: float = 1.0, top_p: float = 1.0) -> list[Episode]:
    from sleuth.agents.context import Context

    chosen = STRATEGIES["decompose"]
    store = FilmStore()
    graph = build_graph(chosen)

    async def run() -> list[Episode]:
        contexts = [
            Context(policy, chosen, {"search": search_tool(store)}, store.fingerprint, Budget(searches=2),
                    Sampling(temperature, top_p), seed)
            for seed in range(count)
        ]  # fmt: skip
        return await asyncio.gather(*(rollout(graph, QUESTION, context) for context in contexts))

    return asyncio.run(run())


def ones(episode: Episode) -> list[float | None]:
    return [1.0] * len(episode.steps)


def check_scores(model: Any, policy: EmbeddedPolicy, temperature: float) -> list[Sample]:
    import torch

    made = episodes(policy, 4, temperature)
    assert all(not episode.error for episode in made), made[0].error
    masks = Masks(policy.tokens)
    samples = [s for n, episode in enumerate(made) for s in to_samples(episode, ones(episode), masks, n)]
    found = 0
    for pack in packs(samples, 1500):
        with torch.no_grad():
            logprobs, entropies = score(model, samples, pack)
        sampled = torch.tensor([x for i in pack.samples for x in samples[i].logprobs])
        assert torch.allclose(logprobs, sampled, atol=1e-4)
        assert bool((entropies > -1e-6).all()) and bool((entropies > 0.01).any())
        found += len(sampled)
    drawn = sum(not forced for e in made for s in e.steps if s.completion for forced in s.completion.forced)
    assert found == drawn > 20
    return samples


def test_a_trainer_finds_the_log_probabilities_of_the_engine_with_and_without_an_adapter(
    policy: EmbeddedPolicy, folder: Path
) -> None:
    import torch

    model, _ = load_model(folder, "float32", "cpu")
    check_scores(model, policy, 1.0)
    adapted = adapt(model, SftSpec(rank=4), folder.name)
    with torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    before = policy.policy_version
    policy.publish(merged(adapted), f"{before}+test@1")
    samples = check_scores(adapted, policy, 0.7)
    assert samples[0].temperature == 0.7
    assert policy.policy_version.endswith("+test@1")
    with adapted.disable_adapter(), torch.no_grad():  # the adapter is no matter of rounding
        pack = packs(samples, 1500)[0]
        logprobs, _ = score(adapted, samples, pack)
    sampled = torch.tensor([x for i in pack.samples for x in samples[i].logprobs])
    assert float((logprobs - sampled).abs().max()) > 0.05
    adapted.unload()
    policy.publish([(n, m.weight) for n, m in load_model(folder, "float32", "cpu")[0].named_modules()
                    if type(m) is torch.nn.Linear and n != "lm_head"], before)  # fmt: skip


def test_a_tree_scores_like_the_sequences_it_holds_and_passes_their_gradients(folder: Path) -> None:
    import numpy as np
    import torch

    model, _ = load_model(folder, "float32", "cpu")
    prompt = tuple(range(3, 40))
    tails = [(50, 51, 52), (50, 51, 53, 54), (50, 51, 52), (60,)]
    choices = (np.array([50, 51, 60]), None, np.array([-1, -2]), ())
    samples = []
    for tail in tails:
        drawn = tuple(range(len(prompt), len(prompt) + min(3, len(tail))))
        kept = choices[: len(drawn)]
        samples.append(Sample(prompt + tail, drawn, kept, (0.0,) * len(drawn), (1.0,) * len(drawn), (0,) * len(drawn)))
    (together,) = packs(samples, 1000)
    assert len(together.ids) == len(prompt) + 2  # nothing after the last drawn token's own parent

    def run(cut: list[Any]) -> tuple[dict[int, list[float]], torch.Tensor]:
        model.zero_grad()
        found: dict[int, list[float]] = {}
        for pack in cut:
            logprobs, _ = score(model, samples, pack)
            logprobs.sum().backward()
            left = iter(logprobs.tolist())
            for i in pack.samples:
                found[i] = [next(left) for _ in samples[i].drawn]
        return found, model.model.layers[0].mlp.up_proj.weight.grad.clone()

    apart, expected = run([dataclasses.replace(p, samples=(i,)) for i in range(4) for p in packs([samples[i]], 1000)])
    tree, gradient = run([together])
    assert all(tree[i] == pytest.approx(apart[i], abs=1e-5) for i in range(4)) and len(tree) == 4
    assert torch.allclose(gradient, expected, atol=1e-5)
    assert len(packs(samples, 10)) == 4 and {i for p in packs(samples, 39) for i in p.samples} == {0, 1, 2, 3}


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1, max_size=6))
def test_each_sampled_token_is_trained_once_whatever_the_prompts(turns: list[tuple[int, list[bool]]]) -> None:
    """Turn by turn a prompt starts anew or goes on after an earlier reply."""
    steps, contexts, next_id = [], [(1, 2)], 10
    for back, forced in turns:
        context = contexts[-1 - back] if back < len(contexts) else contexts[0]
        prompt = (*context, 3, next_id)
        reply = tuple(range(next_id + 1, next_id + 1 + len(forced)))
        next_id += 10
        contexts.append(prompt + reply)
        logprobs = tuple(-float(token) for token in reply)
        steps.append(Step("planner", completion=Completion("", prompt, reply, logprobs, tuple(forced)), messages=()))
    masks: Any = FakeMasks({s.completion.token_ids: s.completion.forced for s in steps if s.completion})
    episode = Episode("e", "q", {"strategy": to_json(STRATEGIES["decompose"])}, "", tuple(steps), None, "answered")
    samples = cut(episode, [float(i) for i in range(len(steps))], masks)
    trained = [
        (s.ids[place], logprob, advantage, index)
        for s in samples
        for place, logprob, advantage, index in zip(s.drawn, s.logprobs, s.advantages, s.steps, strict=True)
    ]
    expected = [
        (token, -float(token), float(i), i)
        for i, step in enumerate(steps) if step.completion
        for token, forced in zip(step.completion.token_ids, step.completion.forced, strict=True) if not forced
    ]  # fmt: skip
    assert sorted(trained) == sorted(expected)
    assert all(0 < place < len(s.ids) and list(s.drawn) == sorted(set(s.drawn)) for s in samples for place in s.drawn)
    for step in steps:  # every reply stands in one sample right after its own prompt
        assert step.completion
        whole = step.completion.prompt_ids + step.completion.token_ids
        if not all(step.completion.forced):
            assert any(s.ids[: len(whole)] == whole for s in samples)


class FakeMasks:
    def __init__(self, forced: dict[tuple[int, ...], tuple[bool, ...]]) -> None:
        self.forced = forced

    def choices(self, schema: Any, token_ids: tuple[int, ...]) -> list[Any]:
        return [() if forced else None for forced in self.forced[token_ids]]


def cut(episode: Episode, advantages: list[float], masks: Any) -> list[Sample]:
    """`to_samples` for steps that no role asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sleuth.training.samples.asked", lambda e: ((i, s, None) for i, s in enumerate(e.steps) if s.completion)
        )
        return to_samples(episode, advantages, masks)


def test_steps_without_an_advantage_are_context_only(policy: EmbeddedPolicy) -> None:
    (episode,) = episodes(policy, 1)
    masks = Masks(policy.tokens)
    only = [1.0 if step.role == "answerer" else None for step in episode.steps]
    samples = to_samples(episode, only, masks)
    assert len(samples) == 1 and set(samples[0].steps) == {only.index(1.0)}
    assert to_samples(episode, [None] * len(only), masks) == []


def test_what_cannot_be_trained_on_says_why(policy: EmbeddedPolicy) -> None:
    (episode,) = episodes(policy, 1)
    masks = Masks(policy.tokens)
    with pytest.raises(InputError, match="steps, but 1 advantages"):
        to_samples(episode, [1.0], masks)
    (nucleus,) = episodes(policy, 1, top_p=0.9)
    with pytest.raises(InputError, match=r"top_p 0\.9"):
        to_samples(nucleus, ones(nucleus), masks)
    first = episode.steps[0]
    assert first.completion
    other = dataclasses.replace(first, messages=(Message("user", "another prompt"),))
    with pytest.raises(InputError, match=r"step 0: the planner was shown 'another prompt' then"):
        to_samples(dataclasses.replace(episode, steps=(other, *episode.steps[1:])), ones(episode), masks)
    bare = dataclasses.replace(first, completion=dataclasses.replace(first.completion, token_ids=(), logprobs=()))
    with pytest.raises(InputError, match="as sampled; found"):
        to_samples(dataclasses.replace(episode, steps=(bare, *episode.steps[1:])), ones(episode), masks)
    wrong = dataclasses.replace(first, completion=dataclasses.replace(
        first.completion, token_ids=(first.completion.token_ids[-1], *first.completion.token_ids[1:])))  # fmt: skip
    with pytest.raises(InputError, match="does not allow token 0"):
        to_samples(dataclasses.replace(episode, steps=(wrong, *episode.steps[1:])), ones(episode), masks)


def test_quotes_are_credited_with_what_they_can_still_change(policy: EmbeddedPolicy) -> None:
    from sleuth.eval.records import Task
    from sleuth.training.algorithms import algorithm
    from sleuth.training.groups import Group, samples
    from sleuth.training.rewards import Graded

    masks = Masks(policy.tokens)
    made = [e for e in episodes(policy, 4) if e.steps[-1].role == "answerer"][:2]

    def graded(episode: Episode, reward: float, settled: float) -> Graded:
        roles = tuple(step.role if step.completion else "" for step in episode.steps)
        return Graded(reward, settled > 0, {}, (0.0,) * len(roles), roles, settled=settled)

    # one answered right and quoted wrong (1.0), the other the other way round (0.4): means 0.7, of the quotes 0.2
    group = Group(Task("t", QUESTION), tuple(made), (graded(made[0], 1.0, 1.0), graded(made[1], 0.4, 0.0)))
    cut = samples([group], algorithm("dr_grpo", to_go=True), [None], masks)
    for number, (whole, quotes) in enumerate([(0.3, -0.2), (-0.3, 0.2)]):
        last = len(made[number].steps) - 1
        reply = made[number].steps[-1].completion
        assert reply is not None
        settled = answered(reply, policy.tokens)
        assert 0 < settled < len(reply.token_ids)
        assert policy.tokenizer.decode(reply.token_ids[:settled]).startswith('{"answer":')
        for sample in (s for s in cut if s.episode == number):
            start = len(sample.ids) - len(reply.token_ids)
            for place, worth, step in zip(sample.drawn, sample.advantages, sample.steps, strict=True):
                late = step == last and place - start >= settled
                assert worth == pytest.approx(quotes if late else whole)
    plain = samples([group], algorithm("dr_grpo"), [None], masks)
    assert {round(x, 6) for s in plain for x in s.advantages} == {0.3, -0.3}
