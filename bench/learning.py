"""The learning check: on an invented world, reward alone takes the warm start from a success of at most 0.3 to 0.8.

For each seed one run of a recipe, in pieces that resume, until the rollouts of a window succeed as wanted, the steps
end, or the minutes are spent. The table gives the course of sampled and of greedy (dev: another world) success, beside
wall-clock and CPU time. ``--without citation_f1`` runs the same without that term of the reward; it is still measured,
at weight 0, so citations can be compared at equal answers.
Usage: ``python bench/learning.py [--seeds 0 1 2] [--without TERM] [--minutes 90] [--out runs/learning]``; writes
bench/results/learning.json and learning.md, a run per seed and variant. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.corpora.errors import SleuthError
from sleuth.training import recipe
from sleuth.training.rl import LOG

RESULTS = Path(__file__).parent / "results"
START, GOAL = 0.3, 0.8
WINDOW = 8
"""Steps over which success is averaged."""
SAVED = 2
"""Steps between checkpoints, so that no step is lost where a call ends."""
COURSES = ("success", "term/em", "term/citation_f1", "term/citation_span_precision")
CURVE = (
    "step",
    "success",
    "reward",
    "entropy",
    "kl",
    "informative",
    "completion_tokens",
    "term/em",
    "term/citation_f1",
    "term/citation_span_precision",
    "dev_success",
    "dev_term/em",
    "dev_term/citation_f1",
    "dev_term/citation_span_precision",
)


class Enough(Exception):
    """The run has shown what it can in its time."""


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def window(log: list[dict[str, Any]], end: int) -> float:
    """Mean success of the `WINDOW` steps up to ``end``."""
    return fmean(line["success"] or 0.0 for line in log[max(0, end - WINDOW) : end] or [{"success": 0.0}])


def variant(recipe_path: Path, without: str, out: Path) -> Path:
    """The recipe, or a copy in which a term of the reward weighs nothing."""
    if not without:
        return recipe_path
    text, count = re.subn(rf"(?m)^{re.escape(without)} = [\d.]+", f"{without} = 0.0", recipe_path.read_text("utf-8"))
    if count != 1:
        raise SystemExit(f"{recipe_path}: expected one line '{without} = NUMBER', found {count}")
    out.parent.mkdir(parents=True, exist_ok=True)
    changed = out.with_suffix(".toml")
    changed.write_text(text, encoding="utf-8")
    return changed


def figures(seed: int, without: str, log: list[dict[str, Any]], cpu_s: float, ended: str) -> dict[str, Any]:
    """What the results keep of a run."""
    wall = [sum(value for key, value in line.items() if key.endswith("_s")) for line in log]
    reached = next((n for n in range(WINDOW, len(log) + 1) if window(log, n) >= GOAL), None)
    return {
        "seed": seed,
        "without": without,
        "steps": len(log),
        "first": window(log, min(WINDOW, len(log))),
        "last": window(log, len(log)),
        "reached_at_step": reached,
        "reached_after_min": sum(wall[:reached]) / 60 if reached else None,
        "wall_min": sum(wall) / 60,
        "cpu_min": cpu_s / 60,
        "ended": ended,
        "curve": [
            {key: line[key] for key in CURVE if key in line}
            for line in log
        ],
    }  # fmt: skip


def run(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One seed, as far as the minutes reach."""
    out = Path(args.out) / f"seed-{seed}{'-without-' + args.without if args.without else ''}"
    path = variant(Path(args.recipe), args.without, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    spent = out.with_suffix(".cpu.json")
    cpu_before = json.loads(spent.read_text())["cpu_s"] if spent.exists() else 0.0
    began, started = time.process_time(), time.monotonic()
    ended = "all steps"

    def watch(line: str) -> None:
        print(f"seed {seed}  {line}", file=sys.stderr, flush=True)
        log = lines(out)
        cpu_s = cpu_before + time.process_time() - began
        spent.write_text(json.dumps({"cpu_s": cpu_s}))
        if len(log) >= max(WINDOW, args.least) and window(log, len(log)) >= GOAL and len(log) % SAVED == 0:
            raise Enough("reached")
        if time.monotonic() - started > 60 * args.minutes and len(log) % SAVED == 0:
            raise Enough("minutes spent")

    try:
        recipe.run(str(path), str(out), resume=(out / "recipe.json").exists(), seed=seed, progress=watch)
    except Enough as stop:
        ended = str(stop)
    except SleuthError as error:
        ended = str(error)
    return figures(seed, args.without, lines(out), cpu_before + time.process_time() - began, ended)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row a run, then the curves by windows."""
    rows = [
        "# Learning on an invented world",
        "",
        f"Success (a right answer) of sampled rollouts, means of {WINDOW} steps.",
        f"Cited: the precision of citations by span, last {WINDOW} steps.",
        f"Goal: from at most {START} to at least {GOAL}.",
        f"{os.cpu_count()} cores, Python {platform.python_version()}; wall-clock includes whatever else ran.",
        "",
        "| seed | without | steps | first | last | cited | reached at step | after, min | wall min | CPU min | ended |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in runs:
        after = "–" if r["reached_after_min"] is None else f"{r['reached_after_min']:.0f}"
        cited = fmean(c.get("term/citation_span_precision") or 0.0 for c in r["curve"][-WINDOW:])
        course = [
            r["steps"],
            f"{r['first']:.2f}",
            f"{r['last']:.2f}",
            f"{cited:.2f}",
            r["reached_at_step"] or "–",
            after,
        ]
        cells = [r["seed"], r["without"] or "–", *course, f"{r['wall_min']:.0f}", f"{r['cpu_min']:.0f}", r["ended"]]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    for r in runs:
        parts = [r["curve"][i : i + WINDOW] for i in range(0, len(r["curve"]), WINDOW)]
        called = f"Seed {r['seed']}{' without ' + r['without'] if r['without'] else ''}"
        for key in COURSES:
            course = ", ".join(f"{fmean(c.get(key) or 0.0 for c in part):.2f}" for part in parts)
            dev = ", ".join(f"step {c['step']}: {c[f'dev_{key}']:.2f}" for c in r["curve"] if f"dev_{key}" in c)
            rows += ["", f"{called}, {key} by {WINDOW} steps: {course}. Greedy on the other world: {dev or '–'}."]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=90.0, help="of this call, per seed")
    parser.add_argument("--least", type=int, default=0, help="steps at least")
    parser.add_argument("--without", default="", help="a term of the reward that weighs nothing")
    parser.add_argument("--recipe", default=str(Path(__file__).parents[1] / "recipes" / "fictional.toml"))
    parser.add_argument("--out", default="runs/learning")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for seed in args.seeds:
        made, kept = run(seed, args), RESULTS / "learning.json"
        before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        others = [r for r in before if (r["seed"], r["without"]) != (seed, args.without)]
        runs = sorted([*others, made], key=lambda r: (r["without"], r["seed"]))
        (RESULTS / "learning.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "learning.md").write_text(table(runs), encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
