"""A reranker learns, from questions whose gold passages are marked, to put these before the others that a search finds.

It is a cross-encoder of sentence-transformers: a low-rank adapter over an encoder's weights and a layer that scores.
Queries are worded as runs word them: the question alone, and the question with a passage that a search of it found
(`agents.trace.further`) when another gold passage is wanted. So it learns to go from the first passage of a chain to
the second, as the retrievers of Asai et al. 2020 (arXiv 1911.10470) and Zhang et al. 2024 (arXiv 2308.08973) do; some
of the passages led from are wrong ones, since a run's own first passage can be.

The loss is ListNet's (Cao et al. 2007, section 4.2) over lists of one gold passage and some that a search ranked high,
which is the cross-entropy of the gold one. Training, checkpoints and going on from them are the library's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleuth.agents.trace import further
from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.corpora.records import Passage
from sleuth.eval.records import Task
from sleuth.retrieval.records import Retriever
from sleuth.retrieval.rerank import (
    ADAPTER,
    DEPTH,
    SHIPPED,
    CrossEncoder,
    Reranked,
    bare,
    base_path,
    pair_text,
    put,
    read_adapter,
)
from sleuth.training.checkpoint import TrainingError
from sleuth.training.hops import holds

Progress = Callable[[str], None]
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
"""The linear layers of BERT's encoder; what pools and what scores are trained whole."""
WHOLE = ("pooler", "classifier")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Dropout nearly doubles a step's time on a CPU, whose fused attention knows none, and an adapter is small."""
CERTAIN = 20.0
"""Label of the gold passage, 0 of the others: ListNet compares softmaxes, and this one's is 1 to eight digits."""
MOST_GOLD = 4
WRONG_LEADS = 2
"""Passages of a search that are led from though they are no gold ones, per question."""
MOST_NEGATIVES = 8
"""Of the `DEPTH` hits of a search gold ones go off, and lists are drawn from some more than they hold."""
CUTOFFS = (1, 2, 3, 5)
ASKED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """How to train; the questions come from ``[tasks]``."""

    start: str = ""
    """The adapter to go on from, over the same base and of the same rank: ``shipped`` or a folder; empty for none."""
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1e-3
    """Peak; reached after the warm-up, then falling to 0 in a line."""
    warmup: float = 0.06
    """Share of the steps."""
    batch: int = 16
    """Lists per step."""
    negatives: int = 3
    """Of each list."""
    epochs: float = 1.0
    chains: bool = True
    """Whether lists go on from a passage too, for questions with several gold ones."""
    checkpoint_every: int = 50
    """Steps."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "batch", "negatives", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reranker: expected {name} of at least 1; found {getattr(self, name)}")
        if self.negatives > MOST_NEGATIVES:
            raise ConfigError(f"reranker: expected negatives of at most {MOST_NEGATIVES}; found {self.negatives}")
        if not 0 < self.epochs < math.inf or not 0 < self.learning_rate < math.inf or not 0 <= self.warmup < 1:
            found = f"{self.epochs}, {self.learning_rate} and {self.warmup}"
            raise ConfigError(f"reranker: expected epochs and learning_rate over 0, warmup from 0 to 1; found {found}")


@dataclass(frozen=True, slots=True)
class Ranking:
    """One list to learn from."""

    query: str
    gold: Passage
    others: tuple[Passage, ...]


def rankings(tasks: Sequence[Task], store: Retriever, spec: RerankerSpec, seed: int) -> list[Ranking]:
    """The lists of all tasks that mark gold passages of the store; one with too few others to tell apart gives none."""
    rng = random.Random(f"reranker:{seed}")
    asked = [(task, task.question) for task in tasks if task.supporting]
    made: list[Ranking] = []
    leads: list[tuple[Task, Passage, list[Passage], list[Passage]]] = []
    for (task, query), found in zip(asked, _found(store, asked), strict=True):
        gold = _gold(task, store, found)
        others = [p for p in found if _is_other(task, gold, p)]
        made += _lists(query, gold, others[: 4 * spec.negatives], spec, rng)
        if spec.chains and (task.hops or len(gold)) > 1:
            wrong = rng.sample(others[: 2 * WRONG_LEADS], min(WRONG_LEADS, len(others)))
            leads += [(task, lead, gold, others) for lead in [*(gold if _all(task) else ()), *wrong]]
    further_on = [(task, further(task.question, lead)) for task, lead, _, _ in leads]
    for (task, lead, gold, first), (_, query), found in zip(leads, further_on, _found(store, further_on), strict=True):
        gold = _gold(task, store, found, gold)
        wanted = [p for p in gold if p.doc_id != lead.doc_id]
        others = [p for p in found if _is_other(task, gold, p)][: 3 * spec.negatives] + first[: 2 * spec.negatives]
        others = list({p.id: p for p in others if p.doc_id != lead.doc_id}.values())
        chosen = wanted[:2] if lead.doc_id in task.supporting else wanted and [rng.choice(wanted)]
        made += _lists(query, chosen, others, spec, rng)
    return made


def _found(store: Retriever, asked: Sequence[tuple[Task, str]]) -> Iterator[list[Passage]]:
    """What a search finds for each query, within what its task may search."""
    for start in range(0, len(asked), ASKED_AT_ONCE):
        part = asked[start : start + ASKED_AT_ONCE]
        found: dict[int, list[Passage]] = {}
        for where in {repr(task.where): task.where for task, _ in part}.values():
            same = [n for n, (task, _) in enumerate(part) if task.where == where]
            hits = store.search([part[n][1] for n in same], DEPTH, where)
            found |= {n: [hit.passage for hit in ranked] for n, ranked in zip(same, hits, strict=True)}
        yield from (found[n] for n in range(len(part)))


def _gold(task: Task, store: Retriever, found: Sequence[Passage], known: Sequence[Passage] = ()) -> list[Passage]:
    """A passage of each gold document: the ``known`` one, of several the first that a search finds, or the whole."""
    gold: dict[str, Passage] = {}
    for passage in (*known, *found):
        if passage.doc_id in task.supporting:
            gold.setdefault(passage.doc_id, passage)
    for doc_id in task.supporting:
        if doc_id not in gold and len(gold) < MOST_GOLD:
            with contextlib.suppress(KeyError):  # a document of several passages, none of which was found
                gold |= {p.doc_id: p for p in store.fetch([doc_id])}
    return list(gold.values())[:MOST_GOLD]


def _is_other(task: Task, gold: Sequence[Passage], passage: Passage) -> bool:
    """Whether a passage is surely none to be found: where one gold passage suffices, another that holds the answer may
    be as good."""
    if passage.doc_id in task.supporting or any(passage.text == p.text for p in gold):
        return False
    return _all(task) or not holds(passage, task.answers)


def _all(task: Task) -> bool:
    return task.support_mode == "all"


def _lists(
    query: str, gold: Sequence[Passage], others: Sequence[Passage], spec: RerankerSpec, rng: random.Random
) -> list[Ranking]:
    if len(others) < spec.negatives:
        return []
    return [Ranking(query, passage, tuple(rng.sample(others, spec.negatives))) for passage in gold]


def train(
    spec: RerankerSpec,
    base: str,
    store: Retriever,
    tasks: Sequence[Task],
    dev: Sequence[Task],
    out: Path,
    seed: int,
    *,
    resume: bool = False,
    progress: Progress = print,
    record: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> Path:
    """Train, measure on ``dev`` (``held_out.json``) and give the adapter's folder.

    ``base``: ``minilm``, or the folder or hub id of an encoder.
    A killed run goes on from its newest whole checkpoint. Raises `InputError` where no list can be made or the data has
    changed since, `ModelError` for a base that cannot be adapted, `TrainingError` for a loss that is no number.
    """
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, losses
    from transformers import PrinterCallback, set_seed

    progress(f"searching for {len(tasks)} questions")
    made = rankings(tasks, store, spec, seed)
    if not made:
        marked = sum(bool(task.supporting) for task in tasks)
        raise InputError(
            f"no list could be made of {len(tasks)} tasks, {marked} of them with gold documents marked: each needs one "
            f"in the store and, among the {DEPTH} passages that a search finds, {spec.negatives} others"
        )
    progress(f"{len(made)} lists of {1 + spec.negatives} passages, of {len(tasks)} questions")
    _same(made, out)
    set_seed(seed)
    model = _adapted(base, spec)
    lists = Dataset.from_list(
        [
            {
                "query": one.query,
                "docs": [pair_text(p) for p in (one.gold, *one.others)],
                "labels": [CERTAIN] + [0.0] * len(one.others),
            }
            for one in made
        ]
    )
    trainer = CrossEncoderTrainer(
        model=model, args=_arguments(spec, out, seed), train_dataset=lists,
        loss=losses.ListNetLoss(model, mini_batch_size=1 + spec.negatives),  # one list: its passages are of like length
        callbacks=[_telling(progress, record, out)],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    begun = _newest(out / "checkpoints") if resume else None
    _cut(out / "log.jsonl", int(begun.rpartition("-")[2]) if begun else 0)
    trainer.train(resume_from_checkpoint=begun)
    folder = _save(model, base, out)
    figures = measure(store, CrossEncoder(str(folder)), dev)
    record({"held_out": figures})
    (out / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, found in figures.items():
        progress(f"{name}: " + ", ".join(f"{value:.3f} at {k}" for k, value in found.items() if k != "questions"))
    return folder


def needed() -> None:
    """Raises `ModelError` where what trains a reranker is not installed."""
    if importlib.util.find_spec("datasets") is None:
        raise ModelError("a reranker is trained with datasets: pip install 'sleuth[eval]'")


def _same(made: Sequence[Ranking], out: Path) -> None:
    """The lists of a run that goes on are those that it began with: the data may have changed since."""
    told = hashlib.sha256()
    for one in made:
        told.update("\0".join([one.query, *(pair_text(p) for p in (one.gold, *one.others))]).encode())
    now, file = {"lists": len(made), "sha256": told.hexdigest()}, out / "lists.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else now
    if before != now and (out / "checkpoints").exists():
        raise InputError(f"{out}: was started with other data: expected {before} as in {file.name}, found {now}")
    file.write_text(json.dumps(now) + "\n", encoding="utf-8")


def _adapted(base: str, spec: RerankerSpec) -> Any:
    """The base with an adapter on it: a fresh one, or the one to start from."""
    from peft import LoraConfig

    model = bare(base, config_kwargs=NO_DROPOUT)
    _fits(model, base)
    given = _given(spec, base) if spec.start else None
    model.add_adapter(
        LoraConfig(
            task_type="SEQ_CLS", r=spec.rank, lora_alpha=spec.alpha, target_modules=list(TARGETS),
            exclude_modules=r".*pooler.*", modules_to_save=list(WHOLE),
        )
    )  # fmt: skip
    if given is not None:
        put(model.transformers_model, *given)
    return model


def _given(spec: RerankerSpec, base: str) -> tuple[dict[str, Any], str]:
    """The weights to start from, and what is said of them where they do not fit."""
    folder = SHIPPED if spec.start == "shipped" else Path(spec.start)
    config, state = read_adapter(folder)
    named = config.base_model_name_or_path
    if base_path(named) != base_path(base) and Path(named).resolve() != Path(base).resolve():
        raise ConfigError(f"reranker.start {spec.start}: expected an adapter over {base}; found one over {named}")
    if (config.r, config.lora_alpha) != (spec.rank, spec.alpha):
        found = f"{config.r} and {config.lora_alpha}"
        raise ConfigError(
            f"reranker.start {spec.start}: expected rank {spec.rank} and alpha {spec.alpha}; found {found}"
        )
    inside = {name.removeprefix("base_model.model."): weight for name, weight in state.items()}  # as saved: around it
    return inside, f"adapter {folder} does not fit {base}"


def _fits(model: Any, base: str) -> None:
    names = [name for name, _ in model.named_modules()]
    missing = [part for part in (*TARGETS, *WHOLE) if not any(f".{name}".endswith(f".{part}") for name in names)]
    if missing:
        raise ModelError(f"{base}: expected an encoder with the layers of BERT, found no {', '.join(missing)}")


def _cut(log: Path, step: int) -> None:
    """What was logged behind the checkpoint that a run goes on from is logged again."""
    if log.is_file():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _arguments(spec: RerankerSpec, out: Path, seed: int) -> Any:
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    from sleuth.agents.policy.models import choose_device, choose_dtype

    device = choose_device("auto")
    return CrossEncoderTrainingArguments(
        output_dir=str(out / "checkpoints"), seed=seed, num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch, learning_rate=spec.learning_rate, warmup_steps=spec.warmup,
        bf16="bfloat16" in str(choose_dtype(device)), use_cpu=device == "cpu", dataloader_num_workers=0,
        save_steps=spec.checkpoint_every, save_total_limit=2, logging_steps=10, report_to="none", disable_tqdm=True,
        logging_nan_inf_filter=False,
    )  # fmt: skip


def _telling(progress: Progress, record: Callable[[Mapping[str, Any]], None], out: Path) -> Any:
    """What hands the trainer's figures on, a line each, and appends them to ``log.jsonl``."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if logs and "loss" in logs:
                line = {"step": state.global_step, "loss": float(logs["loss"])}
                if not math.isfinite(line["loss"]):  # before a checkpoint of it is written
                    raise TrainingError(
                        f"step {state.global_step}: the loss is {line['loss']}; checkpoints are as before"
                    )
                with (out / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                record(line)
                progress(f"step {state.global_step}/{state.max_steps}  loss {line['loss']:.3f}")

    return Telling()


def _newest(folder: Path) -> str | None:
    """The newest checkpoint that is whole."""
    found = max(filter(_whole, folder.glob("checkpoint-*")), key=lambda p: int(p.name.rpartition("-")[2]), default=None)
    return str(found) if found else None


def _whole(checkpoint: Path) -> bool:
    """Whether all is there and the state, which is written last, can be read."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() for name in ("rng_state.pth", "optimizer.pt", ADAPTER[1]))


def _save(model: Any, base: str, out: Path) -> Path:
    """The adapter alone, which names its base as the recipe does: where that lies differs from machine to machine."""
    part, folder = out / "adapter.part", out / "adapter"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(str(part), create_model_card=False)
    for path in part.iterdir():
        if path.name not in ADAPTER:
            path.unlink()
    config = json.loads((part / ADAPTER[0]).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = str(Path(base).resolve()) if Path(base).is_dir() else base
    (part / ADAPTER[0]).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return folder


def measure(store: Retriever, scorer: CrossEncoder, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """Share of the gold documents among the first k that a search of the question finds, in its order and in the one of
    both that strategies with ``rerank`` take."""
    marked = [task for task in tasks if task.supporting]
    figures: dict[str, dict[str, float]] = {}
    for name, retriever in (("search", store), ("reranked", Reranked(store, scorer, DEPTH, fused=True))):
        found = list(_found(retriever, [(task, task.question) for task in marked]))
        shares = {
            k: [_share(task, {p.doc_id for p in ranked[:k]}) for task, ranked in zip(marked, found, strict=True)]
            for k in CUTOFFS
        }
        means = {f"recall@{k}": round(sum(values) / len(values), 4) for k, values in shares.items() if values}
        figures[name] = {"questions": float(len(marked)), **means}
    return figures


def _share(task: Task, found: set[str]) -> float:
    held = found.intersection(task.supporting)
    return float(bool(held)) if task.support_mode == "any" else len(held) / len(task.supporting)
