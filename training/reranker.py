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

import json
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
from sleuth.retrieval.rerank import ADAPTER, DEPTH, MAX_TOKENS, CrossEncoder, Reranked, base_path, fresh_head, pair_text
from sleuth.training.hops import holds

Progress = Callable[[str], None]
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
"""The linear layers of BERT's encoder; what pools and what scores are trained whole."""
WHOLE = ("pooler", "classifier")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""With it a forward pass takes three times as long on a CPU, whose fused attention knows none; an adapter is small."""
CERTAIN = 20.0
"""Label of the gold passage, 0 of the others: ListNet compares softmaxes, and this one's is 1 to eight digits."""
MOST_GOLD = 4
WRONG_LEADS = 2
"""Passages of a search that are led from though they are no gold ones, per question."""
CUTOFFS = (1, 2, 3, 5)
ASKED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """How to train; the questions come from ``[tasks]``."""

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
        if not self.epochs > 0 or not self.learning_rate > 0 or not 0 <= self.warmup < 1:
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
        if spec.chains and gold and (task.hops or len(gold)) > 1:
            wrong = rng.sample(others[: 2 * WRONG_LEADS], min(WRONG_LEADS, len(others)))
            leads += [(task, lead, gold, others) for lead in [*(gold if _all(task) else ()), *wrong]]
    further_on = [(task, further(task.question, lead)) for task, lead, _, _ in leads]
    for (task, lead, gold, first), (_, query), found in zip(leads, further_on, _found(store, further_on), strict=True):
        wanted = [p for p in gold if p.id != lead.id]
        others = [p for p in found if _is_other(task, gold, p)][: 3 * spec.negatives] + first[: 2 * spec.negatives]
        others = list({p.id: p for p in others if p.id != lead.id}.values())
        chosen = wanted[:2] if lead in gold else [rng.choice(wanted)]
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


def _gold(task: Task, store: Retriever, found: Sequence[Passage]) -> list[Passage]:
    """The gold passages: where a document is several, those of it that a search of the question finds."""
    gold = [p for p in found if p.doc_id in task.supporting]
    for doc_id in task.supporting:
        if all(p.doc_id != doc_id for p in gold):
            try:
                gold += store.fetch([doc_id])
            except KeyError:
                continue
    return gold[:MOST_GOLD]


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
    A killed run goes on from its newest whole checkpoint.
    """
    try:
        from datasets import Dataset
        from peft import LoraConfig
        from sentence_transformers import CrossEncoder as Model
        from sentence_transformers.cross_encoder import CrossEncoderTrainer, losses
        from transformers import PrinterCallback
    except ImportError as error:
        raise ModelError(f"a reranker is trained with datasets: pip install 'sleuth[eval]' ({error})") from error

    progress(f"searching for {len(tasks)} questions")
    made = rankings(tasks, store, spec, seed)
    if not made:
        raise InputError(f"no list could be made of {len(tasks)} tasks: they need gold passages of the store, marked")
    progress(f"{len(made)} lists of {1 + spec.negatives} passages, of {len(tasks)} questions")
    _seeded(seed)
    adapter = LoraConfig(
        task_type="SEQ_CLS", r=spec.rank, lora_alpha=spec.alpha, target_modules=list(TARGETS),
        exclude_modules=r".*pooler.*", modules_to_save=list(WHOLE),
    )  # fmt: skip
    try:
        with fresh_head():
            model = Model(
                base_path(base), num_labels=1, max_length=MAX_TOKENS, trust_remote_code=False, config_kwargs=NO_DROPOUT
            )
        model.add_adapter(adapter)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{base}: expected an encoder with the layers of BERT, to put an adapter on: {error}"
        ) from error
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
    trainer.train(resume_from_checkpoint=_newest(out / "checkpoints") if resume else None)
    folder = _save(model, base, out)
    figures = measure(store, CrossEncoder(str(folder)), dev)
    record({"held_out": figures})
    (out / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, found in figures.items():
        progress(f"{name}: " + ", ".join(f"{value:.3f} at {k}" for k, value in found.items() if k != "questions"))
    return folder


def _seeded(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)


def _arguments(spec: RerankerSpec, out: Path, seed: int) -> Any:
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    from sleuth.agents.policy.models import choose_device, choose_dtype

    device = choose_device("auto")
    return CrossEncoderTrainingArguments(
        output_dir=str(out / "checkpoints"), seed=seed, num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch, learning_rate=spec.learning_rate, warmup_steps=spec.warmup,
        bf16="bfloat16" in str(choose_dtype(device)), use_cpu=device == "cpu", dataloader_num_workers=0,
        save_steps=spec.checkpoint_every, save_total_limit=2, logging_steps=10, report_to="none", disable_tqdm=True,
    )  # fmt: skip


def _telling(progress: Progress, record: Callable[[Mapping[str, Any]], None], out: Path) -> Any:
    """What hands the trainer's figures on, a line each, and appends them to ``log.jsonl``."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if logs and "loss" in logs:
                line = {"step": state.global_step, "loss": float(logs["loss"])}
                with (out / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                record(line)
                progress(f"step {state.global_step}/{state.max_steps}  loss {line['loss']:.3f}")

    return Telling()


def _newest(folder: Path) -> str | None:
    """The newest checkpoint that is whole: its state is written last but for that of the random numbers."""
    parts = ("trainer_state.json", "rng_state.pth", "optimizer.pt")
    whole = [path for path in folder.glob("checkpoint-*") if all((path / name).is_file() for name in parts)]
    found = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return str(found) if found else None


def _save(model: Any, base: str, out: Path) -> Path:
    """The adapter alone, which names its base as the recipe does: where that lies differs from machine to machine."""
    part, folder = out / "adapter.part", out / "adapter"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(str(part), create_model_card=False)
    for path in part.iterdir():
        if path.name not in ADAPTER:
            path.unlink()
    config = json.loads((part / ADAPTER[0]).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    (part / ADAPTER[0]).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return folder


def measure(store: Retriever, scorer: CrossEncoder, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """Share of the gold documents among the first k that a search of the question finds, in its order and reranked."""
    marked = [task for task in tasks if task.supporting]
    figures: dict[str, dict[str, float]] = {}
    for name, retriever in (("search", store), ("reranked", Reranked(store, scorer, DEPTH))):
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
