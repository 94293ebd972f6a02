"""A loss turns the log-probabilities of drawn tokens, with their advantages, into one number to descend.

Everything is a flat tensor over the drawn tokens of a batch, or of a part of it: weights are made for the whole batch
first, so that a batch may go through the model in parts and the gradients add up to the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from sleuth.training.algorithms import LENGTH, Algorithm

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sleuth.training.samples import Sample


def units(samples: Sequence[Sample], choices: Algorithm) -> list[tuple[int, int]]:
    """What each drawn token of a batch is a part of in `weights`: its episode or, for ``reply``, that step of it."""
    replies = choices.aggregate == "reply"
    return [(s.episode, step if replies else 0) for s in samples for step in s.steps]


def weights(parts: Sequence[Hashable], choices: Algorithm, totals: tuple[float, float] | None = None) -> list[float]:
    """What each token of a batch counts; ``parts`` has the unit of each (`units`). All of them sum to 1 (for
    ``constant``: to the mean length over `LENGTH`).

    ``totals``: tokens and units of the whole batch, where these are a crew member's share.
    """
    sizes = Counter(parts)
    tokens, count = totals or (len(parts), len(sizes))
    if choices.aggregate == "token":
        return [1 / tokens] * len(parts)
    if choices.aggregate == "constant":
        return [1 / (LENGTH * count)] * len(parts)
    return [1 / (sizes[part] * count) for part in parts]


def importance(old: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """How much likelier the trainer held each token than the engine that drew it, at most ``cap``; ones for cap 0.

    Truncated importance sampling (Ionides 2008); against the gap between engines: Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training".
    """
    if not cap:
        return old.new_ones(old.shape)
    return (old - sampled).exp().clamp(max=cap).detach()


def surrogate(
    logprobs: Tensor, old: Tensor, advantages: Tensor, replies: Tensor, choices: Algorithm
) -> tuple[Tensor, Tensor]:
    """Per-token losses (N,) and whether each was clipped (N,).

    ``replies`` (N,) numbers the reply of each token from 0, for sequence ratios; a reply must not be split over parts.
    """
    import torch

    change = logprobs - old
    if choices.ratio != "token":
        change = _of_reply(change, replies, logprobs, mean=choices.ratio == "sequence")
    ratio = change.exp()
    low, high = 1 - choices.clip_low, 1 + choices.clip_high
    good = advantages > 0
    if choices.surrogate == "cispo":
        bounded = ratio.clamp(low, high)
        return -bounded.detach() * advantages * logprobs, bounded != ratio
    if choices.surrogate == "topr":
        taper = torch.where(good, torch.ones_like(ratio), ratio.clamp(0.0, 1.0))
        return -taper.detach() * advantages * logprobs, ~good & (ratio > 1)
    if choices.surrogate == "aspo":
        weight = torch.where(good, 1 / ratio, ratio).clamp(max=choices.dual_clip or math.inf)
        cut = torch.where(good, ratio > high, ratio < low)  # by the ratio before it is turned over
        return -weight.detach() * advantages * torch.where(cut, logprobs.detach(), logprobs), cut
    plain, held = ratio * advantages, ratio.clamp(low, high) * advantages
    gained = torch.minimum(plain, held)
    if choices.dual_clip:
        gained = torch.where(good, gained, torch.maximum(gained, choices.dual_clip * advantages))
    return -gained, plain > held


def shaped(logprobs: Tensor, advantages: Tensor, gamma: float, focal: float = 0.0) -> Tensor:
    """Per-token losses of true trajectories: minus the advantage times p / (p + gamma), which lifts unlikely tokens.

    LUFFY, arXiv 2504.14945, equation 5; with ``focal`` the advantage is multiplied by (1 - p) ** focal, where p counts
    as a number (RL-PLUS, arXiv 2508.00222).
    """
    chances = logprobs.exp()
    weight = (1 - chances.detach()).clamp(min=0.0) ** focal if focal else 1.0
    return -advantages * weight * chances / (chances + gamma)


def _of_reply(change: Tensor, replies: Tensor, logprobs: Tensor, mean: bool) -> Tensor:
    """Each token gets its reply's change, the mean or the sum of its tokens', with the gradient of its own token
    (GSPO-token, equation 14)."""
    count = int(replies.max()) + 1 if len(replies) else 0
    found = change.new_zeros(count).index_add(0, replies, change)
    if mean:
        found = found / change.new_zeros(count).index_add(0, replies, change.new_ones(change.shape))
    return found[replies].detach() + logprobs - logprobs.detach()


def divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Non-negative estimate, per token, of how far the policy is from the reference (k3: Schulman 2020)."""
    gap = reference - logprobs
    return gap.exp() - gap - 1


def covariance(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Each token's part in the covariance of log-probability and advantage (arXiv 2505.22617, equation 9)."""
    return (logprobs - logprobs.mean()) * (advantages - advantages.mean())


def entropy_hold(sampled: Tensor, advantages: Tensor, choices: Algorithm, generator: torch.Generator) -> Tensor:
    """True for the tokens of a batch that entropy control touches: (N,), bool.

    ``kl_cov`` takes the share with the largest covariance. ``clip_cov`` draws that share among the tokens whose
    covariance is over the mean; the paper draws them between two fixed bounds (section 4.2).
    """
    import torch

    held = torch.zeros(len(sampled), dtype=torch.bool)
    if choices.entropy == "none" or not len(sampled):
        return held
    count = max(1, round(choices.entropy_share * len(sampled)))
    found = covariance(sampled, advantages)
    if choices.entropy == "kl_cov":
        held[found.argsort(descending=True, stable=True)[:count]] = True
    else:
        above = torch.nonzero(found > found.mean())[:, 0]
        held[above[torch.randperm(len(above), generator=generator)[:count]]] = True
    return held


def preference(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """DPO (arXiv 2305.18290, equation 7) over summed log-probabilities of pairs, (P,) each."""
    import torch

    return -torch.nn.functional.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
