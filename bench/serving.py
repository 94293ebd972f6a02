"""What serving costs: throughput and latency under many clients, beside the bare library and the usual server.

``python bench/serving.py STORE [--seconds 20] [--clients 200] [--modes dense hybrid]`` measures in one run, same
queries: the library called in a loop, `sleuth serve` with 1, 64 and ``--clients`` concurrent clients, and the peer of
bench/flat_server.py with the same. Clients (asyncio, Search-R1's shape, top 3) share the machine with the server,
and where ``cores`` is 1 its core; a last row has clients that pause a second between questions, as agents do.
``--kill`` kills the server under load and times a restart, ``--reload`` commits new versions of a scratch copy
under load and counts failures. Writes bench/results/serving.json (``--out``).
Beside seconds stand CPU seconds, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import numpy as np

from sleuth.retrieval import grow
from sleuth.retrieval.store import Datastore

ROOT = Path(__file__).parents[1]
TOP = 3
QUERIES = 5000


def questions(store: Datastore) -> list[str]:
    """Distinct queries of 5 to 14 words out of the middle of passages."""
    chooser = np.random.default_rng(0)
    rows = store.sql(f"select text from passages using sample {2 * QUERIES} rows (reservoir, 0)", limit=2 * QUERIES)[1]
    found = []
    for (text,) in rows:
        words = text.split()
        if len(words) > 20:
            start = int(chooser.integers(0, len(words) - 15))
            found.append(" ".join(words[start : start + int(chooser.integers(5, 15))]))
    return list(dict.fromkeys(found))[:QUERIES]


def summary(taken: Sequence[float], seconds: float) -> dict[str, Any]:
    cut = statistics.quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
    return {
        "answers": len(taken), "per_s": round(len(taken) / seconds, 1), "p50_ms": round(cut[49] * 1e3, 2),
        "p99_ms": round(cut[98] * 1e3, 2),
    }  # fmt: skip


def library(store: Datastore, queries: Sequence[str], mode: Any, seconds: float) -> dict[str, Any]:
    for query in queries[:20]:
        store.search([query], TOP, mode=mode)
    taken: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    for query in queries[20:]:
        started = time.perf_counter()
        store.search([query], TOP, mode=mode)
        taken.append(time.perf_counter() - started)
        if time.perf_counter() - began > seconds:
            break
    cpu = time.process_time() - cpu
    return {**summary(taken, time.perf_counter() - began), "cpu_ms_per_answer": round(cpu / len(taken) * 1e3, 2)}


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds of CPU that a process has used; Linux."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(command: Sequence[str], port: int) -> tuple[subprocess.Popen[bytes], float, float]:
    """The server's process, and the seconds and CPU seconds until it answered."""
    began = time.perf_counter()
    log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return process, time.perf_counter() - began, cpu_s(process)
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.perf_counter() - began > 300:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)}: did not start\n{log.read().decode()[-2000:]}")
        time.sleep(0.02)


@contextmanager
def server(command: Sequence[str], port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    process, _, _ = started(command, port)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def ours(store: Path, port: int, mode: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "sleuth.cli", "serve", str(store), "--port", str(port), "--mode", mode, *more]


async def load(
    url: str, queries: Sequence[str], clients: int, seconds: float, first: int = 0,
    stop: Callable[[], bool] = lambda: False, think_s: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Each client asks one query after another, ``think_s`` after the answer; nothing is tried again, so that every
    failure counts."""
    numbers, taken, failures = count(first), [], Counter[str]()
    host, port = url.removeprefix("http://").split(":")
    began, used = time.perf_counter(), time.process_time()
    ends = began + seconds

    async def client() -> None:
        writer = None
        await asyncio.sleep(random.random() * think_s)
        while time.perf_counter() < ends and not stop():
            asked = time.perf_counter()
            try:
                async with asyncio.timeout(30):
                    if writer is None:
                        reader, writer = await asyncio.open_connection(host, int(port))
                    status, result = await exchange(reader, writer, queries[next(numbers) % len(queries)])
            except (OSError, EOFError, TimeoutError) as error:
                failures[type(error).__name__] += 1
                writer = None
                await asyncio.sleep(0.25)
                continue
            if status == 200 and len(json.loads(result)["result"]) == 1:
                taken.append(time.perf_counter() - asked)
            else:
                failures[str(status)] += 1
            if think_s:
                await asyncio.sleep(think_s)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    clients_cpu = (time.process_time() - used) / max(1, len(taken))
    return {"clients": clients, **({"think_s": think_s} if think_s else {}),
            **summary(taken, time.perf_counter() - began), "failures": dict(failures),
            "client_cpu_ms_per_answer": round(clients_cpu * 1e3, 2)}  # fmt: skip


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: str) -> tuple[int, bytes]:
    """Status and body of one search over an open connection: a client that takes less from the server's core than an
    HTTP library would."""
    body = json.dumps({"queries": [query], "topk": TOP, "return_scores": True}).encode()
    writer.write(b"POST /retrieve HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(body) + body)  # fmt: skip
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(None, 1)[0])
    return int(head.split(None, 2)[1]), await reader.readexactly(length)


def under_load(
    served: tuple[str, subprocess.Popen[bytes]], queries: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    url, process = served
    asyncio.run(load(url, queries, 4, 2.0, 4000))  # warm
    rows = []
    for n, (clients, think_s) in enumerate(((1, 0.0), (64, 0.0), (options.clients, 0.0), (options.clients, 1.0))):
        before = cpu_s(process)
        row = asyncio.run(load(url, queries, clients, options.seconds, n * 1500, think_s=think_s))
        used = round((cpu_s(process) - before) / max(1, row["answers"]) * 1e3, 2)
        rows.append({**row, "server_cpu_ms_per_answer": used})
        print("  ", rows[-1], flush=True)
    return rows


def compared(path: Path, queries: Sequence[str], store: Datastore, options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for mode in options.modes:
        print(f"library, {mode}", flush=True)
        bare = library(store, queries, mode, options.seconds)
        print("  ", bare, f"\nsleuth serve, {mode}", flush=True)
        port = free_port()
        with server(ours(path, port, mode), port) as served:
            rows = under_load(served, queries, options)
        results[mode] = {
            "library": bare,
            "served": rows,
            "throughput_64_over_1": round(rows[1]["per_s"] / rows[0]["per_s"], 2),
            "cpu_64_over_library": round(rows[1]["server_cpu_ms_per_answer"] / bare["cpu_ms_per_answer"], 2),
            "throughput_64_over_library": round(rows[1]["per_s"] / bare["per_s"], 2),
        }
    if options.peer:
        print("flat-index server", flush=True)
        port = free_port()
        with server([sys.executable, "bench/flat_server.py", str(path), str(port)], port) as served:
            results["flat_index_server"] = {"served": under_load(served, queries, options)}
    return results


async def killed(path: Path, queries: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of a process to its first answer, after kill -9 with clients asking all the while."""
    port = free_port()
    process, first_s, first_cpu_s = await asyncio.to_thread(started, ours(path, port, options.modes[0]), port)
    clients = asyncio.create_task(load(f"http://127.0.0.1:{port}", queries, 16, 3600, stop=lambda: done))
    done = False
    restarts = []
    for _ in range(options.restarts):
        await asyncio.sleep(2)
        process.kill()
        process.wait()
        process, seconds, cpu = await asyncio.to_thread(started, ours(path, port, options.modes[0]), port)
        restarts.append({"s": round(seconds, 2), "cpu_s": round(cpu, 2)})
    await asyncio.sleep(2)
    done = True
    told = await clients
    process.terminate()
    process.wait(30)
    return {"first": {"s": round(first_s, 2), "cpu_s": round(first_cpu_s, 2)}, "restarts": restarts, "load": told}


async def reloaded(path: Path, queries: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Requests that failed while new versions of a copy of the store were committed."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as room:
        copy = Path(room) / "store"
        shutil.copytree(path, copy)
        ids = [row[0] for row in Datastore.open(copy).sql("select id from documents", limit=options.versions)[1]]
        port = free_port()
        process, _, _ = await asyncio.to_thread(started, ours(copy, port, options.modes[0], "--reload-s", "0.2"), port)
        done = False
        clients = asyncio.create_task(load(f"http://127.0.0.1:{port}", queries, 32, 3600, stop=lambda: done))
        await asyncio.sleep(2)
        taken_up = []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            for id_ in ids:
                before = (await http.get("/health")).json()["fingerprint"]
                await asyncio.to_thread(grow.delete, copy, [id_])
                committed = time.perf_counter()
                while (await http.get("/health")).json()["fingerprint"] == before:
                    await asyncio.sleep(0.02)
                taken_up.append(round(time.perf_counter() - committed, 2))
        await asyncio.sleep(1)
        done = True
        told = await clients
        process.terminate()
        process.wait(30)
    return {"versions": len(ids), "taken_up_after_s": taken_up, "load": told}


def told(options: Sequence[str]) -> list[str]:
    """The options without those that name a place on this machine."""
    places = {n + i for n, option in enumerate(options) if option in ("--out", "--scratch") for i in (0, 1)}
    return [option for n, option in enumerate(options) if n not in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--modes", nargs="+", default=["dense", "hybrid"])
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--reload", action="store_true")
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for the copy of --reload")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "serving.json")
    options = parser.parse_args()
    store = Datastore.open(options.store)
    queries = questions(store)
    results: dict[str, Any] = {
        "command": "python bench/serving.py " + " ".join(["STORE", *told(sys.argv[2:])]),
        "passages": len(store), "embedder": store.manifest.embedder,
        "index": "flat" if store.index is None else str(store.index.plan),
        "cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg(),
    }  # fmt: skip
    if options.compare:
        results |= compared(options.store, queries, store, options)
    if options.kill:
        results["kill"] = asyncio.run(killed(options.store, queries, options))
        print("kill -9:", results["kill"], flush=True)
    if options.reload:
        results["reload"] = asyncio.run(reloaded(options.store, queries, options))
        print("reload:", results["reload"], flush=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
