"""Credit and losses on hand-made groups whose advantages and losses are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sleuth.corpora.errors import ConfigError
from sleuth.training.algorithms import ALGORITHMS, LENGTH, algorithm
from sleuth.training.credit import advantages, deviation, disagreement, equal, returns
from sleuth.training.rewards import Graded
from sleuth.training.update import Learner, UpdateSpec


def graded(reward: float | None, roles: tuple[str, ...] = ("", "answerer"), steps: Any = None, **more: Any) -> Graded:
    return Graded(reward, bool(reward), {}, steps or (0.0,) * len(roles), roles, **more)


GROUP = [graded(1.0), graded(0.0), graded(0.0), graded(1.0)]
OTHER = [graded(0.5), graded(0.5)]


def of(name: str, groups: list[list[Graded]], history: tuple[float | None, ...] = (), **changes: Any) -> Any:
    """The answerer's advantages, by group."""
    rows = advantages(groups, algorithm(name, **changes), history)
    assert all(row[0] is None for group in rows for row in group)
    return [[row[1] for row in group] for group in rows]


def test_group_baselines() -> None:
    spread = math.sqrt(1 / 3)
    assert of("grpo", [GROUP])[0] == pytest.approx([0.5 / spread, -0.5 / spread, -0.5 / spread, 0.5 / spread])
    assert of("dr_grpo", [GROUP])[0] == pytest.approx([0.5, -0.5, -0.5, 0.5])
    assert of("rloo", [GROUP])[0] == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert of("rloo", [[graded(1.0)]])[0] == [None]  # alone there is nothing to compare with


def test_batch_and_history_baselines() -> None:
    everyone = [1.0, 0.0, 0.0, 1.0, 0.5, 0.5]
    spread = deviation(everyone)
    got = of("reinforce_pp", [GROUP, OTHER])
    assert got[0] == pytest.approx([0.5 / spread, -0.5 / spread, -0.5 / spread, 0.5 / spread])
    assert got[1] == pytest.approx([0.0, 0.0])
    assert of("reinforce_pp_baseline", [GROUP, OTHER])[0] == pytest.approx(got[0])
    valued = of("ppo", [GROUP, OTHER], history=(0.25, None))  # no past: the mean of the batch
    spread = math.sqrt(13 / 60)  # of 0.75, -0.25, -0.25, 0.75, 0, 0, whose mean is 1 / 6
    good, bad = (0.75 - 1 / 6) / spread, (-0.25 - 1 / 6) / spread
    assert valued[0] == pytest.approx([good, bad, bad, good]) and valued[1] == pytest.approx([-1 / 6 / spread] * 2)


def test_what_a_batch_normalises_are_differences_not_rewards() -> None:
    easy, hard = [graded(1.0)] * 3 + [graded(0.0)], [graded(0.0)] * 3 + [graded(1.0)]
    spread = math.sqrt(3 / 14)  # of 0.25, 0.25, 0.25, -0.75 and their opposites; that of the rewards is sqrt(4 / 14)
    got = of("reinforce_pp_baseline", [easy, hard])
    assert got[0] == pytest.approx([0.25 / spread] * 3 + [-0.75 / spread])
    assert got[1] == pytest.approx([-0.25 / spread] * 3 + [0.75 / spread])
    longer = [graded(1.0, ("planner", "answerer")), graded(0.0)]  # an episode counts once, not by its roles
    rows = advantages([longer], algorithm("reinforce_pp_baseline"))[0]
    assert rows[0] == pytest.approx([math.sqrt(0.5)] * 2) and rows[1][1] == pytest.approx(-math.sqrt(0.5))


def test_equal_groups_and_failed_episodes_weigh_nothing() -> None:
    assert of("grpo", [OTHER]) == [[None, None]] and equal(OTHER) and not equal(GROUP)
    assert of("grpo", [OTHER], drop_equal=False) == [[0.0, 0.0]]
    assert of("grpo", [OTHER], kl=0.01) == [[0.0, 0.0]]  # the divergence is taken on them
    assert of("dapo", [[graded(0.5, cut=True), graded(0.5)]], kl=0.01) == [[None, 0.0]]
    dead = of("grpo", [[graded(1.0), graded(None, why="search died"), graded(0.0)]])[0]
    assert dead[1] is None and dead[0] == pytest.approx(-dead[2]) == pytest.approx(0.5 / math.sqrt(0.5))
    assert equal([graded(None)])


def test_void_and_cut_episodes_leave_the_update() -> None:
    group = [graded(1.0), graded(0.0, void=True), graded(0.0, cut=True), graded(0.0)]
    assert [value is None for value in of("simple_tir", [group])[0]] == [False, True, False, False]
    assert [value is None for value in of("dapo", [group])[0]] == [False, False, True, False]
    assert of("dr_grpo", [group], drop_void=True, drop_cut=True)[0] == [0.5, None, None, -0.5]


def test_step_credit() -> None:
    assert returns([0.0, 1.0, 0.0, 2.0], 0.5) == [0.75, 1.5, 1.0, 2.0]
    roles = ("rewriter", "", "answerer")
    group = [graded(1.0, roles, (0.0, 1.0, 0.0)), graded(1.0, roles, (0.0, 0.0, 0.0))]
    rows = advantages([group], algorithm("step_grpo", scale="none"))[0]
    assert rows == [[0.5, None, 0.0], [-0.5, None, 0.0]]  # the query that found something, not the answer
    mixed = [graded(1.0, roles, (0.0, 1.0, 0.0)), graded(0.0, roles, (0.0, 0.0, 0.0))]
    assert advantages([mixed], algorithm("step_grpo", scale="none", step_weight=2.0))[0][0] == [1.5, None, 0.5]


def test_role_credit_compares_with_episodes_in_which_the_role_acted() -> None:
    both, short = ("planner", "rewriter"), ("planner", "")
    group = [graded(1.0, both), graded(0.5, both), graded(0.0, short)]
    rows = advantages([group], algorithm("per_role", scale="none"))[0]
    assert rows == [[0.5, 0.25], [0.0, -0.25], [-0.5, None]]


def test_roles_and_uncertainty_scale_advantages() -> None:
    both = ("planner", "answerer")
    group = [graded(1.0, both, answer="a"), graded(0.0, both, answer="b")]
    assert advantages([group], algorithm("hicra", scale="none"))[0] == [[0.6, 0.5], [-0.6, -0.5]]
    assert of("seed_grpo", [[graded(1.0, answer="a"), graded(0.0, answer="b")]], scale="none")[0] == [0.25, -0.25]
    same = [graded(1.0, answer="a"), graded(0.0, answer="a")]
    assert of("seed_grpo", [same], scale="none")[0] == [0.5, -0.5]
    assert disagreement(["a", "a", "b", "b"]) == pytest.approx(0.5) and disagreement([]) == 0.0
    with pytest.raises(ConfigError, match="must be a table of numbers"):
        algorithm("grpo", roles={"planner": "much"})


def test_token_weights() -> None:
    from sleuth.training.losses import weights

    episodes = [7, 7, 7, 9]
    assert weights(episodes, algorithm("grpo")) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert weights(episodes, algorithm("dapo")) == pytest.approx([1 / 4] * 4)
    assert weights(episodes, algorithm("dr_grpo")) == pytest.approx([1 / (2 * LENGTH)] * 4)


def test_each_reply_counts_the_same() -> None:
    from sleuth.training.losses import units, weights
    from sleuth.training.samples import Sample

    def drew(episode: int, *steps: int) -> Sample:
        places, zeros = tuple(range(1, len(steps) + 1)), (0.0,) * len(steps)
        return Sample((0, *places), places, (None,) * len(steps), zeros, zeros, steps, episode=episode)

    batch = [drew(0, 0, 2, 2, 2, 2, 2, 2), drew(1, 0, 0), drew(1, 2, 2)]  # a query of 1 token, an answer of 6
    gspo, grpo = algorithm("gspo"), algorithm("grpo")
    assert weights(units(batch, gspo), gspo) == pytest.approx([1 / 4] + [1 / 24] * 6 + [1 / 8] * 4)
    assert weights(units(batch, grpo), grpo) == pytest.approx([1 / 14] * 7 + [1 / 8] * 4)
    shared = weights(units(batch[:1], gspo), gspo, (11, 4))  # one of two members
    assert shared == pytest.approx([1 / 4] + [1 / 24] * 6)


def losses(name: str, ratios: list[float], good: list[float], replies: list[int] | None = None, **changes: Any) -> Any:
    """Losses, clip marks and gradients with respect to the log-probabilities."""
    import torch

    from sleuth.training.losses import surrogate

    old = torch.full((len(ratios),), -1.0)
    logprobs = (old + torch.tensor(ratios).log()).requires_grad_()
    numbers = torch.tensor(replies if replies is not None else list(range(len(ratios))))
    loss, clipped = surrogate(logprobs, old, torch.tensor(good), numbers, algorithm(name, **changes))
    loss.sum().backward()
    assert logprobs.grad is not None
    return loss.tolist(), clipped.tolist(), logprobs.grad.tolist()


def test_on_policy_every_surrogate_has_the_gradient_of_reinforce() -> None:
    for name in ALGORITHMS:
        _, clipped, gradient = losses(name, [1.0, 1.0], [2.0, -3.0])
        assert gradient == pytest.approx([-2.0, 3.0]) and not any(clipped), name


def test_clipping() -> None:
    loss, clipped, gradient = losses("grpo", [1.5, 1.5, 0.5, 0.5], [1.0, -1.0, 1.0, -1.0])
    assert loss == pytest.approx([-1.2, 1.5, -0.5, 0.8]) and clipped == [True, False, False, True]
    assert gradient == pytest.approx([0.0, 1.5, -0.5, 0.0])
    assert losses("dapo", [1.25], [1.0])[0] == pytest.approx([-1.25])  # within the higher bound
    assert losses("grpo", [9.0], [-1.0], dual_clip=3.0)[0] == pytest.approx([3.0])
    loss, _, gradient = losses("cispo", [3.0, 0.5], [1.0, 1.0])
    assert gradient == pytest.approx([-2.0, -0.5])  # bounded, not cut off


def test_a_bad_reply_is_tapered_as_a_whole() -> None:
    ratios, good = [3.0, 0.5, 0.5, 0.5, 3.0, 2.0], [1.0, 1.0, -1.0, -1.0, -1.0, -1.0]
    _, clipped, gradient = losses("topr", ratios, good, [0, 0, 1, 1, 2, 2])
    assert gradient == pytest.approx([-1.0, -1.0, 0.25, 0.25, 1.0, 1.0])  # 0.5 * 0.5; 3 * 2 is held at 1
    assert clipped == [False] * 4 + [True] * 2
    assert losses("topr", [2.0, 0.2], [-1.0, -1.0], [0, 0])[2] == pytest.approx([0.4, 0.4])


def test_good_tokens_weigh_by_the_inverse_ratio() -> None:
    _, clipped, gradient = losses("aspo", [1.25, 0.5, 0.2, 2.0], [1.0] * 4)
    assert gradient == pytest.approx([-0.8, -2.0, -3.0, 0.0])  # 1 / 0.2 is held at 3 and goes on being lifted
    assert clipped == [False, False, False, True]
    _, clipped, gradient = losses("aspo", [1.25, 2.0, 5.0, 0.5], [-1.0] * 4)
    assert gradient == pytest.approx([1.25, 2.0, 3.0, 0.0]) and clipped == [False, False, False, True]
    assert losses("aspo", [0.2], [1.0], dual_clip=0.0)[2] == pytest.approx([-5.0])


def test_a_sequence_ratio_is_the_mean_of_its_reply() -> None:
    loss, clipped, _ = losses("gspo", [1.2, 1 / 1.2, 1.5], [1.0, 1.0, 1.0], [0, 0, 1])
    assert loss == pytest.approx([-1.0, -1.0, -1.0004]) and clipped == [False, False, True]


def test_truncated_importance_divergence_and_covariance() -> None:
    import torch

    from sleuth.training.losses import covariance, divergence, entropy_hold, importance

    old, sampled = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, -3.0, 0.0])
    assert importance(old, sampled, 2.0).tolist() == pytest.approx([1.0, 2.0, math.exp(-1)])
    assert importance(old, sampled, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert divergence(old, old).tolist() == [0.0, 0.0, 0.0] and bool((divergence(old, sampled)[1:] > 0).all())
    chances, good = torch.tensor([-0.1, -2.0, -2.0, -0.1]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert covariance(chances, good).tolist() == pytest.approx([0.95, -0.95, 0.95, -0.95])
    generator = torch.Generator().manual_seed(0)
    held = entropy_hold(chances, good, algorithm("kl_cov", entropy_share=0.5), generator)
    assert held.tolist() == [True, False, True, False]
    drawn = entropy_hold(chances, good, algorithm("clip_cov", entropy_share=0.25), generator)
    assert int(drawn.sum()) == 1 and bool((held | ~drawn).all())
    assert not bool(entropy_hold(chances, good, algorithm("grpo"), generator).any())


def test_preference_prefers() -> None:
    import torch

    from sleuth.training.losses import preference

    one, two = torch.tensor([-1.0]), torch.tensor([-2.0])
    assert float(preference(one, one, one, one, 0.1)) == pytest.approx(math.log(2))
    assert float(preference(one, two, two, one, 0.5)) == pytest.approx(math.log(1 + math.exp(-1.0)))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("grpoo", {}, "did you mean 'grpo'"),
        ("grpo", {"clip": 0.2}, "unknown algorithm key 'clip'"),
        ("grpo", {"baseline": "mean"}, "must be one of group, others"),
        ("grpo", {"kl": "a"}, "must be float; found 'a'"),
        ("grpo", {"drop_void": 1}, "must be bool; found 1"),
        ("grpo", {"epochs": 0}, "at least 1; found 0"),
    ],
)
def test_unusable_algorithms_are_named(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        algorithm(name, **changes)


def test_the_learning_rate_rises_and_falls_as_said() -> None:
    kept = UpdateSpec(learning_rate=1.0, warmup=4)
    assert [kept.rate(step) for step in (1, 2, 4, 500)] == [0.25, 0.5, 1.0, 1.0]
    falling = UpdateSpec(learning_rate=1.0, warmup=4, decay=10)
    assert [round(falling.rate(step), 6) for step in (2, 4, 9, 14, 500)] == [0.5, 1.0, 0.55, 0.1, 0.1]
    with pytest.raises(ConfigError, match="decay must be at least 0; found 5, -1"):
        UpdateSpec(decay=-1)


def test_a_new_reference_clears_the_moments() -> None:
    import torch

    one = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(one.weight)
    learner = Learner(one, UpdateSpec(learning_rate=0.1), algorithm("grpo", kl=0.01))
    one.weight.grad = torch.ones(1, 1)
    learner.optimizer.step()
    learner.start_here()
    assert learner.start[0].item() == pytest.approx(0.9)
    one.weight.grad = -torch.ones(1, 1)
    learner.optimizer.step()
    assert one.weight.item() == pytest.approx(1.0)  # with the old moments 0.9 + 0.1 * 0.01 / 0.19


def test_unlikely_tokens_of_true_trajectories_count_most() -> None:
    import torch

    from sleuth.training.losses import shaped

    logprobs = torch.tensor([0.9, 0.1]).log().requires_grad_()
    good = torch.ones(2)
    plain, focal = shaped(logprobs, good, 0.1), shaped(logprobs, good, 0.1, 1.0)
    assert (focal / plain).tolist() == pytest.approx([0.1, 0.9], abs=1e-5)  # (1 - p), and it passes no gradient
    ours = torch.autograd.grad(focal.sum(), logprobs)[0]
    theirs = torch.autograd.grad(shaped(logprobs, good, 0.1).sum(), logprobs)[0]
    assert (ours / theirs).tolist() == pytest.approx([0.1, 0.9], abs=1e-5)
