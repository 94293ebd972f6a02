"""Remote and sharded retrievers against the stores behind them: same answers, and something is down."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sleuth import view
from sleuth.agents import cite
from sleuth.agents.strategy import STRATEGIES
from sleuth.agents.tools import search_tool
from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.corpora.records import Document
from sleuth.retrieval import grow
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.records import Hit
from sleuth.retrieval.remote import MAX_HITS, MAX_IDS, RemoteRetriever, disk_cache, open_store
from sleuth.retrieval.route import Routed
from sleuth.retrieval.sharded import MOST, Hits, Sharded
from sleuth.retrieval.sources import open_any
from sleuth.retrieval.store import Datastore
from sleuth.serving.app import make_app, open_server
from sleuth.serving.batch import Limits
from sleuth.session import Session
from tests.retrieval_stores import HashEmbedder, corpus, use_hash_embedder
from tests.scripted import ScriptedPolicy

SPEC = BuildSpec(segment_documents=8, max_words=100)
QUERIES = ["castle siege number", "", "violin"]


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store ``whole``, and its halves ``left`` and ``right``."""
    path = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        use_hash_embedder(patch)
        documents = corpus(20)
        build(documents, path / "whole", SPEC)
        build(documents[::2], path / "left", SPEC)
        build(documents[1::2], path / "right", SPEC)
    return path


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        use_hash_embedder(patch)
        with serving(make_app(open_server(folder / "whole"))) as address:
            yield address


def test_an_empty_text_is_in_no_order_whoever_evaluates_the_filter(tmp_path: Path) -> None:
    dates = {"old": "1980", "new": "2001-05", "undated": ""}
    build(
        [Document(id_, f"The mill {id_} grinds.", date=date, metadata={"built": date}) for id_, date in dates.items()],
        tmp_path / "s",
    )
    rows = ", ".join(f"('{id_} mill grinds', '{date}', '{date}')" for id_, date in dates.items())
    duckdb.execute(f"COPY (FROM (VALUES {rows}) AS mills(mill, date, built)) TO '{tmp_path / 'mills.parquet'}'")
    (tmp_path / "all.toml").write_text(
        '[sources.rows]\nkind = "tables"\npath = "mills.parquet"\n[sources.pages]\nkind = "store"\npath = "s"\n'
    )
    store, sources = Datastore.open(tmp_path / "s"), open_any(tmp_path / "all.toml")
    assert isinstance(sources, Routed)
    with serving(make_app(open_server(tmp_path / "s"))) as url:
        for field in ("date", "built"):
            for operator, value in (("<", "z"), ("<=", "z"), (">", ""), (">=", "")):
                where = {field: {operator: value}}
                assert sorted(store.matching(where)) == ["new", "old"]
                for asked in (store, RemoteRetriever(url), *sources.sources.values()):
                    found = " ".join(hit.passage.text for hit in asked.search(["mill grinds"], 9, where)[0])
                    assert "old" in found and "new" in found and "undated" not in found, (asked, where)
    assert store.matching({"date": ""}) == ["undated"]
    assert len(store.matching({"date": {"!=": "1980"}})) == 2
    assert grow.delete(tmp_path / "s", where={"date": {"<": 1990}}).deleted == 1


def test_an_address_that_is_no_server_of_a_store_is_named(url: str) -> None:
    with pytest.raises(StoreError, match=r"/search: no sleuth server here; expected http://HOST:PORT"):
        open_store(f"{url}/search")


def scripted(*replies: Callable[[], Response], fingerprint: str = "f1") -> tuple[Starlette, list[str]]:
    """A server that gives these replies to searches in turn, the last one ever after; and what was asked of it."""
    asked: list[str] = []
    left = list(replies)

    async def search(request: Request) -> Response:
        asked.append((await request.body()).decode())
        return (left.pop(0) if len(left) > 1 else left[0])()

    async def health(request: Request) -> Response:
        return JSONResponse({"fingerprint": fingerprint, "passages": 1})

    return Starlette(routes=[Route("/search", search, methods=["POST"]), Route("/health", health)]), asked


def found(score: float = 1.0, fingerprint: str = "f1", number: int = 1) -> Callable[[], Response]:
    passage = {"id": "p", "doc_id": "p", "start": 0, "end": 1, "title": "", "text": "x"}
    hit = {"passage": passage, "score": score, "rank": 1, "retriever": "bm25", "url": "", "source": "", "date": ""}
    return lambda: JSONResponse({"fingerprint": fingerprint, "hits": [[hit]] * number, "missing": []})


def test_the_remote_store_is_the_store(folder: Path, url: str) -> None:
    here, there = Datastore.open(folder / "whole"), RemoteRetriever(url)
    assert there.fingerprint == here.fingerprint and len(there) == len(here)
    for mode in ("hybrid", "bm25", "dense"):
        for where in (None, {"year": {">=": 1905}}, {"source": ("left", "right")}):
            for _ in range(2):  # asked, then from the cache
                assert there.search(QUERIES, 4, where, mode) == here.search(QUERIES, 4, where, mode)  # type: ignore[arg-type]
            assert there.retriever(mode).search(QUERIES, 4, where) == here.search(QUERIES, 4, where, mode)  # type: ignore[arg-type]
    assert there.fetch(["d006#1", "d001"]) == here.fetch(["d006#1", "d001"])
    assert there.document("d006") == here.document("d006")
    long = "castle " * 5000
    assert there.search([long], 3) == here.search([long], 3)
    for call in (lambda: there.fetch(["d001", "nobody"]), lambda: there.document("nobody")):
        with pytest.raises(KeyError, match="nobody"):
            call()
    with pytest.raises(InputError, match="unknown field 'nope'; known fields"):
        there.search(["x"], 3, {"nope": 1})
    with pytest.raises(InputError, match="k: expected an integer from 1 to 1000, found 0"):
        there.search(["x"], 0)
    there.close()


def test_agents_search_through_it(folder: Path, url: str) -> None:
    tool = search_tool(RemoteRetriever(url))

    async def run() -> Any:
        return await asyncio.gather(*(tool(query=query, k=3) for query in ("castle siege", "violin")))

    here = Datastore.open(folder / "whole")
    assert list(asyncio.run(run())) == here.search(["castle siege", "violin"], 3)


def test_a_store_that_changes_under_a_run_is_told_and_no_honest_citation_fails(tmp_path: Path) -> None:
    """Nothing of a second version is cited as the first one's, and what was cited before is not called wrong after."""
    build(corpus(10), tmp_path / "s", SPEC)
    quote, changes = "The castle siege number 1 stands in town1.", [lambda: None]

    def reply(messages: Any) -> dict[str, Any]:
        changes.pop()() if changes else None
        return {"quote": quote, "quotes": [quote], "answer": "town1"}

    with serving(make_app(open_server(tmp_path / "s", reload_s=0.02))) as url:

        def deleted(doc_id: str) -> None:
            grow.delete(tmp_path / "s", [doc_id])
            newest = Datastore.open(tmp_path / "s").fingerprint
            while RemoteRetriever(url).fingerprint != newest:
                time.sleep(0.01)

        asked = "Where does the castle siege number 1 stand?"
        remote = RemoteRetriever(url, fresh_s=0)
        session = Session(remote, ScriptedPolicy(reply), STRATEGIES["iter-retgen"])
        episode = asyncio.run(session.ask(asked))
        assert episode.stop == "answered" and all(check.holds for check in cite.verify(episode, remote))
        first = remote.fingerprint
        changes.append(lambda: deleted("d002"))
        late = asyncio.run(session.ask(asked))
        assert late.stop == "error" and late.fingerprint == first and len(late.steps) == 2
        told = f"StoreError: the store changed from version {first[:12]} to {remote.fingerprint[:12]} during the run"
        assert told in late.error
        assert session.urls(late) == {"d001": "https://example.org/1"}
        deleted("d001")
        assert session.urls(late) == session.urls(episode) == {}
        out = io.StringIO()
        Console(file=out, width=200).print(view.answer(late, checks=cite.verify(late, remote)))
    assert "of another version than the store is at now" in out.getvalue() and "✗" not in out.getvalue()


def test_an_address_stands_where_a_folder_does(folder: Path, url: str) -> None:
    assert open_store(Path(url)).fingerprint == open_store(folder / "whole").fingerprint  # a path drops a slash
    with pytest.raises(StoreError, match="no datastore here"):
        open_store(folder / "nowhere")
    with pytest.raises(ConfigError, match="expected an address"):
        RemoteRetriever("127.0.0.1:8000")
    with pytest.raises(StoreError, match=r"/health: not answered in 0\.3 s: ConnectError"):
        RemoteRetriever("http://127.0.0.1:9", timeout_s=0.3).check()


def test_transient_failures_are_tried_again_and_others_are_not() -> None:
    busy = lambda: JSONResponse({"error": "full"}, 503, {"retry-after": "0"})  # noqa: E731
    app, asked = scripted(busy, busy, found(0.5))
    with serving(app) as address:
        assert RemoteRetriever(address).search(["x"], 1)[0][0].score == 0.5
    assert len(asked) == 3
    for reply, said in (
        (lambda: JSONResponse({"error": "broken"}, 500), "expected HTTP 200, found 500: broken"),
        (lambda: PlainTextResponse("<html>", 200), "expected JSON, found '<html>'"),
        (lambda: JSONResponse({"error": "late"}, 504), "found 504: late"),
    ):
        app, asked = scripted(reply)
        with serving(app) as address, pytest.raises(StoreError, match=said):
            RemoteRetriever(address).search(["x"], 1)
        assert len(asked) == 1
    app, asked = scripted(busy)
    with serving(app) as address, pytest.raises(StoreError, match="HTTP 503: full"):
        RemoteRetriever(address, attempts=3).search(["x"], 1)
    assert len(asked) == 3


def test_a_reply_that_trickles_swells_or_cannot_be_unpacked_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 50
            await asyncio.sleep(0.05)

    app, _ = scripted(lambda: StreamingResponse(drops()))
    started = time.monotonic()
    with serving(app) as address, pytest.raises(StoreError, match=r"in 0\.5 s: the reply had not ended after \d"):
        RemoteRetriever(address, timeout_s=0.5).search(["x"], 1)
    assert time.monotonic() - started < 3
    app, asked = scripted(lambda: PlainTextResponse("no gzip", headers={"content-encoding": "gzip"}))
    with serving(app) as address, pytest.raises(StoreError, match="expected a reply that can be unpacked, found"):
        RemoteRetriever(address).search(["x"], 1)
    assert len(asked) == 1
    monkeypatch.setattr("sleuth.retrieval.remote.MAX_REPLY_BYTES", 1_000)
    app, asked = scripted(lambda: PlainTextResponse("x" * 1_001))
    with serving(app) as address, pytest.raises(StoreError, match="/search: expected at most 1,000 bytes, found more"):
        RemoteRetriever(address).search(["x"], 1)
    assert len(asked) == 1


def test_no_proxy_hears_what_is_asked_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    app, asked = scripted(found())
    with serving(app) as address:
        for name in (address, address.replace("127.0.0.1", "localhost")):
            RemoteRetriever(name, timeout_s=2).search(["x"], 1)
        assert len(asked) == 2
    with pytest.raises(StoreError, match="ConnectError"):  # the proxy's, which every other address has
        RemoteRetriever("http://store.example", timeout_s=0.2).search(["x"], 1)


def test_answers_are_cached_under_the_version_they_came_from(tmp_path: Path) -> None:
    app, asked = scripted(found(1.0), found(1.0, number=2), found(2.0, "f2"), found(2.0, "f2", 2))
    with serving(app) as address:
        remote = RemoteRetriever(address, cache=disk_cache(tmp_path / "cache"), fresh_s=60)
        remote.search(["a"], 1)
        remote.search(["a", "a"], 1)
        assert len(asked) == 1
        remote.search(["a", "b", "c"], 1)
        assert len(asked) == 2 and '"b"' in asked[1] and '"a"' not in asked[1]
        again = RemoteRetriever(address, cache=disk_cache(tmp_path / "cache"), fresh_s=60)
        again.search(["c", "b"], 1)
        assert len(asked) == 2  # from disk, by another client
        mixed = again.search(["a", "b", "d"], 1)  # the server has moved on: nothing of the old version is mixed in
        assert len(asked) == 4 and [rows[0].score for rows in mixed] == [2.0] * 3 and again.fingerprint == "f2"


def test_many_queries_and_ids_are_asked_in_requests_that_a_server_takes(folder: Path, url: str) -> None:
    here, there = Datastore.open(folder / "whole"), RemoteRetriever(url)
    queries = [f"castle siege number {n}" for n in range(MAX_HITS // 1000 + 3)]
    assert there.search(queries, 1000, mode="bm25") == here.search(queries, 1000, mode="bm25")
    assert there.fetch(["d001", "d002"] * MAX_IDS) == here.fetch(["d001", "d002"] * MAX_IDS)
    numbers = itertools.count()

    def restless() -> Response:
        return found(fingerprint=f"g{next(numbers)}")()

    app, asked = scripted(restless)
    with serving(app) as address, pytest.raises(StoreError, match="expected one version, found 4 in one search"):
        RemoteRetriever(address, attempts=2).search(["a", "b"], MAX_HITS)
    assert len(asked) == 3


def test_a_foreign_cache_is_not_unpickled(tmp_path: Path) -> None:
    import diskcache

    with diskcache.Cache(str(tmp_path / "cache")) as foreign:
        foreign["x"] = {"an": "object"}
    with pytest.raises(StoreError, match="found an object of another program"):
        disk_cache(tmp_path / "cache")["x"]


def test_shards_answer_as_one_store(folder: Path, url: str) -> None:
    whole = Datastore.open(folder / "whole")
    halves = {name: Datastore.open(folder / name) for name in ("left", "right")}
    sharded = Sharded(halves)
    dense, expected = sharded.search(QUERIES, 50, mode="dense"), whole.search(QUERIES, 50, mode="dense")
    assert [scored(rows) for rows in dense] == [scored(rows) for rows in expected]
    assert dense.missing == ()
    for mode in ("bm25", "hybrid"):  # statistics are each shard's own, so places may differ, not what is on top
        ours_, theirs_ = sharded.search(QUERIES, 5, mode=mode), whole.search(QUERIES, 5, mode=mode)  # type: ignore[arg-type]
        assert [len(rows) for rows in ours_] == [len(rows) for rows in theirs_]
        assert [hit.rank for hit in ours_[0]] == [1, 2, 3, 4, 5]
        assert all("castle siege" in hit.passage.text for hit in ours_[0][:3])
    where = {"year": {">=": 1910}}
    assert {h.passage.doc_id for h in sharded.search(["castle"], 50, where)[0]} == {
        h.passage.doc_id for h in whole.search(["castle"], 50, where)[0]
    }
    assert sharded.fetch(["d001", "d006#1", "d000"]) == whole.fetch(["d001", "d006#1", "d000"])
    assert sharded.document("d013") == whole.document("d013")
    with pytest.raises(KeyError, match="nobody"):
        sharded.fetch(["d001", "nobody"])
    assert sharded.fingerprint == Sharded(dict(reversed(halves.items()))).fingerprint
    twice = Sharded({"here": whole, "there": RemoteRetriever(url)}).search(QUERIES, 50, mode="dense")
    assert [scored(rows) for rows in twice] == [scored(rows) for rows in expected]


def scored(hits: list[Hit]) -> list[tuple[float, str]]:
    """Comparable between stores, whose vectors have been added up in another order."""
    return sorted((-round(hit.score, 5), hit.passage.id) for hit in hits)


@dataclasses.dataclass
class Hanging:
    """A shard that answers when it is let go."""

    store: Datastore
    gate: threading.Event

    @property
    def fingerprint(self) -> str:
        return self.store.fingerprint

    @property
    def dense_weight(self) -> float | None:
        return self.store.dense_weight

    def __len__(self) -> int:
        return len(self.store)

    def search(self, *arguments: Any) -> Any:
        self.gate.wait(10)
        return self.store.search(*arguments)

    def fetch(self, passage_ids: Any) -> Any:
        raise ConnectionError("gone")

    def document(self, doc_id: str) -> Any:
        raise ConnectionError("gone")


def test_hybrid_search_of_shards_fuses_as_their_stores_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Any = Datastore.open(folder / "right")  # its embedder has no weight
    for module in ("build", "store"):
        static = dataclasses.replace(HashEmbedder(), name="static")
        monkeypatch.setattr(f"sleuth.retrieval.{module}.embedder", lambda spec, device, model=static: model)
    build(corpus(20), tmp_path / "s", SPEC)
    store = Datastore.open(tmp_path / "s")
    expected = [scored(hits) for hits in store.search(QUERIES, 8)]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving(make_app(open_server(tmp_path / "s"))))
        gateway = stack.enter_context(serving(make_app(open_server([tmp_path / "s", url]))))
        there, both = RemoteRetriever(url), RemoteRetriever(gateway)
        alike: list[list[Any]] = [[store], [there], [both], [store, there], [Sharded({"here": store})]]
        for shards in alike:
            sharded = Sharded({str(n): shard for n, shard in enumerate(shards)})
            assert sharded.dense_weight == store.dense_weight == 0.1
            assert [scored(hits) for hits in sharded.search(QUERIES, 8)] == expected
    mixed = Sharded({"here": store, "other": other})
    assert mixed.dense_weight is None
    assert 1 / 61 < mixed.search(QUERIES, 1)[0][0].score <= 2 / 61  # by reciprocal rank


def test_a_new_version_of_a_shard_is_known_as_soon_as_it_has_answered(folder: Path) -> None:
    """Its hits would else be cited, for some seconds, under the fingerprint of the version before."""
    shard: Any = Versioned(Datastore.open(folder / "left"))
    sharded = Sharded({"left": shard})
    before = sharded.fingerprint
    shard.fingerprint = "second"
    assert sharded.fingerprint == before  # at most some seconds old
    sharded.search(["castle"], 1, mode="bm25")
    assert sharded.fingerprint != before


@dataclasses.dataclass
class Versioned:
    """A shard whose version is set by hand."""

    store: Datastore
    fingerprint: str = "first"
    dense_weight: float | None = None

    def __len__(self) -> int:
        return len(self.store)

    def search(self, *arguments: Any) -> Any:
        return self.store.search(*arguments)


def test_a_late_or_dead_shard_is_named_and_the_rest_answer(folder: Path) -> None:
    left, gate = Datastore.open(folder / "left"), threading.Event()
    left.search(["castle siege"], 3)  # what it loads is loaded
    dead = RemoteRetriever("http://127.0.0.1:9", timeout_s=0.1)
    slow: Any = Hanging(Datastore.open(folder / "right"), gate)
    sharded = Sharded({"left": left, "slow": slow, "dead": dead}, deadline_s=1.5, rest_s=0)
    answer = sharded.search(["castle siege"], 3, mode="bm25")
    assert [hit.passage.id for hit in answer[0]] == [
        hit.passage.id for hit in left.search(["castle siege"], 3, mode="bm25")[0]
    ]
    assert (
        dict(answer.missing)["slow"] == "not answered within 1.5 s" and "ConnectError" in dict(answer.missing)["dead"]
    )
    with pytest.raises(StoreError, match="not found, and not every shard answered: slow: ConnectionError: gone"):
        sharded.fetch(["d001"])
    assert sharded.fetch(["d000"])[0].id == "d000"
    resting = Sharded({"left": left, "slow": slow}, deadline_s=1.5)
    assert resting.search(["castle"], 1, mode="bm25").missing == (("slow", "not answered within 1.5 s"),)
    gate.set()  # well again, and left alone for a while all the same
    assert resting.search(["castle"], 1, mode="bm25").missing == (("slow", "not answered within 1.5 s"),)
    resting.rest_s = 0.0
    resting._down.clear()
    assert resting.search(["castle"], 1, mode="bm25").missing == ()
    gate.clear()
    assert len(sharded) == len(left) + len(slow) and sharded.fingerprint == sharded.fingerprint
    with pytest.raises(StoreError, match=r"no shard answered: dead: StoreError: .* ConnectError"):
        _ = Sharded({"dead": dead}).fingerprint
    with pytest.raises(StoreError, match=r"no shard answered: slow: not answered within 0\.05 s"):
        Sharded({"slow": slow}, deadline_s=0.05).search(["castle"], 3)
    gate.set()


def test_a_shard_that_hangs_holds_few_threads(folder: Path) -> None:
    gate, left = threading.Event(), Datastore.open(folder / "left")
    left.search(["castle"], 1, mode="bm25")
    slow: Any = Hanging(Datastore.open(folder / "right"), gate)
    sharded = Sharded({"left": left, "slow": slow}, deadline_s=1.5, mode="bm25", rest_s=0)
    with ThreadPoolExecutor(MOST) as pool:
        answers = list(pool.map(lambda _: sharded.search(["castle"], 1), range(MOST)))
    assert {answer.missing for answer in answers} == {(("slow", "not answered within 1.5 s"),)}
    assert dict(sharded.search(["castle"], 1).missing)["slow"] == f"busy: {MOST} earlier calls have not returned"
    gate.set()


def test_bad_questions_to_shards_are_the_askers_fault(folder: Path) -> None:
    sharded = Sharded({"left": Datastore.open(folder / "left")})
    with pytest.raises(InputError, match="unknown field 'nope'"):
        sharded.search(["x"], 3, {"nope": 1})
    with pytest.raises(InputError, match="k: expected"):
        sharded.search(["x"], 0)
    with pytest.raises(ConfigError, match="expected at least one"):
        Sharded({})
    assert Hits([[]]) == [[]] and sharded.search([], 3) == []


def test_a_gateway_serves_shards_and_says_which_are_down(folder: Path) -> None:
    import httpx

    with contextlib.ExitStack() as stack:
        right = stack.enter_context(serving(make_app(open_server(folder / "right"))))
        gone = "http://127.0.0.1:9"
        server = open_server([folder / "left", right, gone], limits=Limits(deadline_s=1.5))
        url = stack.enter_context(serving(make_app(server)))
        gateway, whole = RemoteRetriever(url), Datastore.open(folder / "whole")
        found = gateway.search(["castle siege"], 50, mode="dense")
        assert [scored(rows) for rows in found] == [scored(r) for r in whole.search(["castle siege"], 50, mode="dense")]
        assert isinstance(found, Hits) and [name for name, _ in found.missing] == [gone]
        assert len(gateway) == len(whole) and gateway.fingerprint == server.live.store.fingerprint
        told = httpx.get(f"{url}/search", params={"q": "castle"}).json()
        assert told["unresponsive_engines"][0][0] == gone and "ConnectError" in told["unresponsive_engines"][0][1]
        lost = httpx.get(f"{url}/passages/nobody")
        assert lost.status_code == 503 and "not every shard answered" in lost.json()["error"]
        assert httpx.get(f"{url}/passages/d001").json()["passage"]["doc_id"] == "d001"
    with pytest.raises(StoreError, match="no shard answered"):
        open_server([gone, f"{gone}/x"], limits=Limits(deadline_s=0.3))
    with pytest.raises(ConfigError, match="expected each once"):
        open_server([folder / "left", folder / "left"])


def test_the_command_line_searches_an_address(folder: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sleuth.cli import main

    shown = []
    for store in (url, str(folder / "whole")):
        with pytest.raises(SystemExit) as left:
            main(["search", store, "castle siege", "-k", "3", "--json"])
        assert left.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and shown[0].count("\n") == 3
