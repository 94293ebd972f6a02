"""Reranking within its budget, and fusion of scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval import rerank
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.fuse import learned_weight, weighted
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.rerank import CrossEncoder, Reranked
from sleuth.retrieval.sharded import Hits
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import corpus, use_hash_embedder


@dataclasses.dataclass(frozen=True)
class Ten:
    """Ten hits of forty characters, best first, whatever is asked."""

    fingerprint: str = "f"

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        passages = [Passage(f"p{n}", f"p{n}", 0, 40, "", f"{n}".ljust(40, "x")) for n in range(10)]
        return [[Hit(p, 1 - n / 10, n + 1, "ten") for n, p in enumerate(passages)][:k] for _ in queries]

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return []


def backwards(query: str, passages: Sequence[Passage]) -> list[float]:
    return [float(passage.id[1:]) for passage in passages]


def order(hits: Sequence[Hit]) -> str:
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return "".join(hit.passage.id[1:] for hit in hits)


def test_the_first_hits_are_ranked_anew_and_the_rest_keeps_its_place() -> None:
    found = Reranked(Ten(), backwards, depth=4, batch=3)
    assert found.fingerprint == "f" and [hit.retriever for hit in found.search(["q"], 2)[0]] == ["reranked"] * 2
    assert [order(hits) for hits in found.search(["q", "r"], 10)] == ["3210456789"] * 2
    assert order(found.search(["q"], 2)[0]) == "32" and found.search([], 3) == []
    assert order(Reranked(Ten(), lambda query, passages: [1.0] * len(passages)).search(["q"], 10)[0]) == "0123456789"


def test_what_the_retriever_below_did_not_look_into_is_told() -> None:
    class Half(Ten):
        def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
            return Hits(super().search(queries, k, where), [("shard2", "down")])

    found = Reranked(Half(), backwards).search(["q"], 3)
    assert order(found[0]) == "987" and isinstance(found, Hits) and found.missing == (("shard2", "down"),)


def test_budgets_of_tokens_and_seconds_end_the_scoring_not_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    # a query of four characters and a passage of forty are eleven tokens
    assert order(Reranked(Ten(), backwards, tokens=35, batch=2).search(["four"], 10)[0]) == "2103456789"
    assert order(Reranked(Ten(), backwards, tokens=5).search(["four"], 10)[0]) == "0123456789"
    assert order(Reranked(Ten(), backwards, seconds=0).search(["four"], 10)[0]) == "0123456789"
    ticks = iter(range(100))
    monkeypatch.setattr(rerank.time, "monotonic", lambda: next(ticks))
    assert order(Reranked(Ten(), backwards, seconds=3, batch=2).search(["four"], 10)[0]) == "3210456789"


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(ModelError, match="expected a finite score for 'p0', found nan"):
        Reranked(Ten(), lambda query, passages: [float("nan")] * len(passages)).search(["q"], 3)
    with pytest.raises(ModelError, match="expected 10 scores, found 1"):
        Reranked(Ten(), lambda query, passages: [1.0]).search(["q"], 3)
    with pytest.raises(ConfigError, match="depth of at least 1, found 0"):
        Reranked(Ten(), backwards, depth=0)
    with pytest.raises(ModelError, match="cannot be loaded"):
        CrossEncoder("/no/such/folder")("q", [Passage("a", "a", 0, 1, "", "x")])


def test_a_cross_encoder_scores_as_sentence_transformers_does(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder as Model
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mill", "river", "x"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "m")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=32, num_labels=1)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "m")
    passages = [Passage("a", "a", 0, 1, "river", "mill x"), Passage("b", "b", 0, 1, "", "x x river")]
    expected = Model(str(tmp_path / "m"), device="cpu").predict([("mill", "river\nmill x"), ("mill", "x x river")])
    np.testing.assert_allclose(CrossEncoder(str(tmp_path / "m"))("mill", passages), expected, atol=1e-6)


def test_weighted_fusion_puts_scores_on_one_scale_and_learns_its_weight() -> None:
    first, second = [("a", 30.0), ("b", 20.0), ("c", 10.0)], [("c", 0.9), ("a", 0.5)]
    assert weighted([first, second], (1, 0))[:2] == [("a", 1.0), ("b", 0.5)]
    assert dict(weighted([first, second], (0.5, 0.5))) == {"a": 0.5, "b": 0.25, "c": 0.5}
    assert weighted([[("a", 5.0)], []], (0.3, 0.7)) == [("a", 0.3)] and weighted([[], []], (1, 1)) == []
    assert learned_weight(lambda weight: -abs(weight - 0.35)) == (0.35, 0.0)
    assert learned_weight(lambda weight: 1.0) == (0.5, 1.0)


def test_a_store_searches_with_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    build(corpus(), tmp_path / "s", BuildSpec("hash"))
    store = Datastore.open(tmp_path / "s")

    def ids(**given: object) -> list[str]:
        return [hit.passage.id for hit in store.search(["castle town11"], 5, **given)[0]]  # type: ignore[arg-type]

    assert ids(dense_weight=0.0)[0] == ids(mode="bm25")[0] and ids(dense_weight=1.0) == ids(mode="dense")
    assert [h.passage.id for h in store.retriever("hybrid", 1.0).search(["castle town11"], 5)[0]] == ids(mode="dense")
    with pytest.raises(InputError, match="dense_weight: expected a number from 0 to 1, found 2"):
        ids(dense_weight=2)
