"""The span index against plain string search over the same passages."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from sleuth.corpora.errors import InputError, ModelError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import derived, spans
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.spans import Spans
from sleuth.retrieval.store import Datastore
from tests.knowledge_stores import DOCUMENTS, film_store
from tests.retrieval_stores import use_hash_embedder

MORE = [
    Document("kana", "東京は日本の首都。東京は大きい。", title="Tokyo"),
    Document("cafe", "Café, cafés and a Caf.", title="Café"),
]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spans:
    store = film_store(tmp_path, monkeypatch, [*DOCUMENTS, *MORE])
    spans.derive(store)
    return Spans.open(store)


def texts(index: Spans) -> dict[str, str]:
    return {p.id: p.text for _, passages in derived.documents(index.store) for p in passages}


@pytest.mark.parametrize("span", ["Jaws", "a", "American ", "was a", "東京", "é", "nowhere", "success.", "Caf"])
def test_counts_places_and_continuations_are_those_of_plain_search(index: Spans, span: str) -> None:
    places = [(id_, at) for id_, text in texts(index).items() for at in range(len(text)) if text.startswith(span, at)]
    assert index.count(span) == len(places) and sorted(index.locate(span)) == sorted(places)
    following = Counter(texts(index)[id_][at + len(span) : at + len(span) + 1] for id_, at in places)
    following.pop("", None)
    assert index.continuations(span) == dict(following)
    assert list(index.continuations(span).values()) == sorted(following.values(), reverse=True)


def test_the_next_words_are_whole_and_walking_them_stays_in_the_corpus(index: Spans) -> None:
    assert index.words("Steven Spielberg") == {" is": 1, ". It": 1}
    assert index.words("東京は") == {"日本の首都": 1, "大きい": 1}
    prefix = "Steven"
    while pieces := index.words(prefix):
        prefix += next(iter(pieces))
        assert index.count(prefix) > 0
    assert prefix.startswith("Steven Spielberg") and index.words("nowhere") == {}
    assert len(index.words("", limit=3)) == 3


def test_the_longest_spans_of_a_query_find_the_passages_that_hold_them(index: Spans) -> None:
    query = "it was written by Peter Benchley, who was an American author in Ohio"
    found = dict(index.longest(query))
    assert (
        found["It was written by Peter Benchley"] == 1
        and found["was an American author"] == 1
        and found["in Ohio"] == 1
    )
    assert not any(word in found for word in ("who", "was", "in", "written by Peter Benchley", "an American author"))
    (hits,) = index.search([query], 3)
    assert {hits[0].passage.doc_id, hits[1].passage.doc_id} == {"jaws", "benchley"}
    assert [hit.rank for hit in hits] == [1, 2, 3]
    (only,) = index.search([query], 3, {"date": {">=": "1990"}})
    assert [hit.passage.doc_id for hit in only] == ["benchley", "cincinnati"]
    assert index.search(["zzz", "", "the of and", "\ud800"], 3) == [[], [], [], []]


def test_a_word_is_no_part_of_a_longer_one(index: Spans) -> None:
    assert index.longest("Caf") == [("Caf", 1)] and index.longest("Spiel") == []
    assert index.longest("berg") == index.longest("af") == index.longest("fés") == []
    assert index.longest("日本の首都") == [("日本の首都", 1)]  # no space stands before it, and none is due


def test_passages_with_parts_of_longer_words_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document("parts", "The party served smart articles about cartography."),
                 Document("word", "Modern art is shown in the hall.")]  # fmt: skip
    store = film_store(tmp_path, monkeypatch, documents)
    spans.derive(store)
    index = Spans.open(store)
    assert index.longest("art") == [("art", 1)]
    assert [hit.passage.id for hit in index.search(["art"], 5)[0]] == ["word"]
    assert index.count("art") == 5 and len(index.locate("art")) == 5  # of characters, as before


def test_stop_words_with_accents_alone_are_no_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    build([Document("fr", "Il était à la même place.")], tmp_path / "s", BuildSpec("hash", language="french"))
    store = Datastore.open(tmp_path / "s")
    spans.derive(store)
    assert Spans.open(store).longest("à la même") == [] and Spans.open(store).longest("même place")


def test_what_is_missing_is_said(index: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="k of at least 1"):
        index.search(["x"], 0)
    monkeypatch.setattr(spans, "MAX_BYTES", 50)
    with pytest.raises(InputError, match="expected at most 50 bytes of text"):
        spans.derive(index.store)
    assert Spans.open(index.store).count("Jaws")  # the one before is still there
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)
    with pytest.raises(ModelError, match=r"pip install 'sleuth\[spans\]'"):
        spans.derive(index.store)
    file = next(index.store.path.glob("derived/spans-*/text.bin"))
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(StoreError, match=r"damaged: text\.bin"):
        Spans.open(index.store)
