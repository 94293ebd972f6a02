"""What a learning step costs, beside the plain way to do the same, in one run on one machine.

Rollouts: our engine through the agent graph, against `transformers.generate` on the padded batch of the same prompts
and lengths. Update: our trees (each shared prefix once, logits at choices alone), against padded micro-batches with
logits at every position, the usual loop. Both sides use the same model, adapter and samples; the limit
beside the update is the time of its matrix products at the rate that a large product reaches here.
With ``--trl`` a step of TRL's GRPO stands beside it: the same model, adapter shape, prompts and lengths, generation by
transformers (its only engine on a CPU), no layer computed twice, a reward that costs nothing.
Usage: ``python bench/training.py [--questions 2] [--group 8]``; writes bench/results/training.json and a table. With
``--waiting 0.5``: what rollouts that run ahead save where a search takes half a second; writes training_ahead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sleuth.agents.policy import ADAPTERS
from sleuth.agents.policy.embedded import EmbeddedPolicy
from sleuth.agents.policy.models import load_model, model_name, model_path
from sleuth.agents.records import Sampling
from sleuth.training import adapter
from sleuth.training.algorithms import algorithm
from sleuth.training.rl import Parts
from sleuth.training.rollouts import RolloutSpec, ask
from sleuth.training.samples import Masks, Sample, to_samples
from sleuth.training.scoring import packs
from sleuth.training.sft import SftSpec, adapt
from sleuth.training.tasks import TaskSpec, WorldSpec, open_tasks
from sleuth.training.update import Learner, UpdateSpec

RESULTS = Path(__file__).parent / "results"


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def mixed(model: Any) -> Any:
    """Adapters are held in float32 over a base of lower precision."""
    import torch

    return torch.autocast("cpu", dtype=low) if (low := adapter.precision(model)) != torch.float32 else nullcontext()


def generate(model: Any, tokenizer: Any, prompts: list[list[int]], tokens: int) -> int:
    """Plain sampling of ``tokens`` each for a left-padded batch, without grammar; tokens made."""
    import torch

    width, pad = max(map(len, prompts)), tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.inference_mode(), mixed(model):
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=True, max_new_tokens=tokens,
                             min_new_tokens=tokens, pad_token_id=pad)  # fmt: skip
    return int((out.shape[1] - width) * len(prompts))


def plain_update(adapted: Any, samples: list[Sample], optimizer: Any, micro: int) -> None:
    """The usual loop: padded micro-batches, logits over the vocabulary at every position, REINFORCE with a mask."""
    import torch

    model = adapted.get_base_model()
    for start in range(0, len(samples), micro):
        rows = samples[start : start + micro]
        width = max(map(len, rows))
        ids = torch.tensor([list(s.ids) + [0] * (width - len(s)) for s in rows])
        mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in rows])
        with mixed(model):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        logprobs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        chosen = torch.zeros_like(logprobs)
        for i, sample in enumerate(rows):
            chosen[i, [place - 1 for place in sample.drawn]] = torch.tensor(sample.advantages)
        (-(chosen * logprobs).sum() / sum(len(s.drawn) for s in samples)).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def trl_step(path: Path, prompts: list[Any], group: int, tokens: int, steps: int = 3) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a step of TRL's GRPO, the median without the first; ``tokens`` a completion."""
    import statistics

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append((time.perf_counter(), time.process_time()))

    model, tokenizer = load_model(path, device="cpu")
    like = SftSpec()
    with tempfile.TemporaryDirectory() as room:
        config = GRPOConfig(
            room, use_cpu=True, bf16=model.dtype.is_floating_point and model.dtype.itemsize == 2, report_to="none",
            per_device_train_batch_size=len(prompts) * group, num_generations=group, max_completion_length=tokens,
            generation_kwargs={"min_new_tokens": tokens}, max_steps=steps, gradient_checkpointing=False,
            loss_type="dr_grpo", scale_rewards="none", learning_rate=1e-5, save_strategy="no", logging_steps=1,
            disable_tqdm=True, shuffle_dataset=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model,
            reward_funcs=lambda completions, **_: [float(len(str(c)) % 7) for c in completions],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts * steps}),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=like.rank, lora_alpha=like.alpha, target_modules=list(like.targets)),
            callbacks=[Clock()],
        )
        trainer.train()
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)]
    return statistics.median(gap[0] for gap in gaps), statistics.median(gap[1] for gap in gaps)


def flops_per_second() -> float:
    """Of a large float32 or bfloat16 matrix product, whichever the model would use."""
    import torch

    from sleuth.agents.policy.models import choose_dtype

    dtype = getattr(torch, choose_dtype("cpu"))
    a, b = torch.randn(1024, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
    a @ b
    best = min(timed(lambda: a @ b)[1] for _ in range(8))
    return 2 * 1024 * 1536 * 1536 / best


def measure(args: argparse.Namespace) -> dict[str, Any]:
    path = model_path()
    world = TaskSpec(world=WorldSpec(40, (1,)), search="bm25")
    with tempfile.TemporaryDirectory() as room:
        store, tasks, _ = open_tasks(world, None, Path(room), 0)
        model, tokenizer = load_model(path, device="cpu")
        adapted = adapt(model, SftSpec(), model_name(path))
        adapter.load_weights(adapted, ADAPTERS / "first", model_name(path))
        engine = EmbeddedPolicy(path, device="cpu", max_batch=args.questions * args.group)
        parts = Parts(model, model_name(path), engine, store, tasks)
        spec = RolloutSpec("naive-rag", {"k": 2, "read": 2}, args.questions, args.group)
        engine.load()
        _, publish_s, _ = timed(lambda: engine.publish(adapter.merged(adapted), "bench"))
        jobs = [(task, seed) for task in tasks[: args.questions] for seed in range(args.group)]
        ask(parts, spec, jobs[:1], Sampling(1.0))  # warm
        engine.cache.clear()
        episodes, ours_s, ours_cpu = timed(lambda: ask(parts, spec, jobs, Sampling(1.0)))
        masks = Masks(engine.tokens)
        good: list[list[float | None]] = [
            [None if s.completion is None else (-1.0) ** n for s in e.steps] for n, e in enumerate(episodes)
        ]
        cut = lambda: [s for n, e in enumerate(episodes) for s in to_samples(e, good[n], masks, n)]  # noqa: E731
        samples, samples_s, _ = timed(cut)
        engine.close()
        made = sum(len(s.completion.token_ids) for e in episodes for s in e.steps if s.completion)
        prompts = [list(s.completion.prompt_ids) for e in episodes for s in e.steps if s.completion]
        _, theirs_s, theirs_cpu = timed(lambda: generate(model, tokenizer, prompts, round(made / len(prompts))))
        learner = Learner(adapted, UpdateSpec(max_tokens=args.max_tokens), algorithm("dr_grpo"))
        told, update_s, update_cpu = timed(lambda: learner.update(samples, 1, 0))
        _, plain_s, plain_cpu = timed(lambda: plain_update(adapted, samples, learner.optimizer, args.micro))
        weights = sum(p.numel() for n, p in model.named_parameters() if "lora" not in n and "embed" not in n)
        asked = [next(s.messages for s in e.steps if s.completion) for e in episodes[:: args.group]]
        turns = [[{"role": m.role, "content": m.content} for m in messages] for messages in asked]
        trl_s, trl_cpu = trl_step(path, turns, args.group, round(made / len(prompts))) if args.trl else (0.0, 0.0)
        ours = [ours_s + samples_s + update_s + publish_s, ours_cpu + samples_s + update_cpu + publish_s]
        limit_s = 4 * told["computed"] * weights / flops_per_second()
        return {
            "rollouts": len(episodes),
            "prompt_tokens": sum(map(len, prompts)),
            "completion_tokens": made,
            "rollout_s": {"ours": ours_s, "generate": theirs_s, "ours_cpu": ours_cpu, "generate_cpu": theirs_cpu},
            "rollout_tokens_per_s": {"ours": made / ours_s, "generate": made / theirs_s},
            "update_s": {"ours": update_s, "plain": plain_s, "ours_cpu": update_cpu, "plain_cpu": plain_cpu},
            "update_limit_s": limit_s,
            "tokens": told["tokens"],
            "computed": told["computed"],
            "packs": len(packs(samples, args.max_tokens)),
            "samples_s": samples_s,
            "publish_s": publish_s,
            "ratio_rollout": theirs_s / ours_s,
            "ratio_update": plain_s / update_s,
            "ratio_step": (theirs_s + plain_s) / ours[0],
            "step_s": {"ours": ours[0], "ours_cpu": ours[1], "trl": trl_s, "trl_cpu": trl_cpu},
            "cpus": len(os.sched_getaffinity(0)),
        }


class Slow:
    """A store whose every search takes a while in which nobody computes, as a search service does."""

    def __init__(self, store: Any, seconds: float) -> None:
        self.store, self.seconds, self.fingerprint = store, seconds, store.fingerprint

    def search(self, queries: Any, k: int, where: Any = None) -> Any:
        time.sleep(self.seconds)
        return self.store.search(queries, k, where)


def waiting(seconds: float, steps: int = 8) -> dict[str, Any]:
    """Share of a run's time in which the learner waits for rollouts, with and without rollouts that run ahead.

    The tiny model of the tests; searches that take ``seconds``. The first step has nothing ahead and is left out.
    """
    import dataclasses

    from sleuth.training.rl import RlSpec, train
    from sleuth.training.telling import PHASES
    from tests import tiny_model
    from tests.films import FilmStore
    from tests.test_training_rl import SPEC, TASKS

    found: dict[str, Any] = {"search_s": seconds, "steps": steps}
    tasks = [dataclasses.replace(task, id=f"{task.id}-{n}") for n in range(4) for task in TASKS]
    with tempfile.TemporaryDirectory() as room:
        folder = tiny_model.make(Path(room) / "base", max_position_embeddings=4096)
        for staleness in (0, 1, 2):
            engine = EmbeddedPolicy(folder, dtype="float32", device="cpu", max_batch=8)
            model, _ = load_model(folder, "float32", "cpu")
            rollout = dataclasses.replace(SPEC.rollout, staleness=staleness)
            spec: RlSpec = dataclasses.replace(SPEC, steps=steps, rollout=rollout, keep_every=0, checkpoint_every=99)
            lines: list[Any] = []
            parts = Parts(model, "tiny", engine, Slow(FilmStore(), seconds), tasks)
            train(spec, parts, Path(room) / f"run-{staleness}", progress=lambda line: None, record=lines.append)
            engine.close()
            all_s = sum(line[phase] for line in lines[1:] for phase in PHASES)
            found[f"staleness {staleness}"] = {
                "waiting_share": sum(line["rollout_s"] for line in lines[1:]) / all_s,
                "s_per_step": all_s / (steps - 1),
                "staleness": sum(line.get("staleness", 0.0) for line in lines[1:]) / (steps - 1),
                "dropped": lines[-1].get("stale_dropped", 0),
            }
    return found


def table(r: dict[str, Any]) -> str:
    return f"""| part | ours, s | the plain way, s | ratio | CPU ratio |
| --- | --- | --- | --- | --- |
| {r["rollouts"]} rollouts, {r["completion_tokens"]} tokens | {r["rollout_s"]["ours"]:.1f} | {r["rollout_s"]["generate"]:.1f} (generate, padded, free text) | {r["ratio_rollout"]:.2f} | {r["rollout_s"]["generate_cpu"] / r["rollout_s"]["ours_cpu"]:.2f} |
| update, {r["tokens"]} tokens ({r["computed"]} computed) | {r["update_s"]["ours"]:.1f} (limit {r["update_limit_s"]:.1f}) | {r["update_s"]["plain"]:.1f} | {r["ratio_update"]:.2f} | {r["update_s"]["plain_cpu"] / r["update_s"]["ours_cpu"]:.2f} |
| samples with their masks | {r["samples_s"]:.2f} | – | – | – |
| new weights into the engine | {r["publish_s"]:.2f} | – | – | – |
| whole step | {r["step_s"]["ours"]:.1f} | – | {r["ratio_step"]:.2f} | – |
"""  # noqa: E501


def trl_line(step: dict[str, float]) -> str:
    ratios = f"{step['trl'] / step['ours']:.2f} | {step['trl_cpu'] / step['ours_cpu']:.2f}"
    return f"| whole step, TRL's GRPO | {step['ours']:.1f} | {step['trl']:.1f} | {ratios} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--micro", type=int, default=2, help="samples per micro-batch of the plain loop")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--trl", action="store_true", help="a step of TRL's GRPO as well; needs trl installed")
    parser.add_argument("--waiting", type=float, default=0.0, help="measure runs ahead alone; seconds a search takes")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if args.waiting:
        found = waiting(args.waiting)
        (RESULTS / "training_ahead.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=1))
        return
    result = measure(args)
    (RESULTS / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result).rstrip() + (f"\n{trl_line(result['step_s'])}" if args.trl else ""))


if __name__ == "__main__":
    main()
