"""What each part of learning brings: a warm start, then the outcome's reward, grounding, step rewards, a curriculum.

Every row of the table has one part more than the row before; the last is the whole of recipes/ablation.toml. Each is
trained from the same start for as many steps and asked the questions of another world greedily; differences to the row
before are paired by question.
Usage: ``python bench/ablation.py [--seeds 0] [--stages ...] [--steps N] [--out runs/ablation]``; writes
bench/results/ablation.json and ablation.md. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.records import Sampling
from sleuth.eval.stats import Interval, interval, paired_difference
from sleuth.training import recipe, rl_recipe
from sleuth.training.curriculum import CurriculumSpec
from sleuth.training.rewards import ANSWERS, RewardSpec, Term, grade
from sleuth.training.rl import LOG, RlSpec
from sleuth.training.rl_recipe import RlRecipe
from sleuth.training.rollouts import ask
from sleuth.training.tasks import open_tasks

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
MEASURED = ("em", "f1", "citation_span_precision", "citation_span_recall", "evidence_recall", "redundancy")
SHOWN = (*MEASURED, "searches", "tokens")
SHARES = set(MEASURED)
Values = Mapping[str, Mapping[str, float]]
"""``values[metric][task id]``; a metric that does not apply to a task leaves it out."""


def stages(whole: RlSpec) -> dict[str, RlSpec]:
    """By name, each with one part more than the one before."""
    fixed = replace(whole, curriculum=CurriculumSpec())
    reward, algorithm = fixed.reward, replace(fixed.algorithm, step_weight=0.0)
    grounded = replace(fixed, reward=replace(reward, steps={}), algorithm=algorithm)
    terms = {n: t if n in ANSWERS else replace(t, weight=0.0) for n, t in reward.terms.items()}
    outcome = replace(grounded, reward=replace(grounded.reward, terms=terms))
    return {
        "warm start": replace(outcome, steps=0),
        "+ outcome": outcome,
        "+ grounding": grounded,
        "+ step rewards": fixed,
        "+ curriculum": whole,
    }


def trained(name: str, spec: RlSpec, whole: recipe.Recipe, out: Path) -> Path | None:
    """The stage's adapter, trained as far as it is not yet."""
    start = rl_recipe.starting_point(whole.start, out)
    if not spec.steps or (out / "adapter" / "adapter_config.json").is_file():
        return start if not spec.steps else out / "adapter"
    assert whole.rl is not None
    rl = replace(whole.rl, spec=spec, tasks=replace(whole.rl.tasks, dev=1))  # `asked` asks all of them, once
    said = lambda line: print(f"{name}  {line}", file=sys.stderr, flush=True)  # noqa: E731
    going_on = (out / LOG).exists()
    return rl_recipe.run(rl, whole.base, start, out, None, resume=going_on, progress=said)


def asked(adapter: Path | None, rl: RlRecipe, out: Path) -> dict[str, dict[str, float]]:
    """Greedy answers to the dev tasks, with figures by task."""
    store, _, dev = open_tasks(rl.tasks, None, out, rl.spec.seed)
    policy = EmbeddedPolicy(None, adapter=adapter)
    try:
        parts = SimpleNamespace(engine=policy, store=store)
        found = ask(parts, rl.spec.rollout, [(task, 0) for task in dev], Sampling(temperature=0.0))
    finally:
        policy.close()
    spec = RewardSpec(terms={name: Term(0.0) for name in MEASURED})
    values: dict[str, dict[str, float]] = {name: {} for name in SHOWN}
    for task, episode in zip(dev, found, strict=True):
        graded = grade(task, episode, spec)
        figures = {**graded.terms, "searches": graded.searches, "tokens": graded.tokens}
        for name, value in figures.items():
            if value is not None and name in values:
                values[name][task.id] = float(value)
    return values


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row per stage and metric group, with the paired difference to the stage before."""
    rows = [
        "# What each part of learning brings",
        "",
        "recipes/ablation.toml, one part added after another; questions about a world that was not trained on, greedy.",
        "Mean [95 % interval] over questions, shares times 100; behind it the difference to the row before, paired.",
        f"{os.cpu_count()} cores, Python {platform.python_version()}.",
    ]
    for seed in sorted({run["seed"] for run in runs}):
        mine = [run for run in runs if run["seed"] == seed]
        rows += ["", f"Seed {seed}, {len(mine[0]['values']['em'])} questions:", ""]
        rows += [f"| stage | steps | {' | '.join(SHOWN)} |", "| --- " * (len(SHOWN) + 2) + "|"]
        for n, run in enumerate(mine):
            before = mine[n - 1]["values"] if n else {}
            cells = [cell(name, run["values"][name], before.get(name)) for name in SHOWN]
            rows.append(f"| {run['stage']} | {run['steps']} | {' | '.join(cells)} |")
        sampled = [f"{run['stage']} {run['sampled']}" for run in mine if run["sampled"]]
        rows += ["", f"Success of sampled rollouts by five steps: {'; '.join(sampled)}."]
    return "\n".join(rows) + "\n"


def cell(name: str, values: Mapping[str, float], before: Mapping[str, float] | None) -> str:
    times = 100 if name in SHARES else 1

    def shown(found: Interval | None, sign: str = "") -> str:
        return f"{times * found.mean:{sign}.1f} [{times * found.low:.1f}, {times * found.high:.1f}]" if found else "–"

    text = shown(interval(list(values.values())))
    return text if before is None else f"{text}; {shown(paired_difference(values, before), '+')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--stages", nargs="+", help="names from the table; default all")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()
    for seed in args.seeds:
        whole = recipe.read(ROOT / "recipes" / "ablation.toml", seed)
        assert whole.rl is not None
        spec = replace(whole.rl.spec, steps=args.steps or whole.rl.spec.steps)
        order = list(stages(spec))
        for name in args.stages or order:
            out = args.out / f"seed-{seed}-{name.replace('+ ', '').replace(' ', '-')}"
            rl = replace(whole.rl, spec=stages(spec)[name])
            values: Values = asked(trained(name, rl.spec, whole, out), rl, out)
            log = [json.loads(line) for line in (out / LOG).read_text().splitlines()] if (out / LOG).exists() else []
            windows = [log[n : n + 5] for n in range(0, len(log), 5)]
            sampled = ", ".join(f"{fmean(line['success'] or 0.0 for line in part):.2f}" for part in windows)
            made = {"seed": seed, "stage": name, "steps": rl.spec.steps, "sampled": sampled, "values": values}
            kept = RESULTS / "ablation.json"
            runs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
            runs = [r for r in runs if (r["seed"], r["stage"]) != (seed, name)] + [made]
            runs.sort(key=lambda r: (r["seed"], order.index(r["stage"])))
            kept.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
            (RESULTS / "ablation.md").write_text(table(runs), encoding="utf-8")
            print({name: round(fmean(v.values()), 3) for name, v in values.items() if v}, flush=True)


if __name__ == "__main__":
    main()
