"""Two things that must never break an episode: a policy's server that fails, and a process that is killed.

*Flaky*: rollouts over loopback against a server that answers one call in five with 429, 500, a stall, a cut stream,
noise or JSON of another shape. Every run must end typed, within its deadline and two seconds, with no more calls than
steps x (1 + retries). *Killed*: a checkpointed run gets SIGKILL before or after each of its checkpoint writes and is
resumed; the episode must be the uninterrupted one's, no step asked for again whose checkpoint stood. The policies are
scripted, as in the tests: what is measured is everything around them.
Usage: ``python bench/faults.py [--runs 5000] [--kills 300]``; writes bench/results/faults.json.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.agents.graph import build_graph, checkpoints
from sleuth.agents.policy.openai import OpenAIPolicy
from sleuth.agents.records import Budget, Episode, Message
from sleuth.agents.rollout import rollout
from tests.films import QUESTION, context, reply
from tests.scripted import ScriptedPolicy

SHARE = 0.2
RETRIES = 3
CALL_S, DEADLINE_S, SLACK_S = 1.0, 20.0, 2.0
ENDINGS = ("answered", "error", *(f"budget:{name}" for name in ("seconds", "tokens", "searches")))
FAULTS = ("429", "500", "stall", "cut", "noise", "shape")
NOISE = b'\x00\xff{"choices": [{"message": {"content": "' + bytes(range(256))


class Flaky(ThreadingHTTPServer):
    """The perfect film policy behind chat completions, with faults drawn by the seed."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.calls: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()

    def draw(self, run: str) -> str:
        with self.lock:
            self.calls[run] += 1
            fault = self.random.choice(FAULTS) if self.random.random() < SHARE else ""
            self.faults[fault or "none"] += 1
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up on a stall is what this is about."""


class Handler(BaseHTTPRequestHandler):
    server: Flaky
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = [Message(turn["role"], turn["content"]) for turn in body["messages"]]
        match self.server.draw(body["model"]):
            case "429" | "500" as status:
                self._send(int(status), {"error": {"message": "busy"}})
            case "stall":
                time.sleep(3 * CALL_S)
            case "cut":
                self._send(200, {"choices": [{"message": {"content": "{}"}}]}, cut=True)
            case "noise":
                self._send(200, NOISE)
            case "shape":
                self._send(200, {"choices": [{"message": {"content": '{"steps":{"a":[1]},"answer":[{}]}'}}]})
            case _:
                text = json.dumps(reply(messages))
                self._send(200, {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 9}})

    def _send(self, status: int, content: Any, cut: bool = False) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    def log_message(self, *args: Any) -> None:
        pass


async def flaky(runs: int, together: int, seed: int) -> dict[str, Any]:
    server = Flaky(seed)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url, names, found = f"http://127.0.0.1:{server.server_port}/v1", iter(range(runs)), []

    async def work() -> None:
        for number in names:
            policy = OpenAIPolicy(url, str(number), timeout_s=CALL_S, deadline_s=DEADLINE_S, retries=RETRIES)
            ctx = context(policy=policy, budget=Budget(seconds=DEADLINE_S))
            started = time.monotonic()
            episode = await rollout(build_graph(ctx.strategy), f"{QUESTION} {number}", ctx)
            found.append((str(number), episode, time.monotonic() - started))
            await policy.aclose()

    await asyncio.gather(*(work() for _ in range(together)))
    server.shutdown()
    return {
        "runs": runs,
        "faults": dict(sorted(server.faults.items())),
        "endings": dict(collections.Counter(episode.stop for _, episode, _ in found).most_common()),
        "errors": dict(collections.Counter(_kind(e) for _, e, _ in found if e.stop == "error").most_common()),
        "untyped": sum(e.stop not in ENDINGS or (e.stop == "error" and not _kind(e)) for _, e, _ in found),
        "over_deadline": sum(seconds > DEADLINE_S + SLACK_S for _, _, seconds in found),
        "seconds_max": round(max(seconds for _, _, seconds in found), 2),
        "over_calls": sum(server.calls[name] > _most_calls(episode) for name, episode, _ in found),
    }


def _kind(episode: Episode) -> str:
    """``timeout`` of ``planner: PolicyError(timeout): ...``; empty where none is named."""
    found = re.match(r"\w+: PolicyError\((\w+)\): ", episode.error)
    return found[1] if found else ""


def _most_calls(episode: Episode) -> int:
    asked = sum(step.completion is not None for step in episode.steps)
    return (asked + (episode.stop != "answered")) * (1 + RETRIES)


class Killer:
    """Ends the process at the n-th checkpoint write, before it or after it."""

    def __init__(self, saver: Any, at: int, after: bool) -> None:
        self.left, self.after = at, after
        self.puts = {name: getattr(saver, name) for name in ("aput", "aput_writes")}
        for name in self.puts:
            setattr(saver, name, self._wrapped(name))

    def _wrapped(self, name: str) -> Any:
        async def put(*given: Any, **named: Any) -> Any:
            self.left -= 1
            last = self.left == 0
            if last and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = await self.puts[name](*given, **named)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return put


async def checkpointed(folder: Path, number: int, kill_at: int = 0, after: bool = False) -> tuple[str, int, int]:
    """Digest of the episode, calls of the policy in this process, checkpoint writes."""
    policy = ScriptedPolicy(reply)
    ctx = context(policy=policy)
    async with checkpoints(folder / "checkpoints.sqlite") as saver:
        killer = Killer(saver, kill_at, after)
        question = f"{QUESTION} {number}"
        episode = await rollout(build_graph(ctx.strategy, saver), question, ctx, resume=True)
        return episode.digest(), len(policy.seen), -killer.left


def forked(folder: Path, *given: Any) -> tuple[str, int, int] | None:
    """`checkpointed` in a process of its own; None where it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(asyncio.run(checkpointed(folder, *given))).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    return tuple(json.loads(said)) if said else None


def killed(kills: int) -> dict[str, Any]:
    points = differing = asked_again = survived = 0
    with tempfile.TemporaryDirectory() as room:
        number = 0
        while points < kills:
            whole = forked(Path(room) / "whole", number)
            assert whole is not None
            digest, calls, writes = whole
            for at, after in ((at, after) for at in range(1, writes + 1) for after in (False, True)):
                folder = Path(room) / f"{number}-{at}-{after}"
                survived += forked(folder, number, at, after) is not None
                again = forked(folder, number)
                points += 1
                differing += again is None or again[0] != digest
                asked_again += again is None or again[1] > calls
            number += 1
    return {
        "points": points, "writes_a_run": writes, "not_killed": survived, "other_episodes": differing,
        "more_calls_than_a_whole_run": asked_again,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--together", type=int, default=200)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "faults.json")
    given = parser.parse_args()
    result = {"killed": killed(given.kills), "flaky": asyncio.run(flaky(given.runs, given.together, given.seed))}
    used = resource.getrusage(resource.RUSAGE_SELF)
    result["cpu_seconds"] = round(used.ru_utime + used.ru_stime)  # type: ignore[assignment]
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
