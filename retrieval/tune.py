"""Tuning an embedder to a corpus: queries are cropped from its own passages, hard negatives mined by its own search.

Titles and headings ask for what stands under them, a sentence for the passage it was cut from (the inverse cloze task,
Lee et al. 2019, arXiv 1906.00300), and questions, where there are some, for the passages that answer them. Documents
that are held out of training show before and after, each query against every passage.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.corpora.records import Document, Passage
from sleuth.corpora.text import sentences
from sleuth.retrieval import derived
from sleuth.retrieval.build import Progress
from sleuth.retrieval.embed import SentenceEmbedder, _minilm_folder
from sleuth.retrieval.job import indexed_text
from sleuth.retrieval.store import Datastore

WORK = ".work"
"""Ends the name of the folder beside the model's that holds its record and, until it is done, checkpoints."""
RECORD, CHECKPOINTS = "tuned.json", "checkpoints"
MAX_POOL = 20_000
"""Passages that queries are measured against: all of a smaller store; of a larger, drawn ones and the right ones."""
DEPTH = 100
"""Of the rankings that are measured."""
MIN_WORDS = 5
"""Of a sentence that is a query, and of what is left of its passage."""
KEPT = 0.1
"""Share of sentences that stay in their passage, so that words that match go on to count."""
SKIPPED = 1
"""Best hits that are no negatives, as often as not they answer too."""
_HEADING = re.compile(r"(?:#{1,6} )?([^\n.!?]{3,80})\n")


@dataclass(frozen=True, slots=True)
class TuneSpec:
    """What decides the tuned model; the same on the same store gives the same examples, and on one machine the same
    model."""

    base: str = "minilm"
    """``minilm``, or the folder or id of a sentence-transformers model."""
    examples: int = 4_000
    """Most that are trained on."""
    negatives: int = 1
    """Hard ones of each, beside the others of a batch."""
    epochs: float = 1.0
    batch: int = 32
    rate: float = 2e-5
    max_tokens: int = 160
    """Of a text while training; the saved model reads as many as its base."""
    held_out: float = 0.1
    """Share of the documents whose queries are measured and never trained on."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A query and what it should find."""

    kind: str
    """``title``, ``heading``, ``sentence`` or ``question``."""
    query: str
    passage_id: str
    doc_id: str
    text: str
    """The passage as a model reads it here: without the words that became the query."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One query's rankings of documents, best first."""

    query: str
    kind: str
    gold: frozenset[str]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tuned:
    folder: str
    """What ``--embedder`` takes."""
    trained: dict[str, int]
    """Examples by kind."""
    held_out: tuple[Measured, ...]
    test: tuple[Measured, ...]
    """Of questions that were given for this alone."""


def tune(
    store: Datastore, out: str | Path, spec: TuneSpec, questions: Sequence[Mapping[str, Any]] = (),
    test: Sequence[Mapping[str, Any]] = (), progress: Progress | None = None, resume: bool = False,
) -> Tuned:  # fmt: skip
    """Train, save to ``out``, and measure before and after; with ``resume`` a run that was stopped goes on.

    ``questions`` and ``test`` are rows with ``question`` and ``passage_id`` or ``supporting`` (documents): the former
    join the corpus's own examples, the latter are only measured. Raises `InputError` for a corpus that gives no
    example, `ConfigError` where ``out`` holds something else, `ModelError` where the base cannot be trained.
    """
    out, tell = Path(out), progress or (lambda stage, done, total: None)
    record = {"spec": asdict(spec), "store": store.fingerprint, "questions": len(questions)}
    work = _claim(out, record, resume)
    found = list(_examples(store, spec, questions))
    held = [example for example in found if _is_held(example.doc_id, spec)]
    trained = _drawn([example for example in found if not _is_held(example.doc_id, spec)], spec)
    if not trained or not held:
        raise InputError(
            f"{store.path}: expected examples to train on and to hold out, found {len(trained)} and {len(held)}; "
            "documents want titles or several sentences"
        )
    folder = str(_minilm_folder()) if spec.base == "minilm" else str(SentenceEmbedder(spec.base).folder())
    if not out.exists():
        _train(folder, _mined(store, trained, spec, tell), work, spec, store.device, tell)
        (work / "model").replace(out)
        shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    asked = _drawn(held, spec, most=1_000)
    tests = [(str(row["question"]), _gold(store, row)) for row in test]
    runs = [_ranked(store, SentenceEmbedder(name, store.device), asked, [q for q, _ in tests], tell)
            for name in (folder, str(out))]  # fmt: skip
    measured = [Measured(example.query, example.kind, frozenset([example.doc_id]), before, after)
                for example, before, after in zip(asked, runs[0][0], runs[1][0], strict=True)]  # fmt: skip
    tested = [Measured(query, "question", gold, before, after)
              for (query, gold), before, after in zip(tests, runs[0][1], runs[1][1], strict=True)]  # fmt: skip
    return Tuned(str(out), dict(Counter(example.kind for example in trained)), tuple(measured), tuple(tested))


def _claim(out: Path, record: Mapping[str, Any], resume: bool) -> Path:
    """The work folder of a run that is new, or of the same record and to go on."""
    work = out.with_name(out.name + WORK)
    started = work / RECORD
    if started.is_file() and resume:
        known = json.loads(started.read_text(encoding="utf-8"))
        if known != record:
            raise ConfigError(f"{work}: a run of {known} is there, but this one is {record}; use another folder")
    elif out.exists() or started.exists():
        raise ConfigError(
            f"{out}: expected nothing there or in {work}, or --resume; found an earlier run or other files"
        )
    work.mkdir(parents=True, exist_ok=True)
    started.write_text(json.dumps(record), encoding="utf-8")
    return work


def _examples(store: Datastore, spec: TuneSpec, questions: Sequence[Mapping[str, Any]]) -> Iterator[Example]:
    """All of a corpus, in store order, then the questions."""
    draw = random.Random(spec.seed)
    for document, passages in derived.documents(store):
        for number, passage in enumerate(passages):
            yield from _cropped(document, passage, number == 0, draw)
    for row in questions:
        for id_ in sorted(_gold_passages(store, row)):
            (passage,) = store.fetch([id_])
            yield Example("question", str(row["question"]), id_, passage.doc_id, indexed_text(passage))


def _cropped(document: Document, passage: Passage, first: bool, draw: random.Random) -> Iterator[Example]:
    if first and document.title and len(passage.text.split()) >= MIN_WORDS:
        yield Example("title", document.title, passage.id, document.id, passage.text)
    head = _HEADING.match(passage.text)
    rest = passage.text[head.end() :].strip() if head else ""
    if head and len(rest.split()) >= MIN_WORDS:
        yield Example("heading", head[1].strip(), passage.id, document.id, rest)
    spans = [span for span in sentences(passage.text) if len(passage.text[slice(*span)].split()) >= MIN_WORDS]
    if len(spans) > 1:
        start, end = spans[draw.randrange(len(spans))]
        keep = draw.random() < KEPT
        left = passage.text if keep else f"{passage.text[:start]} {passage.text[end:]}"
        text = f"{passage.title}\n{' '.join(left.split())}" if passage.title else " ".join(left.split())
        yield Example("sentence", passage.text[start:end], passage.id, document.id, text)


def _gold_passages(store: Datastore, row: Mapping[str, Any]) -> set[str]:
    """Passages that answer a question: the one that is named, or the first of each supporting document."""
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise InputError(f"questions: expected a question, found {str(row)[:80]}")
    ids = [row["passage_id"]] if "passage_id" in row else row.get("supporting")
    if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) for id_ in ids):
        raise InputError(f"questions: expected passage_id or supporting, found {str(row)[:80]}")
    found: set[str] = set()
    for id_ in ids:
        for name in (id_, f"{id_}#0"):
            try:
                found.update(passage.id for passage in store.fetch([name]))
                break
            except KeyError:
                continue
        else:
            raise InputError(f"questions: {id_!r} of {row['question'][:60]!r} is not in {store.path}")
    return found


def _gold(store: Datastore, row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(passage.doc_id for passage in store.fetch(sorted(_gold_passages(store, row))))


def _is_held(doc_id: str, spec: TuneSpec) -> bool:
    return xxhash.xxh3_64_intdigest(doc_id.encode(), seed=spec.seed) % 10_000 < spec.held_out * 10_000


def _drawn(examples: Sequence[Example], spec: TuneSpec, most: int = 0) -> list[Example]:
    """At most so many, all kinds alike as far as there are enough of each."""
    most = most or spec.examples
    kinds: dict[str, list[Example]] = {}
    for example in examples:
        kinds.setdefault(example.kind, []).append(example)
    draw = random.Random(spec.seed)
    found: list[Example] = []
    for left, own in enumerate(sorted(kinds.values(), key=len)):
        share = (most - len(found)) // (len(kinds) - left)
        found += draw.sample(own, min(share, len(own)))
    draw.shuffle(found)
    return found


def _mined(store: Datastore, examples: Sequence[Example], spec: TuneSpec, tell: Progress) -> list[dict[str, str]]:
    """Query, passage and negatives, as columns: well-ranked passages of other documents, by words."""
    rows = []
    for start in range(0, len(examples), 64):
        part = examples[start : start + 64]
        found = store.search([example.query for example in part], 10 + spec.negatives, mode="bm25")
        for example, hits in zip(part, found, strict=True):
            others = [hit.passage for hit in hits if hit.passage.doc_id != example.doc_id][SKIPPED:]
            if len(others) >= spec.negatives:
                wrong = {f"negative_{n}": indexed_text(others[n]) for n in range(spec.negatives)}
                rows.append({"anchor": example.query, "positive": example.text, **wrong})
        tell("mine", start + len(part), len(examples))
    if len(rows) < spec.batch:
        raise InputError(f"{store.path}: expected at least {spec.batch} examples with negatives, found {len(rows)}")
    return rows


def _train(
    folder: str, rows: Sequence[dict[str, str]], work: Path, spec: TuneSpec, device: str, tell: Progress
) -> None:
    """The tuned model, in the folder ``model`` of ``work``; from the last checkpoint that is there."""
    try:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
        from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        from transformers import TrainerCallback
    except ImportError as error:
        raise ModelError(f"tuning needs datasets and accelerate: pip install 'sleuth[eval]' ({error})") from error

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kept: Any) -> None:
            tell("train", state.global_step, state.max_steps)

    try:
        model = SentenceTransformer(
            folder, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: cannot be loaded to be tuned: {error}") from error
    reads, model.max_seq_length = model.max_seq_length, min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
    steps = int(-(-len(rows) // spec.batch) * spec.epochs)
    arguments = Arguments(
        output_dir=str(work / CHECKPOINTS), num_train_epochs=spec.epochs, per_device_train_batch_size=spec.batch,
        learning_rate=spec.rate, warmup_steps=max(1, steps // 10), seed=spec.seed, data_seed=spec.seed,
        use_cpu=device == "cpu", save_steps=max(1, steps // 10), save_total_limit=1, report_to="none",
        disable_tqdm=True, logging_strategy="no", batch_sampler="no_duplicates", save_only_model=False,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model, arguments, Dataset.from_list(list(rows)), loss=MultipleNegativesRankingLoss(model), callbacks=[Told()]
    )
    there = sorted((work / CHECKPOINTS).glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    trainer.train(resume_from_checkpoint=str(there[-1]) if there else None)
    model.max_seq_length = reads
    model.save(str(work / "model"), create_model_card=False)


def _ranked(
    store: Datastore, model: SentenceEmbedder, asked: Sequence[Example], questions: Sequence[str], tell: Progress
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Documents by exact comparison with every passage; a held-out one stands there as it was cropped."""
    ids, owners, texts = _pool(store, {example.passage_id for example in asked})
    told = model.encode(texts, progress=lambda done: tell("measure", done, len(texts)))  # (P, D)
    own = model.encode([example.text for example in asked])  # (A, D)
    place = {id_: n for n, id_ in enumerate(ids)}
    rankings = []
    vectors = model.encode_queries([example.query for example in asked])
    for example, vector, cropped in zip(asked, vectors, own, strict=True):
        scores = told @ vector
        scores[place[example.passage_id]] = cropped @ vector
        rankings.append(_documents(scores, owners))
    return rankings, [_documents(told @ vector, owners) for vector in model.encode_queries(list(questions))]


def _pool(store: Datastore, needed: set[str]) -> tuple[list[str], list[str], list[str]]:
    """Ids, documents and texts of what is searched."""
    total = len(store)
    kept = set(derived.evenly(total, MAX_POOL))
    passages = (passage for _, own in derived.documents(store) for passage in own)
    chosen = [passage for n, passage in enumerate(passages) if n in kept or passage.id in needed]
    return [p.id for p in chosen], [p.doc_id for p in chosen], [indexed_text(p) for p in chosen]


def _documents(scores: np.ndarray, owners: Sequence[str]) -> tuple[str, ...]:
    best = np.argsort(-scores, kind="stable")[: 4 * DEPTH]
    return tuple(dict.fromkeys(owners[n] for n in best))[:DEPTH]
