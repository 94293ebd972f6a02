"""What a corpus costs beyond extraction: CPU of each stage, two workers against one, memory as the corpus grows.

Pages are HTML files of one folder. The rest of the pipeline is measured in CPU seconds against the plain loop over the
same pages (read and extract, no recipe), workers in wall-clock against one worker, so the machine must be quiet for the
latter. Beside them stands the limit: two busy processes that share nothing against one. Usage: ``python
bench/pipeline.py FOLDER [--pages 600]``; prints a table and writes bench/results/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
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


def busy(_: int = 0) -> None:
    total = 0
    for n in range(20_000_000):
        total += n


def limit() -> float:
    """Wall-clock of twice the work in one process over that in two."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    busy()
    busy()
    one = time.perf_counter() - started
    started = time.perf_counter()
    processes = [context.Process(target=busy) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return one / (time.perf_counter() - started)


def memory(pages: list[Path], folder: Path) -> list[dict[str, int]]:
    """Peak resident bytes of driver and worker at 1, 4 and 16 times the pages, none a duplicate of another."""
    rows = []
    for times in (1, 4, 16):
        home = folder / f"times{times}"
        (home / "pages").mkdir(parents=True)
        for copy in range(times):
            for n, page in enumerate(pages):
                text = page.read_text(errors="replace").replace(" the ", f" the{copy} ").replace(" a ", f" a{copy} ")
                (home / "pages" / f"{copy:02d}-{n:04d}.html").write_text(text, encoding="utf-8")
        (home / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        script = home / "run.py"
        script.write_text(MEMORY, encoding="utf-8")
        command = [sys.executable, str(script), str(home / "recipe.toml"), str(home / "work"), str(ROOT)]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append(
            {"pages": times * len(pages), "documents": done[0], "driver_bytes": done[1], "worker_bytes": done[2]}
        )
        shutil.rmtree(home)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages").mkdir()
        found = sorted(options.folder.rglob("*.html"))
        pages = found[:: max(1, len(found) // options.pages)][: options.pages]  # of all its parts
        for n, page in enumerate(pages):
            shutil.copyfile(page, folder / "pages" / f"{n:05d}.html")
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE, encoding="utf-8")
        results: dict[str, object] = {"load_before": os.getloadavg()[0], "cpu_s": stages(recipe, folder / "serial")}
        one, two = (wall(recipe, folder / f"workers{n}", n) for n in (1, 2))
        results |= {"wall_s_one_worker": one, "wall_s_two_workers": two, "two_over_one": one / two}
        results |= {"two_over_one_limit": limit(), "memory": memory(pages[: max(1, options.pages // 16)], folder)}
    text = json.dumps(results, indent=1)
    print(text)
    (ROOT / "bench" / "results" / "pipeline.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
