"""Tuning: an embedder to a store's own passages, with what is held out never trained on, and a router to labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleuth import cli
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document
from sleuth.retrieval import tune
from sleuth.retrieval.embed import embedder
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.tune import TuneSpec
from tests.knowledge_stores import film_store

SPEC = TuneSpec(batch=8, examples=60, held_out=0.3, rate=1e-2)


def words(n: int, part: int) -> str:
    return f"The river w{n % 50} meets the mill w{(n * 7 + part) % 100} near castle w{(n + part * 3) % 100} w{part}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datastore:
    documents = [Document(f"d{n}", ". ".join(words(n, part) for part in range(4)) + ".", title=f"w{n} castle")
                 for n in range(60)]  # fmt: skip
    return film_store(tmp_path, monkeypatch, documents)


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A sentence-transformers model of a hundred words and 32 dimensions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "mill", "castle", ".", "the", "meets", "near"]
    (tmp_path / "vocab.txt").write_text("\n".join([*names, *(f"w{n}" for n in range(100))]))
    torch.manual_seed(0)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(names) + 100, max_position_embeddings=64, **shape)
    BertModel(config).save_pretrained(tmp_path / "bert")
    SentenceTransformer(modules=[Transformer(str(tmp_path / "bert")), Pooling(32)], device="cpu").save(
        str(tmp_path / "base")
    )
    return str(tmp_path / "base")


def test_examples_ask_for_passages_without_the_words_that_were_cut(store: Datastore) -> None:
    found = list(tune._examples(store, SPEC, [{"question": "w1?", "supporting": ["d1"]}]))
    assert {example.kind for example in found} == {"title", "sentence", "question"}
    titles = [example for example in found if example.kind == "title"]
    assert all(example.query not in example.text for example in titles)
    cut = [example.query not in example.text for example in found if example.kind == "sentence"]
    assert 0.7 < sum(cut) / len(cut) <= 1
    assert found == list(tune._examples(store, SPEC, [{"question": "w1?", "supporting": ["d1"]}]))


def test_a_model_is_tuned_measured_and_taken_as_an_embedder(store: Datastore, base: str, tmp_path: Path) -> None:
    spec = TuneSpec(**{**tune.asdict(SPEC), "base": base})
    test = [{"question": "the castle near w3", "supporting": ["d3"]}]
    done = tune.tune(store, tmp_path / "tuned", spec, test=test)
    assert embedder(done.folder).revision != embedder(base).revision and embedder(done.folder).dims == 32
    assert sum(done.trained.values()) <= 60 and len(done.held_out) > 5 and done.test[0].gold == {"d3"}
    held = {id_ for measured in done.held_out for id_ in measured.gold}
    assert all(tune._is_held(id_, spec) for id_ in held)
    assert all(len(m.before) == len(set(m.before)) and m.before != m.after for m in done.held_out[:1])
    assert not list((tmp_path / "tuned").rglob("checkpoint*"))
    again = tune.tune(store, tmp_path / "tuned", spec, test=test, resume=True)
    assert again == done
    with pytest.raises(ConfigError, match="expected nothing there"):
        tune.tune(store, tmp_path / "tuned", spec)
    with pytest.raises(ConfigError, match="a run of"):
        tune.tune(store, tmp_path / "tuned", SPEC, resume=True)


def test_rows_that_are_no_questions_and_stores_that_are_too_small_are_refused(store: Datastore, tmp_path: Path) -> None:
    for row, said in (({"question": " "}, "expected a question"), ({"question": "q"}, "expected passage_id"),
                      ({"question": "q", "supporting": ["nowhere"]}, "'nowhere' of 'q' is not in")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            list(tune._examples(store, SPEC, [row]))
    with pytest.raises(InputError, match="expected examples to train on and to hold out"):
        tune.tune(store, tmp_path / "none", TuneSpec(held_out=0.0))


def test_a_router_is_learned_from_the_command_line(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sales.csv").write_text("year,tickets\n1975,67\n1976,42\n")
    Path("all.toml").write_text('[sources.pages]\nkind = "store"\npath = "store"\nmode = "bm25"\n'
                                '[sources.sales]\nkind = "tables"\npath = "sales.csv"\n')  # fmt: skip
    rows = [{"question": f"how many in {1900 + n}", "source": "sales"} for n in range(10)]
    rows += [{"question": f"tell of the mill w{n}", "source": "pages"} for n in range(10)]
    rows[0]["question"] += "\u2028or so"
    Path("rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    cli.app(args=["tune-router", "all.toml", "rows.jsonl", "--out", "router.json", "--json"], standalone_mode=False)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["learned"]["mean"] == 1.0 >= told["probe"]["mean"] and told["queries"] == 20
    Path("all.toml").write_text('route = "router.json"\n' + Path("all.toml").read_text())
    cli.app(args=["search", "all.toml", "how many tickets in 1976", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["passage"]["id"] == "sales:sales#1"
    for text, said in (("[1]", "expected a JSON object"), ("x", "one JSON object a line"), ("", "at least one row"),
                       ('{"question": "q"}', "expected question and source")):  # fmt: skip
        Path("rows.jsonl").write_text(text)
        with pytest.raises((InputError, ConfigError), match=said):
            cli.app(args=["tune-router", "all.toml", "rows.jsonl", "--out", "r.json"], standalone_mode=False)
