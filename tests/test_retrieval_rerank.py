"""Reranking within its budget, and fusion of scores."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval import rerank
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.fuse import learned_weight, weighted
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.rerank import CrossEncoder, Reranked, pair_text, reranker
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


def test_fused_it_goes_by_both_orders() -> None:
    def last(query: str, passages: Sequence[Passage]) -> list[float]:
        return [9.0 if p.id in ("p2", "p3") else 0.0 for p in passages]

    # of four: p2 is first and third, p0 third and first (a tie, so as the search has it), p3 second and fourth
    assert order(Reranked(Ten(), last, depth=4, fused=True).search(["q"], 6)[0]) == "021345"
    assert order(Reranked(Ten(), last, depth=4).search(["q"], 6)[0]) == "230145"


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


def passage(name: str, title: str, text: str) -> Passage:
    return Passage(name, name, 0, len(text), title, text)


PAIR = [passage("a", "river", "mill x"), passage("b", "", "x x river")]
SEVERAL = [passage(f"p{n}", "river" if n % 3 else "", "mill x river x " * (n % 5 + 1)) for n in range(20)]


def a_model(folder: Path, head: bool = True, hidden: int = 16, labels: int = 1) -> Path:
    """A random BERT, with the head of a cross-encoder or without, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join("[PAD] [UNK] [CLS] [SEP] [MASK] mill river x .".split()))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=9, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=256, num_labels=labels,
                        initializer_range=0.5)  # fmt: skip
    (BertForSequenceClassification if head else BertModel)(config).save_pretrained(folder)
    return folder


def an_adapter(folder: Path, base: Path, named: str = "", saved: Sequence[str] = ("classifier", "pooler")) -> Any:
    """A LoRA adapter over the model in ``base``, as peft saves it, and the unmerged model that it was saved from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from sentence_transformers import CrossEncoder as Model

    model = Model(str(base), device="cpu", num_labels=1, max_length=rerank.MAX_TOKENS, local_files_only=True)
    config = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=list(saved))
    adapted = get_peft_model(model.transformers_model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.normal_(0, 0.5)
    adapted.peft_config["default"].base_model_name_or_path = named or str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return model


def test_a_cross_encoder_scores_as_sentence_transformers_does(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as Model

    folder = str(a_model(tmp_path / "m"))
    expected = Model(folder, device="cpu").predict([("mill", "river. mill x"), ("mill", "x x river")])
    np.testing.assert_allclose(CrossEncoder(folder)("mill", PAIR), expected, atol=1e-6)
    assert [pair_text(p) for p in PAIR] == ["river. mill x", "x x river"] and CrossEncoder(folder)("mill", []) == []


def test_an_adapter_is_merged_with_its_head_and_scores_as_it_was_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    unmerged = an_adapter(tmp_path / "a", a_model(tmp_path / "m", head=False))
    expected = unmerged.predict([("mill", pair_text(p)) for p in SEVERAL])
    assert np.std(expected) > 0.01
    caplog.clear()
    capfd.readouterr()
    found = CrossEncoder(str(tmp_path / "a"))
    np.testing.assert_allclose(found("mill", SEVERAL), expected, atol=1e-5)  # a head left random would score otherwise
    np.testing.assert_allclose([found("mill", [p])[0] for p in SEVERAL], expected, atol=1e-5)  # nor do others decide
    assert not [name for name, _ in found._model().named_parameters() if "lora" in name or "modules_to_save" in name]
    assert caplog.messages == [] and capfd.readouterr() == ("", "")  # nothing is said of a head that the adapter brings


def test_an_adapter_names_the_embedded_minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = a_model(tmp_path / "m", head=False)
    monkeypatch.setattr(rerank, "_minilm_folder", lambda: base)
    unmerged = an_adapter(tmp_path / "a", base, named="minilm")
    expected = unmerged.predict([("mill", pair_text(p)) for p in PAIR])
    np.testing.assert_allclose(CrossEncoder(str(tmp_path / "a"))("mill", PAIR), expected, atol=1e-5)


def test_shipped_is_a_folder_beside_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(rerank.__file__).parent / "rerankers" / "shipped" == rerank.SHIPPED
    monkeypatch.setattr(rerank, "SHIPPED", tmp_path / "a")
    asked = CrossEncoder("shipped")
    for use in (lambda: asked.name, lambda: asked("mill", PAIR)):
        with pytest.raises(ModelError, match=r"reranker 'shipped'.*/a is missing"):
            use()
    unmerged = an_adapter(tmp_path / "a", a_model(tmp_path / "m", head=False))
    np.testing.assert_allclose(asked("mill", PAIR), unmerged.predict([("mill", pair_text(p)) for p in PAIR]), atol=1e-5)
    assert asked.name.startswith("shipped@") and len(asked.name) == len("shipped@") + 16
    assert CrossEncoder("some/model").name == "some/model" and reranker("x") is reranker("x")


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    base, other = a_model(tmp_path / "m", head=False), a_model(tmp_path / "other", head=False, hidden=8)
    an_adapter(tmp_path / "a", base)

    def refused(match: str, folder: Path) -> None:
        with pytest.raises(ModelError, match=match):
            CrossEncoder(str(folder))("mill", PAIR)

    def copied(name: str, **changes: Any) -> Path:
        folder = shutil.copytree(tmp_path / "a", tmp_path / name)
        said = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**said, **changes}))
        return folder

    refused(r"adapter .*/wide does not fit .*/other: .*expected \(.*8.*\), found \(.*16.*\)",
            copied("wide", base_model_name_or_path=str(other)))  # fmt: skip
    refused(r"does not fit .*/m: .*key.lora_A.weight: expected \(2, 16\), found no such weight",
            copied("less", target_modules=["query", "value", "key"]))  # fmt: skip
    refused("does not fit .*/m: .*No modules were targeted", copied("elsewhere", target_modules=["c_attn"]))
    refused("expected peft_type LORA over a named model, found 'LORA' over None",
            copied("unnamed", base_model_name_or_path=None))  # fmt: skip
    three = a_model(tmp_path / "three", labels=3)
    refused("/three' cannot be loaded", copied("labels", base_model_name_or_path=str(three)))
    model = shutil.copytree(three, tmp_path / "half") / "model.safetensors"
    model.write_bytes(model.read_bytes()[:200])
    refused("/half' cannot be loaded", tmp_path / "half")
    refused("/gone' cannot be loaded", copied("gone", base_model_name_or_path=str(tmp_path / "m" / "gone")))
    an_adapter(tmp_path / "headless", base, saved=())
    refused("headless: expected its head classifier.weight, classifier.bias in modules_to_save", tmp_path / "headless")
    (copied("lost") / "adapter_model.safetensors").unlink()
    refused("/lost: not a LoRA adapter, adapter_model.safetensors is missing", tmp_path / "lost")
    weights = copied("torn") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    refused("/torn/adapter_model.safetensors is damaged", tmp_path / "torn")
    (copied("garbled") / "adapter_config.json").write_text("{")
    refused("garbled/adapter_config.json: expected the configuration of an adapter", tmp_path / "garbled")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("x")
    refused("/notes: expected config.json or adapter_config.json, found README.md", tmp_path / "notes")


def test_an_adapter_over_a_cross_encoder_may_leave_its_head_alone(tmp_path: Path) -> None:
    unmerged = an_adapter(tmp_path / "a", a_model(tmp_path / "m"), saved=())
    expected = unmerged.predict([("mill", pair_text(p)) for p in PAIR])
    np.testing.assert_allclose(CrossEncoder(str(tmp_path / "a"))("mill", PAIR), expected, atol=1e-5)


def test_threads_share_one_cross_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_model(tmp_path / "m")
    shared, queries = CrossEncoder(str(folder)), [f"mill {n}" for n in range(8)]
    expected = list(map(CrossEncoder(str(folder)), queries, [SEVERAL] * 8))
    plain, loads, inside = rerank._load, [], []

    def slowly(*given: Any, **named: Any) -> Any:
        loads.append(given)
        time.sleep(0.2)  # long enough for the other threads to come in
        model = plain(*given, **named)
        predict = model.predict

        def alone(*given: Any, **named: Any) -> Any:
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            found = predict(*given, **named)
            inside.pop()
            return found

        model.predict = alone
        return model

    monkeypatch.setattr(rerank, "_load", slowly)
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(lambda query: shared(query, SEVERAL), queries), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(loads) == 1


def test_a_list_that_is_read_again_has_the_scores_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = CrossEncoder(str(a_model(tmp_path / "m")), keep=2), []
    plain = CrossEncoder._read
    monkeypatch.setattr(CrossEncoder, "_read", lambda self, pairs: read.append(pairs[0][0]) or plain(self, pairs))
    first = reader("mill", SEVERAL)
    wanted = list(first)
    first.clear()  # what a caller does with its list is its own affair
    assert reader("mill", SEVERAL) == wanted and reader("mill", SEVERAL[:1]) != wanted and read == ["mill"] * 2
    reader("x", SEVERAL)  # the third list: the one that was asked for longest ago goes
    assert reader("mill", SEVERAL) == wanted and read == ["mill", "mill", "x", "mill"]


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


def test_the_reranker_that_ships_finds_both_passages_of_a_chain() -> None:
    def passage(id_: str, title: str, text: str) -> Passage:
        return Passage(id_, id_, 0, len(text), title, text)

    ship = passage(
        "ship", "Halcyon Tern", "Halcyon Tern is a research ship that was designed by Odile Marchetti in 1931."
    )
    born = passage("born", "Odile Marchetti", "Odile Marchetti (1894-1971) was an engineer. She was born in Trieste.")
    others = [
        passage(
            "bird", "Arctic tern", "The Arctic tern is a bird of the north. It migrates to the Antarctic and back."
        ),
        passage("town", "Trieste", "Trieste is a seaport in north-eastern Italy, once of the Austrian monarchy."),
        passage("film", "Halcyon Days", "Halcyon Days is a drama film of 1987 that was written by Paul Marchetti."),
        passage("yard", "Shipyard", "A shipyard is a place where ships are built and repaired, often for a navy."),
    ]
    question = "Where was the designer of the research ship Halcyon Tern born?"
    scorer = rerank.reranker()
    first = scorer(question, [*others, born, ship])
    assert max(range(6), key=first.__getitem__) == 5  # the ship, which the question names
    second = scorer(f"{question} {ship.title} {ship.text}", [*others, born])
    assert max(range(5), key=second.__getitem__) == 4  # and from the ship to its designer
    assert scorer.name.startswith("shipped@") and scorer is rerank.reranker()
    assert (rerank.SHIPPED / "adapter_model.safetensors").stat().st_size < 5_000_000
