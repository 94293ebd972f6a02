"""What the embedded engine gives: tokens per second at 1, 4 and 16 concurrent requests, against one padded batch.

The same prompts go through ``transformers.generate`` (one left-padded batch, greedy, same limit, same weights) in the
same run, measurements taken in turns and the one with the least CPU time kept (others may be using the machine).
Beside them: what the prefix cache saves, what the grammar costs, whether company changed a bit, CPU seconds, and the
bound that reading the weights once per step would set. Usage: ``python bench/engine.py [--threads 2] [--tokens 64]
[--rounds 3]``; writes engine.md and engine.json to bench/results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model, model_path, render
from sleuth.agents.records import Completion, JsonSchema, Message, Sampling

CACHED = "engine at 16, prompts cached"
RESULTS = Path(__file__).parent / "results"
SENTENCES = (
    "{a} was born in {b} in {n} and studied at the university there.",
    "The film {a} was directed by {b} and released in {n}.",
    "{a} is a town of {n} people on the river {b}.",
    "In {n} the company {a} was bought by {b}.",
)
NAMES = "Alden Brook Carver Dunmore Elstree Farrow Garnet Hollis Ingram Jarrow Kestrel Lorne Marlow Norwood".split()


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    tokens_per_s: float
    seconds: float
    cpu_seconds: float
    tokens: int


def passages(rng: random.Random, count: int) -> list[str]:
    def sentence() -> str:
        a, b = rng.sample(NAMES, 2)
        return rng.choice(SENTENCES).format(a=a, b=b, n=rng.randrange(1800, 2020))

    return [" ".join(sentence() for _ in range(4)) for _ in range(count)]


def prompts(size: str, seed: int) -> list[tuple[list[Message], JsonSchema]]:
    """Sixteen prompts of mixed lengths with one head, and the answerer's kind of schema for each."""
    rng, out = random.Random(seed), []
    head = Message("system", "Quote the sentences that decide the question, then give the shortest answer. " * 6)
    for index in range(16):
        texts = passages(rng, 1 + index % 2 if size == "short" else 3 + index % 5)
        quotes = [sentence + "." for text in texts for sentence in text.rstrip(".").split(". ")]
        quote = {"type": "string", "enum": quotes, "x-quote": True}
        properties = {"quotes": {"type": "array", "items": quote, "minItems": 2, "maxItems": 4}}
        schema = {"type": "object", "properties": {**properties, "answer": {"x-span": texts}}}
        question = Message("user", "\n".join(texts) + "\nTell the whole story of all these people in your own words.")
        out.append(([head, question], schema))
    return out


def ask(policy: EmbeddedPolicy, jobs: Any, width: int, limit: int, constrained: bool = False) -> list[Completion]:
    """All jobs, ``width`` of them at a time."""

    async def run() -> list[Completion]:
        gate = asyncio.Semaphore(width)

        async def one(messages: list[Message], schema: JsonSchema) -> Completion:
            async with gate:
                return await policy.sample(messages, Sampling(0.0, 1.0, limit), schema if constrained else None)

        return await asyncio.gather(*[one(*job) for job in jobs])

    return asyncio.run(run())


def measure(what: str, run: Callable[..., list[Any]], best: dict[str, Figure], *arguments: Any) -> list[Any]:
    """What the run returns, one item per request; its figures are kept when they are the best so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = run(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = sum(one if isinstance(one, int) else one.completion_tokens for one in done)
    if what not in best or tokens / cpu > best[what].tokens / best[what].cpu_seconds:
        best[what] = Figure(what, tokens / wall, wall, cpu, tokens)
    return done


def equal(one: Completion, other: Completion) -> bool:
    return (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


def padded(model: Any, tokenizer: Any, jobs: Any, limit: int) -> list[int]:
    """How many tokens transformers' own generate samples for each of the same prompts in one padded batch."""
    import torch

    rows = [render(tokenizer, messages) for messages, _ in jobs]
    longest = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=pad)
    news = [row[longest:].tolist() for row in out]
    return [row.index(2) + 1 if 2 in row else len(row) for row in news]


def bandwidth() -> float:
    """Bytes per second that a sum over 512 MB reads."""
    import torch

    numbers = torch.ones(2**27)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.numel() * 4 / min(times)


def bench(threads: int, limit: int, rounds: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    policy = EmbeddedPolicy(cache_tokens=16_384)
    policy.load()
    model, tokenizer = load_model(model_path())
    best: dict[str, Figure] = {}
    same, forced = 0, list[bool]()
    for turn in range(rounds):
        for size in ("short", "long"):
            jobs = prompts(size, seed=turn)
            policy.cache._blocks.clear()
            alone = measure(f"{size}, engine at 1", ask, best, policy, jobs[:4], 1, limit)
            measure(f"{size}, engine at 1, prompts cached", ask, best, policy, jobs[:4], 1, limit)
            for width in (4, 16):
                policy.cache._blocks.clear()
                crowd = measure(f"{size}, engine at {width}", ask, best, policy, jobs, width, limit)
            measure(f"{size}, engine at 16, prompts cached", ask, best, policy, jobs, 16, limit)
            same += sum(map(equal, alone, crowd))
            measure(f"{size}, generate, batch of 16", padded, best, model, tokenizer, jobs, limit)
            policy.cache._blocks.clear()
            for state in ("cold", "warm"):
                measure(f"{size}, first token of 16, {state} cache", ask, best, policy, jobs, 16, 1)
            held = measure(
                f"{size}, engine at 16, prompts cached, grammar and spans", ask, best, policy, jobs, 16, limit, True
            )
            forced += [flag for one in held for flag in one.forced]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    speed = bandwidth()
    lengths = {size: [len(render(tokenizer, m)) for m, _ in prompts(size, 0)] for size in ("short", "long")}
    version = policy.policy_version
    policy.close()
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}",
        "policy": version,
        "dtype": str(next(model.parameters()).dtype),
        "limit": limit,
        "rounds": rounds,
        "prompt_tokens": {size: [min(each), max(each)] for size, each in lengths.items()},
        "same_alone_and_in_company": [same, 4 * 2 * rounds],
        "forced_share": round(sum(forced) / len(forced), 3),
        "weights_bytes": weights,
        "bandwidth_bytes_per_s": round(speed),
        "bound_steps_per_s": round(speed / weights, 1),
        "figures": [asdict(figure) for figure in best.values()],
    }


def table(result: dict[str, Any]) -> str:
    figures = {figure["what"]: figure for figure in result["figures"]}

    def ratio(top: str, bottom: str) -> str:
        over, under = figures[top], figures[bottom]
        cpu = over["tokens"] / over["cpu_seconds"] * under["cpu_seconds"] / under["tokens"]
        return f"{over['tokens_per_s'] / under['tokens_per_s']:.2f} ({cpu:.2f})"

    low, high = result["prompt_tokens"]["short"], result["prompt_tokens"]["long"]
    lines = [
        "# The embedded engine",
        "",
        f"{result['machine']}, {result['policy']} ({result['dtype']}).",
        f"Greedy, at most {result['limit']} tokens.",
        f"Short prompts have {low[0]}-{low[1]} tokens, long ones {high[0]}-{high[1]}; reading them is counted. Best of "
        f"{result['rounds']}.",
        "",
        "| | tokens/s | seconds | CPU seconds | tokens |",
        "|---|---|---|---|---|",
    ]
    for what, one in figures.items():
        lines.append(
            f"| {what} | {one['tokens_per_s']:.0f} | {one['seconds']:.2f} | {one['cpu_seconds']:.2f} "
            f"| {one['tokens']} |"
        )
    lines += ["", "| ratio of tokens/s (of tokens per CPU second) | short | long |", "|---|---|---|"]
    for name, top, bottom in (
        ("engine at 16 / at 1, prompts cached (bar: 4)", CACHED, "engine at 1, prompts cached"),
        ("engine at 16 / at 1, prompts read anew", "engine at 16", "engine at 1"),
        ("engine at 16 / generate on a padded batch (bar: 1)", "engine at 16", "generate, batch of 16"),
        ("with grammar and spans / without", f"{CACHED}, grammar and spans", CACHED),
        ("first token of 16, warm cache / cold", "first token of 16, warm cache", "first token of 16, cold cache"),
    ):
        cells = [ratio(f"{size}, {top}", f"{size}, {bottom}") for size in ("short", "long")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    same, of = result["same_alone_and_in_company"]
    steps, gigabytes = result["bound_steps_per_s"], result["bandwidth_bytes_per_s"] / 1e9
    lines += [
        "",
        f"Alone and among 16, {same} of {of} completions have equal token ids and log-probabilities. With the grammar",
        f"{100 * result['forced_share']:.0f} % of the tokens are forced and cost no draw. Reading {gigabytes:.1f} GB/s,"
        f" {result['weights_bytes'] / 1e6:.0f} MB of weights once",
        f"per step allows {steps:.0f} steps/s, which is {steps:.0f} tokens/s alone and {16 * steps:.0f} at 16.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result = bench(options.threads, options.tokens, options.rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engine.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (RESULTS / "engine.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
