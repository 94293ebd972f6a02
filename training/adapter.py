"""What is trained is a peft model over a frozen base or, at rank 0, the model itself: all of its weights.

This module goes on with an adapter and gives the weights that a rollout engine computes with; what is exported
(`sft.export`) is what ``--adapter`` takes, or of a whole model what ``--policy`` takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sleuth.agents.policy.lora import CONFIG, WEIGHTS, merge, read_config
from sleuth.corpora.errors import ModelError
from sleuth.training.shards import whole


def is_whole(adapted: Any) -> bool:
    """Whether all weights are trained rather than an adapter's."""
    return not hasattr(adapted, "get_base_model")


def base_of(adapted: Any) -> Any:
    """The model under an adapter, or the model itself where all of it is trained."""
    return adapted if is_whole(adapted) else adapted.get_base_model()


def precision(model: Any) -> Any:
    """The torch type to compute in: that of frozen weights, else the one the model was loaded in.

    Weights that are all trained are held in float32, because steps are too small for bfloat16 to take.
    """
    import torch

    frozen = next((p.dtype for p in model.parameters() if not p.requires_grad or p.dtype != torch.float32), None)
    loaded = getattr(model.config, "dtype", None) or torch.float32
    return frozen or (getattr(torch, loaded) if isinstance(loaded, str) else loaded)


def merged(adapted: Any) -> Iterator[tuple[str, Any]]:
    """``(name, weight)`` of every layer that training changes, in the base's type, as in `lora.merge`.

    Of a whole model that is every layer with a weight of its own; a bias goes by its full name. Of a sharded one the
    weights are gathered one after the other: all members go through it.
    """
    import torch

    if is_whole(adapted):
        for name, parameter in adapted.named_parameters(remove_duplicate=False):
            yield name.removesuffix(".weight"), whole(parameter.detach().to(precision(adapted)))
        return
    with torch.no_grad():
        for name, module in adapted.get_base_model().named_modules():
            if not hasattr(module, "lora_A"):
                continue
            parts = module.base_layer.weight, module.lora_A["default"].weight, module.lora_B["default"].weight
            base, down, up = map(whole, parts)
            update = module.scaling["default"] * (up.float() @ down.float())
            yield name, (base.float() + update).to(base.dtype)


def load_weights(adapted: Any, folder: str | Path, base: str) -> None:
    """Set a fresh adapter to the weights of the one in ``folder``: same rank, alpha and layers, same base model.

    Into a whole model it is merged, whatever its rank.

    Raises `ModelError` that names both sides where they differ.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = Path(folder)
    if is_whole(adapted):
        merge(adapted, folder, base)
        return
    theirs = read_config(folder)
    if Path(str(theirs.get("base_model_name_or_path"))).name != Path(base).name:
        raise ModelError(f"adapter {folder} was made for {theirs.get('base_model_name_or_path')}, the model is {base}")
    ours = adapted.peft_config["default"]
    for key, wanted in (("r", ours.r), ("lora_alpha", ours.lora_alpha)):
        if theirs[key] != wanted:
            raise ModelError(f"adapter {folder}: {CONFIG} has {key} {theirs[key]}, this run has {wanted}")
    parts = load_file(folder / WEIGHTS)
    result = set_peft_model_state_dict(adapted, parts)
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing or result.unexpected_keys:
        odd = (missing or result.unexpected_keys)[0]
        raise ModelError(f"adapter {folder}: {WEIGHTS} and this run's layers differ, first in {odd}")


def pull_back(adapted: Any, folder: str | Path, base: str, share: float) -> None:
    """Put the trained weights ``share`` of the way back to those of the adapter in ``folder``, where they started."""
    import torch

    params = [p for p in adapted.parameters() if p.requires_grad]
    trained = [p.detach().clone() for p in params]
    load_weights(adapted, folder, base)
    with torch.no_grad():
        for p, value in zip(params, trained, strict=True):
            p.lerp_(value, 1 - share)
