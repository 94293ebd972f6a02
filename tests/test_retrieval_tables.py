"""Tables as a knowledge base: rows are passages that can be cited, and SQL reads and does nothing else."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from sleuth.agents.cite import locate
from sleuth.corpora.errors import InputError
from sleuth.retrieval import tables
from sleuth.retrieval.table_files import open_tables
from sleuth.retrieval.tables import Tables

CITIES = "name,country,people\nParis,France,2100000\nBerlin,Germany,3700000\nLyon,France,520000\n"
PAGE = """<p>Text</p><table><caption>Rivers of Europe</caption>
<tr><th>River</th><th>Length</th></tr><tr><td rowspan="2">Rhine</td><td>1230</td></tr><tr><td>1231</td></tr></table>
<table><tr><td>no table</td></tr></table>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cities.csv").write_text(CITIES)
    (tmp_path / "page.html").write_text(PAGE)
    with duckdb.connect(str(tmp_path / "films.duckdb")) as made:
        made.execute("CREATE TABLE films AS SELECT 'Jaws' AS title, 'Steven Spielberg' AS director, 1975 AS year")
        made.execute("COPY (SELECT 'Mallard' AS engine, 1938 AS built) TO '" + str(tmp_path / "engines.parquet") + "'")
    return tmp_path


def ids(found: Tables, query: str, k: int = 3) -> list[str]:
    return [hit.passage.id for hit in found.search([query], k)[0]]


def test_rows_of_every_kind_of_file_are_passages_that_fetch_gives_again(folder: Path) -> None:
    found = open_tables([folder])
    assert list(found.tables) == ["cities", "engines", "db_films.main.films", "rivers_of_europe"]
    firsts = {
        "how many people live in Paris": "cities#0",
        "length of the Rhine": "rivers_of_europe#0",
        "director of Jaws": "db_films.main.films#0",
        "when was Mallard built": "engines#0",
    }
    for query, first in firsts.items():
        (hits,) = found.search([query], 3)
        assert hits[0].passage.id == first and [hit.rank for hit in hits] == [*range(1, len(hits) + 1)]
        assert found.fetch([hit.passage.id for hit in hits]) == [hit.passage for hit in hits]
    (hits,) = found.search(["Paris"], 1)
    passage, document = hits[0].passage, found.document("cities#0")
    assert document.text[passage.start : passage.end] == passage.text == "name: Paris; country: France; people: 2100000"
    citation = locate("people: 2100000", [passage], found.fingerprint)
    assert citation is not None and passage.text[citation.start : citation.end] == "people: 2100000"
    assert ids(found, "Rhine", 1) == ["rivers_of_europe#0"] and found.fetch(["rivers_of_europe#1"])[0].text == (
        "River: Rhine; Length: 1231"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_page_of_tables_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    declared = "" if encoding == "utf-8" else "<meta charset=latin-1>"
    page = f"{declared}<table><tr><th>Stadt</th><th>Land</th></tr><tr><td>São Paulo</td><td>„Brasil“</td></tr></table>"
    (tmp_path / "t.html").write_bytes(page.encode(encoding))
    found = open_tables([tmp_path])
    assert found.search(["São Paulo"], 1)[0][0].passage.text == "Stadt: São Paulo; Land: „Brasil“"


def test_schema_search_finds_the_table_by_columns_and_by_values(folder: Path) -> None:
    found = open_tables([folder])
    assert found.find("which country")[0][0].name == "cities"
    assert found.find("Spielberg")[0][0].name == "db_films.main.films"
    assert found.find("zebra") == []


def test_what_a_written_select_yields_comes_first_and_is_cited_by_the_select(folder: Path) -> None:
    shown: list[list[str]] = []

    def write(question: str, known: object) -> str:
        shown.append([table.name for table in known])  # type: ignore[attr-defined]
        return "select country, sum(people) as total from cities group by country order by total desc;"

    found = open_tables([folder], write_sql=write)
    hits = found.search(["people by country"], 3)[0]
    assert [hit.passage.text for hit in hits[:2]] == [
        "country: Germany; total: 3700000",
        "country: France; total: 2620000",
    ]
    assert hits[0].passage.id.startswith("sql:select country") and shown[0][0] == "cities"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert open_tables([folder]).fetch([hit.passage.id for hit in hits]) == [hit.passage for hit in hits]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("drop table cities", "found DROP"),
        ("select 1; select 2", "found SELECT, SELECT"),
        ("attach 'x.db'", "found ATTACH"),
        ("copy cities to 'x.csv'", "found COPY"),
        ("set memory_limit='9GB'", "found SET"),
        ("select * from read_csv('/etc/passwd')", "disabled by configuration"),
        ("select * from nowhere", "tables: cities"),
        ("select random() as r from cities", "other rows each time"),
        ("I would look at the table.", "syntax error"),
    ],
)
def test_sql_that_is_none_or_does_more_than_read_brings_nothing_and_is_told(
    folder: Path, written: str, said: str
) -> None:
    found = open_tables([folder / "cities.csv"], write_sql=lambda query, known: written)
    answer = found.search(["Paris"], 2)
    ((what, why),) = answer.missing  # type: ignore[attr-defined]
    assert what == "sql" and said in why
    assert [hit.passage.id for hit in answer[0]] == ["cities#0"]
    if said != "other rows each time":
        with pytest.raises(InputError, match=said.replace("(", r"\(")):
            found.sql(written)


def test_rows_of_nothing_but_null_are_left_out(folder: Path) -> None:
    written = "select max(people) as most from cities where name = 'Nowhere'"
    found = open_tables([folder / "cities.csv"], write_sql=lambda query, known: written)
    assert ids(found, "most people in Paris", 1) == ["cities#0"]
    written = "select nullif(country, 'France') as country from cities order by people"
    assert [id_ for id_ in ids(found, "countries", 3) if id_.startswith("sql:")] == [f"sql:{written}#2"]


def test_a_select_that_does_not_end_is_stopped(folder: Path) -> None:
    found = open_tables([folder / "cities.csv"])
    with pytest.raises(InputError, match="stopped after"):
        found.sql("select count(*) from range(100000000) a, range(100000000) b", seconds=0.2)
    assert found.sql("select count(*) as n from cities") == (["n"], [(3,)])


def test_filters_name_columns(folder: Path) -> None:
    found = open_tables([folder])
    (hits,) = found.search(["Paris Berlin Lyon"], 5, {"country": "France", "people": {">=": 1_000_000}})
    assert [hit.passage.id for hit in hits] == ["cities#0"]
    with pytest.raises(InputError, match="no table has all of county; columns are cities: name, country, people"):
        found.search(["Paris"], 5, {"county": "France"})
    with pytest.raises(InputError, match="does not fit table cities"):
        found.search(["Paris"], 5, {"people": "many"})


def test_ids_that_are_not_there_are_named(folder: Path) -> None:
    found = open_tables([folder])
    for wrong in (
        "cities#3",
        "cities",
        "towns#0",
        "cities#x",
        "sql:select 1#1",
        "sql:drop table cities#0",
        "sql:select 1#99999",
    ):
        with pytest.raises(KeyError, match="no such rows"):
            found.fetch([wrong])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.csv", b"name,country\nParis\nBerlin,Germany,more,yet\n", "broken.csv: cannot be read"),
        ("latin.csv", "name,x\nAndré,1\n".encode("latin-1"), "latin.csv: cannot be read"),
        ("p.parquet", b"PAR1 is not enough", "p.parquet: cannot be read"),
        ("d.duckdb", b"no database", "d.duckdb: cannot be read"),
        ("e.html", b"<p>no table here</p>", "e.html: expected a table with columns"),
        ("notes.txt", b"text", "expected a file that ends in"),
    ],
)
def test_a_file_that_is_no_table_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_tables([tmp_path / name])
    with pytest.raises(InputError, match="no such file"):
        open_tables([tmp_path / "missing.csv"])


def test_rows_that_are_too_many_for_words_are_told_and_answered_in_sql(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    found = open_tables([folder / "cities.csv"])
    answer = found.search(["Paris"], 2)
    assert answer == [[]] and "ask in SQL" in answer.missing[0][1]  # type: ignore[attr-defined]
    assert found.sql("select name from cities where people > 3000000")[1] == [("Berlin",)]


def test_the_fingerprint_is_that_of_the_files(folder: Path) -> None:
    before = open_tables([folder]).fingerprint
    assert open_tables([folder]).fingerprint == before
    (folder / "cities.csv").write_text(CITIES.replace("2100000", "2100001"))
    assert open_tables([folder]).fingerprint != before
