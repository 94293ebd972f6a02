"""Routing: a source is chosen by evidence or by what was learned, and every hit says where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.route import Learned, Probe, Routed, accuracy, everywhere, fit

RIVERS = ["The Rhine flows through Germany.", "The Loire is a river of France.", "The Danube is long."]
FILMS = ["Jaws is a film about a shark.", "Alien is a film set in space.", "Rhine is a short film."]


class Shelf:
    """A few texts, ranked by shared words; ids are 0, 1, ..."""

    def __init__(self, texts: Sequence[str], error: Exception | None = None) -> None:
        self.texts, self.error, self.asked = texts, error, list[str]()
        self.fingerprint = texts[0] if texts else "empty"

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        self.asked += queries
        if self.error:
            raise self.error
        if where and "river" not in where:
            raise InputError(f"filter: unknown field {list(where)}")
        return [self._ranked(query)[:k] for query in queries]

    def _ranked(self, query: str) -> list[Hit]:
        words = set(query.lower().split())
        scored = [(len(words & set(text.lower().strip(".").split())), n) for n, text in enumerate(self.texts)]
        kept = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])
        return [Hit(self.passage(n), score, rank, "shelf") for rank, (score, n) in enumerate(kept, 1)]

    def passage(self, n: int) -> Passage:
        return Passage(str(n), str(n), 0, len(self.texts[n]), "", self.texts[n])

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return [self.passage(int(id_)) for id_ in passage_ids]

    def document(self, doc_id: str) -> Document:
        return Document(doc_id, self.texts[int(doc_id)])


def routed(choose: object = None, breadth: int = 1, **more: Shelf) -> Routed:
    sources = {"rivers": Shelf(RIVERS), "films": Shelf(FILMS), **more}
    return Routed(sources, choose or Probe({"rivers": RIVERS, "films": FILMS}), breadth)  # type: ignore[arg-type]


def test_each_query_goes_to_the_source_whose_samples_match_and_hits_say_so() -> None:
    found = routed()
    answers = found.search(["a river of France", "a film about a shark", "zebra"], 1)
    assert [[hit.passage.id for hit in hits] for hits in answers] == [["rivers:1"], ["films:0"], []]
    assert answers[0][0].retriever == "rivers: shelf" and answers[0][0].passage.doc_id == "rivers:1"
    assert found.sources["films"].asked == ["a film about a shark", "zebra"]  # type: ignore[attr-defined]
    ids = ["films:1", "rivers:1", "films:1"]
    assert [p.id for p in found.fetch(ids)] == ids and found.fetch(["rivers:1"])[0].text == RIVERS[1]
    assert found.document("films:1") == Document("films:1", FILMS[1])


def test_the_next_source_follows_where_the_first_finds_nothing() -> None:
    (hits,) = routed(lambda queries: [["rivers", "films"]]).search(["space shark"], 2)
    assert [hit.passage.id for hit in hits] == ["films:0", "films:1"]


def test_with_breadth_sources_are_fused_by_rank() -> None:
    (hits,) = routed(everywhere(["rivers", "films"]), breadth=2).search(["Rhine film"], 3)
    assert {hit.passage.id for hit in hits[:2]} == {"rivers:0", "films:2"} and hits[0].score == hits[1].score
    assert [hit.rank for hit in hits] == [1, 2, 3]


def test_a_source_that_fails_is_named_and_raised_where_all_do() -> None:
    down = Shelf([], StoreError("far away"))
    found = routed(everywhere(["down", "rivers"]), breadth=2, down=down).search(["Rhine"], 1)
    assert found[0][0].passage.id == "rivers:0" and found.missing == (("down", "far away"),)  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="far away"):
        routed(everywhere(["down"]), down=down).search(["Rhine"], 1)
    with pytest.raises(InputError, match="unknown field"):
        routed().search(["Rhine"], 1, {"film": 1})


def test_names_and_choices_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="router chose 'lakes'; known sources: rivers, films"):
        routed(lambda queries: [["lakes"]]).search(["Rhine"], 1)
    with pytest.raises(ConfigError, match="expected a ranking for each of 1 queries, found 0"):
        routed(lambda queries: []).search(["Rhine"], 1)
    with pytest.raises(ConfigError, match="source 'A b': expected a name"):
        Routed({"A b": Shelf(RIVERS)}, everywhere(["A b"]))
    with pytest.raises(ConfigError, match="at least one source"):
        Routed({}, everywhere([]))
    for wrong in ("nowhere", "lakes:0"):
        with pytest.raises(KeyError, match="one of rivers, films"):
            routed().fetch([wrong])


def test_the_fingerprint_changes_with_any_source() -> None:
    assert routed().fingerprint == routed().fingerprint != routed(more=Shelf(["x"])).fingerprint


ROWS = [(f"how many {noun} are there per year", "films") for noun in ("rivers", "streams", "banks", "lakes")] + [
    (f"tell of the {noun}", "rivers") for noun in ("film", "shark", "space", "movie")
]
"""Labels against the samples: only what is learned can follow them."""


def test_a_router_learns_from_labelled_queries_and_is_kept_as_json(tmp_path: Path) -> None:
    probe = Probe({"rivers": RIVERS, "films": FILMS})
    learned = fit(ROWS, probe)
    assert sum(accuracy(learned, ROWS)) == len(ROWS) > sum(accuracy(probe, ROWS))
    learned.save(tmp_path / "router.json")
    turned = Probe({"films": FILMS, "rivers": RIVERS})
    again = Learned.load(tmp_path / "router.json", turned)
    queries = [query for query, _ in ROWS]
    assert again(queries) == learned(queries) and again([]) == []


def test_routers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    probe = Probe({"rivers": RIVERS, "films": FILMS})
    fit(ROWS, probe).save(tmp_path / "router.json")
    with pytest.raises(ConfigError, match="fitted to the sources rivers, films, found rivers, lakes"):
        Learned.load(tmp_path / "router.json", Probe({"rivers": RIVERS, "lakes": FILMS}))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ConfigError, match="made by `sleuth tune-router`"):
        Learned.load(tmp_path / "other.json", probe)
    with pytest.raises(InputError, match="unknown source 'lakes'"):
        fit([("a", "lakes")], probe)
    with pytest.raises(InputError, match="at least two sources, found 1"):
        fit(ROWS[:2], probe)
