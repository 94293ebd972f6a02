"""A reranker reads the first hits again, more closely, and puts them in a new order; it wraps any retriever.

What scores is a value: a cross-encoder (`CrossEncoder`: a model of sentence-transformers, or a small adapter over one),
or any function of a query and its passages (a policy with a rubric, say). Time and tokens are bounded: what the budget
does not reach keeps its place behind what it does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval.embed import _minilm_folder, _revision
from sleuth.retrieval.fuse import reciprocal_rank
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.sharded import Hits

Scorer: TypeAlias = "Callable[[str, Sequence[Passage]], Sequence[float]]"
"""``scorer(query, passages)`` gives a number a passage, higher is better; called with a batch at a time."""
SHIPPED = Path(__file__).parent / "rerankers" / "shipped"
"""The adapter that ``shipped`` names: over the embedded MiniLM, trained to find the passages of a chain."""
DEPTH = 20
"""Hits of a search that a strategy with ``rerank`` has read again."""
MAX_TOKENS = 256
"""Of a query and a passage together, as an adapter is trained; what is longer is cut at the end of the longer one."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of a PEFT adapter."""
CHARS_PER_TOKEN = 4
"""For budgets; a scorer that knows better cuts for itself."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """A retriever whose first ``depth`` hits are scored again, best first."""

    retriever: Retriever
    scorer: Scorer
    depth: int = 50
    """Hits that are asked for and scored."""
    seconds: float | None = None
    """Of one query; looked at between batches, and None sets no bound."""
    tokens: int | None = None
    """Of one query: the texts of query and passage, about `CHARS_PER_TOKEN` characters each; None sets no bound."""
    batch: int = 16
    fused: bool = False
    """Whether what was scored is ordered by its reciprocal ranks in the search and by the scorer, which keeps what one
    of them alone sees (Cormack et al. 2009); otherwise by the scorer alone."""
    name: str = "reranked"

    def __post_init__(self) -> None:
        for field_name, least in (("depth", 1), ("batch", 1), ("tokens", 1), ("seconds", 0)):
            value = getattr(self, field_name)
            if value is not None and not value >= least:
                raise ConfigError(f"rerank: expected {field_name} of at least {least}, found {value!r}")

    @property
    def fingerprint(self) -> str:
        """Of what is searched: ranking anew changes no passage."""
        return self.retriever.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """As of any retriever; scores are the scorer's for what it reached, and fall below them for what it did not.

        Where the retriever below did not look, stands in the result's ``missing``.
        """
        found = self.retriever.search(queries, max(k, self.depth), where)
        ranked = [self._ranked(query, hits)[:k] for query, hits in zip(queries, found, strict=True)]
        return Hits(ranked, getattr(found, "missing", ()))

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.retriever.fetch(passage_ids)

    def _ranked(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        scores = self._scores(query, [hit.passage for hit in hits[: self.depth]])
        if self.fused:
            places = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
            fused = dict(reciprocal_rank([range(len(scores)), places]))
            scores = [fused[n] for n in range(len(scores))]
        order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
        floor = min(scores, default=0.0)
        ranked = [replace(hits[n], score=scores[n]) for n in order]
        ranked += [replace(hit, score=floor - n) for n, hit in enumerate(hits[len(scores) :], start=1)]
        return [replace(hit, rank=rank, retriever=self.name) for rank, hit in enumerate(ranked, start=1)]

    def _scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """Of as many as the budget reaches, in order."""
        started, left = time.monotonic(), math.inf if self.tokens is None else self.tokens
        scores: list[float] = []
        while len(scores) < len(passages):
            part: list[Passage] = []
            for passage in passages[len(scores) : len(scores) + self.batch]:
                left -= math.ceil((len(query) + len(passage.title) + len(passage.text)) / CHARS_PER_TOKEN)
                if left < 0:
                    break
                part.append(passage)
            if not part or (self.seconds is not None and time.monotonic() - started >= self.seconds):
                break
            scores += self._checked(part, self.scorer(query, part))
            if left < 0:
                break
        return scores

    def _checked(self, passages: Sequence[Passage], scores: Sequence[float]) -> list[float]:
        numbers = [float(score) for score in scores]
        if len(numbers) != len(passages):
            raise ModelError(f"reranker {self.name!r}: expected {len(passages)} scores, found {len(numbers)}")
        for passage, number in zip(passages, numbers, strict=True):
            if not math.isfinite(number):
                raise ModelError(f"reranker {self.name!r}: expected a finite score for {passage.id!r}, found {number}")
        return numbers


def pair_text(passage: Passage) -> str:
    """A passage as a cross-encoder reads it beside a query, and as one is trained to: ``title. text``, one line."""
    return f"{passage.title}. {passage.text}" if passage.title else passage.text


def reranker(spec: str = "shipped", device: str | None = None) -> CrossEncoder:
    """The cross-encoder that ``spec`` names, one in the process; nothing is read or loaded before it is asked."""
    with _ASKING:
        return _reranker(spec, device)


@functools.cache
def _reranker(spec: str, device: str | None) -> CrossEncoder:
    return CrossEncoder(spec, device)


_ASKING = threading.Lock()
"""Two threads that ask first would each load one."""


@dataclass(slots=True)
class CrossEncoder:
    """A `Scorer`: a cross-encoder of sentence-transformers, loaded when first asked; for any number of threads.

    Scores are float32: in bfloat16 neighbours change places. A folder asks no network. What cannot be loaded, or gives
    more than one score a pair, raises `ModelError`.
    """

    spec: str
    """``shipped``, a folder with a model or with a LoRA adapter of PEFT, or the id of a model on the hub."""
    device: str | None = None
    """Of torch; None is a GPU where there is one, as sentence-transformers finds it."""
    batch: int = 8
    """Pairs read together, those of about one length: little is padded, and a score depends on the others by rounding
    alone."""
    keep: int = 4096
    """Lists whose scores are remembered: a question that is asked again, of another seed or in another step of a
    training, is not read again. The same list has the same scores, remembered or not."""
    _kept: OrderedDict[bytes, list[float]] = field(default_factory=OrderedDict, repr=False)
    _loaded: Any = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[float]:
        if not passages:
            return []
        pairs = [(query, pair_text(passage)) for passage in passages]
        key = hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).digest()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._read(pairs)
            self._kept.move_to_end(key)
            if len(self._kept) > self.keep:
                self._kept.popitem(last=False)
            return list(self._kept[key])

    def _read(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        found = self._model().predict(pairs, batch_size=self.batch, show_progress_bar=False)
        if found.ndim != 1:
            raise ModelError(
                f"cross-encoder {self.spec!r}: expected one score a pair, found an output of shape {found.shape}"
            )
        return list(map(float, found))

    @property
    def name(self) -> str:
        """The spec and, of a folder, a hash of its files (``shipped@0123456789abcdef``); reads no weights into a model.

        Raises `ModelError` where ``shipped`` is not there.
        """
        folder = self._folder()
        return self.spec if folder is None else f"{self.spec}@{_revision(folder)}"

    def load(self) -> None:
        """Load it now, so that `ModelError` comes before a run and not in each of its searches."""
        self._folder()
        with self._lock:
            self._model()

    def _folder(self) -> Path | None:
        """Where the files are; None for an id of the hub."""
        if self.spec != "shipped":
            return Path(self.spec) if Path(self.spec).is_dir() else None
        if not SHIPPED.is_dir():
            raise ModelError(f"reranker 'shipped': this installation has none, {SHIPPED} is missing; name another")
        return SHIPPED

    def _model(self) -> Any:
        if self._loaded is None:
            folder = self._folder()
            if folder is None:
                self._loaded = _load(self.spec, self.device)
            elif (folder / ADAPTER[0]).is_file():
                self._loaded = self._adapted(folder)
            elif (folder / "config.json").is_file():
                self._loaded = _load(str(folder), self.device, local_files_only=True)
            else:
                found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
                raise ModelError(f"cross-encoder {folder}: expected config.json or {ADAPTER[0]}, found {found}")
        return self._loaded

    def _adapted(self, folder: Path) -> Any:
        """The model of an adapter, with the adapter's weights merged into its own."""
        import torch

        config, state = read_adapter(folder)
        base = str(config.base_model_name_or_path)
        model = bare(base, self.device)
        config.base_model_name_or_path = base_path(base)  # as peft would set it, with a warning
        with torch.no_grad():
            _merge(model, config, state, folder)
        return model.eval()


def bare(base: str, device: str | None = None, **options: Any) -> Any:
    """The encoder that an adapter is put on (`base_path`), as a cross-encoder of one score that is not trained yet.

    ``options`` go to sentence-transformers. Raises `ModelError` where it cannot be loaded; a folder asks no network.
    """
    path = base_path(base)
    here = {"local_files_only": True} if Path(path).is_dir() else {}
    with fresh_head():
        return _load(path, device, num_labels=1, max_length=MAX_TOKENS, **here, **options)


def _load(spec: str, device: str | None, **options: Any) -> Any:
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder as Model

    try:
        return Model(spec, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # no file, no model, another head, damage
        raise ModelError(f"cross-encoder {spec!r} cannot be loaded: {error}") from error


def base_path(named: str) -> str:
    """Folder or hub id of the encoder that an adapter names; ``minilm`` is the embedded one, wherever it lies."""
    return str(_minilm_folder()) if named == "minilm" else named


def read_adapter(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Configuration (of peft) and weights of a LoRA adapter; `ModelError` says what is missing or damaged."""
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in ADAPTER:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: not a LoRA adapter, {name} is missing")
    try:
        said = json.loads((folder / ADAPTER[0]).read_text(encoding="utf-8"))
        kind, base = said["peft_type"], said["base_model_name_or_path"]
        config = LoraConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ADAPTER[0]}: expected the configuration of an adapter: {error!r}") from error
    if kind != "LORA" or not isinstance(base, str) or not base:
        raise ModelError(f"{folder}: expected peft_type LORA over a named model, found {kind!r} over {base!r}")
    try:
        return config, load_file(folder / ADAPTER[1])
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / ADAPTER[1]} is damaged: {error}") from error


def _merge(model: Any, config: Any, state: dict[str, Any], folder: Path) -> None:
    """Put the adapter into ``model``; every weight must have its place, and a head that the base lacks must be among
    them: it would be random."""
    misfit = f"adapter {folder} does not fit {config.base_model_name_or_path}"
    inner = model.transformers_model
    head = [name for name, _ in inner.named_parameters() if not name.startswith(f"{inner.base_model_prefix}.")]
    headless = not any("Classification" in name for name in inner.config.architectures or ())
    try:
        adapted = with_adapter(inner, config)
    except ValueError as error:
        raise ModelError(f"{misfit}: {error}") from error
    untrained = [name for name in head if f"base_model.model.{name}" not in state]
    put(adapted, state, misfit)
    if headless and untrained:
        raise ModelError(f"adapter {folder}: expected its head {', '.join(untrained)} in modules_to_save, found none")
    adapted.merge_and_unload()


def with_adapter(model: Any, config: Any) -> Any:
    """``model`` in peft with a fresh adapter, without the warning that peft's own use of transformers draws."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def put(adapted: Any, state: dict[str, Any], misfit: str) -> None:
    """Set the weights of a model's adapter; each must have its place and its shape, or `ModelError` begins with
    ``misfit``."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    expected = {name: tuple(weight.shape) for name, weight in wanted.items()}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            there, here = (shapes.get(name, "no such weight") for shapes in (found, expected))
            raise ModelError(f"{misfit}: {name}: expected {here}, found {there}")
    set_peft_model_state_dict(adapted, state)


@contextlib.contextmanager
def fresh_head() -> Iterator[None]:
    """What is said of loading a base without a head is left out: an adapter brings one, or is refused."""
    from transformers.utils import logging as transformers_logging

    def kept(record: logging.LogRecord) -> bool:
        return " LOAD REPORT" not in record.getMessage() and "Converting SentenceTransformer" not in record.getMessage()

    loggers = [logging.getLogger(name) for name in ("transformers.modeling_utils", "sentence_transformers.base.model")]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.addFilter(kept)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(kept)
        if bars:
            transformers_logging.enable_progress_bar()
