"""A recipe's build, killed at random moments and run again: does it end with the store that an undisturbed one makes?

Whole process groups are killed (SIGKILL), workers too. Each time a build ends, its corpus digest, fingerprint and
content digest are compared with the undisturbed ones, and the next begins in a new folder, until there were
``--kills``. With strace installed, one build is also traced, and every file that is renamed to its final name must have
been synced before. Usage: ``python bench/interrupt.py FOLDER [--kills 20] [--files 200]`` with a folder of pages;
prints a line a kill and writes bench/results/interrupt.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.retrieval.grow import content_digest

ROOT = Path(__file__).parents[1]
SLEUTH = [sys.executable, "-m", "sleuth.cli"]
RECIPE = """
name = "interrupted"
stages = ["length", "near"]
[sources.pages]
paths = ["pages"]
[store]
embedder = "static"
segment_documents = 16
[shards]
files = 25
"""
CALL = re.compile(r"^(?:\d+ +)?(?P<call>fsync|fdatasync|rename|renameat|renameat2)\((?P<arguments>.*)\) += 0")


def command(recipe: Path, store: Path) -> list[str]:
    return [*SLEUTH, "build", str(recipe), "--out", str(store), "--workers", "2", "--json"]


def digests(recipe: Path, store: Path) -> tuple[str, str, str]:
    """Of the corpus, the store and its content, by one more run that finds everything done."""
    done = subprocess.run(command(recipe, store), capture_output=True, text=True, check=True, cwd=ROOT)
    report = json.loads(done.stdout)
    return report["corpus"], report["build"]["fingerprint"], content_digest(store)


def killed(
    recipe: Path, folder: Path, kills: int, seconds: float, expected: tuple[str, str, str]
) -> list[dict[str, object]]:
    chooser, rows, builds = random.Random(0), [], 0
    while len(rows) < kills:
        builds += 1
        store, ended = folder / f"store{builds}", False
        while not ended:
            process = subprocess.Popen(command(recipe, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       cwd=ROOT, start_new_session=True)  # fmt: skip
            after = chooser.uniform(0.05, 0.6) * seconds if len(rows) < kills else 3600.0
            try:
                process.wait(after)
                ended = True
                if process.returncode != 0:
                    raise AssertionError(f"the build failed with {process.returncode}; its folder is {store}")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                rows.append({"build": builds, "after_s": round(after, 2)})
                print(f"kill {len(rows)} of {kills}: build {builds} after {after:.1f} s", flush=True)
        found = digests(recipe, store)
        if found != expected:
            raise AssertionError(f"build {builds}: expected {expected}, found {found}")
        shutil.rmtree(store)
        shutil.rmtree(store.with_name(f"{store.name}.work"))
        print(f"build {builds} ended with equal digests", flush=True)
    return rows


def stage_of(store: Path) -> str:
    """What a recipe's build is at, by what lies in its work folder: ``shards``, ``corpus`` or ``store``."""
    made = list(store.with_name(f"{store.name}.work").glob("corpus-*"))
    if not made:
        return "shards"
    return "store" if all((folder / "CORPUS").exists() for folder in made) else "corpus"


def spread(recipe: Path, store: Path, seconds: dict[str, float], kills: dict[str, int]) -> list[dict[str, object]]:
    """One build, killed so many times in each stage; ``seconds`` is what each stage takes undisturbed.

    The stage over the corpus begins anew after a kill; the others go on, so their kills come after a share of them.
    Where a build was quicker than before and is in a later stage already, it is killed there; a row says where.
    """
    chooser, rows, order = random.Random(0), [], list(kills)
    for stage, count in kills.items():
        for n in range(count):
            share = chooser.random() if stage == "corpus" else chooser.uniform(0.1, 1.0) / count
            after = share * seconds[stage]
            process = subprocess.Popen(command(recipe, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       cwd=ROOT, start_new_session=True)  # fmt: skip
            while process.poll() is None and (order.index(stage_of(store)) < order.index(stage)
                                              or not store.with_name(f"{store.name}.work").exists()):  # fmt: skip
                time.sleep(0.02)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            if process.poll() is not None:
                raise AssertionError(f"the build ended ({process.returncode}) before kill {n} in {stage}")
            at = stage_of(store)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            rows.append({"stage": stage, "at": at, "after_s": round(after, 2)})
            print(f"kill {len(rows)}: in {at}, {after:.1f} s into {stage}", flush=True)
    return rows


def unsynced(recipe: Path, store: Path, folder: Path) -> dict[str, int] | None:
    """Renames and syncs of a traced build, and the files that were renamed without a sync; None without strace."""
    if shutil.which("strace") is None:
        return None
    log = folder / "strace"
    trace = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", "-o", str(log)]
    subprocess.run([*trace, *command(recipe, store)], capture_output=True, check=True, cwd=ROOT)
    synced: set[str] = set()
    counts = {"syncs": 0, "renames": 0, "renamed_unsynced": 0}
    for line in log.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if match is None or str(store.parent) not in line:
            continue
        if match["call"].startswith("f"):
            counts["syncs"] += 1
            synced |= set(re.findall(r"<([^>]*)>", match["arguments"]))
            continue
        old = Path(re.findall(r'"([^"]*)"', match["arguments"])[0])
        if old.name.startswith(".drops"):
            continue  # the log of drops, written again by every build
        counts["renames"] += 1
        if str(old) not in synced and not any(Path(one).parent == old for one in synced):
            counts["renamed_unsynced"] += 1
            print(f"renamed without a sync: {line}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages").mkdir()
        for n, path in enumerate(sorted(options.folder.rglob("*.html"))[: options.files]):
            shutil.copyfile(path, folder / "pages" / f"{n:05d}.html")
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE, encoding="utf-8")
        started = time.monotonic()
        subprocess.run(command(recipe, folder / "whole"), capture_output=True, check=True, cwd=ROOT)
        seconds = time.monotonic() - started
        expected = digests(recipe, folder / "whole")
        print(f"undisturbed: {seconds:.1f} s, corpus {expected[0][:12]}, store {expected[1][:12]}", flush=True)
        rows = killed(recipe, folder, options.kills, seconds, expected)
        traced = unsynced(recipe, folder / "traced", folder)
    results = {"files": options.files, "undisturbed_s": seconds, "kills": rows, "equal": True, "digests": expected,
               "builds": len({row["build"] for row in rows}), "strace": traced}  # fmt: skip
    print(f"{len(rows)} kills over {results['builds']} builds: all digests equal; strace: {traced}")
    (ROOT / "bench" / "results" / "interrupt.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
