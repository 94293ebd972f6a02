"""The Qdrant retriever in its embedded edition against the store it was filled from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import grow
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.records import Hit
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import HashEmbedder, corpus, use_hash_embedder

pytest.importorskip("qdrant_client")

from sleuth.retrieval.qdrant import Qdrant, connect, fill

QUERIES = ["castle siege number", "", "violin", "violin"]


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    monkeypatch.setattr("sleuth.retrieval.qdrant.embedder", lambda spec, device: HashEmbedder())


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    build(corpus(16), tmp_path / "s", BuildSpec(segment_documents=8, max_words=100))
    grow.delete(tmp_path / "s", ["d003"])
    return Datastore.open(tmp_path / "s")


def scored(hits: list[Hit]) -> list[tuple[float, str]]:
    return sorted((-round(hit.score, 4), hit.passage.id) for hit in hits)


def test_it_answers_as_the_store_it_was_filled_from(store: Datastore, tmp_path: Path) -> None:
    client = connect(str(tmp_path / "qdrant"))
    fill(client, "pages", store)
    found = Qdrant(client, "pages")
    assert found.fingerprint == store.fingerprint and len(found) == len(store)
    filters: list[Any] = [
        None, {"source": "left"}, {"source": ["left", "nowhere"]}, {"year": {">=": 1905, "<": 1910}}, {"year": 1906},
        {"theme": {"!=": "castle"}},
    ]  # fmt: skip
    for where in filters:
        ours, theirs = found.search(QUERIES, 50, where), store.search(QUERIES, 50, where, "dense")
        assert [scored(rows) for rows in ours] == [scored(rows) for rows in theirs]
    hit, same = (
        found.search(["castle siege number 6"], 1)[0][0],
        store.search(["castle siege number 6"], 1, None, "dense"),
    )
    assert (hit.passage, hit.url, hit.source, hit.date) == (
        same[0][0].passage,
        same[0][0].url,
        same[0][0].source,
        same[0][0].date,
    )
    assert found.fetch(["d006#1", "d001"]) == store.fetch(["d006#1", "d001"])
    with pytest.raises(KeyError, match="d003"):
        found.fetch(["d001", "d003"])
    for question, where, kind, said in (
        (["x"], {"nope": 1}, InputError, "unknown field 'nope'; known fields: id, title"),
        (["x"], {"date": {">=": "1900"}}, InputError, "cannot compare date >= '1900'"),
        ("x", None, InputError, "found one string"),
    ):
        with pytest.raises(kind, match=said):
            found.search(question, 3, where)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="k: expected"):
        found.search(["x"], 0)
    with pytest.raises(StoreError, match="there already"):
        fill(client, "pages", store)
    client.close()


def test_documents_without_a_field_are_found_by_none(tmp_path: Path) -> None:
    documents = [Document("a", "castle one", metadata={"year": 1990}), Document("b", "castle two"),
                 Document("c", "castle three", metadata={"year": None})]  # fmt: skip
    build(documents, tmp_path / "n", BuildSpec())
    store, client = Datastore.open(tmp_path / "n"), connect(":memory:")
    fill(client, "pages", store)
    filters: list[Any] = [{"year": None}, {"year": {"!=": None}}, {"year": {"==": 1990}}, {"year": {"!=": 1990}}]
    for where, ids in zip(filters, (["b", "c"], ["a"], ["a"], ["b", "c"]), strict=True):
        ours, theirs = Qdrant(client, "pages").search(["castle"], 9, where), store.search(["castle"], 9, where, "dense")
        for found in (ours, theirs):
            assert sorted(hit.passage.id for hit in found[0]) == ids


def test_foreign_collections_are_refused(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(":memory:")
    with pytest.raises(StoreError, match="expected one that was filled from a store"):
        Qdrant(client, "nothing")
    fill(client, "pages", store)
    monkeypatch.setattr("sleuth.retrieval.qdrant.embedder", lambda spec, device: HashEmbedder("r2"))
    with pytest.raises(StoreError, match="filled with embedder 'hash' revision r1, found revision r2"):
        Qdrant(client, "pages")
