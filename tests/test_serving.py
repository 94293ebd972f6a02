"""The search server over real sockets: shapes, refusals, limits, and a new version taken up under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleuth import serve_policy
from sleuth.corpora.errors import ConfigError, InputError, StoreError
from sleuth.retrieval import grow
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.store import Datastore
from sleuth.serve_policy import bind
from sleuth.serving.app import MAX_BODY_BYTES, Server, make_app, open_server
from sleuth.serving.batch import Batcher, Limits, OverloadedError
from sleuth.serving.live import Live
from tests.retrieval_stores import corpus, use_hash_embedder
from tests.scripted import ScriptedPolicy

SPEC = BuildSpec(segment_documents=8, max_words=100)
QUERY = "castle siege number"


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    build(corpus(20), tmp_path / "s", SPEC)
    return tmp_path / "s"


@contextlib.contextmanager
def running(server: Server, key: str = "") -> Iterator[str]:
    """The server in a thread of its own, and its address."""
    import uvicorn

    app: Any = make_app(server, key)
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for tests that only ask."""
    with pytest.MonkeyPatch.context() as patch:
        use_hash_embedder(patch)
        path = tmp_path_factory.mktemp("served") / "s"
        build(corpus(20), path, SPEC)
    return path


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[httpx.Client]:
    """One server for tests that only ask."""
    with pytest.MonkeyPatch.context() as patch:
        use_hash_embedder(patch)
        with running(open_server(folder)) as url, httpx.Client(base_url=url) as http:
            yield http


def test_native_answers_are_the_librarys(shared: httpx.Client, folder: Path) -> None:
    opened = Datastore.open(folder)
    for mode in ("hybrid", "bm25", "dense"):
        for where in (None, {"source": "left", "year": {">=": 1905}}):
            body = {"queries": [QUERY, "no", "violin"], "k": 4, "mode": mode, "where": where}
            done = shared.post("/search", json=body).json()
            expected = opened.search([QUERY, "no", "violin"], 4, where, mode)  # type: ignore[arg-type]
            assert done["hits"] == [[asdict(hit) for hit in hits] for hits in expected]
            assert done["fingerprint"] == opened.fingerprint and done["missing"] == []


def test_search_r1_shape(shared: httpx.Client) -> None:
    body = {"queries": [QUERY, "violin"], "topk": 2, "return_scores": True}
    result = shared.post("/retrieve", json=body).json()
    assert list(result) == ["result"] and [len(rows) for rows in result["result"]] == [2, 2]
    row = result["result"][0][0]
    assert set(row) == {"document", "score"} and set(row["document"]) == {"id", "contents"}
    title, text = row["document"]["contents"].split("\n", 1)  # how its client takes it apart
    assert title.startswith('"Story ') and "castle siege" in text and isinstance(row["score"], float)
    plain = shared.post("/retrieve", json={"queries": [QUERY], "topk": 2}).json()["result"]
    assert plain == [[row["document"] for row in result["result"][0]]]
    assert len(shared.post("/retrieve", json={"queries": [QUERY], "topk": None}).json()["result"][0]) == 3


def test_searxng_shape(shared: httpx.Client) -> None:
    found = shared.get("/search", params={"q": QUERY, "format": "json", "language": "en"}).json()
    assert found["query"] == QUERY and found["number_of_results"] == len(found["results"]) == 10
    first = found["results"][0]
    assert first["url"].startswith("https://example.org/") and "castle siege" in first["content"] and first["title"]
    second = shared.get("/search", params={"q": QUERY, "pageno": 2}).json()["results"]
    assert second and not {r["content"] for r in second} & {r["content"] for r in found["results"]}


def test_passages_and_documents_by_id(shared: httpx.Client) -> None:
    ids = ["d006#1", "d001"]
    fetched = shared.post("/fetch", json={"ids": ids}).json()["passages"]
    assert [passage["id"] for passage in fetched] == ids
    one = shared.get(f"/passages/{quote('d006#1', safe='')}").json()
    document = shared.get("/documents/d006").json()["document"]
    assert one["passage"] == fetched[0]
    assert document["text"][fetched[0]["start"] : fetched[0]["end"]] == fetched[0]["text"]
    for answer in (
        shared.get("/passages/nobody"),
        shared.get("/documents/nobody"),
        shared.get("/passages/..%2f..%2fx"),
    ):
        assert answer.status_code == 404 and "no such" in answer.json()["error"]
    missing = shared.post("/fetch", json={"ids": ["d001", "nobody"]})
    assert missing.status_code == 404 and "nobody" in missing.json()["error"] and "d001" not in missing.json()["error"]


BAD: list[tuple[str, Any, str]] = [
    ("/search", {"queries": ["x"], "k": 0}, "k: expected an integer from 1 to 1000, found 0"),
    ("/search", {"queries": ["x"], "k": True}, "found True"),
    ("/search", {"queries": ["x"], "k": "5"}, "found '5'"),
    ("/search", {"queries": "x"}, "queries: expected a list of at least one string, found 'x'"),
    ("/search", {"queries": []}, "found list of 0"),
    ("/search", {"queries": ["x", 3]}, r"queries[1]: expected a string, found 3"),
    ("/search", {"queries": ["x" * 2**20]}, "expected at most 10,000 characters, found 1,048,576"),
    ("/search", {"queries": ["x"] * 2000}, "expected at most 1024 in a request, found 2000"),
    ("/search", {"queries": ["x"], "mode": "magic"}, "mode: expected one of hybrid, bm25, dense, found 'magic'"),
    ("/search", {"queries": ["x"], "filter": {}}, "unknown fields filter; known: queries, k, where, mode"),
    ("/search", {"queries": ["x"], "where": "a"}, "where: expected an object of fields and conditions, found str"),
    ("/search", {"queries": ["x"], "where": {"nope": 1}}, "unknown field 'nope'; known fields: id, title"),
    ("/search", {"queries": ["x"], "where": {"date": {"~": 1}}}, "'~'"),
    ("/search", [1], "expected a JSON object, found list"),
    ("/search", b"{", "expected JSON, found something else"),
    ("/search", b"\xff\xfe", "expected JSON"),
    ("/search", b"[" * 100_000, "expected JSON"),
    ("/search", b" " * (MAX_BODY_BYTES + 1), "expected at most 4,194,304 bytes, found more"),
    ("/retrieve", {"queries": ["x"], "topk": -1}, "topk: expected an integer from 1 to 1000, found -1"),
    ("/retrieve", {"queries": ["x"] * 101, "topk": 200}, "queries times topk of at most 20,000, found 101 times 200"),
    ("/search", {"queries": ["x"] * 1024, "k": 1000}, "queries times k of at most 20,000, found 1,024 times 1,000"),
    ("/fetch", {"ids": "d001"}, "ids: expected a list"),
    ("/fetch", {"ids": ["d001"] * 1001}, "ids: expected at most 1,000 in a request, found 1,001"),
    ("/fetch", {"ids": ["x" * 10_001]}, "ids[0]: expected at most 10,000 characters, found 10,001"),
]


@pytest.mark.parametrize(("path", "body", "said"), BAD)
def test_bad_requests_are_400_and_say_both_sides(shared: httpx.Client, path: str, body: Any, said: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    done = shared.post(path, content=data)
    assert done.status_code == 400 and said in done.json()["error"]


@pytest.mark.parametrize("query", ["format=html&q=x", "q=x&pageno=0", "q=x&pageno=-1", "q=x&pageno=9" + "9" * 5000,
                                   "q=x&pageno=000000001" + "0" * 5000, "q=x&pageno=0000000019999"])  # fmt: skip
def test_bad_searxng_queries_are_400(shared: httpx.Client, query: str) -> None:
    done = shared.get(f"/search?{query}")
    assert done.status_code == 400 and "expected" in done.json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELD = st.sampled_from(["queries", "k", "topk", "where", "mode", "return_scores", "ids"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["/search", "/retrieve", "/fetch"]),
    st.dictionaries(FIELD, JSON | st.lists(st.text(max_size=6), min_size=1, max_size=3), max_size=4),
)
def test_no_json_breaks_it(shared: httpx.Client, path: str, body: dict[str, Any]) -> None:
    done = shared.post(path, content=json.dumps(body).encode())
    assert done.status_code in (200, 400, 404), (body, done.text)


def test_half_surrogates_and_other_scripts_are_searched(shared: httpx.Client) -> None:
    done = shared.post("/search", content=b'{"queries": ["castle \\ud800 \\u57ce", "\\u0000", ""], "k": 2}')
    assert done.status_code == 200 and [len(rows) for rows in done.json()["hits"]] == [2, 0, 0]


def test_half_surrogates_in_a_refusal_are_told_and_counted(shared: httpx.Client) -> None:
    done = shared.post("/search", content=b'{"queries": ["x"], "\\ud800": 1}')
    assert done.status_code == 400 and "unknown fields \ud800;" in done.json()["error"]
    done = shared.post("/fetch", content=b'{"ids": ["\\ud800"]}')
    assert done.status_code == 404 and "\ud800" in done.json()["error"]
    assert 'sleuth_requests_total{route="fetch",status="404"}' in shared.get("/metrics").text


def test_the_passages_that_answer_are_told_from_the_start(folder: Path) -> None:
    for stores in (folder, [folder, folder.parent / "." / folder.name / ".." / folder.name]):
        server = open_server(stores, reload_s=0)
        assert f"sleuth_passages {float(len(server.live.store))}" in server.metrics.text(0)[0].decode()
        assert len(server.live.store) > 0


def test_health_ready_metrics(shared: httpx.Client) -> None:
    shared.post("/search", json={"queries": [QUERY], "k": 1})
    assert shared.get("/health").json()["status"] == "ok" and shared.get("/ready").json()["ready"] is True
    text = shared.get("/metrics").text
    assert 'sleuth_requests_total{route="search",status="200"}' in text and "sleuth_batch_queries_bucket" in text


def test_who_is_let_in(folder: Path) -> None:
    with running(open_server(folder), key="right") as url:
        for given_, status in (("Bearer right", 200), ("Bearer wrong", 401), ("", 401)):
            for path in ("/health", "/metrics", "/search?q=x", "/passages/d001"):
                assert httpx.get(url + path, headers={"authorization": given_}).status_code == status
    with running(open_server(folder)) as url:
        assert httpx.get(f"{url}/search?q=x", headers={"host": "evil.example"}).status_code == 403
        assert httpx.get(f"{url}/search?q=x", headers={"origin": "https://evil.example"}).status_code == 403


OPEN: frozenset[str] = frozenset()
"""Routes that answer without the key: none. What /health, /ready and /metrics tell of a store is not for everybody."""


@pytest.mark.parametrize("door", ["serve", "serve-policy"])
def test_no_route_answers_without_the_key(folder: Path, door: str) -> None:
    def app_of(key: str) -> Any:
        if door == "serve":
            return make_app(open_server(folder), key)
        return serve_policy.make_app(ScriptedPolicy(lambda messages: "fine"), key, adapters=True)

    async def statuses(app: Any, **headers: str) -> dict[tuple[str, str], int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
            return {
                (method, route.path): (await http.request(method, route.path, content=b"")).status_code
                for route in app.app.routes
                for method in route.methods
            }

    keyed, keyless = app_of("right"), app_of("")
    routes = {route.path for route in keyed.app.routes}
    assert {"/search", "/fetch", "/metrics"} < routes or {"/v1/chat/completions", "/v1/load_lora_adapter"} < routes
    for refused in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}, {"authorization": "Bearer "}):
        for (method, path), status in asyncio.run(statuses(keyed, **refused)).items():
            assert (status == 401) is (path not in OPEN), (method, path, refused)
    for (method, path), status in asyncio.run(statuses(keyless, host="far.example")).items():
        assert status == 403, (method, path)


def test_open_addresses_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLEUTH_SERVE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from outside"):
        bind("0.0.0.0", 0)


def test_a_defect_of_ours_shows_no_traceback(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = open_server(folder)
    server.live.search = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    with running(server) as url:
        done = httpx.post(f"{url}/search", json={"queries": ["x"]})
    assert done.status_code == 500 and done.json() == {"error": "internal error; the server's log has the details"}
    assert "ZeroDivisionError" in caplog.text


def test_a_new_version_under_load_fails_no_request(store: Path) -> None:
    """Searches go on while documents are added and deleted; the newest version answers in the end."""
    stop = threading.Event()
    statuses: list[int] = []
    seen: set[str] = set()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url) as http:
            while not stop.is_set():
                done = http.post("/search", json={"queries": [QUERY], "k": 3})
                statuses.append(done.status_code)
                seen.add(done.json()["fingerprint"])

    with running(open_server(store, reload_s=0.02)) as url:
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        versions = {Datastore.open(store).fingerprint}
        for step in range(3):
            grow.delete(store, [f"d{step:03d}"]) if step % 2 else build(corpus(24 + step), store, SPEC)
            newest = Datastore.open(store).fingerprint
            versions.add(newest)
            until = time.monotonic() + 10
            while newest not in seen and time.monotonic() < until:
                time.sleep(0.01)
            assert newest in seen
        stop.set()
        for thread in threads:
            thread.join()
        assert "sleuth_reloads_total 3.0" in httpx.get(f"{url}/metrics").text
    assert set(statuses) == {200} and seen == versions


def test_a_damaged_version_is_reported_and_the_one_before_answers(store: Path) -> None:
    live = Live(store)
    before = live.store.fingerprint
    current = (store / "CURRENT").read_bytes()
    (store / "CURRENT").write_text('[7, "beef"]')
    assert live.refresh() is False and "000007.json" in live.error and live.store.fingerprint == before
    (store / "CURRENT").write_bytes(current)
    assert live.refresh() is False and live.error == ""
    with pytest.raises(StoreError, match="not a datastore"):
        Live(store / "segments")


@contextlib.asynccontextmanager
async def batching(
    search: Callable[[Sequence[str], str], list[str]], limits: Limits
) -> AsyncIterator[Batcher[str, list[str]]]:
    batcher: Batcher[str, list[str]] = Batcher(search, lambda found, start, end: found[start:end], limits)
    batcher.start()
    yield batcher
    await batcher.stop()


def test_what_waits_is_one_batch_a_key_and_everyone_gets_their_own() -> None:
    sizes: list[tuple[str, int]] = []
    gate = threading.Event()

    def search(queries: Sequence[str], key: str) -> list[str]:
        gate.wait(5)
        sizes.append((key, len(queries)))
        return [f"{key}:{query}" for query in queries]

    async def run() -> list[list[str]]:
        async with batching(search, Limits(max_batch=6, threads=1)) as batcher:
            first = asyncio.create_task(batcher.submit(["first"], "a"))
            await asyncio.sleep(0.02)
            rest = [asyncio.create_task(batcher.submit([f"q{n}", f"r{n}"], "b" if n == 4 else "a")) for n in range(6)]
            await asyncio.sleep(0.02)
            gate.set()
            return await asyncio.gather(first, *rest)

    found = asyncio.run(run())
    keys = ["b" if n == 4 else "a" for n in range(6)]
    assert found == [["a:first"], *([f"{key}:q{n}", f"{key}:r{n}"] for n, key in enumerate(keys))]
    assert sizes == [("a", 1), ("a", 6), ("a", 4), ("b", 2)]


def test_a_full_queue_refuses_and_a_passed_deadline_leaves_it() -> None:
    gate = threading.Event()
    searched: list[str] = []

    def search(queries: Sequence[str], key: str) -> list[str]:
        gate.wait(5)
        searched.extend(queries)
        return list(queries)

    async def run() -> None:
        async with batching(search, Limits(max_queue=3, threads=1)) as batcher:
            first = asyncio.create_task(batcher.submit(["first"], ""))
            await asyncio.sleep(0.02)
            second = asyncio.create_task(batcher.submit(["a", "b"], ""))
            late = asyncio.create_task(asyncio.wait_for(batcher.submit(["late"], ""), 0.05))
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadedError, match="3 queries wait, the queue holds 3"):
                await batcher.submit(["c"], "")
            with pytest.raises(InputError, match="at most 3 in a request, found 4"):
                await batcher.submit(["c"] * 4, "")
            with pytest.raises(TimeoutError):
                await late
            assert batcher.waiting == 2
            third = asyncio.create_task(batcher.submit(["c"], ""))
            await asyncio.sleep(0)
            gate.set()
            assert await asyncio.gather(first, second, third) == [["first"], ["a", "b"], ["c"]]

    asyncio.run(run())
    assert searched == ["first", "a", "b", "c"]


def test_one_query_cannot_fail_its_neighbours() -> None:
    gate = threading.Event()

    def search(queries: Sequence[str], key: str) -> list[str]:
        gate.wait(5)
        if "poison" in queries:
            raise RuntimeError("poison")
        return list(queries)

    async def run() -> list[Any]:
        async with batching(search, Limits(threads=1)) as batcher:
            first = asyncio.create_task(batcher.submit(["first"], ""))
            await asyncio.sleep(0.02)
            rest = [asyncio.create_task(batcher.submit([query], "")) for query in ("a", "poison", "b")]
            await asyncio.sleep(0.01)
            gate.set()
            return await asyncio.gather(first, *rest, return_exceptions=True)

    found = asyncio.run(run())
    assert [found[0], found[1], found[3]] == [["first"], ["a"], ["b"]] and isinstance(found[2], RuntimeError)


def test_overload_is_503_and_lateness_504_over_http(folder: Path) -> None:
    gate = threading.Event()
    server = open_server(folder, limits=Limits(max_queue=1, threads=1, deadline_s=1.5))
    found = server.live.search
    searching = threading.Event()

    def slow(*arguments: Any) -> Any:
        searching.set()
        gate.wait(10)
        return found(*arguments)

    server.live.search = slow  # type: ignore[method-assign]
    late: list[httpx.Response] = []
    with running(server) as url, httpx.Client(base_url=url, timeout=10) as http:
        ask = lambda: http.post("/search", json={"queries": ["castle"]})  # noqa: E731
        threads = [threading.Thread(target=lambda: late.append(ask())) for _ in range(2)]
        threads[0].start()
        searching.wait(10)
        threads[1].start()
        while http.get("/health").json()["waiting"] == 0:
            time.sleep(0.005)
        refused = ask()
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert "1 queries wait, the queue holds 1" in refused.json()["error"]
        assert http.get("/ready").status_code == 503 and http.get("/health").status_code == 200
        for thread in threads:
            thread.join()
        assert [done.status_code for done in late] == [504, 504]
        assert late[0].json()["error"] == "not answered within 1.5 s"
        gate.set()
        assert ask().status_code == 200 and http.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [({"max_batch": 0}, "max_batch: expected at least 1, found 0"), ({"deadline_s": 0}, "deadline_s")],
)
def test_limits_are_checked(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Limits(**change)
