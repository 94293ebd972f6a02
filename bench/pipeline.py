"""What a corpus costs beyond extraction: CPU of each stage, two workers against one, memory as the corpus grows.

Pages are HTML files of one folder, every so-manyth of all its parts. The rest of the pipeline is measured in CPU
seconds against the plain loop over the same pages (read and extract, no recipe). Workers are measured in wall-clock
against one worker, three times in turn with the limit: what two busy processes that share nothing and have started give
over one, on this machine and under its load; so nothing else may be running. Memory is the peak of the driver and of
its largest worker at 1, 4 and 16 times ``--memory-pages`` different pages of at most ``--largest`` bytes, because a
page is held whole and more pages bring larger ones. Usage: ``python bench/pipeline.py FOLDER
[--pages 600] [--memory-pages 600] [--parts stages workers memory]``; prints a table and writes the parts that were
measured into bench/results/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.corpora.corpus import make, plan_shards
from sleuth.corpora.near import NearIndex, near_duplicates
from sleuth.corpora.read import read
from sleuth.corpora.recipe import load
from sleuth.corpora.shards import documents_of, run

ROOT = Path(__file__).parents[1]
RECIPE = """
stages = ["length", "near"]
[sources.pages]
paths = ["pages"]
[stage.length]
min_words = 10
[limits]
seconds = 20
[shards]
files = 50
"""
MEMORY = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from sleuth.corpora.corpus import make
from sleuth.corpora.recipe import load
if __name__ == "__main__":
    made = make(load(sys.argv[1], ()), Path(sys.argv[2]), workers=1)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps([made.documents, int(peak.split()[1]) * 1024, workers]))
"""

BUSY = """
import sys
print("ready", flush=True)
sys.stdin.readline()
total = 0
for n in range(40_000_000):
    total += n
"""
"""Of a plain process, which imports nothing: it starts, tells, waits and works."""
PARTS = ("stages", "workers", "memory")
ROUNDS = 3


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def stages(recipe_path: Path, work: Path) -> dict[str, float]:
    """CPU seconds in this process: the plain loop, shards (extraction included), and near-duplicates."""
    recipe = load(recipe_path, ())
    paths = [Path(path) for path in recipe.sources[0].paths]
    for _ in zip(range(20), read(paths, lambda drop: None), strict=False):
        pass  # imports and caches
    found = {}
    started = cpu()
    pages = sum(1 for _ in read(paths, lambda drop: None))
    found["plain loop"] = cpu() - started
    jobs = plan_shards(recipe, work)
    run(replace(jobs[0], folder=str(work / "warm"), stages=(("length", {}), ("gopher", {}))))
    for name, more in (("shards", ()), ("shards with the rules of Gopher", (("gopher", {}),))):
        started = cpu()
        for job in jobs:
            run(replace(job, folder=f"{job.folder}-{len(more)}", stages=(*job.stages, *more)))
        found[name] = cpu() - started
    jobs = [replace(job, folder=f"{job.folder}-0") for job in jobs]
    index = NearIndex.open(work / "near")
    started = cpu()
    documents = (document for job in jobs for document in documents_of(job))
    kept = sum(1 for _ in near_duplicates(documents, index, lambda drop: None))
    found["near, with reading shards"] = cpu() - started
    return {"pages": pages, "kept": kept, **found}


def wall(recipe_path: Path, work: Path, workers: int) -> float:
    started = time.perf_counter()
    make(load(recipe_path, ()), work, workers=workers)
    return time.perf_counter() - started


def limit(processes: int) -> float:
    """Wall-clock of as many plain processes, each with the same work, from a moment when all have started."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for _ in range(processes)]  # fmt: skip
    for process in running:
        process.stdout.readline()  # type: ignore[union-attr]
    started = time.perf_counter()
    for process in running:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in running:
        process.wait()
    return time.perf_counter() - started


def two_over_one(recipe_path: Path, folder: Path) -> dict[str, object]:
    """Medians over rounds of how many times one worker's rate two have, and two plain processes."""
    rounds = []
    for n in range(ROUNDS):
        one, two = (wall(recipe_path, folder / f"round{n}-{count}", count) for count in (1, 2))
        alone, both = limit(1), limit(2)
        rounds.append({"one_worker_s": one, "two_workers_s": two, "ratio": one / two, "limit": 2 * alone / both})
        shutil.rmtree(folder)
    ratio, most = (statistics.median(row[name] for row in rounds) for name in ("ratio", "limit"))
    return {"ratio": ratio, "limit": most, "share_of_limit": ratio / most, "rounds": rounds}


def chosen(found: list[Path], count: int) -> list[Path]:
    """Every so-manyth."""
    return [found[n * len(found) // count] for n in range(min(count, len(found)))]


def memory(found: list[Path], count: int, largest: int, folder: Path) -> list[dict[str, int]]:
    """Peak resident bytes of driver and worker at 1, 4 and 16 times ``count`` pages of at most ``largest`` bytes."""
    rows = []
    found = [path for path in found if path.stat().st_size <= largest]
    for times in (1, 4, 16):
        home = folder / f"times{times}"
        pages = copied(chosen(found, times * count), home)
        script = home / "run.py"
        script.write_text(MEMORY, encoding="utf-8")
        command = [sys.executable, str(script), str(home / "recipe.toml"), str(home / "work"), str(ROOT)]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append({"pages": pages, "documents": done[0], "driver_bytes": done[1], "worker_bytes": done[2],
                     "largest_page": largest})  # fmt: skip
        print(rows[-1], flush=True)
        shutil.rmtree(home)
    return rows


def copied(pages: list[Path], folder: Path) -> int:
    """Pages below ``folder``, beside the recipe that reads them; how many."""
    (folder / "pages").mkdir(parents=True)
    for n, page in enumerate(pages):
        shutil.copyfile(page, folder / "pages" / f"{n:05d}.html")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return len(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", type=int, default=600)
    parser.add_argument("--memory-pages", type=int, default=600)
    parser.add_argument("--largest", type=int, default=100_000, help="bytes of a page whose memory is measured")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    found = sorted(path for path in options.folder.rglob("*.html") if path.is_file())
    path = ROOT / "bench" / "results" / "pipeline.json"
    results: dict[str, object] = json.loads(path.read_bytes()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(chosen(found, options.pages), folder)
        recipe = folder / "recipe.toml"
        load = os.getloadavg()[0]
        if "stages" in options.parts:
            results["cpu_s"] = stages(recipe, folder / "serial")
        if "workers" in options.parts:
            measured = two_over_one(recipe, folder / "workers")
            results["two_workers"] = {"pages": options.pages, "load_before": load, **measured}
        if "memory" in options.parts:
            results["memory"] = memory(found, options.memory_pages, options.largest, folder)
    text = json.dumps(results, indent=1)
    print(text)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
