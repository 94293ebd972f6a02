"""A learner is an adapter with its optimiser; an update moves it along one batch of samples.

A batch goes through the model in trees of tokens (`scoring.packs`), gradients add up, and one step is taken per epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sleuth.corpora.errors import ConfigError
from sleuth.training import losses
from sleuth.training.adapter import base_of
from sleuth.training.algorithms import Algorithm
from sleuth.training.crew import Crew
from sleuth.training.samples import Sample
from sleuth.training.scoring import BLANK, Pack, packs, score
from sleuth.training.sft import falling, memory
from sleuth.training.shards import is_shard, whole


@dataclass(frozen=True, slots=True)
class UpdateSpec:
    learning_rate: float = 2e-4
    warmup: int = 5
    """Steps to reach it."""
    decay: int = 0
    """Steps over which it then falls along half a cosine to a tenth, and stays there; 0: it never falls."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    weight_decay: float = 0.0
    max_tokens: int = 1024
    """Tokens of a tree that goes through the model at once: memory and cache set it."""
    checkpointing: bool = False
    """Layers are computed a second time for their gradients instead of being kept: a third more work, and activations
    of one layer in place of all (arXiv 1604.06174)."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip <= 0 or self.max_tokens < 1:
            found = f"{self.learning_rate}, {self.clip}, {self.max_tokens}"
            raise ConfigError(f"update: learning_rate, clip and max_tokens must be over 0; found {found}")
        if self.warmup < 0 or self.decay < 0:
            raise ConfigError(f"update: warmup and decay must be at least 0; found {self.warmup}, {self.decay}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        rate = self.learning_rate * min(1.0, step / max(1, self.warmup))
        if not self.decay:
            return rate
        return rate * falling(max(0, step - self.warmup) / self.decay)


class Learner:
    """Trainable weights over a frozen base, and where the optimiser stands."""

    def __init__(self, adapted: Any, spec: UpdateSpec, choices: Algorithm, crew: Crew | None = None) -> None:
        import torch

        self.adapted, self.spec, self.choices, self.crew = adapted, spec, choices, crew or Crew()
        if spec.checkpointing:
            base_of(adapted).gradient_checkpointing_enable({"use_reentrant": False})
        self.params = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        self.sharded = any(map(is_shard, self.params.values()))
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
        self.start_here()

    def start_here(self) -> None:
        """The present weights become the reference of divergences and preferences; the optimiser begins anew."""
        self.optimizer.state.clear()
        self.start = [p.detach().clone() for p in self.params.values()]

    def update(self, samples: Sequence[Sample], step: int, seed: int) -> dict[str, Any]:
        """One update per epoch over the batch; figures of the last, ``kl`` and ``mismatch`` of the first."""
        with memory("update.max_tokens", self.spec.max_tokens):
            return self._update(samples, step, seed)

    def _update(self, samples: Sequence[Sample], step: int, seed: int) -> dict[str, Any]:
        import torch

        mine = {"drawn": sum(len(s.drawn) for s in samples), "units": len({*losses.units(samples, self.choices)})}
        all_ = self.crew.totals(mine)
        batch = _Batch(samples, self.choices, step, seed, (all_["drawn"], all_["units"]))
        cut = self._cut(samples)
        rate = self._rate(step)
        old = torch.zeros(batch.count)
        reference = self._reference(batch, cut) if self.choices.kl else None
        figures: dict[str, Any] = {}
        for epoch in range(self.choices.epochs):
            now, sums = self._epoch(batch, cut, None if epoch == 0 else old, reference)
            if epoch == 0:
                old = now
                gap = (batch.sampled - now)[~batch.true]
                sums |= {"kl": float((gap.exp() - gap - 1).sum()), "mismatch": float(gap.abs().sum())}
                sums |= {"own": len(gap), "tokens": sum(map(len, samples)), "computed": sum(len(p.ids) for p in cut)}
            told = self.crew.totals(sums)
            figures |= {key: told[key] for key in ("loss", "tokens", "computed") if key in told}
            figures |= {key: told[key] / max(1, all_["drawn"]) for key in ("clipped", "entropy")}
            figures |= {key: told[key] / max(1, told["own"]) for key in ("kl", "mismatch") if key in told}
            figures["norm"] = self._move(told["loss"])
            if not (math.isfinite(told["loss"]) and math.isfinite(figures["norm"])):
                break
        return {**figures, "lr": rate, "drawn": all_["drawn"]}

    def prefer(self, pairs: Sequence[tuple[Sample, Sample]], step: int, beta: float) -> dict[str, Any]:
        """One step of DPO over (chosen, rejected) pairs; ``right`` is the share that the policy already ranks so.

        The loss's gradient is linear in those of the log-probabilities, so its weights are found in a pass without
        gradients and the pairs may lie in different parts of the batch.
        """
        with memory("update.max_tokens", self.spec.max_tokens):
            return self._prefer(pairs, step, beta)

    def _prefer(self, pairs: Sequence[tuple[Sample, Sample]], step: int, beta: float) -> dict[str, Any]:
        import torch

        samples = [sample for pair in pairs for sample in pair]
        batch = _Batch(samples, self.choices, step, 0)
        cut = packs(samples, self.spec.max_tokens)
        rate = self._rate(step)
        with torch.no_grad():
            now = self._scores(batch, cut)
        gap = self._of_samples(batch, now - self._reference(batch, cut)).view(-1, 2)  # (P, 2): chosen, rejected
        zero = torch.zeros(len(pairs))
        loss = losses.preference(gap[:, 0], gap[:, 1], zero, zero, beta)  # (P,)
        pull = beta * torch.sigmoid(-beta * (gap[:, 0] - gap[:, 1])) / len(pairs)
        signed = torch.stack([-pull, pull], 1).view(-1)  # (2 P,), what each log-probability is multiplied by
        weights = torch.cat([signed[i].repeat(len(s.drawn)) for i, s in enumerate(samples)])
        for pack in cut:
            logprobs, _ = score(self.adapted, samples, pack, entropy=False)
            (weights[batch.places(pack)].to(logprobs.device) * logprobs).sum().backward()
        told = float(loss.mean())
        right = float((gap[:, 0] > gap[:, 1]).float().mean())
        return {"loss": told, "right": right, "norm": self._move(told), "lr": rate, "drawn": batch.count}

    def _cut(self, samples: Sequence[Sample]) -> list[Pack]:
        """The packs of a share; of a sharded model as many as the member with most has, because each is one of all."""
        cut = packs(samples, self.spec.max_tokens)
        most = max(self.crew.gather(len(cut))) if self.sharded else len(cut)
        return [*cut, *[BLANK] * (most - len(cut))]

    def _rate(self, step: int) -> float:
        rate = self.spec.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _move(self, loss: float) -> float:
        """Take the optimiser's step where everything is finite; the gradient's norm before it was clipped."""
        import torch

        if not self.sharded:  # else they are sums already
            self.crew.sum_gradients(self.params.values())
        norm = whole(torch.nn.utils.clip_grad_norm_(self.params.values(), self.spec.clip)).item()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _of_samples(self, batch: _Batch, tokens: Any) -> Any:
        """Sums over each sample's tokens: (samples,)."""
        import torch

        owner = torch.tensor([i for i, s in enumerate(batch.samples) for _ in s.drawn])
        return torch.zeros(len(batch.samples)).index_add(0, owner, tokens)

    def _epoch(self, batch: _Batch, cut: Sequence[Pack], old: Any, reference: Any) -> tuple[Any, dict[str, float]]:
        """Gradients of one pass; the log-probabilities it found, and sums over its tokens."""
        import torch

        found = torch.zeros(batch.count)
        loss_sum = clipped_sum = entropy_sum = 0.0
        for pack in cut:
            at = batch.places(pack)
            logprobs, entropies = score(self.adapted, batch.samples, pack)
            found[at] = logprobs.detach().cpu()
            before = found[at] if old is None else old[at]
            loss, clipped = batch.loss(logprobs, before, at, None if reference is None else reference[at])
            loss.backward()
            loss_sum += float(loss.detach())
            clipped_sum += float(clipped)
            entropy_sum += float(entropies.sum())
        return found, {"loss": loss_sum, "clipped": clipped_sum, "entropy": entropy_sum}

    def _reference(self, batch: _Batch, cut: Sequence[Pack]) -> Any:
        """Log-probabilities under the weights that training started from."""
        import torch

        with self._at_start(), torch.no_grad():
            return self._scores(batch, cut)

    def _scores(self, batch: _Batch, cut: Sequence[Pack]) -> Any:
        import torch

        found = torch.zeros(batch.count)
        for pack in cut:
            found[batch.places(pack)] = score(self.adapted, batch.samples, pack, entropy=False)[0].cpu()
        return found

    @contextmanager
    def _at_start(self) -> Iterator[None]:
        import torch

        now = [p.detach().clone() for p in self.params.values()]
        with torch.no_grad():
            for p, value in zip(self.params.values(), self.start, strict=True):
                p.copy_(value)
            try:
                yield
            finally:
                for p, value in zip(self.params.values(), now, strict=True):
                    p.copy_(value)


class _Batch:
    """The drawn tokens of samples as flat tensors, each sample's at consecutive places."""

    def __init__(
        self,
        samples: Sequence[Sample],
        choices: Algorithm,
        step: int,
        seed: int,
        totals: tuple[float, float] | None = None,
    ) -> None:
        import torch

        self.samples, self.choices = samples, choices
        self.starts, self.count = [], 0
        for sample in samples:
            self.starts.append(self.count)
            self.count += len(sample.drawn)
        self.sampled = torch.tensor([x for s in samples for x in s.logprobs])
        self.advantages = torch.tensor([x for s in samples for x in s.advantages])
        self.weights = torch.tensor(losses.weights(losses.units(samples, choices), choices, totals))
        replies: dict[tuple[int, int], int] = {}
        numbers = [replies.setdefault((s.episode, t), len(replies)) for s in samples for t in s.steps]
        self.replies = torch.tensor(numbers)
        self.true = torch.tensor([s.true for s in samples for _ in s.drawn], dtype=torch.bool)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        self.held = losses.entropy_hold(self.sampled, self.advantages, choices, generator)

    def places(self, pack: Pack) -> Any:
        """Where the scores of a pack belong."""
        import torch

        found = [self.starts[i] + n for i in pack.samples for n in range(len(self.samples[i].drawn))]
        return torch.tensor(found, dtype=torch.long)

    def loss(self, logprobs: Any, old: Any, at: Any, reference: Any) -> tuple[Any, Any]:
        """The part of the batch's loss that these places have, and how many of them were clipped."""
        import torch

        choices, device = self.choices, logprobs.device
        sampled, good = self.sampled[at].to(device), self.advantages[at].to(device)
        old, weights, held = old.to(device), self.weights[at].to(device), self.held[at].to(device)
        _, replies = torch.unique(self.replies[at], return_inverse=True)
        tokens, clipped = losses.surrogate(logprobs, old, good, replies.to(device), choices)
        tokens = tokens * losses.importance(old, sampled, choices.cap)
        true = self.true[at].to(device)
        if bool(true.any()):
            tokens = torch.where(true, losses.shaped(logprobs, good, choices.inject, choices.focal), tokens)
            clipped = clipped & ~true
        if choices.entropy == "clip_cov":
            tokens = torch.where(held, tokens.detach(), tokens)
        if choices.entropy == "kl_cov":
            tokens = tokens + held * choices.entropy_weight * (logprobs - old).abs()
        if reference is not None:
            tokens = tokens + choices.kl * losses.divergence(logprobs, reference.to(device))
        return (weights * tokens).sum(), clipped.sum()
