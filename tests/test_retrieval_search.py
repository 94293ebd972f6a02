"""Searching: rankings against references, filters, limits, SQL that can only read, snippets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.retrieval import bm25
from sleuth.retrieval.bm25 import BM25, Postings
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.fuse import reciprocal_rank
from sleuth.retrieval.records import Filter
from sleuth.retrieval.snippet import snippet
from sleuth.retrieval.store import Datastore
from sleuth.retrieval.tokens import Analyzer
from tests.retrieval_stores import HashEmbedder, corpus, files, use_hash_embedder

MODES = ("bm25", "dense", "hybrid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datastore]:
    path = tmp_path_factory.mktemp("stores") / "s"
    with pytest.MonkeyPatch.context() as patch:
        use_hash_embedder(patch)
        build(corpus(40), path, BuildSpec(segment_documents=15, max_words=100))
        yield Datastore.open(path)


def ids(store: Datastore, query: str, k: int = 5, where: Filter | None = None, mode: str = "hybrid") -> list[str]:
    (hits,) = store.search([query], k, where, mode)  # type: ignore[arg-type]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert all(first.score >= second.score for first, second in pairwise(hits))
    return [hit.passage.id for hit in hits]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_finds_the_passage_and_names_itself(store: Datastore, mode: str) -> None:
    (hits,) = store.search(["violin concerto number 12 in town12"], 3, mode=mode)  # type: ignore[arg-type]
    best = hits[0]
    assert (best.passage.id, best.retriever, best.source, best.date) == ("d012", mode, "right", "1912")
    assert best.url == "https://example.org/12" and best.passage.title == "Story 12"


def test_passages_are_exact_spans_of_their_documents(store: Datastore) -> None:
    _, rows = store.sql('select id, doc_id, start, "end", text from passages order by id')
    assert len(rows) == len(store) > 40
    for passage, (id_, doc_id, start, end, text) in zip(store.fetch([row[0] for row in rows]), rows, strict=True):
        assert (passage.id, passage.doc_id, passage.start, passage.end, passage.text) == (id_, doc_id, start, end, text)
        assert store.document(doc_id).text[start:end] == text
    assert {document.id: document for document in corpus(40)} == {
        doc_id: store.document(doc_id) for doc_id in {row[1] for row in rows}
    }


def test_fetch_and_document_name_what_is_missing(store: Datastore) -> None:
    assert [passage.id for passage in store.fetch(["d003", "d001", "d003"])] == ["d003", "d001", "d003"]
    with pytest.raises(KeyError, match="nope"):
        store.fetch(["d001", "nope"])
    with pytest.raises(KeyError, match="nope"):
        store.document("nope")


def dense_scores(index: BM25, query: str, count: int) -> np.ndarray:
    """(count,): the scores of all rows, 0 where not found."""
    ((rows, found),) = index.search([query], count)
    scores = np.zeros(count, "f4")
    scores[rows] = found
    return scores


def test_skipping_frequent_terms_changes_no_score_and_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    analyzer = Analyzer("none")
    words = [f"w{n}" for n in range(60)]
    zipf = 1 / np.arange(1, 61) ** 1.2
    texts = [" ".join(random.choice(words, random.integers(1, 40), p=zipf / zipf.sum())) for _ in range(900)]
    parts = [
        Postings.of(texts[:300], analyzer),
        Postings.of(texts[300:310], analyzer),
        Postings.of(texts[310:], analyzer),
    ]
    alive = [None, None, random.random(590) < 0.8]
    index, allowed = BM25(parts, analyzer, alive), random.random(900) < 0.5
    skipped, finish = [], BM25._finished
    monkeypatch.setattr(BM25, "_finished", lambda self, *given: skipped.append(1) or finish(self, *given))
    monkeypatch.setattr(bm25, "FEW", 0)
    for n in range(60):
        query = " ".join(random.choice(words, random.integers(1, 7)))
        monkeypatch.setattr(bm25, "DEARER", (0, 1, 10, 1000)[n % 4])
        for mask in (None, allowed):
            ((every, all_scores),) = index.search([query], 900, mask)
            truth = dict(zip(every.tolist(), all_scores.tolist(), strict=True))
            assert mask is None or mask[every].all()
            for k in (1, 5, 50):
                ((rows, scores),) = index.search([query], k, mask)
                least = sorted(truth.values())[-min(k, len(truth))] if truth else 0
                assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == {
                    row: score for row, score in truth.items() if score >= least
                }
    assert len(skipped) > 50  # the short way was taken


def test_bm25_over_segments_scores_as_bm25s_over_everything() -> None:
    import bm25s

    analyzer = Analyzer("english")
    texts = [document.text for document in corpus(60)]
    ours = BM25(
        [Postings.of(texts[:7], analyzer), Postings.of([], analyzer), Postings.of(texts[7:], analyzer)], analyzer
    )
    theirs = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    theirs.index([analyzer.terms(text) for text in texts], show_progress=False)
    for query in ("castle siege town11", "part story told number 6 castle", "zebra", "castle castle mill"):
        expected = theirs.get_scores(analyzer.terms(query)) if query != "zebra" else np.zeros(60)
        np.testing.assert_allclose(dense_scores(ours, query, 60), expected, rtol=1e-5)


def test_stop_words_count_only_in_a_query_of_nothing_else() -> None:
    analyzer = Analyzer("english")
    index = BM25([Postings.of(["the who", "a mill", "the castle"], analyzer)], analyzer)
    assert sorted(index.search(["the castle"], 3)[0][0]) == [2]
    assert sorted(index.search(["the"], 3)[0][0]) == [0, 2]


def test_terms_fold_case_accents_possessives_and_pair_cjk() -> None:
    analyzer = Analyzer("english")
    assert analyzer.terms("Beyoncé's MILLS") == analyzer.terms("beyonce mill")
    assert Analyzer("none").terms("我爱北京 ok 好") == ["我爱", "爱北", "北京", "ok", "好"]
    with pytest.raises(ConfigError, match="german"):
        Analyzer("klingon")


def test_the_russian_short_i_is_a_letter_in_the_second_version() -> None:
    for words in ("новый новая нового", "большой большая", "первый ПЕРВАЯ", "ёлка елка", "случай случаи"):
        assert len(set(Analyzer("russian").terms(words))) == 1
    assert Analyzer("russian").terms("и\u0306од Beyoncé") == ["йод", "beyonce"]
    assert Analyzer("russian", 1).terms("новый новая") == ["новы", "нов"]
    assert Analyzer("none").terms("новый") == Analyzer("english").terms("новыи")
    with pytest.raises(ConfigError, match="expected version 1 to 2, found 3"):
        Analyzer("russian", 3)


@pytest.mark.parametrize(("language", "word"), [("french", "même"), ("swedish", "är"), ("russian", "какой")])
def test_stop_words_count_as_their_terms_are_written(language: str, word: str) -> None:
    analyzer = Analyzer(language)
    assert set(analyzer.terms(word)) <= analyzer.stops()
    index = BM25([Postings.of([word, "x"], analyzer)], analyzer)
    assert sorted(index.search([f"{word} x"], 2)[0][0]) == [1]
    assert [piece for piece, matched in snippet(f"{word} x", f"{word} x", language=language) if matched] == ["x"]


def test_dense_scores_are_the_inner_products(store: Datastore) -> None:
    query = "steam engine town4"
    vector = HashEmbedder().encode([query])[0]
    (hits,) = store.search([query], 10, mode="dense")
    for hit in hits:
        text = f"{hit.passage.title}\n{hit.passage.text}"
        assert hit.score == pytest.approx(float(HashEmbedder().encode([text])[0] @ vector), abs=2e-3)


def test_fusion_is_by_reciprocal_ranks(store: Datastore) -> None:
    assert reciprocal_rank([["a", "b"], ["c", "a"]])[0] == ("a", 1 / 61 + 1 / 62)
    query, fused = "desert fox number 3", {}
    for mode in ("bm25", "dense"):
        for rank, id_ in enumerate(ids(store, query, 100, mode=mode), start=1):
            fused[id_] = fused.get(id_, 0.0) + 1 / (60 + rank)
    expected = sorted(fused, key=lambda id_: (-round(fused[id_], 12), id_))
    assert ids(store, query, 8) == expected[:8]


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_does_not_depend_on_the_batch_and_ties_go_by_id(store: Datastore, mode: str) -> None:
    queries = ["castle", "the river mill", "town7", "", "castle"]
    together = store.search(queries, 6, mode=mode)  # type: ignore[arg-type]
    assert together == [store.search([query], 6, mode=mode)[0] for query in queries]  # type: ignore[arg-type]
    for hits in together:
        keys = [(-hit.score, hit.passage.id) for hit in hits]
        assert keys == sorted(keys)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"source": "left"}, lambda n: n % 2 == 1),
        ({"theme": ["castle", "desert"]}, lambda n: n % 5 in (1, 3)),
        ({"year": {">=": 1910, "<": 1920}}, lambda n: 10 <= n < 20),
        ({"date": {">=": 1910}, "theme": "castle"}, lambda n: n >= 10 and n % 5 == 1),
        ({"year": {"!=": 1900}, "id": "d000"}, lambda n: False),
        ({"theme": None}, lambda n: False),
    ],
)
def test_filters_hold_before_ranking_in_every_mode(store: Datastore, mode: str, where: Filter, wanted: object) -> None:
    allowed = {document.id for n, document in enumerate(corpus(40)) if wanted(n)}  # type: ignore[operator]
    found = ids(store, "the number of the story stands told", len(store), where, mode)
    documents = {id_.partition("#")[0] for id_ in found}
    assert documents <= allowed
    if mode != "bm25":
        assert documents == allowed


def test_bad_filters_name_what_is_known(store: Datastore) -> None:
    with pytest.raises(InputError, match=r"unknown field 'colour'; known fields: id, .*theme, year"):
        store.search(["castle"], 3, {"colour": "red"})
    with pytest.raises(InputError, match="operator"):
        store.search(["castle"], 3, {"year": {"~": 3}})
    with pytest.raises(InputError, match="year"):
        store.search(["castle"], 3, {"year": "a castle"})
    with pytest.raises(InputError, match="theme"):
        store.search(["castle"], 3, {"theme": "\ud800"})


@pytest.mark.parametrize("mode", MODES)
def test_odd_queries_and_limits_are_answered(store: Datastore, mode: str) -> None:
    search = store.retriever(mode).search  # type: ignore[arg-type]
    assert search([], 3) == []
    assert search(["", "  ", "?!"], 3) == [[], [], []]
    assert 0 < len(search(["castle siege"], 10**6)[0]) <= len(store)
    assert len(search(["castle siege " * 80_000], 3)[0]) == 3
    assert search(["castle\0 \ud800 𝕏"], 1)[0][0].passage.id
    for k in (0, -1):
        with pytest.raises(InputError, match=f"found {k}"):
            search(["castle"], k)
    with pytest.raises(InputError, match="one string"):
        search("castle", 3)  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused(store: Datastore) -> None:
    with pytest.raises(ConfigError, match="hybrid, bm25, dense"):
        store.retriever("psychic")  # type: ignore[arg-type]
    assert store.retriever("bm25").fingerprint == store.fingerprint


def test_sql_reads_the_views_and_their_fields(store: Datastore) -> None:
    columns, rows = store.sql("select theme, count(*) as n, max(year) from documents group by theme order by theme")
    assert columns[:2] == ["theme", "n"] and rows[0] == ("castle", 8, 1936)
    assert len(store.sql("select * from passages", limit=3)[1]) == 3
    assert store.fields == {"theme": "str", "year": "int"}


@pytest.mark.parametrize(
    "query",
    [
        "copy documents to 'stolen.csv'", "attach 'x.db'", "create table t as select 1", "set threads=1",
        "install httpfs", "select '\ud800'",
        "select * from read_text('{file}')", "select * from '{file}'", "select * from read_csv('{file}')",
        "select * from glob('/*')", "select * from read_blob('{file}')",
        "select * from query('copy documents to ''stolen.csv''')", "select * from leaked", "select getenv('HOME')",
        "select 1; select 2", "", "drop view documents", "pragma database_list", "export database 'stolen'", "selec",
    ],
)  # fmt: skip
def test_sql_of_a_stranger_can_neither_read_nor_write_files(
    store: Datastore, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    leaked = pa.table({"secret": [1]})
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        store.sql(query.format(file=tmp_path / "secret.csv"))
    assert files(tmp_path) == [tmp_path / "secret.csv"] and len(leaked) == 1
    assert store.sql("select count(*) from documents")[1] == [(40,)]


def test_sql_that_does_not_end_is_stopped(store: Datastore) -> None:
    with pytest.raises(InputError, match="stopped after"):
        store._catalog.sql("select count(*) from range(100000000) a, range(1000000) b", seconds=0.2)


def test_metadata_names_that_sql_could_confuse_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleuth.corpora.records import Document

    use_hash_embedder(monkeypatch)
    odd = {"Title": "upper", "text": 3, "a\"b'/~c": "quoted", "": "none", "mixed": 1}
    build([Document("a", "some mill", metadata=odd), Document("b", "a fox", metadata={"mixed": "x"})], tmp_path / "s")
    store = Datastore.open(tmp_path / "s")
    assert store.document("a").metadata == odd
    fields = {"metadata.Title": "upper", "metadata.text": 3, "a\"b'/~c": "quoted", "metadata.": "none", "mixed": 1}
    for field, value in fields.items():
        assert ids(store, "mill fox", 5, {field: value}) == ["a"]
    assert ids(store, "mill fox", 5, {"mixed": "x"}) == ["b"]


def test_snippets_mark_matched_words_and_stay_within_the_width() -> None:
    text = "Nothing here at all. " * 20 + "The old mills stood by the river's bank. " + "Nothing more to say. " * 20
    pieces = snippet("the mill rivers", text, width=100)
    assert [piece for piece, matched in pieces if matched] == ["mills", "river's"]
    shown = "".join(piece for piece, _ in pieces)
    assert shown.startswith("…") and shown.endswith("…") and shown.strip("…") in text and len(shown) <= 110
    assert snippet("zebra", "short text") == [("short text", False)]
    assert snippet("mill", "") == []
    assert [p for p, matched in snippet("北京", "我爱北京。") if matched]


def test_opening_imports_no_model_library(store: Datastore) -> None:
    code = (
        "import sys; from sleuth.retrieval.store import Datastore; from sleuth.retrieval.build import build\n"
        f"store = Datastore.open({str(store.path)!r}); assert store.search(['castle'], 2, mode='bm25')[0]\n"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'faiss', 'duckdb') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert found.stdout.strip() == "[]", found.stderr
