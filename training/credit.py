"""Credit turns the rewards of a batch of groups into one advantage per step; None leaves a step out of the update.

A group holds the rollouts of one question. Formulas are named in `algorithms`; each is a choice of a baseline and a
scale, for the whole episode and, where a recipe gives steps rewards of their own, for each step against its role.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from sleuth.training.algorithms import Algorithm
from sleuth.training.rewards import Graded

EPSILON = 1e-6
"""Rewards that differ by less are equal."""

Advantages = list[float | None]


def advantages(
    groups: Sequence[Sequence[Graded]], choices: Algorithm, history: Sequence[float | None] = ()
) -> list[list[Advantages]]:
    """``result[group][rollout][step]``. ``history``: per group the mean of the question's past rewards, None for none.

    Steps that did not ask the policy have None; so have all steps of episodes that failed and of those that the
    algorithm drops. Failed episodes are in no mean. Groups of equal rewards have 0 where a divergence is taken on them.
    """
    kept = [[_counts(graded, choices) for graded in group] for group in groups]
    outcome = _outcomes(groups, kept, choices, history)
    process = _steps(groups, kept, choices) if choices.step_weight else None
    drops = choices.drop_equal and not choices.kl
    result = []
    for g, group in enumerate(groups):
        certain = 1 - choices.uncertainty * disagreement([x.answer for i, x in enumerate(group) if kept[g][i]])
        rows: list[Advantages] = []
        for i, graded in enumerate(group):
            row: Advantages = [None] * len(graded.roles)
            for t, role in enumerate(graded.roles):
                if role and kept[g][i]:
                    given = outcome[g][i][role] + (choices.step_weight * process[g][i][t] if process else 0.0)
                    row[t] = given * choices.roles.get(role, 1.0) * certain
            rows.append(row)
        if drops and not any(abs(value or 0.0) > EPSILON for row in rows for value in row):
            rows = [[None] * len(row) for row in rows]
        result.append(rows)
    return result


def disagreement(answers: Sequence[str]) -> float:
    """Entropy of a group's answers as a share of the most it could be: 0 when all are the same, 1 when none are."""
    if len(answers) < 2:
        return 0.0
    shares = [count / len(answers) for count in Counter(answers).values()]
    return -math.fsum(share * math.log(share) for share in shares) / math.log(len(answers))


def equal(group: Sequence[Graded]) -> bool:
    """All rewards of a group are the same: it says nothing about which rollout was better."""
    rewards = [graded.reward for graded in group if graded.reward is not None]
    return not rewards or max(rewards) - min(rewards) <= EPSILON


def _counts(graded: Graded, choices: Algorithm) -> bool:
    dropped = (choices.drop_void and graded.void) or (choices.drop_cut and graded.cut)
    return graded.reward is not None and not dropped


def _outcomes(
    groups: Sequence[Sequence[Graded]],
    kept: Sequence[Sequence[bool]],
    choices: Algorithm,
    history: Sequence[float | None],
) -> list[list[dict[str, float]]]:
    """``result[group][rollout][role]``: what the reward of an episode is worth to the steps of each of its roles."""
    counted = [x for g, group in enumerate(groups) for i, x in enumerate(group) if kept[g][i]]
    everyone = [x.reward for x in counted if x.reward is not None]
    result = []
    for g, group in enumerate(groups):
        rows, past = [], history[g] if history else None
        for i, graded in enumerate(group):
            row: dict[str, float] = {}
            for role in graded.roles:
                if not role or not kept[g][i] or graded.reward is None:
                    continue
                peers = [
                    x.reward
                    for j, x in enumerate(group)
                    if kept[g][j] and x.reward is not None and (choices.credit == "episode" or role in x.roles)
                ]
                row[role] = graded.reward - _baseline(graded.reward, peers, everyone, choices, past)
                if choices.scale == "group":
                    row[role] = _scaled(row[role], 0.0, deviation(peers))
            rows.append(row)
        result.append(rows)
    if choices.scale != "batch":
        return result
    count = None if choices.credit == "role" else 1  # all roles of an episode have the same, which counts once
    differences = [value for rows in result for row in rows for value in [*row.values()][:count]]
    middle, spread = fmean(differences or [0.0]), deviation(differences)
    return [[{role: _scaled(value, middle, spread) for role, value in row.items()} for row in rows] for rows in result]


def _baseline(
    reward: float, peers: Sequence[float], everyone: Sequence[float], choices: Algorithm, past: float | None
) -> float:
    if choices.baseline == "none":
        return 0.0
    if choices.baseline == "group":
        return fmean(peers)
    if choices.baseline == "others":
        return (math.fsum(peers) - reward) / (len(peers) - 1) if len(peers) > 1 else reward
    if choices.baseline == "history" and past is not None:
        return past
    return fmean(everyone)


def _scaled(value: float, middle: float, spread: float) -> float:
    return (value - middle) / spread if spread > EPSILON else 0.0


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _steps(
    groups: Sequence[Sequence[Graded]], kept: Sequence[Sequence[bool]], choices: Algorithm
) -> list[list[list[float]]]:
    """What followed each step, against what followed the steps of its role in the group."""
    result = []
    for g, group in enumerate(groups):
        following = [returns(graded.steps, choices.discount) for graded in group]
        by_role: dict[str, list[float]] = {}
        for i, graded in enumerate(group):
            for t, role in enumerate(graded.roles):
                if role and kept[g][i]:
                    by_role.setdefault(role, []).append(following[i][t])
        rows = []
        for i, graded in enumerate(group):
            row = []
            for t, role in enumerate(graded.roles):
                peers = by_role.get(role) or [0.0]
                spread = deviation(peers) if choices.scale != "none" else 1.0
                row.append((following[i][t] - fmean(peers)) / spread if role and spread > EPSILON else 0.0)
            rows.append(row)
        result.append(rows)
    return result


def returns(rewards: Sequence[float], discount: float) -> list[float]:
    """Each step's own reward and, discounted, those after it."""
    total, found = 0.0, []
    for reward in reversed(rewards):
        total = reward + discount * total
        found.append(total)
    return found[::-1]
