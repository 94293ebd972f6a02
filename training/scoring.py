"""A score is the log-probability that a model gives now to a token that was drawn, among what it was drawn from.

Samples that begin alike are laid out as one tree and go through the model once: a prompt is computed once for all the
rollouts of its group, a reply that several rollouts gave is computed once too. Each token attends to its own ancestors
alone (the tree attention of SpecInfer, arXiv 2305.09781, section 4), so its number is that of its own sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sleuth.agents.policy.constrain import Choice
from sleuth.training.adapter import base_of, precision
from sleuth.training.choices import barred
from sleuth.training.samples import Sample

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples as one tree of T tokens; parents stand before children."""

    samples: tuple[int, ...]
    """Numbers of the samples, in the order in which their scores come."""
    ids: tuple[int, ...]
    """(T,)"""
    parents: tuple[int, ...]
    """(T,), -1 for a root."""
    depths: tuple[int, ...]
    """(T,), the position of each token in its own sequence."""
    predicts: tuple[int, ...]
    """(N,) for each drawn token of the samples in turn, the node whose next token it is."""


BLANK = Pack((), (0,), (-1,), (0,), ())
"""No sample's: it goes through the model and weighs nothing, where others have a pack more."""


class _Tree:
    def __init__(self) -> None:
        self.children: dict[tuple[int, int], int] = {}
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []

    def path(self, ids: Sequence[int]) -> list[int]:
        """The nodes of a sequence, those that are missing added."""
        node, nodes = -1, []
        for depth, token in enumerate(ids):
            parent, node = node, self.children.get((node, token), -1)
            if node < 0:
                node = self.children[parent, token] = len(self.ids)
                self.ids.append(token)
                self.parents.append(parent)
                self.depths.append(depth)
            nodes.append(node)
        return nodes

    def missing(self, ids: Sequence[int]) -> int:
        """How many nodes a sequence would add."""
        node = -1
        for depth, token in enumerate(ids):
            node = self.children.get((node, token), -1)
            if node < 0:
                return len(ids) - depth
        return 0


def packs(samples: Sequence[Sample], max_tokens: int) -> list[Pack]:
    """Trees of at most ``max_tokens`` tokens (one sample at least), samples that begin alike together.

    What follows a sample's last drawn token predicts nothing and is left out. The order depends on the samples alone.
    """
    made: list[Pack] = []
    tree, inside, predicts = _Tree(), list[int](), list[int]()

    def close() -> None:
        nonlocal tree, inside, predicts
        if inside:
            made.append(Pack(tuple(inside), tuple(tree.ids), tuple(tree.parents), tuple(tree.depths), tuple(predicts)))
        tree, inside, predicts = _Tree(), [], []

    for number in sorted(range(len(samples)), key=lambda i: samples[i].ids):
        ids = samples[number].ids[: samples[number].drawn[-1]]
        if inside and len(tree.ids) + tree.missing(ids) > max_tokens:
            close()
        nodes = tree.path(ids)
        inside.append(number)
        predicts += [nodes[place - 1] for place in samples[number].drawn]
    close()
    return made


def score(adapted: Any, samples: Sequence[Sample], pack: Pack, entropy: bool = True) -> tuple[Any, Any]:
    """Log-probabilities (N,) with gradients and entropies (N,) in nats without, of the drawn tokens of a pack, float32.

    Both are under each sample's temperature and choices; entropies are zero where ``entropy`` is False.
    """
    import torch

    model = base_of(adapted)
    device = next(model.parameters()).device
    low = precision(model)
    mixed = torch.autocast(device.type, dtype=low) if low != torch.float32 else nullcontext()
    drawn = [(i, n) for i in pack.samples for n in range(len(samples[i].drawn))]
    wanted = torch.tensor([samples[i].ids[samples[i].drawn[n]] for i, n in drawn], dtype=torch.long, device=device)
    rows, places = _distinct([(node, samples[i].choices[n], samples[i].temperature)
                              for node, (i, n) in zip(pack.predicts, drawn, strict=True)])  # fmt: skip
    nodes = torch.tensor([node for node, _, _ in rows], dtype=torch.long, device=device)
    scale = torch.tensor([1 / temperature for _, _, temperature in rows], device=device)
    with mixed:
        logits = model(
            input_ids=torch.tensor([pack.ids], device=device),
            position_ids=torch.tensor([pack.depths], device=device),
            attention_mask=None if _is_line(pack) else _ancestry(pack, low).to(device),
            use_cache=False,
            logits_to_keep=nodes,
        ).logits  # (1, U, V)
    logits = logits[0].float()  # (U, V)
    mask = barred([choice for _, choice, _ in rows], logits.shape[1]).to(device)
    logprobs = (logits * scale[:, None]).masked_fill(mask, float("-inf")).log_softmax(-1)  # (U, V)
    spread = torch.zeros(len(rows), device=device)
    if entropy:
        with torch.no_grad():
            spread = -(logprobs.exp() * logprobs.masked_fill(mask, 0.0)).sum(-1)  # (U,)
    at = torch.tensor(places, dtype=torch.long, device=device)
    return logprobs[at, wanted], spread[at]


def _distinct(asked: Sequence[tuple[int, Choice, float]]) -> tuple[list[tuple[int, Choice, float]], list[int]]:
    """The rows of logits that are needed, each once, and for every drawn token its row."""
    import numpy as np

    rows: dict[tuple[Any, ...], int] = {}
    kept: list[tuple[int, Choice, float]] = []
    places = []
    for node, choice, temperature in asked:
        key = (node, None if choice is None else np.asarray(choice).tobytes(), temperature)
        if key not in rows:
            rows[key] = len(kept)
            kept.append((node, choice, temperature))
        places.append(rows[key])
    return kept, places


def _is_line(pack: Pack) -> bool:
    return all(parent == node - 1 for node, parent in enumerate(pack.parents))


def _ancestry(pack: Pack, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask (1, 1, T, T): 0 where the column is the row itself or one of its ancestors."""
    import numpy as np
    import torch

    seen = np.zeros((len(pack.ids), len(pack.ids)), dtype=bool)
    for node, parent in enumerate(pack.parents):
        if parent >= 0:
            seen[node] = seen[parent]
        seen[node, node] = True
    mask = torch.full(seen.shape, float("-inf"), dtype=dtype)
    return mask.masked_fill(torch.from_numpy(seen), 0.0)[None, None]
