"""Debian's documentation packages from a crawl to a searchable store, measured; and the same store from a killed build.

Steps, all by default: ``fetch`` (apt-get download and dpkg -x; nothing is installed), ``crawl`` (each package is served
on a loopback address of its own and crawled by ``sleuth crawl`` into one WARC), ``build`` (``sleuth build`` of
recipes/debian.toml, CPU and memory watched), ``kill`` (the same build into another folder, killed at random moments
over its whole length by bench/interrupt.py, and its digests compared). What a step left is kept and used again.
Usage: ``python bench/debian.py WORK [STEP ...]``; writes bench/results/debian.json and debian.md.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLEUTH = [sys.executable, "-m", "sleuth.cli"]
PORT = 8390
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
        subprocess.run(
            ["dpkg", "-x", str(next((work / "debs").glob(f"{package}_*.deb"))), str(temporary)], check=True
        )
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


def crawl(work: Path) -> dict[str, dict[str, object]]:
    """What `sleuth crawl` says of each site; a site whose report is there is not crawled again."""
    (work / "crawl").mkdir(exist_ok=True)
    reports = {}
    with served(work) as bases:
        for name, (package, starts) in SITES.items():
            kept = work / "crawl" / f"{name}.json"
            if not kept.exists():
                share = work / "packages" / package / "usr" / "share"
                pages = [bases[name] + str(p.relative_to(share)) for s in starts for p in sorted(share.glob(s))]
                done, used = watched([*SLEUTH, "crawl", *pages, "--out", str(kept.with_suffix(".warc.gz")),
                                      "--max-pages", "50000", "--delay", "0", "--allow-loopback", "--json"])  # fmt: skip
                kept.write_text(json.dumps(json.loads(done) | used))
            reports[name] = json.loads(kept.read_text())
            print(name, reports[name]["pages"], "pages,", reports[name]["without"], flush=True)
    return reports


def watched(command: list[str]) -> tuple[str, dict[str, float]]:
    """Output of a command, and its CPU seconds, wall-clock and peak resident memory of the whole tree."""
    import psutil

    started, before = time.monotonic(), os.times()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak = largest = 0

    def look() -> None:
        nonlocal peak, largest
        watching = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                sizes = [one.memory_info().rss for one in (watching, *watching.children(recursive=True))]
            except psutil.Error:
                continue
            peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
            time.sleep(0.5)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return out, {"cpu_s": used, "wall_s": time.monotonic() - started, "peak_bytes": peak, "largest_bytes": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("steps", nargs="*", default=["fetch", "crawl"])
    options = parser.parse_args()
    fetch(options.work)
    crawl(options.work)


if __name__ == "__main__":
    main()
