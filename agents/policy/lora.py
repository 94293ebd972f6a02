"""A LoRA adapter is a folder of low-rank updates (Hu et al., arXiv 2106.09685); merging adds them to a model's weights.

It reads what peft writes, without peft's import time, and refuses what it would have to guess at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNREAD = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
)
PREFIX = "base_model.model."


def merge(model: Any, folder: Path, base: str) -> None:
    """Add the adapter to ``model`` in place (in float32, then rounded)."""
    import torch

    with torch.no_grad():
        for name, weight in merged(model, folder, base):
            model.get_submodule(name).weight.copy_(weight)


def weights_hash(folder: Path) -> str:
    """SHA-256 of the adapter's weights; raises as `read_config` does."""
    read_config(folder)
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def merged(model: Any, folder: Path, base: str) -> Iterator[tuple[str, Any]]:
    """``(name, weight)`` of every layer that the adapter changes, as `merge` would set it; ``model`` stays as it is."""
    import torch

    for name, update in updates(folder, base):
        try:
            weight = model.get_submodule(name).weight
        except AttributeError as error:
            raise ModelError(f"adapter {folder} changes {name}, which the model does not have") from error
        if weight.shape != update.shape:
            raise ModelError(f"adapter {folder}: {name} is {tuple(update.shape)}, the model has {tuple(weight.shape)}")
        with torch.no_grad():
            yield name, (weight.float() + update.to(weight.device)).to(weight.dtype)


def updates(folder: Path, base: str) -> Iterator[tuple[str, Any]]:
    """``(name of a layer, what is added to its weight)``, float32.

    ``base`` is the name of the model; an adapter made for another one raises `ModelError` naming both.
    """
    import torch
    from safetensors.torch import load_file

    config = read_config(folder)
    if Path(str(config.get("base_model_name_or_path"))).name != Path(base).name:
        raise ModelError(f"adapter {folder} was made for {config.get('base_model_name_or_path')}, the model is {base}")
    rank = int(config["r"])
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    parts = load_file(folder / WEIGHTS)
    odd = sorted(key for key in parts if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if odd:
        raise ModelError(f"{folder / WEIGHTS}: expected only LoRA matrices, found {odd[0]}")
    for key in [key for key in parts if key.endswith(".lora_A.weight")]:
        down, up = parts[key], parts[key.replace(".lora_A.", ".lora_B.")]
        with torch.no_grad():
            yield key.removeprefix(PREFIX).removesuffix(".lora_A.weight"), scale * (up.float() @ down.float())


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter that can be merged; `ModelError` says what is missing or not read."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: not a LoRA adapter, {name} is missing")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise ModelError(
            f"{folder}: expected peft_type LORA without bias, found {config.get('peft_type')}, {config.get('bias')}"
        )
    for key in UNREAD:
        if config.get(key):
            raise ModelError(f"{folder}: {key} is not supported, found {config[key]}")
    return dict(config)
