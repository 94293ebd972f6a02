"""Sources files, and the commands that make and use what stands beside a store."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sleuth import cli
from sleuth.agents import cite
from sleuth.agents.strategy import STRATEGIES
from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.retrieval import spans, triples
from sleuth.retrieval.route import Routed
from sleuth.retrieval.sources import Minds, open_any, open_sources
from sleuth.session import Session
from tests.knowledge_stores import film_store
from tests.retrieval_stores import HashEmbedder
from tests.scripted import ScriptedPolicy

SOURCES = """
route = "probe"
[sources.pages]
kind = "store"
path = "store"
mode = "bm25"
about = "films and the people who made them"
scoped = true
[sources.graph]
kind = "triples"
path = "store"
[sources.spans]
kind = "spans"
path = "store"
[sources.sales]
kind = "tables"
path = "sales.csv"
about = "tickets sold per year"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sleuth.retrieval.pairs.embedder", lambda spec, device: HashEmbedder())
    store = film_store(tmp_path, monkeypatch)
    triples.derive(store)
    spans.derive(store)
    (tmp_path / "sales.csv").write_text("year,tickets\n1975,67000000\n1976,42000000\n")
    (tmp_path / "all.toml").write_text(SOURCES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    cli.app(args=[*arguments, "--json"], standalone_mode=False)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_file_of_sources_is_one_retriever_that_routes(here: Path) -> None:
    found = open_sources(here / "all.toml", today=date(1976, 5, 1))
    (hits,) = found.search(["how many tickets were sold in 1975"], 3)
    assert hits[0].passage.id == "sales:sales#0" and hits[0].retriever == "sales: table"
    (hits,) = found.search(["the American director Steven Spielberg, films and people"], 3)
    assert hits[0].passage.id.startswith(("pages:", "graph:")) and found.document(hits[0].passage.doc_id).title
    assert found.fetch([hit.passage.id for hit in hits]) == [hit.passage for hit in hits]


def test_all_sources_can_be_fused_and_scopes_are_told(here: Path) -> None:
    (here / "all.toml").write_text(SOURCES.replace('"probe"', '"all"'))
    found = open_any("all.toml", today=date(1976, 5, 1))
    assert isinstance(found, Routed) and found.breadth == 4
    answer = found.search(["Jaws last year", "Jaws in 1850"], 5)
    kinds = {hit.retriever.partition(":")[0] for hit in answer[0]}
    assert {"pages", "graph", "spans"} <= kinds
    assert [what for what, _ in answer.missing] == ["pages: date 1850 to 1851"]  # type: ignore[attr-defined]


def test_search_derive_triples_and_sql_work_from_the_command_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = told(capsys, "derive", "pairs", "store")
    assert made["pairs"] >= 5 and Path(made["folder"]).is_dir()
    (facts,) = told(capsys, "derive", "triples", "store")
    assert facts["triples"] > 10
    found = told(capsys, "triples", "store", "Jaws", "Cincinnati")
    assert [t["relation"] for t in found[0]["chain"]][-1] in ("birthplace", "was born in")
    assert [row["chain"][0]["subject"] for row in told(capsys, "triples", "store", "Ohio")].count("Ohio") >= 1
    (hit, *_) = told(capsys, "search", "all.toml", "tickets in 1976")
    assert hit["passage"]["id"] == "sales:sales#1"
    assert told(capsys, "sql", "sales.csv", "select sum(tickets) as n from sales") == [{"n": 109000000}]
    assert told(capsys, "sql", "store", "select count(*) as n from documents") == [{"n": 8}]
    (here / "every.toml").write_text(SOURCES.replace('"probe"', '"all"'))
    capsys.readouterr()
    cli.app(args=["search", "every.toml", "Jaws in 1850", "--json"], standalone_mode=False)
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[0])["rank"] == 1
    assert "not looked for in pages: date 1850 to 1851" in said.err
    cli.app(args=["triples", "store", "Ohio", "Peter Benchley", "--hops", "1"], standalone_mode=False)
    assert "no path of at most 1 triples" in capsys.readouterr().err
    for wrong, kind in ((["derive", "tripels", "store"], ConfigError), (["triples", "store", "Mercury"], ConfigError),
                        (["triples", "store", "Nobody"], InputError), (["derive", "spans", "nowhere"], StoreError),
                        (["derive", "spans", "store", "--rows", "x"], ConfigError)):  # fmt: skip
        with pytest.raises(kind):
            cli.app(args=wrong, standalone_mode=False)


def test_an_answer_from_a_row_is_cited_and_verified(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quote = "year: 1975; tickets: 67000000"

    def reply(messages: Any) -> dict[str, Any]:
        return {"quotes": [quote], "answer": "67000000"}

    session = Session(open_any("all.toml"), ScriptedPolicy(reply), STRATEGIES["naive-rag"])
    episode = asyncio.run(session.ask("How many tickets were sold in 1975?", out="run.jsonl"))
    assert episode.answer is not None and episode.answer.text == "67000000"
    (check,) = cite.verify(episode, open_any("all.toml"))
    assert check.holds and check.citation.passage_id == "sales:sales#0" and check.citation.quote == quote
    assert session.urls(episode) == {}
    (row,) = told(capsys, "verify", "run.jsonl", "all.toml")
    assert row["holds"]
    (here / "sales.csv").write_text("year,tickets\n1975,1\n")
    with pytest.raises(InputError, match="of other versions"):
        told(capsys, "verify", "run.jsonl", "all.toml")


def test_policies_judge_and_write_sql_for_sources_where_they_can_be_had(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run.jsonl").write_text("")
    pages = '[sources.pages]\nkind = "store"\npath = "store"\nrerank = "rubric:some"\nsamples = 1\n'
    sales = '[sources.sales]\nkind = "tables"\npath = ["sales.csv"]\nsql = "some"\n'
    (here / "minds.toml").write_text(pages + sales)

    def judge(spec: str) -> Any:
        assert spec == "some"
        return lambda query, texts, rubric, samples: [[100.0 if "Ohio" in text else 0.0] for text in texts]

    minds = Minds(judge, lambda spec: lambda question, tables: "select max(tickets) as most from sales")
    found = open_sources("minds.toml", minds=minds)
    assert found.sources["pages"].search(["Jaws"], 1)[0][0].passage.doc_id in ("ohio", "cincinnati", "nameless")
    assert found.sources["sales"].search(["most"], 1)[0][0].passage.text == "most: 67000000"
    (here / "minds.toml").write_text((pages + sales).replace('"some"', '"embedded"').replace(":some", ":embedded"))
    with pytest.raises(InputError, match="at least one episode"):  # none of the policies is asked
        told(capsys, "verify", str(here / "run.jsonl"), "minds.toml")
    with pytest.raises(ConfigError, match=r"\[sources\.pages\]: a rubric wants a policy"):
        open_sources("minds.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected at least one table"),
        ("[sources]\npages = 3", "expected a table, found 3"),
        ('[sources.p]\nkind = "stor"\npath = "store"', r"found 'stor' \(did you mean 'store'"),
        ('[sources.p]\nkind = "store"', "expected path, the folder of a datastore"),
        ('[sources.p]\nkind = "store"\npaht = "store"', r"unknown key 'paht' \(did you mean 'path'"),
        ('[sources.p]\nkind = "store"\npath = "store"\nmode = "fast"', "expected mode of hybrid"),
        ('[sources.p]\nkind = "pairs"\npath = "store"\nmode = "bm25"', "'mode' is for store and remote, found"),
        ('[sources.p]\nkind = "tables"\npath = 3', "expected path, one or several"),
        ('[sources.p]\nkind = "tables"\npath = "sales.csv"\nsql = "x"', "'sql' wants a policy"),
        ('[sources.p]\nkind = "remote"', "expected url"),
        ('[sources.p]\nkind = "store"\npath = "store"\nrerank = "best"', "expected rerank of late:MODEL"),
        ('route = "best"\n[sources.p]\nkind = "store"\npath = "store"', "expected route of probe, all or a .json"),
        ('breadth = 0\n[sources.p]\nkind = "store"\npath = "store"', "expected breadth of at least 1"),
        ('[sources."A B"]\nkind = "store"\npath = "store"', "expected a name of lower-case letters"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_says_where(here: Path, text: str, said: str) -> None:
    (here / "wrong.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        open_sources("wrong.toml")


def test_what_is_not_there_says_how_to_make_it(here: Path) -> None:
    (here / "pairs.toml").write_text('[sources.p]\nkind = "pairs"\npath = "store"')
    with pytest.raises(StoreError, match="`sleuth derive pairs store` makes them"):
        open_sources("pairs.toml")
    with pytest.raises(InputError, match="cannot be read"):
        open_sources("missing.toml")
