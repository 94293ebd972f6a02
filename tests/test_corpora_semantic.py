"""Semantic duplicates: found by meaning where shingles differ, by comparison with all and within clusters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleuth.corpora import corpus, semantic
from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.recipe import load
from sleuth.corpora.records import Document, Drop
from sleuth.retrieval.embed import embedder

FIRST = "The lighthouse keeper wrote down every ship that passed the harbour in the winter of 1911."
AGAIN = "In the winter of 1911 every ship that passed the harbour was written down by the lighthouse keeper."
OTHER = "Bread rises because yeast turns sugar into carbon dioxide, which the dough holds."


class Vectors:
    """Texts are numbers of rows of a matrix."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.dims = rows, rows.shape[1]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.rows[[int(text) for text in texts]]


def documents(count: int) -> list[Document]:
    return [Document(f"d{n}", str(n)) for n in range(count)]


def run(model: Any, given: Sequence[Document], threshold: float = 0.95) -> tuple[list[str], list[Drop]]:
    drops: list[Drop] = []
    kept = semantic.semantic_duplicates(given, model, threshold, drops.append)
    return [document.id for document in kept], drops


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_another_wording_is_dropped_with_what_it_repeats_and_another_matter_stays() -> None:
    given = [Document(name, text) for name, text in (("a", FIRST), ("b", OTHER), ("c", AGAIN), ("d", ""))]
    kept, drops = run(embedder("static"), given, 0.9)
    assert kept == ["a", "b", "d"]
    assert [(drop.id, drop.stage) for drop in drops] == [("c", "semantic")] and "says what 'a' says" in drops[0].reason


def test_the_first_of_a_batch_and_of_earlier_batches_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit(np.random.default_rng(0).standard_normal((40, 32)))
    rows[5], rows[30], rows[31] = rows[3], rows[3], rows[29]
    for size in (1, 7, 100):
        monkeypatch.setattr(semantic, "BATCH", size)
        kept, drops = run(Vectors(rows), documents(40))
        assert [drop.id for drop in drops] == ["d5", "d30", "d31"]
        assert ["'d3'" in drops[0].reason, "'d3'" in drops[1].reason, "'d29'" in drops[2].reason] == [True] * 3
        assert len(kept) == 37


def test_clusters_find_what_a_comparison_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    rows = unit(draw.standard_normal((6_000, 48)) + 2 * draw.standard_normal((30, 48))[draw.integers(0, 30, 6_000)])
    for n in range(1_000):  # copies with some noise, far behind what they copy
        rows[5_000 + n] = rows[n] + 0.02 * draw.standard_normal(48)
    rows = unit(rows)
    whole, whole_drops = run(Vectors(rows), documents(6_000), 0.97)
    monkeypatch.setattr(semantic, "FLAT", 500)
    clustered, drops = run(Vectors(rows), documents(6_000), 0.97)
    assert len(whole_drops) >= 1_000 and set(whole) <= set(clustered)
    assert len(drops) >= 0.98 * len(whole_drops)
    assert run(Vectors(rows), documents(6_000), 0.97)[0] == clustered


def test_a_recipe_drops_them_and_one_without_embedders_says_what_is_missing(tmp_path: Path) -> None:
    rows = [{"id": name, "text": text} for name, text in (("a", FIRST), ("b", OTHER), ("c", AGAIN))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.toml").write_text(
        'stages = ["near", "semantic"]\n[sources.s]\npaths = ["rows.jsonl"]\n[stage.semantic]\nthreshold = 0.9\n'
    )
    recipe = load(tmp_path / "recipe.toml", ())
    with pytest.raises(ConfigError, match="opens embedders"):
        corpus.make(recipe, tmp_path / "none", workers=1)
    made = corpus.make(recipe, tmp_path / "work", workers=1, embedder=embedder)
    assert [document.id for document in made] == ["a", "b"]
    assert [(r.stage, r.count) for r in made.account.sources["s"].reasons] == [("semantic", 1)]
    with pytest.raises(ConfigError, match=r"threshold in \(0, 1\], found 2"):
        semantic.semantic(None, threshold=2)  # type: ignore[arg-type]


def test_options_of_other_kinds_and_vectors_that_are_no_numbers_are_named() -> None:
    for options, message in (({"threshold": "0.9"}, "found '0.9'"), ({"embedder": 5}, "name, found 5")):
        with pytest.raises(ConfigError, match=message):
            semantic.semantic(None, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="NaN or infinity for 'd1'"):
        run(Vectors(np.array([[1, 0], [np.nan, 0]], np.float32)), documents(2))
