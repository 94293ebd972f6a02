"""A shard is a member's part of a weight of the trainer's model; the parts of all members are the whole.

torch's FSDP2 cuts every weight along its first dimension, gathers a layer while it computes, and leaves the sum of its
gradients with the owners of the parts; the optimiser moves the parts. So each pass over a sharded model and each look
at a whole weight is one of all members, in the same order. Tensors that are not sharded go through here unchanged.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

from sleuth.training.crew import Crew

Name = TypeVar("Name", bound=Hashable)


def shard(model: Any, crew: Crew, compute: Any) -> None:
    """``model`` (a base, with or without an adapter in it) keeps this member's parts, on its device; in place.

    A layer is whole only while it computes, the embeddings and the head for a whole pass, both in the type ``compute``;
    parts keep their own type, and gradients are summed in float32.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    types = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (crew.size,))
    for module in (*model.model.layers, model):
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=types)
        sharded.set_gradient_divide_factor(1.0)  # sums; FSDP's own choice is the mean
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction, and NCCL needs none


def is_shard(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Any:
    """The tensor that this is a part of, on this member's device; a pass of all members."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def gathered(tensors: Iterable[tuple[Name, Any]], keep: bool) -> dict[Name, Any]:
    """Whole tensors by name, those of a sharded model one after the other on the CPU; nothing where not to ``keep``."""
    kept = {}
    for name, tensor in tensors:
        found = whole(tensor)
        if keep:
            kept[name] = found.cpu() if is_shard(tensor) else found
    return kept


def part(tensor: Any, like: Any) -> Any:
    """Of a whole tensor the part that ``like`` is of its own, on its device; every member has the whole one."""
    if not is_shard(like):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
