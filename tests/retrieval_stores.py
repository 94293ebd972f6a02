"""Small stores for tests: an embedder that hashes words instead of a model, and documents about a few themes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora.records import Document


@dataclass(frozen=True)
class HashEmbedder:
    """Texts that share words have close vectors."""

    revision: str = "r1"
    name: str = "hash"
    dims: int = 64

    def encode(
        self, texts: Sequence[str], batch_size: int = 32, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        vectors = np.full((len(texts), self.dims), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.strip(".,?").encode()) % self.dims] += 1
        if progress is not None:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        return self.encode(queries)


def use_hash_embedder(monkeypatch: pytest.MonkeyPatch, revision: str = "r1") -> None:
    for module in ("build", "store"):
        monkeypatch.setattr(f"sleuth.retrieval.{module}.embedder", lambda spec, device: HashEmbedder(revision))


THEMES = ("river mill", "castle siege", "violin concerto", "desert fox", "steam engine")


def corpus(count: int = 20) -> list[Document]:
    """Documents d000.. about one theme each; every seventh is long enough for several passages."""
    documents = []
    for n in range(count):
        theme = THEMES[n % len(THEMES)]
        text = f"The {theme} number {n} stands in town{n}. Nobody knows its année {n * 37}."
        if n % 7 == 6:
            text = " ".join(f"Part {part} of the {theme} number {n} is told here at length." for part in range(40))
        documents.append(
            Document(f"d{n:03d}", text, title=f"Story {n}", source="left" if n % 2 else "right", date=str(1900 + n),
                     lang="en", url=f"https://example.org/{n}", metadata={"year": 1900 + n, "theme": theme.split()[0]})
        )  # fmt: skip
    return documents


def files(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())
