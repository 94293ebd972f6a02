"""Killed at random moments and resumed, a run on the CPU ends with the bytes of one that nobody touched.

One run goes through undisturbed; then, time and again, the same run is killed with SIGKILL at a random moment, resumed,
and its last checkpoint (weights, optimiser, generator, curriculum) and its adapter are compared byte for byte.
Usage: ``python bench/resume.py [--kills 20] [--base tiny] [--recipe recipes/fictional.toml] [--steps 4]``; adds its
part to bench/results/resume.json, by base. Every run is a process of its own, forked from one that has the libraries
imported and nothing else. Kills fall anywhere after that: while models load, in rollouts, in updates, in the writing of
a file. ``--base tiny`` takes the two-layer model of the tests, so that many kills cost little; ``embedded`` the real.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RESULTS = Path(__file__).parent / "results"


def shorter(args: argparse.Namespace) -> Path:
    """The recipe with few small steps and a checkpoint after each, over the wanted base."""
    text = args.recipe.read_text(encoding="utf-8")
    small = {"steps": args.steps, "checkpoint_every": 1, "questions": 2, "group": 4, "dev": 1}
    changes = {key: str(value) for key, value in small.items()}
    if args.base == "tiny":
        from tests import tiny_model

        made = tiny_model.make(args.out.resolve() / "base", max_position_embeddings=4096)
        changes |= {"base": json.dumps(str(made)), "start": '"none"'}
    for key, value in changes.items():
        text = re.sub(rf'(?m)^{key} = ("[^"]*"|\d+)', f"{key} = {value}", text)
    path: Path = args.out / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def preload() -> None:
    """Import what a run imports, so that a fork starts at once; nothing is computed here."""
    import bm25s
    import peft
    import torch
    import transformers

    import sleuth.retrieval.store
    import sleuth.training.rl_recipe

    assert all((bm25s, peft, torch, transformers, sleuth))


def start(recipe: Path, out: Path, resume: bool) -> int:
    """A run in a child process; its id. What it says goes to ``run.log`` beside its folder."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        said = os.open(out.parent / "run.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        from sleuth.training import recipe as recipes

        recipes.run(str(recipe), str(out), resume=resume)
        code = 0
    except BaseException as error:  # the parent reads the code and the log
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(child: int, wait_s: float | None = None) -> int | None:
    """The exit status of a child; None where it still runs after ``wait_s``."""
    until = None if wait_s is None else time.monotonic() + wait_s
    while until is not None and time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if until is None else None


def digest(out: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves: its last checkpoint's tensors and records, its adapter."""
    last = out / "checkpoints" / (out / "checkpoints" / "LATEST").read_text(encoding="utf-8")
    files = {
        "tensors": last / "state.safetensors",
        "records": last / "state.json",
        "adapter": out / "adapter" / "adapter_model.safetensors",
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def killed(recipe: Path, out: Path, at_s: float) -> dict[str, Any]:
    """One run, killed after so many seconds and resumed to its end; where it stood when it was killed."""
    child = start(recipe, out, False)
    over = ended(child, at_s) is not None
    if not over:
        os.kill(child, signal.SIGKILL)
        ended(child)
    log = out / "metrics.jsonl"
    steps = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    code = ended(start(recipe, out, (out / "recipe.json").exists()))
    told = (out.parent / "run.log").read_text(encoding="utf-8", errors="replace")
    return {"at_s": round(at_s, 2), "ended_before": over, "steps_done": steps, "rc": code,
            "error": told[-300:] if code else ""}  # fmt: skip


def keep(base: str, result: dict[str, Any]) -> None:
    """Write this base's part of the results beside the others'."""
    path = RESULTS / "resume.json"
    RESULTS.mkdir(exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, base: result}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--base", choices=["tiny", "embedded"], default="tiny")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "fictional.toml")
    parser.add_argument("--out", type=Path, default=Path("runs/resume"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    recipe = shorter(args)
    preload()
    whole = args.out / "whole" / "run"
    whole.parent.mkdir()
    if ended(start(recipe, whole, False)) != 0:
        raise SystemExit((whole.parent / "run.log").read_text(encoding="utf-8"))
    lasts_s = time.time() - (whole / "store" / "CURRENT").stat().st_mtime  # the others find the store made
    wanted, draw, rows = digest(whole), random.Random(args.seed), list[dict[str, Any]]()
    print(f"undisturbed: {lasts_s:.0f} s", file=sys.stderr)
    while (done := sum(not row["ended_before"] for row in rows)) < args.kills and len(rows) < 2 * args.kills:
        out = args.out / f"kill-{done:02d}" / "run"  # the same name: it stands in the policy's version
        out.parent.mkdir()
        shutil.copytree(whole / "store", out / "store")  # the store is an input here
        row = killed(recipe, out, draw.uniform(0.0, lasts_s))
        found = digest(out) if row["rc"] == 0 else {}
        rows.append({**row, "equal": found == wanted})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        shutil.rmtree(out.parent)
        equal = sum(r["equal"] for r in rows)
        undisturbed = {"undisturbed_s": round(lasts_s, 1), "steps": args.steps, "seed": args.seed}
        kills = sum(not r["ended_before"] for r in rows)
        keep(args.base, {"runs": len(rows), "kills": kills, "equal": equal, **undisturbed, "rows": rows})
    print(f"{sum(r['equal'] for r in rows)} of {len(rows)} resumed runs equal the undisturbed one byte for byte")


if __name__ == "__main__":
    main()
