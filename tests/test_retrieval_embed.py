"""The embedded embedder: the published model, checked, the same vector for a query in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora.errors import ModelError
from sleuth.retrieval import embed
from sleuth.retrieval.embed import embedder

TEXTS = ["The mill stands by the river.", "A castle under siege", "河のそばの水車", "river " * 400, "x"]


def test_queries_have_the_published_models_vectors_whatever_else_is_asked() -> None:
    from sentence_transformers import SentenceTransformer

    model = embedder("minilm")
    together = model.encode_queries(TEXTS)
    assert together.shape == (5, model.dims) and together.dtype == np.float32
    embedder.cache_clear()
    alone = embedder("minilm")
    for text, vector in zip(TEXTS[::-1], together[::-1], strict=True):
        assert np.array_equal(alone.encode_queries([text])[0], vector)
    reference = SentenceTransformer(str(embed._minilm_folder()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(together, reference, atol=1e-5)


def test_passages_are_unit_vectors_close_to_the_queries_and_progress_is_told() -> None:
    model, told = embedder("minilm"), []
    vectors = model.encode(TEXTS, batch_size=2, progress=told.append)
    assert told == [2, 4, 5]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert ((vectors * model.encode_queries(TEXTS)).sum(1) > 0.995).all()
    assert model.encode([]).shape == (0, model.dims) == model.encode_queries([]).shape


def test_a_damaged_or_missing_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "MINILM_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"model.safetensors: expected sha256 0000.*found 53aa5117"):
        embed._minilm_folder()
    with pytest.raises(ModelError, match="no-such/model"):
        _ = embedder("no-such/model").revision
