"""The embedded policy: what it samples is exact, constrained, reproducible, and independent of the company it keeps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleuth.agents.policy.constrain import replay
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model, render
from sleuth.agents.records import Completion, Message, PolicyError, Sampling
from sleuth.corpora.errors import ConfigError, ModelError
from tests import tiny_model

TEXTS = (
    'He said "hi"\\ to\n\tme. Caf\u00e9 \u00a0\u00dcber \u65e5\u672c\u8a9e \U0001f600 C:\\new',
    "Steven Spielberg was born in Cincinnati, Ohio.",
)
QUOTES = ["The quick brown fox.", 'He said "no" \\ twice.', "The quick dog.", "\u65e5\u672c is far."]
SCHEMA = {
    "type": "object",
    "properties": {
        "quotes": {
            "type": "array",
            "items": {"type": "string", "enum": QUOTES, "x-quote": True},
            "minItems": 1,
            "maxItems": 3,
        },
        "answer": {"anyOf": [{"enum": ["yes", "no"]}, {"x-span": list(TEXTS)}]},
    },
    "required": ["quotes", "answer"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def policy(request: pytest.FixtureRequest, folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype=request.param, device="cpu", max_batch=8)
    yield policy
    policy.close()


@pytest.fixture(scope="module")
def exact(folder: Path) -> Iterator[EmbeddedPolicy]:
    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=4)
    yield policy
    policy.close()


def ask(index: int, words: int = 30) -> list[Message]:
    head = Message("system", "You answer questions shortly. " * 12)
    return [head, Message("user", f"Question {index}: " + f"who was born in Ohio {index}? " * (words % 17))]


async def draw(policy: EmbeddedPolicy, index: int, temperature: float = 1.0, limit: int = 80) -> Completion:
    schema: Any = None if index % 3 == 2 else SCHEMA
    return await policy.sample(ask(index, 7 * index), Sampling(temperature, 1.0, limit, seed=index), schema)


def same(one: Completion, other: Completion) -> bool:
    return (one.token_ids, one.logprobs, one.forced, one.text) == (
        other.token_ids,
        other.logprobs,
        other.forced,
        other.text,
    )


async def together(policy: EmbeddedPolicy, count: int) -> list[Completion]:
    return await asyncio.gather(*[draw(policy, index) for index in range(count)])


def test_company_changes_nothing(policy: EmbeddedPolicy) -> None:
    async def run() -> None:
        alone = [await draw(policy, index) for index in range(12)]
        crowd = await together(policy, 12)
        assert all(same(one, other) for one, other in zip(alone, crowd, strict=True))

    asyncio.run(run())


def test_packed_weights_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = []
    for packing in (True, False):
        if not packing:
            monkeypatch.setattr("sleuth.agents.policy.ragged._pack", lambda model: None)
        policy = EmbeddedPolicy(folder, dtype="bfloat16", device="cpu")
        got.append(asyncio.run(together(policy, 6)))
        policy.close()
    assert all(map(same, *got))


def test_cached_head_changes_nothing_but_the_count(folder: Path) -> None:
    fresh = EmbeddedPolicy(folder, dtype="float32", device="cpu")
    first, second = (asyncio.run(draw(fresh, 4)) for _ in range(2))
    fresh.close()
    assert first.cached_tokens == 0 and second.cached_tokens >= 64 and second.cached_tokens % 64 == 0
    assert same(first, second)


def test_cache_is_bounded(folder: Path) -> None:
    small = EmbeddedPolicy(folder, dtype="float32", device="cpu", cache_tokens=128)
    want = asyncio.run(draw(small, 5))
    asyncio.run(together(small, 6))
    assert len(small.cache._blocks) == 2
    assert same(want, asyncio.run(draw(small, 5)))
    small.close()


def test_json_is_always_valid_and_verbatim(policy: EmbeddedPolicy) -> None:
    async def run() -> list[Completion]:
        jobs = (policy.sample(ask(i), Sampling(2.0, 1.0, 400, seed=i), SCHEMA) for i in range(40))
        return await asyncio.gather(*jobs)

    seen = set()
    for done in asyncio.run(run()):
        value = json.loads(done.text)
        assert done.finish == "stop" and done.token_ids[-1] == 2
        assert done.text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert list(value) == ["quotes", "answer"] and set(value["quotes"]) <= set(QUOTES)
        answer = value["answer"]
        assert answer in ("yes", "no") or (answer == answer.strip() != "" and any(answer in text for text in TEXTS))
        seen.add(answer)
    assert len(seen) > 10


def test_logprobs_are_those_of_a_teacher_under_the_same_mask(exact: EmbeddedPolicy, folder: Path) -> None:
    import torch

    model, tokenizer = load_model(folder, "float32", "cpu")
    for index, temperature, top_p in ((0, 0.7, 1.0), (2, 1.3, 1.0), (1, 0.0, 1.0)):
        schema: Any = None if index == 2 else SCHEMA
        sampling = Sampling(temperature, top_p, 60, seed=index)
        done = asyncio.run(exact.sample(ask(index), sampling, schema))
        assert list(done.prompt_ids) == render(tokenizer, ask(index))
        with torch.no_grad():
            ids = torch.tensor([done.prompt_ids + done.token_ids])
            logits = model(ids).logits[0, len(done.prompt_ids) - 1 :].double().numpy()
        constraint = None if schema is None else exact.tokens.constraint(schema)
        masks = list(replay(constraint, done.token_ids, exact.eos))
        assert len(masks) == len(done.token_ids)
        for place, (token, mask) in enumerate(zip(done.token_ids, masks, strict=True)):
            every = np.arange(logits.shape[1])
            if mask is None or isinstance(mask, tuple):
                ids_allowed = every if mask is None else np.array([token])
            else:
                ids_allowed = mask if mask[0] >= 0 else np.setdiff1d(every, -1 - mask)
            scaled = logits[place][ids_allowed] / (temperature or 1.0)
            expected = scaled[ids_allowed == token][0] - np.logaddexp.reduce(scaled)
            assert done.logprobs[place] == pytest.approx(expected, abs=2e-4)
            assert done.forced[place] == (len(ids_allowed) == 1)
            if temperature == 0:
                assert ids_allowed[np.argmax(scaled)] == token
    assert any(done.forced)


def test_top_p_keeps_the_head_of_the_distribution(exact: EmbeddedPolicy) -> None:
    done = asyncio.run(exact.sample(ask(1), Sampling(1.0, 1e-6, 20, seed=1)))
    greedy = asyncio.run(exact.sample(ask(1), Sampling(0.0, 1.0, 20, seed=9)))
    assert done.token_ids == greedy.token_ids and done.logprobs == pytest.approx([0.0] * 20)


def test_seed_decides(exact: EmbeddedPolicy) -> None:
    texts = {asyncio.run(exact.sample(ask(1), Sampling(1.0, 1.0, 20, seed=seed))).token_ids for seed in (1, 2, 1)}
    assert len(texts) == 2


def test_limits(exact: EmbeddedPolicy) -> None:
    cut = asyncio.run(exact.sample(ask(0), Sampling(1.0, 1.0, 7, seed=3), SCHEMA))
    assert cut.finish == "length" and len(cut.token_ids) == cut.completion_tokens == 7
    with pytest.raises(PolicyError, match=r"prompt has \d{4,} tokens, the model's context is 1024") as caught:
        asyncio.run(exact.sample([Message("user", "who? " * 2000)], Sampling()))
    assert caught.value.kind == "too_long"
    with pytest.raises(PolicyError, match="max_tokens: expected at least 1, found 0"):
        asyncio.run(exact.sample(ask(0), Sampling(max_tokens=0)))


def test_a_long_request_among_short_ones_grows_the_store(tmp_path: Path) -> None:
    """Growing moves what the others have written, and no leftover of an earlier sequence shows through."""

    async def run() -> None:
        folder = tiny_model.make(tmp_path, max_position_embeddings=4096)
        policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=4)
        want = [await draw(policy, index, limit=200) for index in (2, 5, 8)]
        small = policy.ragged.capacity
        tasks = [asyncio.create_task(draw(policy, index, limit=200)) for index in (2, 5, 8)]
        while len(policy._rows) < 3:
            await asyncio.sleep(0.001)
        await policy.sample([Message("user", "who? " * 400)], Sampling(max_tokens=5))
        assert policy.ragged.capacity > small
        assert all(map(same, want, await asyncio.gather(*tasks)))
        await policy.aclose()

    asyncio.run(run())


def test_cancelled_requests_leave_the_batch(exact: EmbeddedPolicy) -> None:
    async def run() -> None:
        long = [asyncio.create_task(exact.sample(ask(i), Sampling(1.0, 1.0, 600, seed=i))) for i in range(6)]
        await asyncio.sleep(0.2)
        for task in long:
            task.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        assert same(await draw(exact, 1), await draw(exact, 1))
        assert not exact._rows and len(exact._free) == 4

    asyncio.run(run())


def test_closing_fails_what_is_in_flight(folder: Path) -> None:
    async def run() -> None:
        policy = EmbeddedPolicy(folder, device="cpu")
        task = asyncio.create_task(policy.sample(ask(0), Sampling(1.0, 1.0, 900)))
        await asyncio.to_thread(policy.load)
        await asyncio.sleep(0.1)
        await policy.aclose()
        with pytest.raises(PolicyError, match="closed"):
            await task
        with pytest.raises(PolicyError, match="closed"):
            await policy.sample(ask(0), Sampling())

    asyncio.run(run())


def test_leaving_with_requests_in_flight_is_clean(folder: Path) -> None:
    code = f"""
import asyncio
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.records import Message, Sampling
policy = EmbeddedPolicy({str(folder)!r}, device="cpu")
async def main():
    task = asyncio.create_task(policy.sample([Message("user", "hi")], Sampling(1.0, 1.0, 900)))
    while not policy._rows:
        await asyncio.sleep(0.001)
asyncio.run(main())
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_defect_ends_the_requests_not_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = EmbeddedPolicy(folder, device="cpu")
    policy.load()
    with monkeypatch.context() as patch:
        patch.setattr(policy.ragged, "forward", lambda segments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(draw(policy, 0))
    assert asyncio.run(draw(policy, 0)).completion_tokens
    policy.close()


def test_a_request_that_fails_by_itself_ends_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=4)
        want = await draw(policy, 1)
        extend = policy._extend

        def failing(row: Any, logits: Any) -> None:
            if row.sampling.seed == 77 and len(row.token_ids) > 2:
                raise ConfigError("the grammar has too many states")
            extend(row, logits)

        monkeypatch.setattr(policy, "_extend", failing)
        bad = policy.sample(ask(0), Sampling(1.0, 1.0, 20, seed=77))
        found, error = await asyncio.gather(draw(policy, 1), bad, return_exceptions=True)
        assert same(want, found) and isinstance(error, ConfigError) and len(policy._free) == 4
        assert (await policy.sample(ask(1), Sampling(1e-320, 1.0, 5))).token_ids == (
            await policy.sample(ask(1), Sampling(0.0, 1.0, 5))
        ).token_ids
        await policy.aclose()

    asyncio.run(run())


def test_a_device_without_room_fails_one_request_and_serves_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=2)
    want = asyncio.run(draw(policy, 1, limit=20))
    full = torch.full

    def no_room(size: Any, *args: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError if max(size) > 600 else full(size, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "full", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            asyncio.run(policy.sample(ask(0), Sampling(1.0, 1.0, 900)))
    assert same(want, asyncio.run(draw(policy, 1, limit=20)))
    assert asyncio.run(policy.sample(ask(0), Sampling(1.0, 1.0, 600))).completion_tokens
    policy.close()


def test_modes_of_constraint(folder: Path) -> None:
    texts = {}
    for mode in ("span", "schema", "none"):
        policy = EmbeddedPolicy(folder, dtype="float32", device="cpu", constrain=mode)  # type: ignore[arg-type]
        texts[mode] = asyncio.run(policy.sample(ask(0), Sampling(1.0, 1.0, 300, seed=1), SCHEMA)).text
        policy.close()
    assert set(json.loads(texts["span"])["quotes"]) <= set(QUOTES)
    assert texts["schema"].startswith('{"quotes":["') and not texts["schema"].startswith(tuple(QUOTES))
    assert not texts["none"].startswith("{")


def test_sliding_windows_are_kept(tmp_path: Path) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    tiny_model.make(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=384, num_key_value_heads=2, sliding_window=24, eos_token_id=2, **shape)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    policy = EmbeddedPolicy(tmp_path, dtype="float32", device="cpu")
    done = asyncio.run(policy.sample(ask(1, 9), Sampling(0.0, 1.0, 12)))
    policy.close()
    model, _ = load_model(tmp_path, "float32", "cpu")
    with torch.no_grad():
        logits = model(torch.tensor([done.prompt_ids + done.token_ids])).logits[0]
    picks = torch.log_softmax(logits.double(), -1)[len(done.prompt_ids) - 1 : -1]
    expected = [float(picks[place, token]) for place, token in enumerate(done.token_ids)]
    assert done.logprobs == pytest.approx(expected, abs=1e-4)


def test_adapter_is_merged_as_peft_does(folder: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from sleuth.agents.policy.lora import merge

    model, _ = load_model(folder, "float32", "cpu")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    trained = get_peft_model(model, config)
    trained.save_pretrained(tmp_path / "mine")
    ids = torch.arange(20)[None] + 5
    with torch.no_grad():
        expected = trained(ids).logits
    plain, _ = load_model(folder, "float32", "cpu")
    merge(plain, tmp_path / "mine", folder.name)
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, expected, atol=1e-4)
    one, two = (EmbeddedPolicy(folder, adapter=a, device="cpu") for a in (None, tmp_path / "mine"))
    versions = []
    for policy in (one, two):
        policy.load()
        versions.append(policy.policy_version)
        policy.close()
    assert versions[1].startswith(versions[0] + "+mine@") and two.weights == versions[1]
    assert two.name == f"{folder.name}@{versions[0][-12:]}:{versions[1].split('+')[1]}"
    saved = tmp_path / "mine" / "adapter_config.json"
    saved.write_text(saved.read_text().replace(f"{folder}", "Other-Model"))
    with pytest.raises(ModelError, match=f"made for Other-Model, the model is {folder.name}"):
        merge(plain, tmp_path / "mine", folder.name)


def test_loading_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a causal language model"):
        asyncio.run(EmbeddedPolicy(tmp_path).sample(ask(0), Sampling()))
