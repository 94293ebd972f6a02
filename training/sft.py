"""Supervised fine-tuning teaches a low-rank adapter to say the completion of each example after its prompt.

The loss of an example is the mean cross-entropy over the tokens of its completion that were a choice: each is scored
among the tokens that constrained decoding would have drawn it from, forced ones and prompts weigh nothing (`choices`).
Without a schema every token counts, the end-of-turn token included. Runs are resumable: on CPU a run that was stopped
and resumed writes the same bytes as one that was not.

LoRA is arXiv 2106.09685, AdamW arXiv 1711.05101. Differs from the usual loop in what CPUs need: hidden states are
computed for whole sequences but logits only where a completion token is predicted, because over a vocabulary of 49,152
they would cost more than the layers; and a batch is cut into micro-batches of like length, so little is padding.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleuth.agents.policy.constrain import Tokens as Grammars
from sleuth.agents.policy.models import render
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.retrieval.rerank import with_adapter
from sleuth.training import checkpoint
from sleuth.training.adapter import base_of, is_whole, load_weights, precision, pull_back
from sleuth.training.choices import barred, is_forced, walk
from sleuth.training.shards import gathered
from sleuth.training.turns import Example

END_OF_TURN = "<|im_end|>"
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LOG = "log.jsonl"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SftSpec:
    """How to train; what to train on comes beside it."""

    rank: int = 8
    """Of the adapter; 0 trains all weights instead, and a whole model comes out."""
    alpha: int = 16
    """The adapter's output is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = ALL_LINEAR
    learning_rate: float = 8e-4
    """Peak; reached after the warm-up, then a half cosine down to a tenth."""
    warmup: float = 0.03
    """Share of the steps."""
    batch: int = 8
    """Examples per step."""
    epochs: float = 1.0
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    max_tokens: int = 1400
    """Longer examples are left out, and counted in the log."""
    micro_tokens: int = 1400
    """Padded tokens per forward pass at most."""
    checkpoint_every: int = 25
    """Steps."""
    start_share: float = 0.0
    """Of the adapter that comes out, this share is the one it started from and the rest what was trained: weight by
    weight, so that what the start knew and the examples do not show is not lost (WiSE-FT, arXiv 2109.01903)."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example in tokens."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    """The end-of-turn token included."""
    choices: tuple[Any, ...]
    """One per completion token: the ids it is scored among, None for all, ``()`` for a forced one."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def train(
    spec: SftSpec,
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    out: str | Path,
    *,
    base: str,
    start: str | Path | None = None,
    resume: bool = False,
    progress: Progress = print,
) -> Path:
    """Train an adapter over ``model`` (which is changed in place) and return its folder ``out/adapter``.

    At rank 0 all weights are trained, and the folder is ``out/model``. ``base`` is the name that the adapter gives its
    base model, ``start`` an adapter to go on from. Beside it stand ``log.jsonl`` (one line a step) and
    ``checkpoints/``; with ``resume`` a run goes on from the last of those, without one from its beginning. Raises
    `TrainingError` when the loss is not finite, `InputError` when something stands in the way.
    """
    out = Path(out)
    with checkpoint.locked(out):
        return _train(spec, model, tokenizer, examples, out, base, start, resume, progress)


def _train(
    spec: SftSpec, model: Any, tokenizer: Any, examples: Sequence[Example], out: Path, base: str,
    start: str | Path | None, resume: bool, progress: Progress,
) -> Path:  # fmt: skip
    import torch

    check_share(spec, start)
    going_on = checkpoint.goes_on(out, out / _LOG, resume)
    grammars = Grammars(tokenizer, model.config.vocab_size, [_end(tokenizer)])
    rows = [row for example in examples if len(row := tokenize(tokenizer, example, grammars)) <= spec.max_tokens]
    if not rows:
        raise InputError(f"no example of {len(examples)} has at most {spec.max_tokens} tokens: nothing to train on")
    batches = schedule(len(rows), spec)
    random.seed(spec.seed)
    torch.manual_seed(spec.seed)
    adapted = adapt(model, spec, base)
    if start is not None:
        load_weights(adapted, start, base)
    params = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(params.values(), lr=spec.learning_rate, weight_decay=0.0)
    if going_on:
        done = _restore(out, optimizer, params, spec, len(batches), progress)
    else:
        done = 0
        checkpoint.append(out / _LOG, {**_counts(rows), "left_out": len(examples) - len(rows), "steps": len(batches)})
    started, seen = time.perf_counter(), 0
    for step in range(done, len(batches)):
        batch = [rows[i] for i in batches[step]]
        rate = optimizer.param_groups[0]["lr"] = learning_rate(spec, step, len(batches))
        with memory("sft.micro_tokens", spec.micro_tokens):
            loss = _accumulate(adapted, batch, spec, tokenizer.pad_token_id or 0)
            norm = torch.nn.utils.clip_grad_norm_(params.values(), spec.clip).item()
            checkpoint.finite(out, step + 1, loss, norm)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        num_tokens = sum(map(len, batch))
        checkpoint.append(out / _LOG, {"step": step + 1, "loss": loss, "norm": norm, "lr": rate, "tokens": num_tokens})
        if (step + 1) % spec.checkpoint_every == 0 or step + 1 == len(batches):
            _checkpoint(out, optimizer, params, spec, step + 1)
        seen, spent_s = seen + num_tokens, time.perf_counter() - started
        left_min = spent_s / (step + 1 - done) * (len(batches) - step - 1) / 60
        rates = f"{seen / spent_s:.0f} tokens/s  {left_min:.1f} min left"
        progress(f"step {step + 1}/{len(batches)}  loss {loss:.3f}  {rates}")
    if start is not None and spec.start_share:
        pull_back(adapted, start, base, spec.start_share)
    return export(adapted, out, tokenizer)


def check_share(spec: SftSpec, start: object) -> None:
    """Raises `ConfigError` where a share of the start is to stay and there is none, or no adapter comes out."""
    if spec.start_share and (start in (None, "none") or spec.rank == 0 or not 0 < spec.start_share < 1):
        found = f"{spec.start_share} with start {start} and rank {spec.rank}"
        raise ConfigError(f"start_share: expected 0, or with a start and a rank a number below 1; found {found}")


def tokenize(tokenizer: Any, example: Example, grammars: Grammars) -> Tokens:
    """Prompt ids as the engine renders them; completion ids with the end-of-turn token, and their choices.

    A completion that its own schema does not allow raises `InputError`: no policy could ever say it.
    """
    prompt = tuple(render(tokenizer, example.messages))
    if example.schema is None:
        completion = tokenizer(example.completion + END_OF_TURN, add_special_tokens=False)["input_ids"]
        return Tokens(prompt, tuple(completion), (None,) * len(completion))
    walked = walk(grammars, example.schema, example.completion, _end(tokenizer))
    if walked is None:
        raise InputError(f"{example.role} example {example.source}: its schema does not allow {example.completion!r}")
    return Tokens(prompt, tuple(walked[0]), tuple(walked[1]))


def schedule(num_rows: int, spec: SftSpec) -> list[list[int]]:
    """Row indices of every step's batch: each epoch in a seeded order of its own, the last one cut to ``epochs``."""
    draw = random.Random(spec.seed)
    order: list[int] = []
    while len(order) < spec.epochs * num_rows:
        epoch = list(range(num_rows))
        draw.shuffle(epoch)
        order += epoch
    order = order[: max(1, round(spec.epochs * num_rows))]
    return [order[i : i + spec.batch] for i in range(0, len(order), spec.batch)]


def learning_rate(spec: SftSpec, step: int, num_steps: int) -> float:
    """Linear warm-up, then a half cosine to a tenth of the peak."""
    warm = max(1, round(spec.warmup * num_steps))
    if step < warm:
        return spec.learning_rate * (step + 1) / warm
    return spec.learning_rate * falling((step - warm) / max(1, num_steps - 1 - warm))


def falling(phase: float) -> float:
    """Half a cosine from 1 to a tenth, where it stays from a ``phase`` of 1 on."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, phase)))


def adapt(model: Any, spec: SftSpec, base: str) -> Any:
    """``model`` with a fresh adapter in float32, at rank 0 ``model`` itself; activations keep the base's type."""
    if spec.rank < 0:
        raise InputError(f"rank: expected at least 0, found {spec.rank}")
    if spec.rank == 0:
        return model.float().requires_grad_(True).train()
    from peft import LoraConfig

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(spec.targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    model.name_or_path = base  # peft takes the adapter's base from here, and a folder of this machine is no name
    adapted = with_adapter(model, config)
    for module in adapted.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # autocast does it, and without raising activations to float32
    return adapted.train()


def completion_loss(adapted: Any, rows: Sequence[Tokens], pad: int) -> Any:
    """Sum over rows of the mean cross-entropy of a row's choices, as a scalar tensor."""
    import torch

    model = base_of(adapted)
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)  # (B, T), padded on the right
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    predicts = torch.zeros((len(rows), width), dtype=torch.bool)  # positions whose next token is a choice
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.prompt + row.completion)
        mask[i, : len(row)] = 1
        drawn = torch.tensor([not is_forced(choice) for choice in row.choices])
        predicts[i, len(row.prompt) - 1 : len(row) - 1] = drawn
    ids, mask, predicts = (t.to(model.device) for t in (ids, mask, predicts))
    low = precision(model)
    mixed = torch.autocast(model.device.type, dtype=low) if low != torch.float32 else nullcontext()
    padded = None if len({len(row) for row in rows}) == 1 else mask
    with mixed:
        hidden = model.model(input_ids=ids, attention_mask=padded, use_cache=False).last_hidden_state  # (B, T, H)
        logits = model.lm_head(hidden[predicts]).float()  # (N, V)
    wanted = ids[:, 1:][predicts[:, :-1]]  # (N,)
    choices = [[choice for choice in row.choices if not is_forced(choice)] for row in rows]
    weights = torch.tensor([1 / len(drawn) for drawn in choices for _ in drawn], device=model.device)  # (N,)
    mask_out = barred([choice for drawn in choices for choice in drawn], logits.shape[1])
    logits = logits.masked_fill(mask_out.to(logits.device), float("-inf"))
    return (weights * torch.nn.functional.cross_entropy(logits, wanted, reduction="none")).sum()


@contextmanager
def memory(setting: str, value: int) -> Iterator[None]:
    """An exhausted device, said with the setting that helps."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise checkpoint.TrainingError(f"out of memory with {setting} = {value}; try less: {error}") from error


def micro_batches(rows: Sequence[Tokens], max_tokens: int) -> list[list[Tokens]]:
    """Rows of like length together, as many as fit in ``max_tokens`` with their padding (one at least)."""
    cut: list[list[Tokens]] = []
    for row in sorted(rows, key=len):
        if cut and len(row) * (len(cut[-1]) + 1) <= max_tokens and len(row) <= 1.3 * len(cut[-1][0]) + 8:
            cut[-1].append(row)
        else:
            cut.append([row])
    return cut


def export(adapted: Any, out: Path, tokenizer: Any, name: str = "", write: bool = True) -> Path:
    """Write what was trained as bfloat16 safetensors, whole or not at all, and return its folder in ``out``.

    An adapter goes with its config to ``adapter``, a whole model with its tokenizer to ``model``; or to ``name``. Every
    member of a crew that trains a sharded model takes part, and one alone is to ``write``.
    """
    whole = is_whole(adapted)
    folder = out / (name or ("model" if whole else "adapter"))
    state = _model_state(adapted, write) if whole else _adapter_state(adapted, write)
    if not write:
        return folder
    made = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    if whole:
        _write_model(adapted, state, made, tokenizer)
    else:
        _write_adapter(adapted, state, made)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)
    return folder


def _model_state(model: Any, keep: bool) -> dict[str, Any]:
    import torch

    named = model.state_dict(keep_vars=True)
    own = {id(value): value for value in named.values()}  # tied weights stay one tensor
    low = gathered(((key, value.detach().to(torch.bfloat16)) for key, value in own.items()), keep)
    return {name: low[id(value)] for name, value in named.items()} if keep else {}


def _adapter_state(adapted: Any, keep: bool) -> dict[str, Any]:
    import torch
    from peft import get_peft_model_state_dict

    parts = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return gathered(((name, value.detach().to(torch.bfloat16)) for name, value in parts.items()), keep)


def _write_model(model: Any, state: Mapping[str, Any], made: Path, tokenizer: Any) -> None:
    loaded = model.config.dtype
    model.save_pretrained(made, state_dict=state)
    model.config.dtype = loaded  # saving made it that of the weights, float32, and training would go on in that
    tokenizer.save_pretrained(made)
    config = json.loads((made / "config.json").read_text(encoding="utf-8")) | {"dtype": "bfloat16"}
    (made / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_adapter(adapted: Any, state: Mapping[str, Any], made: Path) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.contiguous().cpu() for name, value in state.items()}
    save_file(tensors, made / "adapter_model.safetensors", metadata={"format": "pt"})
    (made / "adapter_model.safetensors").chmod(0o644)  # as any other file: it is packaged and shared
    config = {**adapted.peft_config["default"].to_dict(), "inference_mode": True}
    config.pop("runtime_config", None)
    text = json.dumps(config, indent=1, sort_keys=True, default=lambda v: sorted(v) if isinstance(v, set) else str(v))
    (made / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _counts(rows: Sequence[Tokens]) -> dict[str, int]:
    choices = [choice for row in rows for choice in row.choices]
    return {"examples": len(rows), "completion_tokens": len(choices), "forced": sum(map(is_forced, choices))}


def _end(tokenizer: Any) -> int:
    return int(tokenizer.convert_tokens_to_ids(END_OF_TURN))


def _accumulate(adapted: Any, batch: Sequence[Tokens], spec: SftSpec, pad: int) -> float:
    """Gradients of one batch; the mean loss of its examples."""
    summed = 0.0
    for rows in micro_batches(batch, spec.micro_tokens):
        loss = completion_loss(adapted, rows, pad) / len(batch)
        loss.backward()
        summed += loss.item()
    return summed


def _checkpoint(out: Path, optimizer: Any, params: Mapping[str, Any], spec: SftSpec, step: int) -> None:
    checkpoint.save(out, step, checkpoint.optimizer_tensors(optimizer, params), {"spec": dataclasses.asdict(spec)})


def _restore(
    out: Path, optimizer: Any, params: Mapping[str, Any], spec: SftSpec, num_steps: int, progress: Progress
) -> int:
    """Load the last checkpoint into the adapter and the optimiser; the number of steps that are done."""
    state, meta = checkpoint.load(out, progress)
    same_settings(meta["spec"], dataclasses.asdict(spec), out)
    if meta["step"] > num_steps:
        raise InputError(f"{out} has {meta['step']} steps done but the schedule has {num_steps}: other data?")
    checkpoint.restore_optimizer(state, optimizer, params)
    checkpoint.trim(out / _LOG, meta["step"])
    return int(meta["step"])


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raises `InputError` that shows both sides of every setting that changed since the checkpoint was made."""
    wanted = json.loads(json.dumps(now))
    if then != wanted:
        differ = {k: (then.get(k), wanted.get(k)) for k in {**then, **wanted} if then.get(k) != wanted.get(k)}
        raise InputError(f"the checkpoint in {out} was made with other settings (checkpoint, now): {differ}")
