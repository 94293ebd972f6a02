"""An algorithm is a handful of independent choices about advantages and the loss; a published one is a named row.

`credit.advantages` reads the first half, `losses` the second; neither knows any name. What a row leaves out of its
paper stands beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sleuth.corpora.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Algorithm:
    name: str = "grpo"
    # --- credit
    baseline: Literal["group", "others", "batch", "history", "none"] = "group"
    """What a reward is compared with: the mean of its group, of the others in its group (leave one out), of the batch,
    of the question's past rewards, or nothing."""
    scale: Literal["group", "batch", "none"] = "group"
    """What the difference is divided by: the standard deviation of the group's rewards or nothing; ``batch``: the
    differences of all episodes of the batch are made to have mean 0 and deviation 1."""
    credit: Literal["episode", "role"] = "episode"
    """``role``: a step's reward is compared only with episodes in which its role acted too."""
    step_weight: float = 0.0
    """Weight of the steps' own rewards, each summed over what follows and compared with steps of its role."""
    discount: float = 1.0
    """Of a later step's reward per step."""
    to_go: bool = False
    """An answering reply's quotes are credited only with what they can still change: the terms that the answer has
    settled (`rewards.SETTLED`) are left out of the reward of what follows it. The same gradient in the mean, with less
    noise (the reward-to-go of policy gradients, Sutton et al. 2000, inside one reply)."""
    roles: Mapping[str, float] = field(default_factory=dict)
    """What the advantages of a role's steps are multiplied by, 1 where it is not named: planning over doing."""
    uncertainty: float = 0.0
    """Groups that answer in many ways weigh less: by 1 - uncertainty * (their answers' entropy / its most)."""
    drop_equal: bool = True
    """Groups whose rewards are all equal are not computed (their outcome advantage is zero) and count in no mean; under
    `kl` they are, for the divergence holds the policy on them too."""
    drop_void: bool = False
    """Episodes with a reply that could not be used leave the update."""
    drop_cut: bool = False
    """Episodes with a reply that hit its token limit leave the update."""
    # --- loss
    surrogate: Literal["clip", "cispo", "topr", "aspo"] = "clip"
    """``clip``: PPO's; ``cispo``: the clipped ratio weighs the log-probability; ``topr``: no ratio for good episodes, a
    ratio of at most 1 for bad ones; ``aspo``: the inverse ratio weighs the log-probability of good ones, the ratio that
    of bad ones; what the clip of the ratio itself lets go has no gradient."""
    ratio: Literal["token", "sequence", "product"] = "token"
    """``sequence``: one ratio per reply, the geometric mean of its tokens'; ``product``: their product, that of the
    reply's probabilities."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    """The ratio is held in [1 - clip_low, 1 + clip_high]."""
    dual_clip: float = 0.0
    """Over 1, the most that a ratio multiplies a negative advantage by; past it a token has no gradient. For ``aspo``
    the most that any token weighs; past it the gradient is held. 0 is none."""
    aggregate: Literal["episode", "reply", "token", "constant"] = "episode"
    """Mean over an episode's tokens and then over episodes; over a reply's and then over all replies; mean over all
    tokens; or sum over `LENGTH` per episode."""
    kl: float = 0.0
    """Weight of the divergence from the policy that training started from (k3 estimator, Schulman 2020)."""
    entropy: Literal["none", "clip_cov", "kl_cov"] = "none"
    """Tokens whose log-probability and advantage go together most lose their gradient, or are held by a divergence."""
    entropy_share: float = 0.0002
    """Share of the tokens that this touches."""
    entropy_weight: float = 1.0
    """Of ``kl_cov``'s divergence."""
    epochs: int = 1
    """Updates over one batch of rollouts. In the first the ratio is 1 and ``kl_cov``'s divergence 0: what bounds or
    weighs the ratio, and that divergence, act from the second on."""
    inject: float = 0.0
    """Over 0, groups in which every rollout failed get a true trajectory (`training.inject`), whose tokens weigh
    p / (p + inject) for the probability p that the policy gives them: LUFFY's policy shaping."""
    hint: bool = False
    """What is injected is not the gold reply but the policy's own, to a prompt that names the gold sources (Guide)."""
    focal: float = 0.0
    """Over 0, the tokens of true trajectories weigh (1 - p) ** focal besides: what the policy would hardly say counts
    most (RL-PLUS's exploration-based advantage)."""
    cap: float = 2.0
    """Most that a token weighs for what the trainer's own arithmetic, or a newer policy, gives it over what the engine
    sampled it with (truncated importance sampling); 0 turns the correction off."""


LENGTH = 64.0
"""Tokens by which ``constant`` divides an episode's sum: a number that no episode's length decides."""

ALGORITHMS: dict[str, Algorithm] = {
    # DeepSeekMath, arXiv 2402.03300, section 4.1. With one update per batch the ratio is 1 and only the cap acts.
    "grpo": Algorithm("grpo"),
    # Dr. GRPO, arXiv 2503.20783, section 3.2: no division by the deviation, none by the length.
    "dr_grpo": Algorithm("dr_grpo", scale="none", aggregate="constant"),
    # DAPO, arXiv 2503.14476, section 3: clip-higher, token mean, no equal groups, over-long replies left out.
    # Left out: the soft length penalty, which is the reward term `length` here. Clip-higher acts with `epochs` over 1.
    "dapo": Algorithm("dapo", aggregate="token", clip_high=0.28, drop_cut=True),
    # RLOO, arXiv 2402.14740, section 3: leave one out, REINFORCE. Differs: the divergence is in the loss.
    "rloo": Algorithm("rloo", baseline="others", scale="none", aggregate="token"),
    # REINFORCE++, arXiv 2501.03262, section 3: normalised over the batch. Differs: the divergence is in the loss.
    "reinforce_pp": Algorithm("reinforce_pp", baseline="batch", scale="batch", aggregate="token", drop_equal=False),
    # REINFORCE++ with baseline, same paper: minus the group's mean, and these differences normalised over the batch.
    # Differs: an episode counts once whatever its length, here and above.
    "reinforce_pp_baseline": Algorithm("reinforce_pp_baseline", scale="batch", aggregate="token"),
    # GSPO, arXiv 2507.18071, section 4.1. A sequence is one reply of one role.
    "gspo": Algorithm("gspo", ratio="sequence", aggregate="reply", clip_low=3e-4, clip_high=4e-4),
    # PPO, arXiv 1707.06347, section 3, lambda 1. Differs: no critic; the value of a question is the mean of its past
    # rewards.
    "ppo": Algorithm("ppo", baseline="history", scale="batch", aggregate="token", epochs=2, drop_equal=False),
    # CISPO, arXiv 2506.13585, section 3.1.
    "cispo": Algorithm("cispo", surrogate="cispo", aggregate="token", clip_low=1.0, clip_high=1.0),
    # TOPR, arXiv 2503.14286, section 3: what was bad weighs by the ratio of its whole probability, at most 1. Differs:
    # good is what is better than its group, where the paper takes the reward's sign; a reply, not the episode, has a
    # ratio, to the policy before the batch's first update, so that it acts with `epochs` over 1.
    "topr": Algorithm("topr", surrogate="topr", ratio="product", scale="none", aggregate="token", cap=0.0),
    # ASPO, arXiv 2510.06062, section 3: good tokens weigh by the inverse ratio; clip and soft dual clip as in the
    # authors' code. Left out: that code's bounds by the entropy of the token.
    "aspo": Algorithm("aspo", surrogate="aspo", aggregate="token", clip_high=0.28, dual_clip=3.0, epochs=2),
    # The entropy mechanism, arXiv 2505.22617, sections 4.2 and 4.3.
    "clip_cov": Algorithm("clip_cov", aggregate="token", entropy="clip_cov"),
    "kl_cov": Algorithm("kl_cov", aggregate="token", entropy="kl_cov", entropy_share=0.002),
    # Step-GRPO, arXiv 2503.12937; with StepSearch's or InForage's rewards it is theirs.
    "step_grpo": Algorithm("step_grpo", step_weight=1.0),
    # SimpleTIR, arXiv 2509.02479: episodes with a void turn leave the update.
    "simple_tir": Algorithm("simple_tir", aggregate="token", clip_high=0.28, drop_void=True),
    # LUFFY, arXiv 2504.14945, section 3.2, with gamma 0.1; given only where every rollout failed (Guide, 2506.13923).
    "luffy": Algorithm("luffy", scale="none", aggregate="token", inject=0.1),
    # Guide, arXiv 2506.13923: hints where every rollout failed. Differs: LUFFY's shaping, not its importance ratio.
    "guide": Algorithm("guide", inject=0.1, hint=True),
    # RL-PLUS, arXiv 2508.00222: unlikely tokens of true trajectories count most. Left out: its multiple importance
    # sampling; the shaping of `inject` bounds what such a token weighs.
    "rl_plus": Algorithm("rl_plus", scale="none", aggregate="token", inject=0.1, focal=1.0),
    # SEED-GRPO, arXiv 2505.12346: the update shrinks with semantic entropy. Answers are alike when equal, normalised.
    "seed_grpo": Algorithm("seed_grpo", uncertainty=0.5),
    # HICRA, arXiv 2509.03646: planning is credited more. Here by role, in the paper by n-grams.
    "hicra": Algorithm("hicra", roles={"planner": 1.2, "rewriter": 1.2}),
    # MALT, arXiv 2412.01928: roles credited apart. Left out: its tree of samples per role and its DPO stage.
    "per_role": Algorithm("per_role", credit="role"),
}


def algorithm(name: str, **changes: Any) -> Algorithm:
    """The named algorithm with some choices changed; an unknown name, key or value raises `ConfigError`."""
    if name not in ALGORITHMS:
        raise ConfigError(f"unknown algorithm {name!r}{nearest(name, ALGORITHMS)}; known: {', '.join(ALGORITHMS)}")
    kinds = get_type_hints(Algorithm)
    for key, value in changes.items():
        if key not in kinds or key == "name":
            known = [k for k in kinds if k != "name"]
            raise ConfigError(f"unknown algorithm key {key!r}{nearest(key, known)}; known: {', '.join(known)}")
        _check(key, value, kinds[key])
    made = dataclasses.replace(ALGORITHMS[name], **changes)
    if made.epochs < 1:
        raise ConfigError(f"algorithm key 'epochs' must be at least 1; found {made.epochs}")
    if made.hint and not made.inject:
        raise ConfigError(f"algorithm key 'hint' needs 'inject' over 0; found {made.inject}")
    return made


def _check(key: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"algorithm key {key!r} must be one of {', '.join(get_args(kind))}; found {value!r}")
    elif get_origin(kind) is not None:
        if not isinstance(value, Mapping) or not all(isinstance(v, int | float) for v in value.values()):
            raise ConfigError(f"algorithm key {key!r} must be a table of numbers; found {value!r}")
    elif not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) != (kind is bool)):
        raise ConfigError(f"algorithm key {key!r} must be {kind.__name__}; found {value!r}")
