"""LangChain's own interface over a store: documents say where their text stands, alone, in batches and in a chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from sleuth.corpora.errors import InputError
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.langchain import SleuthRetriever
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import corpus, use_hash_embedder

QUERY = "castle siege number"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datastore:
    use_hash_embedder(monkeypatch)
    build(corpus(20), tmp_path / "s", BuildSpec(max_words=100))
    return Datastore.open(tmp_path / "s")


def test_documents_are_the_stores_hits_and_say_where_they_stand(store: Datastore) -> None:
    found = SleuthRetriever(store=store, k=3).invoke(QUERY)
    hits = store.search([QUERY], 3)[0]
    assert [document.id for document in found] == [hit.passage.id for hit in hits]
    for document, hit in zip(found, hits, strict=True):
        whole = store.document(document.metadata["document"]).text
        assert document.page_content == whole[document.metadata["start"] : document.metadata["end"]]
        assert document.metadata["score"] == hit.score and document.metadata["fingerprint"] == store.fingerprint


def test_it_stands_in_a_chain_and_is_asked_beside_others(store: Datastore) -> None:
    chain = SleuthRetriever(store=store, k=2) | RunnableLambda(lambda found: [document.id for document in found])
    alone = chain.invoke(QUERY)
    assert len(alone) == 2 and chain.batch([QUERY, QUERY]) == [alone, alone]
    assert asyncio.run(chain.ainvoke(QUERY)) == alone


def test_filters_hold_and_bad_ones_are_named(store: Datastore) -> None:
    wanted = store.search([QUERY], 1)[0][0].passage.doc_id
    found = SleuthRetriever(store=store, where={"id": wanted}).invoke(QUERY)
    assert {document.metadata["document"] for document in found} == {wanted}
    with pytest.raises(InputError, match="nowhere"):
        SleuthRetriever(store=store, where={"nowhere": 1}).invoke(QUERY)
