"""Questions and answers made from a store as a unit of retrieval: a hit leads to the passage it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import pairs
from sleuth.retrieval.pairs import Asked, Pairs
from sleuth.retrieval.store import Datastore
from tests.knowledge_stores import film_store
from tests.retrieval_stores import HashEmbedder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datastore:
    monkeypatch.setattr("sleuth.retrieval.pairs.embedder", lambda spec, device: HashEmbedder())
    return film_store(tmp_path, monkeypatch)


def births(document: Document) -> Iterator[Asked]:
    """Where somebody was born."""
    start = document.text.find("He was born in ")
    if start >= 0:
        end = document.text.index(".", start) + 1
        yield f"Where was {document.title} born?", document.text[start + 15 : end - 1], start, end
        yield "What is nowhere?", "beyond", 0, 10**6


def test_a_pair_is_found_by_its_question_and_leads_to_the_sentence_that_answers(store: Datastore) -> None:
    pairs.derive(store, births)
    found = Pairs.open(store)
    assert len(found) == 1  # what no passage holds is no pair
    ((pair, score),) = found.pairs("birthplace: where was Spielberg born", 5)
    (hits,) = found.search(["birthplace: where was Spielberg born"], 5)
    assert (pair.answer, hits[0].passage.doc_id, hits[0].score) == ("Cincinnati", "spielberg", score)
    assert hits[0].passage.text[pair.start : pair.end] == "He was born in Cincinnati."
    assert found.fetch([hits[0].passage.id]) == [hits[0].passage] and found.fingerprint == store.fingerprint


def test_the_rule_asks_what_a_first_sentence_defines(store: Datastore) -> None:
    pairs.derive(store, dense=False)
    found = Pairs.open(store)
    asked = {pair.question: pair.answer for pair, _ in found.pairs("what is cincinnati ohio mercury jaws", 50)}
    assert asked["What is Cincinnati?"] == "a city in Ohio" and asked["What is Ohio?"] == "a state"
    assert [hit.passage.doc_id for hit in found.search(["What is Ohio?"], 1)[0]] == ["ohio"]
    assert found.search(["?!", ""], 3) == [[], []]


def test_passages_come_once_and_filters_hold(store: Datastore, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [("Who made Jaws?", "Steven Spielberg", "jaws"), ("Who directed Jaws?", "steven spielberg", "jaws"),
            ("Whose film\u2028is Jaws?", "Nobody's", "spielberg")]  # fmt: skip
    named = (dict(zip(("question", "answer", "passage_id"), row, strict=True)) for row in rows)
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in named) + "\n\n", encoding="utf-8")
    pairs.derive(store, rows=file)
    found = Pairs.open(store)
    (hits,) = found.search(["Who directed Jaws?"], 5)
    assert [hit.passage.doc_id for hit in hits] == ["jaws", "spielberg"]
    spans = {pair.question: (pair.start, pair.end) for pair, _ in found.pairs("Jaws", 5)}
    assert spans["Who made Jaws?"] == (0, 67) and spans["Whose film\u2028is Jaws?"][0] == 0
    assert [hit.passage.doc_id for hit in found.search(["Jaws"], 5, {"date": {">=": "1980"}})[0]] == ["spielberg"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("no json", r"p\.jsonl:1: expected question, answer and a passage_id"),
        ('{"question": "q", "answer": "a"}', "'passage_id'"),
        ('{"question": "q", "answer": "a", "passage_id": "nowhere"}', "no such passages"),
        ('{"question": " ", "answer": "a", "passage_id": "ohio"}', "found an empty one"),
        ("", "found none to make"),
    ],
)
def test_rows_that_are_no_pairs_are_named_by_line(store: Datastore, tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "p.jsonl").write_text(row)
    with pytest.raises(InputError, match=said):
        pairs.derive(store, rows=tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        pairs.derive(store, rows=tmp_path / "missing.jsonl")
    with pytest.raises(StoreError, match="no pairs were derived"):
        Pairs.open(store)
