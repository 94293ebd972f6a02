"""Triples of a store: linked by names, walked in well-formed chains, and cited by the sentence that states them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import derived, grow, triples
from sleuth.retrieval.names import Names, names_of
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.triples import Triples, is_chain
from tests.knowledge_stores import DOCUMENTS, film_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datastore:
    return film_store(tmp_path, monkeypatch)


@pytest.fixture
def graph(store: Datastore) -> Triples:
    triples.derive(store)
    return Triples.open(store)


def shown(chain: triples.Chain) -> list[tuple[str, str, str]]:
    return [(t.subject, t.relation, t.object) for t in chain]


def test_each_triple_is_the_span_of_a_sentence_that_names_its_object(store: Datastore, graph: Triples) -> None:
    found = {(t.subject, t.relation, t.object) for name in graph.names.entities for t in graph.about(name)}
    assert {
        ("Jaws (film)", "is a", "1975 American thriller film"),
        ("Jaws (film)", "was written by", "Peter Benchley"),
        ("Steven Spielberg", "was born in", "Cincinnati"),
        ("Steven Spielberg", "film", "Jaws (film)"),
        ("Cincinnati", "population", "309317"),
        ("Cincinnati", "county", "Hamilton"),
        ("Cincinnati", "is a city in", "Ohio"),
    } <= found
    for triple in graph.about("Steven Spielberg"):
        passage = store.fetch([triple.passage_id])[0]
        sentence = passage.text[triple.start : triple.end]
        assert sentence.endswith(".") and any(word in sentence for word in triple.object.split())
    assert not [t for t in found if t[0] == ""]


def test_paths_join_entities_in_chains_of_bounded_length(graph: Triples) -> None:
    (path,) = graph.paths("Peter Benchley", "Cincinnati", 3, limit=1)
    assert is_chain(path) and [t.relation for t in path][-1] == "was born in"
    assert graph.paths("Peter Benchley", "Ohio", 3) == []
    assert [len(p) for p in graph.paths("Peter Benchley", "Ohio", 4)] and graph.paths("Ohio", "Ohio") == []
    assert graph.paths("Mercury (planet)", "Mercury (element)") == []


def test_a_chain_goes_on_only_where_the_graph_does(graph: Triples) -> None:
    first = next(t for t in graph.about("Jaws (film)") if t.object == "Steven Spielberg")
    after = graph.following((first,))
    assert ("Steven Spielberg", "was born in", "Cincinnati") in shown(tuple(after))
    assert all(is_chain((first, triple)) for triple in after)
    county = next(t for t in graph.about("Cincinnati") if t.relation == "county")
    assert not is_chain((first, county))
    with pytest.raises(InputError, match="not a chain"):
        graph.following((first, county))


def test_a_question_over_two_documents_finds_both_by_the_chain_between_them(graph: Triples) -> None:
    (hits,) = graph.search(["Where was the man who directed Jaws born?"], 3)
    assert {hit.passage.doc_id for hit in hits[:2]} == {"jaws", "spielberg"}
    assert [hit.rank for hit in hits] == [1, 2, 3] and any(hit.url for hit in hits)
    chain, _ = graph.chains("Where was the man who directed Jaws born?")[0]
    assert shown(chain)[-1] == ("Steven Spielberg", "was born in", "Cincinnati") and is_chain(chain)
    assert graph.search(["nothing that has a name"], 3) == [[]]


def test_what_weighs_triples_can_be_handed_in_and_leads_the_walk(store: Datastore, graph: Triples) -> None:
    asked = []

    def weigh(question: str, found: object) -> list[float]:
        asked.append(question)
        return [float(t.relation == "was written by") for t in found]  # type: ignore[attr-defined]

    led = Triples.open(store, weigh=weigh, hops=1)
    (hits,) = led.search(["Jaws"], 1)
    assert hits[0].passage.doc_id == "jaws" and set(asked) == {"Jaws"}
    assert shown(led.chains("Jaws", 1)[0][0]) == [("Jaws (film)", "was written by", "Peter Benchley")]


def test_a_filter_keeps_walks_out_of_documents(graph: Triples) -> None:
    (hits,) = graph.search(["Where was the man who directed Jaws born?"], 5, {"date": {"<": "1980"}})
    assert {hit.passage.doc_id for hit in hits} == {"jaws"}


def test_an_extractor_can_be_handed_in_and_what_no_passage_holds_is_counted(store: Datastore) -> None:
    def extract(document: Document, names: Names) -> list[tuple[str, str, str, int, int]]:
        return [(document.title, "about", "everything", 0, 10), (document.title, "beyond", "x", 0, 10**6)]

    triples.derive(store, extract)
    _, facts = derived.find(store, "triples")
    assert facts["triples"] == len(DOCUMENTS) and facts["cut"] == len(DOCUMENTS)


def test_entities_that_are_not_known_are_named_with_the_nearest(graph: Triples) -> None:
    with pytest.raises(InputError, match=r"no entity 'Cincinati' in the triples \(did you mean 'Cincinnati'"):
        graph.paths("Cincinati", "Ohio")
    with pytest.raises(InputError, match="hops: expected 1 to 4, found 9"):
        graph.paths("Cincinnati", "Ohio", 9)


def test_names_are_found_longest_first_whole_and_shared(graph: Triples) -> None:
    assert graph.entities("Is mercury in JAWS's Cincinnati?") == [
        "Mercury (planet)", "Mercury (element)", "Jaws (film)", "Cincinnati",
    ]  # fmt: skip
    names = Names({"York": (), "New York": (), "It (novel)": names_of("It (novel)")})
    found = [(mention.entities, mention.start) for mention in names.find("New York, Yorkshire, York. It?")]
    assert found == [(("New York",), 0), (("York",), 21)]


def test_triples_of_another_version_or_damaged_ones_are_refused(tmp_path: Path, store: Datastore) -> None:
    with pytest.raises(StoreError, match=r"no triples were derived from it; `sleuth derive triples"):
        Triples.open(store)
    folder = triples.derive(store)
    assert len(Triples.open(store)) > 5
    file = folder / "triples.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"damaged: triples\.parquet: expected xxh3"):
        Triples.open(store)
    triples.derive(store)
    grow.delete(store.path, ["ohio"])
    later = Datastore.open(store.path)
    with pytest.raises(StoreError, match="are of version"):
        Triples.open(later)
    triples.derive(later)
    assert "Ohio" not in Triples.open(later).names.entities
    assert len(list((store.path / "derived").iterdir())) == 1


@pytest.mark.parametrize("change", [[1], {"sums": [1]}, {"sums": {"../../CURRENT": "0"}}, {"sums": {"..": "0"}}])
def test_triples_described_in_any_other_way_are_refused(store: Datastore, change: object) -> None:
    path = triples.derive(store) / derived.DERIVED
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change} if isinstance(change, dict) else change))
    with pytest.raises(StoreError, match=r"damaged: (?!\.\.).*derive triples"):
        Triples.open(store)


def test_a_pipe_among_the_triples_is_not_waited_on(store: Datastore) -> None:
    folder = triples.derive(store)
    (folder / triples.FILE).unlink()
    os.mkfifo(folder / triples.FILE)
    with pytest.raises(StoreError, match="expected a plain file"):
        Triples.open(store)


def test_triples_are_on_disk_before_the_older_ones_go_which_stay_where_that_fails(
    store: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    sync, replace = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted)
        folder = triples.derive(store)
    assert {path.name for path in folder.iterdir()} - {derived.DERIVED} <= synced

    def full(path: Path, target: Path) -> Path:
        if path.name == ".triples.new":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr(Path, "replace", full)
        triples.derive(store)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name] and len(Triples.open(store)) > 5
    triples.derive(store)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    grow.delete(store.path, ["ohio"])
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr(Path, "replace", full)
        triples.derive(Datastore.open(store.path))
    assert len(Triples.open(store)) > 5  # a reader of the version before
