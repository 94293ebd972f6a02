"""A crew is the processes of one run, as ``torchrun`` starts them; alone, it is one that need not ask anybody.

Each member rolls out and trains on its share of a step's groups with its own engine; what they found is gathered as
JSON, so that all judge and choose alike, and gradients are summed, so that all hold the same weights. Only the first
writes files.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

WAIT = timedelta(days=7)
"""How long members wait for one another: the first trains a warm start alone. Who dies is noticed by torchrun."""


@dataclass(frozen=True, slots=True)
class Crew:
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> str:
        """This member's device: a GPU of its own, or ``auto`` where it is alone or there is none."""
        import torch

        if self.size == 1 or not torch.cuda.is_available():
            return "auto"
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"

    def gather(self, value: Any) -> list[Any]:
        """Every member's JSON value, by rank; a barrier too."""
        if self.size == 1:
            return [value]
        import torch
        import torch.distributed as dist

        sent = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(_device())
        length = torch.tensor([len(sent)], device=sent.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length)
        width = int(max(lengths))
        padded = torch.zeros(width, dtype=torch.uint8, device=sent.device)
        padded[: len(sent)] = sent
        got = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(got, padded)
        return [json.loads(bytes(g[: int(n)].tolist())) for g, n in zip(got, lengths, strict=True)]

    def totals(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums over the members."""
        found = self.gather(dict(sums))
        return {key: sum(each[key] for each in found) for key in sums}

    def sum_gradients(self, params: Iterable[Any]) -> None:
        """Every member's gradients become their sum; one that has none counts as zero."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        kept = list(params)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in kept])
        dist.all_reduce(flat)
        start = 0
        for p in kept:
            p.grad = flat[start : start + p.numel()].view_as(p).clone()
            start += p.numel()


def join() -> Crew:
    """The crew that the environment names (``RANK``, ``WORLD_SIZE``, as set by torchrun), joined once per process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Crew()
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=WAIT)
        atexit.register(_leave)  # its threads, left running, can abort a process that is done
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Crew(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _device() -> str:
    import torch

    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
