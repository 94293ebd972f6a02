"""Builds, additions, deletions and merges: killed at every system call that changes the disk, out of space, unplugged.

Each operation runs in a fork of one warm process, traced by strace. `killed`: SIGKILL before every write, sync, rename,
link or removal that the operation makes. `full`: from one such call on, all of them fail with ENOSPC, or one sync with
EIO; the operation must end with an error of ours. `unplugged`: after every call, a few states that the disk may be in
(bench/power.py). Each time the store must open, every checksum compared, at the last or the next version, and the same
operation, run again, must end with what an undisturbed one makes. Usage: ``python bench/kills.py [--every 1]``; prints
a table and writes bench/results/kills.json. Needs strace and permission to trace children.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.power import CHANGES, TRACE, Disk
from sleuth.corpora import corpus, recipe, shards
from sleuth.corpora.errors import SleuthError
from sleuth.corpora.records import Document
from sleuth.retrieval import build as building
from sleuth.retrieval import grow, layout
from sleuth.retrieval import store as opening
from tests.retrieval_stores import HashEmbedder
from tests.retrieval_stores import corpus as documents

ROOT = Path(__file__).parents[1]
SPEC = building.BuildSpec(segment_documents=8, max_words=100)
FOLLOW = ["-f", "-e", f"trace={CHANGES}"]
SPACE = ("write", "pwrite64", "writev", "ftruncate", "fallocate", "rename", "mkdir")
"""Calls that a full disk refuses."""
GONE = [f"d{n:03d}" for n in range(9)]
RECIPE = """
stages = ["length", "lines", "near"]
[sources.rows]
paths = ["rows.jsonl"]
[sources.pages]
paths = ["pages"]
[stage.length]
min_words = 3
[shards]
files = 2
"""


@dataclass(frozen=True)
class Operation:
    """What is disturbed: all in one folder, which `prepare` fills."""

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    """Runs to its end, from wherever it was stopped."""
    digest: Callable[[Path], str]


def _store(folder: Path, count: int = 24) -> None:
    building.build(documents(count), folder / "store", SPEC)


def _grown(folder: Path) -> None:
    _store(folder, 16)
    grow.add(folder / "store", [replace(d, id=f"x{d.id}") for d in documents(20)[16:]])
    grow.delete(folder / "store", [f"d{n:03d}" for n in range(0, 16, 2)])


def _crumbs(folder: Path) -> None:
    """Ten segments, which the next addition merges."""
    _store(folder, 8)
    grow.delete(folder / "store", ["d003"])
    for n in range(9):
        grow.add(folder / "store", [Document(f"x{n}", f"Extra number {n}, told briefly.")])


def _changed() -> list[Document]:
    return [replace(d, text=f"{d.text} Told anew.") for d in documents(30)[10:]]


def _pinned(folder: Path) -> None:
    if "kept" not in layout.snapshots(folder / "store"):
        grow.pin(folder / "store", "kept")
    grow.restore(folder / "store", "kept")


def _sources(folder: Path) -> None:
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    rows = [json.dumps({"id": d.id, "text": f"{d.text}\nA line of all."}) for d in documents(12)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "pages").mkdir()
    for n, d in enumerate(documents(4)):
        (folder / "pages" / f"{n}.md").write_text(d.text, encoding="utf-8")


def _corpus(folder: Path) -> corpus.Corpus:
    found = recipe.load(folder / "recipe.toml", ())
    for job in corpus.plan_shards(found, folder / "work"):
        shards.run(job)  # in this process instead of a worker
    return corpus.make(found, folder / "work", workers=1)


def _content(folder: Path) -> str:
    return grow.content_digest(folder / "store")


OPERATIONS: dict[str, Operation] = {
    "corpus": Operation(_sources, _corpus, lambda folder: _corpus(folder).digest),
    "build": Operation(lambda folder: None, _store, _content),
    "add": Operation(_store, lambda folder: grow.add(folder / "store", documents(40)[24:]), _content),
    "update": Operation(_store, lambda folder: grow.add(folder / "store", _changed()), _content),
    "merge": Operation(_crumbs, lambda folder: grow.add(folder / "store", documents(30)[20:]), _content),
    "delete": Operation(
        _grown, lambda folder: grow.delete(folder / "store", [f"d{n:03d}" for n in range(9)]), _content
    ),
    "compact": Operation(_grown, lambda folder: grow.compact(folder / "store"), _content),
    "snapshot": Operation(_grown, _pinned, _content),
}


def forked(function: Callable[[], Any]) -> Any:
    """What ``function`` returns in a fork of this process, which stays without threads; its error is raised here."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            found = json.dumps([function(), None])
        except BaseException:  # told to the parent
            found = json.dumps([None, traceback.format_exc()])
        with os.fdopen(writer, "w") as pipe:
            pipe.write(found)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    value, error = json.loads(text) if text else (None, "the process ended")
    if error:
        raise AssertionError(error)
    return value


def traced(function: Callable[[], object], options: list[str], log: Path) -> int | str:
    """How a fork of this process ends under strace: 0 done, 1 an error of ours, -9 killed, or another's traceback."""
    reader, writer = os.pipe()
    notes = mmap.mmap(-1, 1 << 16)  # shared with the fork, whose writes may all fail
    if (child := os.fork()) == 0:
        os.read(reader, 1)
        code = 0
        try:
            function()
        except SleuthError:
            code = 1
        except BaseException:
            code = 2
            text = traceback.format_exc().encode()[-60_000:]
            notes[: len(text)] = text
        os._exit(code)
    tracer = subprocess.Popen(["strace", "-qq", "-p", str(child), "-o", str(log), *options], stderr=subprocess.DEVNULL)
    while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
        if tracer.poll() is not None:
            raise SystemExit("strace could not attach; it needs permission to trace (CAP_SYS_PTRACE)")
        time.sleep(0.001)
    os.write(writer, b".")
    _, status = os.waitpid(child, 0)
    tracer.wait()
    os.close(reader)
    os.close(writer)
    code = os.waitstatus_to_exitcode(status)
    return notes.read().rstrip(b"\0").decode() if code == 2 else code


def version(folder: Path) -> int | None:
    """Of the store, every byte of which is compared with its checksum; None where there is none yet."""
    if not (folder / "store" / "CURRENT").exists():
        return None
    opening.Datastore.open(folder / "store")
    return layout.read_manifest(folder / "store")[0].version


@dataclass
class Trial:
    """One operation in one scratch folder."""

    name: str
    operation: Operation
    scratch: Path
    every: int

    def start(self) -> None:
        """Prepare the beginning and learn the undisturbed run: its calls, its log, its end."""
        (self.scratch / "begin").mkdir(parents=True)
        forked(lambda: self.operation.prepare(self.scratch / "begin") and None)
        self.before = forked(lambda: version(self.scratch / "begin"))
        here = self.fresh()
        ended = traced(lambda: self.operation.run(here), TRACE, self.scratch / "log")
        if ended != 0:
            raise AssertionError(f"{self.name}: the undisturbed run ended with {ended}")
        self.log = (self.scratch / "log").read_text()
        end = here.rename(self.scratch / "end")
        wanted = CHANGES.split(",")
        self.calls = [
            call for line in self.log.splitlines() if (call := line.split(None, 1)[1].split("(")[0]) in wanted
        ]
        self.check_log()
        self.after, self.expected = forked(lambda: [version(end), self.operation.digest(end)])

    def check_log(self) -> None:
        """The log, replayed, must give what the run left."""
        disk = Disk(self.fresh())
        for _ in disk.play(self.log):
            pass
        disk.compare(self.scratch / "end")

    def fresh(self) -> Path:
        """A copy of the beginning, always under one name, for logs hold paths."""
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self.scratch / "begin", here)
        return here

    def check(self, here: Path, least: int | None, most: int | None, what: str) -> None:
        """Open, compare versions, run to the end, and compare what there is then; raises `AssertionError`."""

        def look() -> str:
            found = version(here)
            low, high = -1 if least is None else least, -1 if most is None else most
            if not low <= (-1 if found is None else found) <= high:
                raise AssertionError(f"expected version {least} to {most}, found {found}")
            self.operation.run(here)
            return self.operation.digest(here)

        try:
            digest = forked(look)
        except AssertionError as error:
            raise AssertionError(f"{self.name}, {what}: {error}") from None
        if digest != self.expected:
            raise AssertionError(f"{self.name}, {what}: expected content {self.expected}, found {digest}")

    def killed(self) -> int:
        done = 0
        for n in range(0, len(self.calls), self.every):
            call = self.calls[n]
            here = self.fresh()
            inject = [*FOLLOW, "-e", f"inject={call}:signal=KILL:when={self.calls[: n + 1].count(call)}"]
            if (ended := traced(partial(self.operation.run, here), inject, self.scratch / "killed")) != -9:
                raise AssertionError(f"{self.name}, kill before call {n}, {call}: expected a killed process, "
                                     f"found {ended}")  # fmt: skip
            self.check(here, self.before, self.after, f"killed before call {n}, {call}")
            done += 1
        return done

    def full(self) -> int:
        """ENOSPC for all calls that need space from one of them on, and EIO for one sync."""
        done = 0
        for n, call in enumerate(self.calls):
            if n % self.every or call not in (*SPACE, "fsync"):
                continue
            counts = {kind: self.calls[:n].count(kind) + 1 for kind in SPACE}
            faults = [f"{kind}:error=ENOSPC:when={count}+" for kind, count in counts.items()]
            if call == "fsync":
                faults = [f"fsync:error=EIO:when={self.calls[: n + 1].count('fsync')}"]
            here = self.fresh()
            inject = [*FOLLOW, *(part for fault in faults for part in ("-e", f"inject={fault}"))]
            ended = traced(partial(self.operation.run, here), inject, self.scratch / "full")
            if ended not in (0, 1):
                raise AssertionError(f"{self.name}, {call} fails from call {n} on: expected an error of ours, "
                                     f"found {ended}")  # fmt: skip
            self.check(here, self.before, self.after, f"{call} failed from call {n} on")
            done += 1
        return done

    def unplugged(self, images: int, resumed: int) -> int:
        """``images`` states after every call; of every ``resumed``-th the operation is run to its end."""
        here = self.fresh()
        disk = Disk(here)
        chooser = random.Random(0)
        least = most = self.before
        done = 0
        for n, call in enumerate(disk.play(self.log), start=1):
            most = max((found for found in (most, _current(disk.tree.entries)) if found is not None), default=None)
            if call in ("fsync", "fdatasync"):
                least = max((found for found in (least, _safe(disk)) if found is not None), default=None)
            for _ in range(images if n % self.every == 0 else 0):
                out = self.scratch / "image"
                shutil.rmtree(out, ignore_errors=True)
                disk.image(out, chooser)
                what = f"unplugged after call {n}, {call}"
                done += 1
                if done % resumed == 0:
                    self.check(out, least, most, what)
                elif not _within(found := forked(partial(version, out)), least, most):
                    raise AssertionError(f"{self.name}, {what}: expected version {least} to {most}, found {found}")
        return done


def _within(found: int | None, least: int | None, most: int | None) -> bool:
    return (-1 if least is None else least) <= (-1 if found is None else found) <= (-1 if most is None else most)


def _current(entries: dict[str, Any]) -> int | None:
    store = entries.get("store")
    pointer = store.entries.get("CURRENT") if store is not None else None
    return json.loads(pointer.data)[0] if pointer is not None else None


def _safe(disk: Disk) -> int | None:
    """The version that no loss of power can take away any more."""
    store = disk.tree.safe.get("store")
    pointer = store.safe.get("CURRENT") if store is not None else None
    return json.loads(pointer.synced)[0] if pointer is not None and pointer.synced else None


def patched() -> None:
    """Vectors of words instead of a model's, for all forks."""
    for module in (building, opening):
        module.embedder = lambda spec, device: HashEmbedder()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="Try every so manieth call.")
    parser.add_argument("--images", type=int, default=3, help="States of the disk after each call.")
    parser.add_argument("--resumed", type=int, default=4, help="Of so many images one is run to the end.")
    parser.add_argument("--only", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    options = parser.parse_args()
    patched()
    rows = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(name, OPERATIONS[name], Path(folder).resolve() / "trial", options.every)
            trial.start()
            rows.append({"operation": name, "calls": len(trial.calls), "killed": trial.killed(), "full": trial.full(),
                         "unplugged": trial.unplugged(options.images, options.resumed)})  # fmt: skip
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    totals = {key: sum(int(row[key]) for row in rows) for key in ("killed", "full", "unplugged")}
    print(f"all: {totals}; none lost or doubled a document, none left a store that does not open")
    if options.only == list(OPERATIONS):
        results = {"every": options.every, "images": options.images, "rows": rows, "totals": totals, "failures": 0}
        (ROOT / "bench" / "results" / "kills.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
