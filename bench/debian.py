"""Debian's documentation packages from a crawl to a searchable store, measured; and the same store from a killed build.

Steps, all by default: ``fetch`` (apt-get download and dpkg -x; nothing is installed), ``crawl`` (each package is served
on a loopback address of its own and crawled by ``sleuth crawl`` into one WARC), ``build`` (``sleuth build`` of
recipes/debian.toml, CPU and memory watched), ``kill`` (the same build into another folder, killed at random moments
over its whole length by bench/interrupt.py, and its digests compared). What a step left is kept and used again.
Usage: ``python bench/debian.py WORK [STEP ...]``; writes bench/results/debian.json and debian.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.interrupt import digests, spread, stage_of
from sleuth.retrieval.grow import content_digest

ROOT = Path(__file__).parents[1]
SLEUTH = [sys.executable, "-m", "sleuth.cli"]
PORT = 8390
KILLS = {"shards": 10, "corpus": 4, "store": 6}
"""How often the second build is killed, by stage."""
QUERIES = ("how to create a partitioned table", "deprecated security manager", "read a file line by line in Python")
SITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "apache": ("apache2-doc", ("doc/apache2-doc/manual/index.html",)),
    "boost": ("libboost1.74-doc", ("doc/libboost1.74-doc/doc/html/index.html",)),
    "django": ("python-django-doc", ("doc/python-django-doc/html/index.html",)),
    "erlang": ("erlang-doc", ("doc/erlang-doc/doc/index.html", "doc/erlang-doc/lib/index.html")),
    "handbook": ("debian-handbook", ("doc/debian-handbook/html/*/index.html",)),
    "java": ("openjdk-17-doc", ("doc/openjdk-17-jre-headless/api/index.html",)),
    "linux": ("linux-doc-6.1", ("doc/linux-doc-6.1/html/index.html",)),
    "postgresql": ("postgresql-doc-15", ("doc/postgresql-doc-15/html/index.html",)),
    "python": ("python3.11-doc", ("doc/python3.11/html/index.html",)),
    "qt": ("qtbase5-doc-html", ("qt5/doc/*/*-index.html",)),
    "scipy": ("python-scipy-doc", ("doc/python-scipy-doc/html/index.html",)),
    "sqlite": ("sqlite3-doc", ("doc/sqlite3/index.html",)),
}
"""By source of the recipe: the package, and where a crawl begins below its ``usr/share``."""


def fetch(work: Path) -> None:
    """Packages of `SITES` unpacked under ``packages``."""
    (work / "debs").mkdir(parents=True, exist_ok=True)
    for package, _ in SITES.values():
        home = work / "packages" / package
        if home.exists():
            continue
        if not list((work / "debs").glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=work / "debs", check=True, capture_output=True)
        temporary = home.with_name(f".{package}")
        temporary.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg", "-x", str(next((work / "debs").glob(f"{package}_*.deb"))), str(temporary)], check=True)
        temporary.rename(home)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files alone: no lists of folders, nothing said."""

    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(work: Path) -> Iterator[dict[str, str]]:
    """The base address of each site, 127.0.0.2 and on, served while this holds."""
    servers, bases = [], {}
    for n, (name, (package, _)) in enumerate(SITES.items(), start=2):
        handler = functools.partial(Handler, directory=str(work / "packages" / package / "usr" / "share"))
        server = http.server.ThreadingHTTPServer((f"127.0.0.{n}", PORT), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        bases[name] = f"http://127.0.0.{n}:{PORT}/"
    try:
        yield bases
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def crawl(work: Path) -> None:
    """What `sleuth crawl` says of each site, beside its archive; a site whose report is there is not crawled again."""
    (work / "crawl").mkdir(exist_ok=True)
    with served(work) as bases:
        for name, (package, starts) in SITES.items():
            kept = work / "crawl" / f"{name}.json"
            if not kept.exists():
                share = work / "packages" / package / "usr" / "share"
                pages = [bases[name] + str(p.relative_to(share)) for s in starts for p in sorted(share.glob(s))]
                options = ["--max-pages", "50000", "--delay", "0", "--allow-loopback", "--json"]
                done, used = watched([*SLEUTH, "crawl", *pages, "--out", str(kept.with_suffix(".warc.gz")), *options])
                kept.write_text(json.dumps(json.loads(done) | used))
                print(done, flush=True)


def watched(command: list[str], stage: Callable[[], str] = lambda: "all") -> tuple[str, dict[str, Any]]:
    """Output of a command; CPU seconds and wall-clock of its tree, whole and by ``stage()``, and peaks of memory."""
    import psutil

    peaks = {"peak_bytes": 0, "largest_bytes": 0}
    marks: list[tuple[str, float, float]] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def look() -> None:
        watching = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                tree = [watching, *watching.children(recursive=True)]
                sizes = [one.memory_info().rss for one in tree]
                peaks["peak_bytes"] = max(peaks["peak_bytes"], sum(sizes))
                peaks["largest_bytes"] = max(peaks["largest_bytes"], *sizes)
                now = stage()
                if not marks or marks[-1][0] != now:
                    used = [one.cpu_times() for one in tree]
                    waited = watching.cpu_times()
                    cpu = sum(t.user + t.system for t in used) + waited.children_user + waited.children_system
                    marks.append((now, cpu, time.monotonic()))
            time.sleep(0.2)

    before = os.times()
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    marks.append(("", cpu, time.monotonic()))
    stages = {
        name: {"cpu_s": round(end - begin, 2), "wall_s": round(then - since, 2)}
        for (name, begin, since), (_, end, then) in itertools.pairwise(marks)
    }
    return out, {"cpu_s": cpu, "wall_s": marks[-1][2] - marks[0][2], **peaks, "stages": stages}


def build(work: Path) -> dict[str, Any]:
    """What one uninterrupted build with one worker does and takes, kept in ``build.json``."""
    kept = work / "build.json"
    if not kept.exists():
        store = work / "store"
        for old in (store, store.with_name("store.work")):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copyfile(ROOT / "recipes" / "debian.toml", work / "debian.toml")
        load = os.getloadavg()[0]
        out, used = watched(
            [*SLEUTH, "build", str(work / "debian.toml"), "--out", str(store), "--workers", "1", "--json"],
            lambda: stage_of(store),
        )
        made = json.loads(out)
        answers = {query: found(store, query) for query in QUERIES}
        kept.write_text(json.dumps(made | {"used": used, "load_before": load, "content": content_digest(store),
                                           "answers": answers}))  # fmt: skip
    return json.loads(kept.read_text())


def found(store: Path, query: str) -> list[str]:
    """Addresses of the first three hits."""
    command = [*SLEUTH, "search", str(store), query, "-k", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [json.loads(line)["passage"]["doc_id"] for line in done.stdout.splitlines()]


def summary(crawls: dict[str, Any], made: dict[str, Any], kills: dict[str, Any] | None) -> dict[str, Any]:
    """All figures, those of the sources by source."""
    rows = {}
    for name, account in made["sources"].items():
        by_stage: dict[str, int] = {}
        for reason in account["reasons"]:
            by_stage[reason["stage"]] = by_stage.get(reason["stage"], 0) + reason["count"]
        rows[name] = {"pages": crawls[name]["pages"], "body_bytes": crawls[name]["body_bytes"],
                      "archive_bytes": account["bytes_in"], "inputs": account["inputs"],
                      "documents": account["documents"], "text_bytes": account["bytes_out"],
                      "drops": by_stage, "reasons": [{key: reason[key] for key in ("stage", "reason", "count")}
                                                     for reason in account["reasons"]]}  # fmt: skip
    total = {key: sum(row[key] for row in rows.values())
             for key in ("pages", "body_bytes", "archive_bytes", "inputs", "documents", "text_bytes")}  # fmt: skip
    crawled = {key: sum(one[key] for one in crawls.values()) for key in ("cpu_s", "wall_s")}
    return {"total": total | {"passages": made["build"]["passages"]}, "sources": rows, "crawl": crawled,
            "build": made["used"] | {"seconds": made["build"]["seconds"]}, "load_before": made["load_before"],
            "digests": [made["corpus"], made["build"]["fingerprint"], made["content"]], "answers": made["answers"],
            "killed": kills}  # fmt: skip


def page(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    total, stages = results["total"], results["build"]["stages"]
    lines = ["# Debian's documentation, from crawl to store", "", "| source | pages | documents | dropped by | text |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, row in results["sources"].items():
        drops = ", ".join(f"{stage} {count:,}" for stage, count in row["drops"].items())
        lines.append(
            f"| {name} | {row['pages']:,} | {row['documents']:,} | {drops} | {row['text_bytes'] / 1e6:.1f} MB |"
        )
    lines += [f"| all | {total['pages']:,} | {total['documents']:,} | | {total['text_bytes'] / 1e6:.1f} MB |", "",
              f"{total['body_bytes'] / 1e6:,.0f} MB of pages, {total['archive_bytes'] / 1e6:,.0f} MB as they were "
              f"crawled, became {total['passages']:,} passages.", "", "| stage | CPU s | pages/s of CPU |",
              "|---|---|---|"]  # fmt: skip
    for name, took in {"crawl": results["crawl"], **stages}.items():
        lines.append(f"| {name} | {took['cpu_s']:.0f} | {total['pages'] / took['cpu_s']:,.0f} |")
    lines += ["", f"Peak memory: {results['build']['peak_bytes'] / 2**20:,.0f} MiB, all processes together."]
    if results["killed"]:
        done = results["killed"]
        lines += [f"Killed {done['kills']} times ({', '.join(f'{n} in {s}' for s, n in done['by_stage'].items())}) and "
                  f"run again: digests of corpus and store equal: {done['equal']}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("steps", nargs="*", default=["fetch", "crawl", "build", "kill"])
    options = parser.parse_args()
    work, steps = options.work.resolve(), options.steps
    if "fetch" in steps:
        fetch(work)
    if "crawl" in steps:
        crawl(work)
    made = build(work) if "build" in steps else {}
    kills = interrupted(work, made) if made and "kill" in steps else None
    if made:
        crawls = {name: json.loads((work / "crawl" / f"{name}.json").read_text()) for name in SITES}
        results = summary(crawls, made, kills)
        out = ROOT / "bench" / "results" / "debian.json"
        out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        out.with_suffix(".md").write_text(page(results), encoding="utf-8")
        print(page(results))


def interrupted(work: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The same recipe with two workers, killed `KILLS` times over all of its stages; raises where a digest differs."""
    expected = (made["corpus"], made["build"]["fingerprint"], made["content"])
    walls = {name: took["wall_s"] for name, took in made["used"]["stages"].items()}
    rows = spread(work / "debian.toml", work / "killed", walls, KILLS)
    if (seen := digests(work / "debian.toml", work / "killed")) != expected:
        raise AssertionError(f"expected {expected}, found {seen}")
    by_stage = {stage: sum(row["at"] == stage for row in rows) for stage in KILLS}
    return {"kills": len(rows), "by_stage": by_stage, "equal": True, "rows": rows}


if __name__ == "__main__":
    main()
