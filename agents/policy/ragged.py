"""A ragged batch is the new tokens of many sequences laid end to end: one forward pass, no padding, attention by row.

Linear layers see all tokens as one matrix; attention runs per sequence over its own slot of the key-value store, with
the exact length it has. So a row's numbers depend on its own tokens alone, as far as the matrix product does not depend
on how many rows it is given (see `Ragged.multiple`). Any transformers model whose attention goes through the library's
registry can be driven; prompts are cut at fixed multiples of `BLOCK`, so that a cached head changes no bit.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sleuth.agents.policy.models import choose_dtype
from sleuth.corpora.errors import ModelError

if TYPE_CHECKING:
    import torch

BLOCK = 64
"""Tokens per prefill segment and per entry of the prefix cache."""
BACKEND = "sleuth-ragged"


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive new tokens of one sequence."""

    slot: int
    """Where the sequence lives in the key-value store."""
    start: int
    """Position of the first token, which is also how many tokens are in the store before it."""
    tokens: tuple[int, ...]
    """At most `BLOCK`."""
    last: bool = True
    """The logits after its last token are wanted."""


class Ragged:
    """A model with its key-value store. Owned by one thread, which calls it inside ``torch.inference_mode()``."""

    def __init__(self, model: Any, num_slots: int) -> None:
        import torch
        from transformers import AttentionInterface

        AttentionInterface.register(BACKEND, _attend)
        if not getattr(model, "_supports_attention_backend", False):
            raise ModelError(
                f"{type(model).__name__} does not let its attention be replaced; the embedded engine needs that"
            )
        model.set_attn_implementation(BACKEND)
        if choose_dtype("cpu") == "bfloat16":
            _pack(model)
        self.model, self.num_slots = model, num_slots
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        self.multiple = 2 if self.dtype == torch.bfloat16 else 16
        """Matrix products get a multiple of this many rows. With fewer, the CPU's libraries pick kernels that round
        otherwise (bfloat16: for a single row; float32: under 16), and a row would depend on who shares its batch."""
        self.capacity = 0
        self.layers: dict[int, torch.Tensor] = {}
        """Per layer keys and values, (slots, 2, key-value heads, capacity, head size)."""
        self._causal = torch.empty(0)

    def reserve(self, length: int, live: Sequence[int]) -> None:
        """Make room for sequences of ``length`` tokens; what the ``live`` slots hold stays.

        Memory is not cleared, so that what no sequence has reached costs nothing; only what was written is ever read.
        Where a device has too little of it, all stays as it was.
        """
        import torch

        if length <= self.capacity:
            return
        capacity = -(-max(length, 2 * self.capacity) // 512) * 512
        layers: dict[int, torch.Tensor] = {}
        for index, old in self.layers.items():
            new = old.new_empty((*old.shape[:3], capacity, old.shape[4]))
            for slot in live:
                new[slot, :, :, : old.shape[3]] = old[slot]
            layers[index] = new
        wide = torch.full((BLOCK, capacity + BLOCK), float("-inf"), dtype=self.dtype, device=self.device)
        self._causal = torch.triu(wide, diagonal=capacity + 1)
        self.layers, self.capacity = layers, capacity

    def forward(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Logits after each segment that is marked ``last``, in order: (rows, vocabulary), float32 on the CPU."""
        import torch

        tokens = [token for segment in segments for token in segment.tokens]
        positions = [segment.start + i for segment in segments for i in range(len(segment.tokens))]
        ends = accumulate(len(segment.tokens) for segment in segments)
        keep = [end - 1 for end, segment in zip(ends, segments, strict=True) if segment.last]
        pad = [0] * (-len(tokens) % self.multiple)
        more = [0] * (self.multiple if not keep else -len(keep) % self.multiple)
        out = self.model(
            input_ids=torch.tensor([tokens + pad], device=self.device),
            position_ids=torch.tensor([positions + pad], device=self.device),
            logits_to_keep=torch.tensor(keep + more, device=self.device),
            use_cache=False,
            ragged=_Plan(self, segments),
        )
        return out.logits[0, : len(keep)].float().cpu()

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Give the layer ``name`` another weight of the same shape (``name.bias``: another bias); what is in the store
        was made by the old."""
        import torch

        owner, _, last = name.rpartition(".")
        module: Any = self.model.get_submodule(owner if last == "bias" else name)
        weight = weight.detach().to(self.device, self.dtype)
        held = module.bias if last == "bias" else module.weight
        expected = tuple(held.shape) if held.numel() else (module.out_features, module.in_features)
        if tuple(weight.shape) != expected:
            raise ModelError(f"{name}: expected a weight of shape {expected}, found {tuple(weight.shape)}")
        if held.numel():
            with torch.no_grad():
                held.copy_(weight)
        else:
            _hold(module, weight)

    def load(self, slot: int, start: int, block: Sequence[torch.Tensor]) -> None:
        """Put a saved block back."""
        for store, part in zip(self.layers.values(), block, strict=True):
            store[slot, :, :, start : start + part.shape[2]] = part

    def save(self, slot: int, start: int, end: int) -> list[torch.Tensor]:
        """A copy of keys and values at ``start:end``, per layer."""
        return [store[slot, :, :, start:end].clone() for store in self.layers.values()]

    def causal(self, start: int, count: int, repeats: int) -> torch.Tensor:
        """Additive mask (repeats * count, start + count) for tokens at ``start``, heads of a group stacked."""
        wide = self._causal[:count, self.capacity - start : self.capacity + count]
        return wide.repeat(repeats, 1)


def _pack(model: Any) -> None:
    """Lay bfloat16 weights out as the CPU's matrix kernels want them, once instead of at every product.

    A step over few tokens takes two thirds of the time; the numbers stay the same. A torch without these operators
    (they serve its own compiler) keeps the weights as they are.
    """
    import torch

    kernels = torch.ops.mkldnn
    if not hasattr(kernels, "_linear_pointwise") or not hasattr(kernels, "_reorder_linear_weight"):
        return
    for module in model.modules():
        if type(module) is not torch.nn.Linear or module.weight.device.type != "cpu":
            continue
        if module.weight.dtype == torch.bfloat16:
            _hold(module, module.weight.detach())
            module.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.bfloat16), requires_grad=False)


def _hold(module: Any, weight: torch.Tensor) -> None:
    """Let a packed linear layer compute with ``weight``."""
    import torch

    kernels = torch.ops.mkldnn
    packed = kernels._reorder_linear_weight(weight, None)
    module.forward = partial(_linear, kernels._linear_pointwise, packed, module.bias)


def _linear(kernel: Any, weight: Any, bias: Any, rows: Any) -> Any:
    return kernel(rows, weight, bias, "none", [], "")


class PrefixCache:
    """Keys and values of blocks of prompt tokens, found by all tokens up to their end; the least used go first."""

    def __init__(self, max_tokens: int) -> None:
        self.max_blocks = max_tokens // BLOCK
        self._blocks: OrderedDict[bytes, list[torch.Tensor]] = OrderedDict()

    def get(self, key: bytes) -> list[torch.Tensor] | None:
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def clear(self) -> None:
        self._blocks.clear()

    def put(self, key: bytes, block: list[torch.Tensor]) -> None:
        self._blocks[key] = block
        while len(self._blocks) > self.max_blocks:
            self._blocks.popitem(last=False)


def block_keys(tokens: Sequence[int]) -> list[bytes]:
    """One key per whole block of the prompt, each hashing all tokens up to its end."""
    chain, keys = hashlib.sha256(), []
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        chain.update(b",".join(str(token).encode() for token in tokens[start : start + BLOCK]) + b";")
        keys.append(chain.digest())
    return keys


class _Plan:
    """What every layer of one forward pass needs to know; indices and masks are made once and shared by the layers."""

    def __init__(self, ragged: Ragged, segments: Sequence[Segment]) -> None:
        import torch

        self.ragged, self.segments = ragged, segments
        self.slots = torch.tensor([s.slot for s in segments for _ in s.tokens], device=ragged.device)
        self.positions = torch.tensor(
            [s.start + i for s in segments for i in range(len(s.tokens))], device=ragged.device
        )
        self.masks: dict[int, torch.Tensor] = {}

    def mask(self, index: int, repeats: int) -> torch.Tensor:
        if index not in self.masks:
            segment = self.segments[index]
            self.masks[index] = self.ragged.causal(segment.start, len(segment.tokens), repeats)
        return self.masks[index]

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the new keys and values and return the layer's store."""
        store = self.ragged.layers.get(layer)
        if store is None:
            shape = (self.ragged.num_slots, 2, key.shape[1], self.ragged.capacity, key.shape[3])
            store = self.ragged.layers[layer] = key.new_empty(shape)
        count = len(self.slots)
        store[:, 0][self.slots, :, self.positions] = key[0, :, :count].transpose(0, 1)
        store[:, 1][self.slots, :, self.positions] = value[0, :, :count].transpose(0, 1)
        return store


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attention for the registry: query (1, heads, T, size), key, value (1, kv heads, T, size) -> (1, T, heads, size).

    The heads of a group share keys and values, so they are stacked as extra queries of one attention over the kv heads.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    plan: _Plan = options["ragged"]
    if options.get("softcap") or options.get("s_aux") is not None or value.shape[3] != key.shape[3]:
        raise ModelError(f"{type(module).__name__}: this kind of attention is not one the embedded engine computes")
    window, scale = options.get("sliding_window"), options.get("scaling")
    store = plan.store(module.layer_idx, key, value)
    heads, groups, size = query.shape[1], key.shape[1], query.shape[3]
    repeats = heads // groups
    pieces, offset = [], 0
    for index, segment in enumerate(plan.segments):
        count, start = len(segment.tokens), segment.start
        first = max(0, start + 1 - window) if window else 0
        keys, values = store[segment.slot, :, None, :, first : start + count]  # (1, kv heads, seen, size) each
        stacked = query[0, :, offset : offset + count].reshape(1, groups, repeats * count, size)
        mask = plan.mask(index, repeats)[:, first:] if count > 1 else None
        if mask is not None and window:
            mask = _windowed(mask, count, start - first, window)
        got = sdpa(stacked, keys, values, attn_mask=mask, scale=scale)
        pieces.append(got.view(heads, count, size).transpose(0, 1))
        offset += count
    pieces.append(query.new_zeros((query.shape[2] - offset, heads, size)))
    return torch.cat(pieces)[None], None


def _windowed(mask: torch.Tensor, count: int, before: int, window: int) -> torch.Tensor:
    """Hide what lies more than ``window`` tokens back; row i of each repeat stands at column ``before + i``."""
    import torch

    row = torch.arange(mask.shape[0], device=mask.device)[:, None] % count + before
    column = torch.arange(mask.shape[1], device=mask.device)[None]
    return mask.masked_fill(column <= row - window, float("-inf"))
