"""A held-out figure says how well a policy gives the replies of examples that it was not trained on.

It looks at single replies, greedy and decoded under each role's own schema, not at whole runs: a quick check of a
checkpoint before the harness is asked. Rows come from the bucket that is neither trained nor reported on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sleuth.agents.records import Policy, Sampling
from sleuth.agents.role import parse_object, strings
from sleuth.eval.answers import exact_match, f1_score
from sleuth.training.turns import Example

MAX_TOKENS = 240


def held_out(examples: Sequence[Example], each: int, seed: int) -> list[Example]:
    """At most ``each`` examples of every role, in a seeded order."""
    order = list(examples)
    random.Random(seed).shuffle(order)
    kept: dict[str, list[Example]] = {}
    for example in order:
        same = kept.setdefault(example.role, [])
        if len(same) < each:
            same.append(example)
    return [example for role in sorted(kept) for example in kept[role]]


async def score(policy: Policy, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """By role: how many, the share of replies with every wanted key, and the mean EM and F1 of what they say."""
    sampling = Sampling(max_tokens=MAX_TOKENS)
    replies = await asyncio.gather(*(policy.sample(e.messages, sampling, e.schema) for e in examples))
    rows: dict[str, list[dict[str, float]]] = {}
    for example, reply in zip(examples, replies, strict=True):
        rows.setdefault(example.role, []).append(compare(example.completion, reply.text))
    figures: dict[str, dict[str, float]] = {}
    for role, scored in rows.items():
        figures[role] = {"n": float(len(scored))}
        for key in sorted({key for row in scored for key in row}):
            figures[role][key] = round(fmean(row[key] for row in scored if key in row), 4)
    return figures


def compare(wanted: str, said: str) -> dict[str, float]:
    """One reply against the wanted one: ``format``, and for each kind of value it holds its EM and F1.

    ``answer``, ``query``: official EM and F1. ``quotes`` (a lone quote counts as one): F1 over whole sentences.
    ``steps``: EM, and F1 of their words together.
    """
    want, got = parse_object(wanted), parse_object(said)
    figures = {"format": float(set(got) == set(want))}
    for key, value in want.items():
        if key in ("quote", "quotes"):
            figures["quotes_f1"] = _set_f1(strings(got.get(key)), strings(value))
        else:
            text, gold = _text(got.get(key)), _text(value)
            figures |= {f"{key}_em": exact_match(text, gold), f"{key}_f1": f1_score(text, gold)}
    return figures


def _text(value: Any) -> str:
    return " ".join(strings(value))


def _set_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(not said and not wanted)
    same = len(set(said) & set(wanted))
    return 2 * same / (len(set(said)) + len(set(wanted)))
