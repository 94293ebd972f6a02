"""The examples of a supervised run: so many of each kind from each question set, in a seeded order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sleuth.corpora.errors import ConfigError
from sleuth.training.sets import FOUND, MADE, OWN, QuestionSet, Row, load
from sleuth.training.turns import (
    Example,
    answer_closed,
    answer_list,
    answer_multihop,
    answer_single,
    plan_decomposition,
    plan_hotpot,
    plan_single,
    read_closely,
    reflect_alone,
    reflect_hop,
    reflect_question,
    rewrite,
)

Builder = Callable[[QuestionSet, Row, random.Random], Iterator[Example]]

BUILDERS: dict[tuple[str, str], Builder] = {
    ("planner", "musique_s"): plan_decomposition,
    ("planner", "fictional"): plan_decomposition,
    ("planner", "morehopqa_s"): plan_decomposition,
    ("planner", "strategyqa"): plan_decomposition,
    ("planner", "hotpotqa_s"): plan_hotpot,
    ("planner", "hotpotqa_r1s"): plan_hotpot,
    ("planner", "nq_train"): plan_single,
    ("rewriter", "musique_s"): rewrite,
    ("rewriter", "morehopqa_s"): rewrite,
    ("rewriter", "hotpotqa_s"): rewrite,
    ("rewriter", "nq_train"): rewrite,
    ("reflector", "musique_s"): reflect_hop,
    ("reflector", "fictional"): reflect_hop,
    ("reflector", "morehopqa_s"): reflect_hop,
    ("reflector", "nq_train"): reflect_hop,
    ("reflector", "xquad_en"): reflect_hop,
    ("reflector", "hotpotqa_s"): reflect_question,
    ("alone", "musique_s"): reflect_alone,
    ("alone", "fictional"): reflect_alone,
    ("alone", "morehopqa_s"): reflect_alone,
    ("alone", "nq_train"): reflect_alone,
    ("alone", "xquad_en"): reflect_alone,
    ("alone", "hotpotqa_s"): reflect_alone,
    ("alone", "hotpotqa_r1s"): reflect_alone,
    ("answerer", "hotpotqa_s"): answer_multihop,
    ("answerer", "musique_s"): answer_multihop,
    ("answerer", "fictional"): answer_multihop,
    ("answerer", "morehopqa_s"): answer_multihop,
    ("answerer", "strategyqa"): answer_multihop,
    ("answerer", "hotpotqa_r1s"): answer_single,
    ("answerer", "nq_train"): answer_single,
    ("answerer", "xquad_en"): answer_single,
    ("answerer", "commaqa_e"): answer_list,
    ("reader", "hotpotqa_s"): read_closely,
    ("reader", "musique_s"): read_closely,
    ("reader", "fictional"): read_closely,
    ("reader", "morehopqa_s"): read_closely,
    ("reader", "hotpotqa_r1s"): read_closely,
    ("reader", "nq_train"): read_closely,
    ("reader", "xquad_en"): read_closely,
    ("closed", "nq_train"): answer_closed,
    ("closed", "hotpotqa_s"): answer_closed,
    **{
        (kind, FOUND + name): builder
        for name in ("hotpotqa_dev_questions", "r1searcher_train")
        for kind, builder in {"alone": reflect_alone, "answerer": answer_single, "reader": read_closely}.items()
    },
    **{
        (kind, name): builder
        for name in (OWN, *(MADE + name for name in ("hotpotqa_s", "hotpotqa_r1s", "musique_s")))
        for kind, builder in {
            "planner": plan_decomposition,
            "rewriter": rewrite,
            "reflector": reflect_hop,
            "alone": reflect_alone,
            "answerer": answer_multihop,
            "reader": read_closely,
        }.items()
    },
}
"""By kind and set; a kind is a role, ``alone`` (the reflector over one passage), ``reader`` (the answerer over few
passages) or ``closed`` (over none)."""


def build(
    data: str | Path | None, counts: Mapping[str, Mapping[str, int]], seed: int, tenths: Sequence[int],
    ranked: bool | Literal["chain"] = False, own: Callable[[], QuestionSet] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Example]:  # fmt: skip
    """``counts[role][set]`` examples at most of each kind, of rows whose bucket is in ``tenths``, in a seeded order.

    ``ranked`` as `QuestionSet` has it; ``own`` opens the set of that name; ``say`` gets a line per role and set.

    Rows take turns, so a second example of a row comes only when each row has given its first.
    """
    from sleuth.eval.split import bucket

    made: list[Example] = []
    loaded: dict[str, QuestionSet] = {}
    for role, wanted in counts.items():
        for name, count in wanted.items():
            builder = BUILDERS.get((role, name))
            if builder is None:
                known = ", ".join(f"{r}.{s}" for r, s in BUILDERS)
                raise ConfigError(f"no examples of {role!r} can be made from {name!r}; known: {known}")
            if name not in loaded:
                loaded[name] = replace(own() if own and name == OWN else load(data, name), ranked=ranked)
            qa = loaded[name]
            rows = [row for row in qa.rows if bucket(row) in tenths]
            found = take_turns(qa, rows, role, builder, count, seed)
            say(f"examples of {role} from {name}: {len(found)} of {count}")
            made += found
    random.Random(seed).shuffle(made)
    return made


def take_turns(
    qa: QuestionSet, rows: Sequence[Row], role: str, builder: Builder, count: int, seed: int
) -> list[Example]:
    order = sorted(rows, key=lambda row: random.Random(f"{seed}:{role}:{row['id']}").random())
    streams = [builder(qa, row, random.Random(f"{seed}:{role}:{row['id']}:draw")) for row in order]
    made: list[Example] = []
    while streams and len(made) < count:
        alive = []
        for stream in streams:
            example = next(stream, None)
            if example is not None and len(made) < count:
                made.append(example)
                alive.append(stream)
        streams = alive
    return made
