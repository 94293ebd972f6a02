"""Supervised training on a tiny random model: it learns, resumes byte for byte, and stops at what is not a number."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sleuth.agents.policy.constrain import Tokens as Grammars
from sleuth.agents.policy.models import CHAT_TEMPLATE, load_model
from sleuth.agents.records import Message
from sleuth.agents.roles import answerer
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Passage
from sleuth.training import recipe
from sleuth.training.adapter import precision
from sleuth.training.checkpoint import TrainingError, locked
from sleuth.training.examples import BUILDERS
from sleuth.training.held_out import compare, held_out
from sleuth.training.sft import (
    SftSpec,
    Tokens,
    adapt,
    completion_loss,
    export,
    learning_rate,
    micro_batches,
    schedule,
    tokenize,
    train,
)
from sleuth.training.turns import Example
from tests.training_data import make

SPEC = SftSpec(rank=4, learning_rate=2e-2, batch=4, epochs=4, checkpoint_every=3, seed=5)
FIRST = Path(__file__).resolve().parent.parent / "recipes" / "first.toml"


def tokenizer() -> Any:
    """One token a byte, and the two of the chat format."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<|im_start|>", "<|im_end|>", *letters])}
    inner = Tokenizer(models.BPE(vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def grammars() -> Grammars:
    return Grammars(tokenizer(), 260, [2])


def model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,  # a head this small must tell words apart before anything is learned
    )
    return LlamaForCausalLM(config)


def example(prompt: str, completion: str, role: str = "planner") -> Example:
    return Example(role, "toy/1", (Message("system", "answer"), Message("user", prompt)), completion)


TOY = [
    example(f"where is the {place} {number}", f"{colour} {place}")
    for place in ("town", "river")
    for number, colour in (("one", "red"), ("two", "blue"), ("three", "green"))
] * 2


def run(out: Path, spec: SftSpec = SPEC, **options: Any) -> Path:
    options.setdefault("progress", lambda line: None)
    return train(spec, model(), tokenizer(), TOY, out, base="tiny", **options)


def losses(out: Path) -> list[float]:
    records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def adapter_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "adapter").iterdir())}


def test_the_loss_falls_and_the_adapter_is_what_peft_reads(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    folder = run(tmp_path, dataclasses.replace(SPEC, epochs=12))
    course = losses(tmp_path)
    assert len(course) == 36 and course[-1] < 0.5 * course[0]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny" and config["r"] == 4
    loaded = PeftModel.from_pretrained(model(), str(folder))
    tokens = tokenize(tokenizer(), TOY[0], grammars())
    with torch.no_grad():
        trained = completion_loss(loaded, [tokens], 2)
    assert float(trained) < 0.6 * course[0]


def test_at_rank_0_all_weights_are_trained_and_a_whole_model_comes_out(tmp_path: Path) -> None:
    import torch

    spec = dataclasses.replace(SPEC, rank=0, learning_rate=3e-3, epochs=6)

    def stop(line: str) -> None:
        if line.startswith("step 12/"):
            raise KeyboardInterrupt

    folder = run(tmp_path / "whole", spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", spec, progress=stop)
    resumed = run(tmp_path / "parts", spec, resume=True)
    assert folder == tmp_path / "whole" / "model"
    assert (folder / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    course = losses(tmp_path / "whole")
    assert course[-1] < 0.5 * course[0]
    loaded, its = load_model(folder, "float32")
    assert {p.dtype for p in load_model(folder)[0].parameters()} <= {torch.bfloat16, torch.float32}
    moved = [
        n
        for (n, a), b in zip(model().state_dict().items(), loaded.state_dict().values(), strict=True)
        if (a != b).any()
    ]
    assert moved == list(model().state_dict())  # norms and embeddings as well
    with torch.no_grad():
        trained = completion_loss(loaded, [tokenize(its, TOY[0], grammars())], 2)
    assert float(trained) < 0.6 * course[0]


def test_a_share_of_the_start_stays_in_what_comes_out(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    first, shared = run(tmp_path / "first"), dataclasses.replace(SPEC, seed=6, start_share=0.25)
    trained = run(tmp_path / "trained", dataclasses.replace(shared, start_share=0.0), start=first)
    kept = run(tmp_path / "kept", shared, start=first)
    before = adapter_bytes(tmp_path / "kept")
    run(tmp_path / "kept", shared, start=first, resume=True)  # nothing is left to train: the same comes out
    assert adapter_bytes(tmp_path / "kept") == before
    began, ended, made = (load_file(folder / "adapter_model.safetensors") for folder in (first, trained, kept))
    for name, weight in made.items():
        expected = 0.25 * began[name].float() + 0.75 * ended[name].float()
        assert torch.allclose(weight.float(), expected, rtol=1e-2, atol=1e-4) and not torch.equal(weight, ended[name])
    for spec, start in ((shared, None), (dataclasses.replace(shared, start_share=1.0), first)):
        with pytest.raises(ConfigError, match="start_share: expected 0, or with a start and a rank"):
            run(tmp_path / "odd", spec, start=start)


def test_writing_a_whole_model_leaves_it_as_it_was(tmp_path: Path) -> None:
    import torch

    base = model()
    base.config.dtype = torch.bfloat16
    adapted = adapt(base, dataclasses.replace(SPEC, rank=0), "tiny")
    export(adapted, tmp_path, tokenizer())
    assert precision(adapted) == torch.bfloat16  # what training goes on in


def test_a_rank_below_0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rank: expected at least 0, found -1"):
        run(tmp_path, dataclasses.replace(SPEC, rank=-1))


def test_a_resumed_run_equals_an_uninterrupted_one_byte_for_byte(tmp_path: Path) -> None:
    run(tmp_path / "whole")

    for step in (2, 8):  # before the first checkpoint, and after the second

        def stop(line: str, last: str = f"step {step}/") -> None:
            if line.startswith(last):
                raise KeyboardInterrupt

        parts = tmp_path / f"parts-{step}"
        with pytest.raises(KeyboardInterrupt):
            run(parts, progress=stop)
        run(parts, resume=True)
        assert adapter_bytes(parts) == adapter_bytes(tmp_path / "whole")
        assert (parts / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
    assert losses(tmp_path / "whole") != losses_of_other_seed(tmp_path)


def losses_of_other_seed(tmp_path: Path) -> list[float]:
    run(tmp_path / "other", dataclasses.replace(SPEC, seed=6))
    return losses(tmp_path / "other")


def test_nan_stops_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    import torch

    victim = model()

    def poison(line: str) -> None:
        if line.startswith("step 4/"):
            with torch.no_grad():
                victim.get_input_embeddings().weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"step 5.*step-00003"):
        train(SPEC, victim, tokenizer(), TOY, tmp_path, base="tiny", progress=poison)
    assert not (tmp_path / "adapter").exists()
    run(tmp_path / "clean")
    run(tmp_path, resume=True)
    assert adapter_bytes(tmp_path) == adapter_bytes(tmp_path / "clean")


def test_an_exhausted_device_names_the_setting_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*given: object) -> float:
        raise torch.OutOfMemoryError("nothing left")

    monkeypatch.setattr("sleuth.training.sft._accumulate", full)
    with pytest.raises(TrainingError, match=f"sft.micro_tokens = {SPEC.micro_tokens}; try less: nothing left"):
        run(tmp_path)


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another run is training in this folder"):
        run(tmp_path)


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="already holds a run"):
        run(tmp_path)
    with pytest.raises(InputError, match="learning_rate"):
        run(tmp_path, dataclasses.replace(SPEC, learning_rate=1e-3), resume=True)
    with pytest.raises(InputError, match="nothing to train on"):
        run(tmp_path / "short", dataclasses.replace(SPEC, max_tokens=3))


def test_the_loss_counts_choices_only_among_what_was_allowed_whatever_the_padding() -> None:
    import numpy as np
    import torch

    adapted = adapt(model(), SPEC, "tiny")
    rows = [
        Tokens((1, 4, 7, 8), (9, 10, 2), (None, np.array([3, 10, 40]), ())),
        Tokens((1, 6), (11, 2), (None, None)),
        Tokens((1, 5, 5, 5, 5, 5), (7, 2), ((), np.array([2, 7]))),
    ]
    together = completion_loss(adapted, rows, 2).item()
    apart = sum(completion_loss(adapted, [row], 2).item() for row in rows)
    assert together == pytest.approx(apart, rel=1e-5)
    with torch.no_grad():
        logits = adapted(torch.tensor([[1, 4, 7, 8, 9, 10]])).logits[0].float()
    free = logits[3].log_softmax(0)[9]
    among = logits[4, [3, 10, 40]].log_softmax(0)[1]
    assert completion_loss(adapted, rows[:1], 2).item() == pytest.approx(-(free + among).item() / 2, rel=1e-5)


def test_the_prompt_is_rendered_with_its_header_and_the_reply_ends_the_turn() -> None:
    made = tokenizer()
    tokens = tokenize(made, TOY[0], grammars())
    assert made.decode(tokens.prompt).endswith("where is the town one<|im_end|>\n<|im_start|>assistant\n")
    assert made.decode(tokens.prompt).startswith("<|im_start|>system\nanswer<|im_end|>")
    assert made.decode(tokens.completion) == "red town<|im_end|>" and tokens.completion[-1] == made.eos_token_id
    assert set(tokens.choices) == {None}


def test_a_reply_is_scored_where_its_schema_left_a_choice() -> None:
    made = tokenizer()
    passage = Passage("p", "p", 0, 31, "Town", "The town is red. It has a river.")
    reply = json.dumps(answerer.target("red", ["The town is red."]), separators=(",", ":"))
    asked = dataclasses.replace(example("what colour", reply, "answerer"), schema=answerer.schema([passage]))
    tokens = tokenize(made, asked, grammars())
    assert made.decode(tokens.completion) == reply + "<|im_end|>"
    drawn = [(made.decode([i]), c) for i, c in zip(tokens.completion, tokens.choices, strict=True) if len(c)]
    assert made.decode([*drawn[4][1]]) == "IT"  # the first letters of the two sentences
    assert len(drawn) < len(tokens.completion) / 2
    said = "".join(token for token, _ in drawn)
    assert said == '"re"T]'  # no list; a word in r, not river, no longer span; which sentence, no other
    never = dataclasses.replace(asked, completion=reply.replace("is red", "was red"))
    with pytest.raises(InputError, match="its schema does not allow"):
        tokenize(made, never, grammars())


def test_schedule_micro_batches_and_rate() -> None:
    spec = SftSpec(batch=4, epochs=1.5, warmup=0.1)
    batches = schedule(10, spec)
    order = [i for batch in batches for i in batch]
    assert len(order) == 15 and len(batches) == 4 and sorted(order[:10]) == list(range(10))
    assert len(set(order[10:])) == 5 and order[:5] != order[10:]
    rows = [Tokens((1,) * n, (2,), (None,)) for n in (5, 90, 6, 40, 41, 7)]
    cut = micro_batches(rows, 100)
    assert sorted(len(row) for part in cut for row in part) == [6, 7, 8, 41, 42, 91]
    assert all(max(map(len, part)) * len(part) <= 100 for part in cut) and len(cut) == 3
    rates = [learning_rate(spec, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(spec.learning_rate) == rates[10] and rates[0] == pytest.approx(8e-5)
    assert rates[-1] == pytest.approx(8e-5) and rates[10:] == sorted(rates[10:], reverse=True)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_recipe_reads() -> None:
    read = recipe.read(FIRST)
    assert read.name == "first" and read.sft.seed == read.seed
    assert all((kind, name) in BUILDERS for kind, sets in read.examples.items() for name in sets)
    assert set(recipe.TRAIN_TENTHS).isdisjoint(recipe.HELD_OUT_TENTHS) and min(recipe.HELD_OUT_TENTHS) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nam = "x"', "'name' is missing"),
        ('name = "x"\nsed = 1', "did you mean 'seed'"),
        ('name = "x"\n[sft]\nlearning_rat = 1', r"'sft.learning_rat' \(did you mean 'learning_rate'\?\); known: rank"),
        ('name = "x"\n[sft]\nbatch = "8"', "sft.batch must be int; found '8'"),
        ('name = "x"\n[sft]\nseed = 8', "seed stands at the top"),
        ('name = "x"\n[sft]\nstart_share = 0.5', "sft: start_share: .* found 0.5 with start none"),
        ('name = "x"\nstart = "first"\n[sft]\nstart_share = 1.5', "start_share: expected 0, .* found 1.5"),
        ('name = "x"\nranked = "chian"', """ranked: expected true, false or "chain"; found 'chian'"""),
        ('name = "x"\nranked = 1', "ranked: expected true, false"),
        ('name = "x"\n[examples.planer]\nnq_train = 3', "did you mean 'planner'"),
        ('name = "x"\n[examples.planner]\nnq_trai = 3', "did you mean 'nq_train'"),
        ('name = "x"\n[examples.planner]\nnq_train = -3', "must be a count; found -3"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_which_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.read(write(tmp_path / "r.toml", text))


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        recipe.read(tmp_path / "none.toml")
    with pytest.raises(InputError, match="not a TOML file"):
        recipe.read(write(tmp_path / "r.toml", "name ="))


def test_a_recipe_runs_resumes_and_is_compared_on_held_out_rows(tmp_path: Path) -> None:
    base, data, out = tmp_path / "base", make(tmp_path / "data"), tmp_path / "out"
    model().save_pretrained(base)
    tokenizer().save_pretrained(base)
    lines = [
        'name = "toy"',
        f'base = "{base}"',
        "held_out = 2",
        "[sft]",
        "rank = 2",
        "batch = 6",
        "checkpoint_every = 2",
    ]
    file = write(tmp_path / "toy.toml", "\n".join([*lines, "[examples.planner]", "nq_train = 16"]))

    def stop(line: str) -> None:
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    def early(line: str) -> None:
        if line == "toy: 16 examples":
            raise KeyboardInterrupt

    with pytest.raises(InputError, match="nothing to resume"):
        recipe.run(str(file), str(out), str(data), resume=True)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(str(file), str(out), str(data), progress=early)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(str(file), str(out), str(data), resume=True, progress=stop)
    with pytest.raises(InputError, match="already holds a run"):
        recipe.run(str(file), str(out), str(data), progress=stop)
    adapter = recipe.run(str(file), str(out), str(data), resume=True, progress=lambda line: None)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert len(losses(out)) == 3 and json.loads((out / "recipe.json").read_text())["num_examples"] == 16
    figures = json.loads((out / "held_out.json").read_text())
    assert figures["untrained"]["planner"]["n"] == figures["trained"]["planner"]["n"] == 2
    write(file, file.read_text().replace("= 16", "= 12"))
    with pytest.raises(InputError, match=r"another recipe.*examples"):
        recipe.run(str(file), str(out), str(data), resume=True, progress=stop)


def test_held_out_figures() -> None:
    wanted = '{"quotes":["One is one.","Two is two."],"answer":"the two"}'
    assert compare(wanted, wanted) == {"format": 1.0, "quotes_f1": 1.0, "answer_em": 1.0, "answer_f1": 1.0}
    part = compare(wanted, '{"quotes":["Two is two."],"answer":"two one"}')
    assert part["quotes_f1"] == pytest.approx(2 / 3) and part["answer_em"] == 0.0
    assert compare(wanted, "I think so.") == {"format": 0.0, "quotes_f1": 0.0, "answer_em": 0.0, "answer_f1": 0.0}
    assert compare('{"quote":"","answer":"unknown"}', '{"quote":"","answer":"unknown"}')["quotes_f1"] == 1.0
    many = [example("one", "two", role) for role in ("planner", "answerer") for _ in range(5)]
    assert [e.role for e in held_out(many, 2, 0)] == ["answerer"] * 2 + ["planner"] * 2


def test_a_recipe_starts_from_another_that_is_trained_first(tmp_path: Path) -> None:
    base, data, out = tmp_path / "base", make(tmp_path / "data"), tmp_path / "out"
    model().save_pretrained(base)
    tokenizer().save_pretrained(base)
    head = f'base = "{base}"\n[sft]\nrank = 2\nbatch = 6\ncheckpoint_every = 1\n[examples.planner]\nhotpotqa_s = 12\n'
    write(tmp_path / "one.toml", f'name = "one"\n{head}')
    file = write(tmp_path / "two.toml", f'name = "two"\nstart = "one.toml"\nseed = 1\n{head}')
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("step 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.run(str(file), str(out), str(data), progress=stop)
    assert said[0] == "two: first one.toml" and not (out / "recipe.json").exists()
    with pytest.raises(InputError, match="already holds a run"):
        recipe.run(str(file), str(out), str(data))
    adapter = recipe.run(str(file), str(out), str(data), resume=True, progress=said.append)
    assert said.count("two: first one.toml") == 2 and len(losses(out / "start")) == len(losses(out)) == 2
    alone = recipe.run(str(tmp_path / "one.toml"), str(tmp_path / "alone"), str(data), progress=lambda line: None)
    weights = "adapter_model.safetensors"
    assert (alone / weights).read_bytes() == (out / "start" / "adapter" / weights).read_bytes()
    write(tmp_path / "three.toml", f'name = "three"\nstart = "{alone}"\nseed = 1\n{head}')
    same = recipe.run(str(tmp_path / "three.toml"), str(tmp_path / "same"), str(data), progress=lambda line: None)
    assert (same / weights).read_bytes() == (adapter / weights).read_bytes()


def test_recipes_that_start_from_one_another_are_read_before_any_is_trained(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'name = "a"\nstart = "b.toml"')
    with pytest.raises(InputError, match=r"b\.toml"):
        recipe.run(str(tmp_path / "a.toml"), str(tmp_path / "out"))
    write(tmp_path / "b.toml", 'name = "b"\nstart = "a.toml"')
    with pytest.raises(ConfigError, match=r"a\.toml: starts from itself, by way of b\.toml"):
        recipe.run(str(tmp_path / "a.toml"), str(tmp_path / "out"))
    write(tmp_path / "b.toml", 'name = "b"\n[sft]\nrank = 0')
    with pytest.raises(ConfigError, match=r"a\.toml: start: b\.toml ends without an adapter"):
        recipe.run(str(tmp_path / "a.toml"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
