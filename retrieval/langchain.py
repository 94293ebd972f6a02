"""A datastore as a retriever of LangChain, for other people's chains: ``SleuthRetriever(store=Datastore.open("s"))``.

LangChain's interface is `langchain_core.retrievers.BaseRetriever`, which the package langgraph brings along.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from sleuth.retrieval.records import Hit, Retriever


class SleuthRetriever(BaseRetriever):
    """``invoke(query)`` gives at most ``k`` passages, best first, as documents with the passage's id.

    Their metadata say where the text stands: ``title``, ``document``, ``start`` and ``end`` in it, ``url``, ``source``
    and ``date``; and ``score``, ``rank`` and the ``fingerprint`` of what was searched. An unusable filter raises
    `InputError`.
    """

    store: Any
    """A `Retriever`: a `Datastore`, an address that serves one, shards, a router."""
    k: int = 5
    where: dict[str, Any] | None = None
    """A filter: only passages that match are searched."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        store: Retriever = self.store
        return [_document(hit, store.fingerprint) for hit in store.search([query], self.k, self.where)[0]]


def _document(hit: Hit, fingerprint: str) -> Document:
    passage = hit.passage
    about = {
        "title": passage.title, "document": passage.doc_id, "start": passage.start, "end": passage.end,
        "url": hit.url, "source": hit.source, "date": hit.date,
        "score": hit.score, "rank": hit.rank, "fingerprint": fingerprint,
    }  # fmt: skip
    return Document(page_content=passage.text, id=passage.id, metadata=about)
