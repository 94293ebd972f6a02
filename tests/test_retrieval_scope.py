"""Time scopes: read from a question's words or given, they prune before anything is ranked."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from sleuth.corpora.errors import ConfigError
from sleuth.retrieval.scope import Scope, Scoped, scope_of
from tests.knowledge_stores import film_store

TODAY = date(2024, 3, 15)  # a Friday


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("what happened in 1998", "1998", "1999"),
        ("films made between 1990 and 1995", "1990", "1996"),
        ("from May 1940 to 9 June 1944", "1940-05", "1944-06-10"),
        ("the 1939-1945 war", "1939", "1946"),
        ("laws after March 2003", "2003-04", ""),
        ("laws since 12 May 2001", "2001-05-12", ""),
        ("states before 1914", "", "1914"),
        ("fashion in the 1990s", "1990", "2000"),
        ("on March 3rd, 2001", "2001-03-03", "2001-03-04"),
        ("who won on 5 Sept. 2011", "2011-09-05", "2011-09-06"),
        ("in December 1999", "1999-12", "2000-01"),
        ("in Sep 1999", "1999-09", "1999-10"),
        ("in Mar. 1999", "1999-03", "1999-04"),
        ("on 2001-12-31", "2001-12-31", "2002-01-01"),
        ("last year's budget", "2023", "2024"),
        ("what changed this month", "2024-03", "2024-04"),
        ("last month", "2024-02", "2024-03"),
        ("last week", "2024-03-04", "2024-03-11"),
        ("yesterday", "2024-03-14", "2024-03-15"),
        ("in the last 3 months", "2023-12-15", "2024-03-16"),
        ("the last decade", "2010", "2020"),
    ],
)
def test_words_are_read_as_scopes(query: str, start: str, end: str) -> None:
    found = scope_of(query, TODAY)
    assert found is not None and (found.start, found.end) == (start, end) and found.said.lower() in query.lower()


@pytest.mark.parametrize(
    "query",
    ["the 1998 film", "on 2001-02-30", "between 1995 and 1990", "in 1200 words", "a town of 1500 people", "in 5000 BC",
     "room 1984", "in 1,200 cases", "What opened in Mart 2004?", "in Octt 2004", ""],
)  # fmt: skip
def test_words_that_are_no_time_scope_nothing(query: str) -> None:
    assert scope_of(query, TODAY) is None


def test_relative_words_need_a_day_to_count_from() -> None:
    assert scope_of("last year") is None


def test_a_scope_prunes_before_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = film_store(tmp_path, monkeypatch)
    found = Scoped(store.retriever("bm25"), TODAY)
    queries = ["Jaws in 1975", "Jaws between 1976 and May 1999", "Jaws", "Jaws last year"]
    answer = found.search(queries, 1)
    assert [[hit.passage.doc_id for hit in hits] for hits in answer[:2]] == [["jaws"], ["spielberg"]]
    assert answer[2] == store.search(["Jaws"], 1, mode="bm25")[0]
    assert answer[3][0].retriever == "bm25, any date"
    ((what, why),) = answer.missing  # type: ignore[attr-defined]
    assert what == "date 2023 to 2024" and "all dates were searched" in why and "'Jaws last year'" in why
    assert found.fingerprint == store.fingerprint and found.fetch(["jaws"]) == store.fetch(["jaws"])


def test_a_given_scope_or_filter_stands_before_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = film_store(tmp_path, monkeypatch).retriever("bm25")
    given = Scoped(store, scope=Scope("1990", "1991"))
    assert [hit.passage.doc_id for hit in given.search(["Jaws in 1975"], 5)[0]] == ["spielberg"]
    filtered = Scoped(store).search(["Jaws in 1975"], 5, {"date": {">=": "2003"}})
    assert [hit.passage.doc_id for hit in filtered[0]] == ["nameless"]
    narrow = Scoped(store, widen=False).search(["Jaws in 1812"], 5)
    assert narrow == [[]] and "nothing else was searched" in narrow.missing[0][1]  # type: ignore[attr-defined]


def test_scopes_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected dates like 1998"):
        Scope("last year", "")
    with pytest.raises(ConfigError, match="expected a start before the end, found 1999 and 1998"):
        Scope("1999", "1998")
