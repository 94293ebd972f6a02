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


def test_an_interrupted_encoding_gives_torch_its_threads_back() -> None:
    import torch

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            embedder("minilm").encode(TEXTS, batch_size=1, progress=stop)
        assert caught.tb and torch.get_num_threads() == 2  # at once, not when the traceback goes
    finally:
        torch.set_num_threads(before)


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model of a hundred words and 32 dimensions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "mill", "castle", "siege", ".", "##s", "the"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{n}" for n in range(100))]))
    torch.manual_seed(0)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    config = BertConfig(vocab_size=len(words) + 100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    parts = Transformer(str(folder / "bert")), Pooling(32)
    SentenceTransformer(modules=list(parts), prompts={"query": "w1 w2 "}, device="cpu").save(str(folder / "st"))
    return folder / "st"


def test_static_vectors_are_model2vecs_distilled_once_and_checked(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model2vec import StaticModel

    from sleuth.retrieval import static

    monkeypatch.setenv("SLEUTH_CACHE", str(tmp_path))
    monkeypatch.setattr(static, "DIMS", 16)
    model = embedder(f"static:{tiny}")
    texts = ["The River mill.", "castle SIEGE the mills", "w5 unknownword", "unknownword", ""]
    vectors = model.encode(texts)
    assert vectors.shape == (5, model.dims) == (5, 16) and vectors.dtype == np.float32
    assert not vectors[3:].any()  # no known token: zeros, never NaN
    reference = StaticModel.from_pretrained(model.folder)  # type: ignore[attr-defined]
    np.testing.assert_allclose(vectors[:3], reference.encode(texts[:3]), atol=1e-5)
    monkeypatch.setattr(static, "_distil", lambda *given: pytest.fail("distilled twice"))
    static._model.cache_clear()
    again = static.StaticEmbedder(model.source, model.name, model.source_revision)  # type: ignore[attr-defined]
    assert np.array_equal(again.encode_queries(texts), vectors) and again.revision == model.revision
    monkeypatch.setattr(static, "MAX_WORDS", 2)  # forgetting words changes nothing
    assert np.array_equal(again.encode(texts), vectors)
    path = again.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    static._model.cache_clear()
    with pytest.raises(ModelError, match=r"model.safetensors: expected sha256"):
        again.encode(["mill"])


def test_prompts_of_the_model_are_used_and_dimensions_cut(tiny: Path) -> None:
    whole, cut = embedder(str(tiny)), embedder(f"{tiny}@8")
    assert (whole.dims, cut.dims, cut.name) == (32, 8, f"{tiny}@8")
    first = whole.encode(["river mill"])[:, :8]
    np.testing.assert_allclose(cut.encode(["river mill"]), first / np.linalg.norm(first), atol=1e-5)
    np.testing.assert_allclose(whole.encode_queries(["river mill"]), whole.encode(["w1 w2 river mill"]), atol=1e-5)
    with pytest.raises(ModelError, match="expected 1 to 32 dimensions, found 64"):
        _ = embedder(f"{tiny}@64").dims


def test_vectors_that_are_not_numbers_are_refused_with_the_passage() -> None:
    model = embedder("minilm")
    vectors = np.zeros((2, model.dims), np.float32)
    assert embed.checked(vectors, ["a", "b"], model) is vectors
    vectors[1, 3] = np.nan
    with pytest.raises(ModelError, match="found NaN or infinity for 'b' and 0 more"):
        embed.checked(vectors, ["a", "b"], model)
    with pytest.raises(ModelError, match=r"expected vectors of shape \(3, 384\), found \(2, 384\)"):
        embed.checked(vectors, ["a", "b", "c"], model)
