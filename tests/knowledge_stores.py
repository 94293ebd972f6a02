"""A small store about films and people, for tests of what is derived from a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleuth.corpora.records import Document
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import use_hash_embedder

DOCUMENTS = [
    Document("jaws", "Jaws is a 1975 American thriller film directed by Steven Spielberg. It was written by Peter "
             "Benchley. The film was a success.", title="Jaws (film)", date="1975-06-20", url="https://example.org/jaws"),
    Document("spielberg", "Steven Spielberg is an American director. He was born in Cincinnati. His film Jaws was a "
             "great success.", title="Steven Spielberg", date="1990-01-01"),
    Document("benchley", "Peter Benchley (born 1940) was an American author. He lived in Princeton.",
             title="Peter Benchley", date="1995"),
    Document("cincinnati", "Cincinnati is a city in Ohio.\n\nPopulation: 309317\n\nCounty: Hamilton",
             title="Cincinnati", date="2001-05"),
    Document("ohio", "Ohio is a state. Its capital is Columbus.", title="Ohio"),
    Document("mercury", "Mercury is a planet.", title="Mercury (planet)"),
    Document("metal", "Mercury is a metal.", title="Mercury (element)"),
    Document("nameless", "A text without a title that names Jaws and Ohio.", date="2003-04-01"),
]  # fmt: skip


def film_store(folder: Path, monkeypatch: pytest.MonkeyPatch, documents: list[Document] | None = None) -> Datastore:
    use_hash_embedder(monkeypatch)
    build(iter(documents or DOCUMENTS), folder / "store", BuildSpec(embedder="hash", max_words=40))
    return Datastore.open(folder / "store")
