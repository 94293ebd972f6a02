"""The command line over a real, tiny store and a real endpoint on loopback: whole runs, and each kind of bad input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import sleuth
from sleuth import cli
from sleuth.agents.policy.openai import OpenAIPolicy
from sleuth.agents.records import Message
from sleuth.agents.strategy import strategy
from sleuth.commands.stores import build_store
from sleuth.corpora.errors import ConfigError, ModelError
from tests.films import BIRTH, FILM, QUESTION, reply

PAGES = {
    "jaws.html": "<html><head><title>Jaws (film)</title></head><body><article><h1>Jaws (film)</h1>"
    f"<p>{FILM} It was a great commercial success and is often named as the first summer blockbuster.</p>"
    "</article></body></html>",
    "spielberg.md": f"# Steven Spielberg\n\n{BIRTH} He makes films, and has won several Academy Awards for them.\n",
    "shark.txt": "A shark is a kind of fish.\nSharks have lived in the sea for 400 million years.\n",
}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Run:
    """Runs ``sleuth ...`` in this process and returns its exit code and both streams."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main([str(a) for a in arguments])
        return Said(int(left.value.code or 0), *self.capsys.readouterr())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, text in PAGES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "store"
    build_store([pages], path)
    return path


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that gave up is no news."""


class Endpoint(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that says what a perfect policy would; ``manner`` makes it misbehave."""

    manner = "well"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.manner == "slowly":
            time.sleep(1.5)
        content = json.dumps(reply([Message(m["role"], m["content"]) for m in body["messages"]]))
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        data = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage})
        if self.manner == "nonsense":
            data = "<html>It works!</html>"
        self.send_response(500 if self.manner == "failing" else 200)
        self.send_header("Content-Length", str(len(data.encode())))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        """Tests stay quiet."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    defaults = OpenAIPolicy.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "retries", 0)
    server = Server(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1#films"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_becomes_a_store_and_the_report_adds_up(run: Run, pages: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "again.txt").write_text(PAGES["shark.txt"], encoding="utf-8")
    (tmp_path / "more" / "empty.txt").write_text("", encoding="utf-8")
    said = run("build", pages, tmp_path / "more", "--out", tmp_path / "store", "--json")
    assert said.code == 0, said.err
    report = said.json()[-1]
    assert (report["documents"], report["duplicates"], report["rejected"]) == (3, 1, 1)
    assert report["inputs"] == report["documents"] + report["duplicates"] + report["rejected"]


def test_a_search_shows_title_score_and_snippet(run: Run, store: Path) -> None:
    said = run("search", store, "who directed Jaws", "--mode", "bm25")
    assert said.code == 0 and "Jaws (film)" in said.out and "directed by Steven Spielberg" in said.out
    hits = run("search", store, "kind of fish", "-k", "1", "--json").json()
    assert [hit["rank"] for hit in hits] == [1] and "shark" in hits[0]["passage"]["doc_id"]


def test_sql_reads_and_only_reads(run: Run, store: Path) -> None:
    said = run("sql", store, "select count(*) as n from documents", "--json")
    assert said.code == 0 and said.json() == [{"n": 3}]
    assert "Jaws (film)" in run("sql", store, "select title from documents order by title").out
    assert run("sql", store, "select 1975 as year, 2e6::double as sold").out.split()[-2:] == ["1975", "2000000.0"]
    for statement in ("delete from documents", "drop table documents", "copy documents to 'x.csv'", "selekt 1"):
        refused = run("sql", store, statement)
        assert (refused.code, refused.out) == (3, ""), statement
        assert refused.err.startswith("error: ")


def test_ask_answers_with_checked_citations_and_keeps_the_episode(
    run: Run, store: Path, endpoint: str, tmp_path: Path
) -> None:
    episodes = tmp_path / "runs" / "ask.jsonl"
    said = run("ask", store, QUESTION, "--policy", endpoint, "--out", episodes)
    assert said.code == 0, said.err
    assert "Cincinnati, Ohio" in said.out and said.out.count("✓") == 2
    assert "1. Who directed Jaws?" in said.err and "search" in said.err
    shown = run("show", episodes)
    assert shown.code == 0 and all(part in shown.out for part in ("plan", "search", "note", "answer", "spent"))
    verified = run("verify", episodes, store, "--json")
    assert verified.code == 0 and [row["holds"] for row in verified.json()] == [True, True]


def test_the_same_seed_gives_the_same_episode(run: Run, store: Path, endpoint: str, tmp_path: Path) -> None:
    from sleuth.agents.episodes import read

    for _ in range(2):
        assert run("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl", "--json").code == 0
    first, second = read(tmp_path / "e.jsonl")
    assert first.digest() == second.digest()


def test_resuming_a_finished_run_asks_nothing_again(run: Run, store: Path, endpoint: str, tmp_path: Path) -> None:
    arguments = ("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl", "--json")
    first = run(*arguments).json()[0]
    server_down = pytest.MonkeyPatch()
    server_down.setattr(Endpoint, "manner", "failing")
    again = run(*arguments, "--resume")
    server_down.undo()
    assert again.code == 0 and again.json()[0]["answer"] == first["answer"]
    kept = (tmp_path / "e.jsonl").read_text()
    assert kept.count("\n") == 1, "nothing was added"
    (tmp_path / "e.jsonl").unlink()
    assert run(*arguments, "--resume").code == 0
    assert (tmp_path / "e.jsonl").read_text().count("\n") == 1, "killed before it was written, it is written now"


def test_a_budget_that_runs_out_gives_the_best_answer_so_far(
    run: Run, store: Path, endpoint: str, tmp_path: Path
) -> None:
    said = run("ask", store, QUESTION, "--policy", endpoint, "--searches", "1", "--out", tmp_path / "e.jsonl")
    assert said.code == 0 and "budget ran out" in said.out


@pytest.mark.parametrize(
    ("manner", "words"), [("nonsense", "It works!"), ("failing", "HTTP 500"), ("slowly", "no reply within")]
)
def test_a_policy_that_misbehaves_is_an_error_and_the_episode_stays(
    manner: str, words: str, run: Run, store: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endpoint, "manner", manner)
    defaults = OpenAIPolicy.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 0.5)
    said = run("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl")
    assert said.code == 5 and "error: planner" in said.err and words in said.err
    assert json.loads((tmp_path / "e.jsonl").read_text())["stop"] == "error"


def test_a_policy_that_is_down_is_named(
    run: Run, store: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = "http://127.0.0.1:9/v1#m"
    said = run("ask", store, QUESTION, "--policy", down, "--out", tmp_path / "e.jsonl")
    assert said.code == 5 and "http://127.0.0.1:9/v1" in said.err
    options = ("--strategy", "naive-rag", "--limit", 2, "--out", tmp_path / "runs")
    said = run("eval", "hotpotqa_s", "--store", store, "--policy", down, *options)
    assert said.code == 5 and "error: all 2 episodes ended in an error, the first in answerer: PolicyError" in said.err
    assert (tmp_path / "runs" / "report.md").is_file()
    said = run("eval", "hotpotqa_s", tmp_path / "runs" / "naive-rag.jsonl", "--rescore", "--out", tmp_path / "again")
    assert said.code == 0, "scoring the episodes did what it should"


def test_ctrl_c_keeps_the_episode_so_far(
    run: Run, store: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleuth import view

    monkeypatch.setattr(view.Live, "step", lambda self, step: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    try:
        said = run("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl")
    finally:
        signal.signal(signal.SIGINT, before)
    assert said.code == 130 and "--resume goes on" in said.err
    episode = json.loads((tmp_path / "e.jsonl").read_text())
    assert episode["stop"] == "cancelled" and [step["role"] for step in episode["steps"]] == ["planner"]


def test_a_forged_citation_does_not_verify(run: Run, store: Path, endpoint: str, tmp_path: Path) -> None:
    episodes = tmp_path / "e.jsonl"
    run("ask", store, QUESTION, "--policy", endpoint, "--out", episodes)
    episodes.write_text(episodes.read_text().replace('"quote": "Spielberg was born', '"quote": "Spielberg was bred'))
    said = run("verify", episodes, store)
    assert said.code == 7 and "not verbatim" in said.err


def test_episodes_of_another_store_or_version_are_told_apart_from_citations_that_do_not_hold(
    run: Run, pages: Path, endpoint: str, tmp_path: Path
) -> None:
    store, episodes = tmp_path / "store", tmp_path / "e.jsonl"
    build_store([pages], store)
    run("ask", store, QUESTION, "--policy", endpoint, "--out", episodes)
    before = json.loads(episodes.read_text())["fingerprint"]
    assert run("snapshots", store, "--pin", "before").code == 0
    (tmp_path / "ray.txt").write_text("A ray is a kind of fish that is flat and lives on the ground of the sea.")
    assert run("add", store, tmp_path / "ray.txt").code == 0
    said = run("verify", episodes, store)
    assert (said.code, said.out) == (3, "") and f"2 citations of 1 episodes made on version {before[:12]}" in said.err
    assert "this store is at" in said.err and "--snapshot" in said.err and "✗" not in said.err
    assert run("verify", episodes, store, "--snapshot", "before").code == 0
    assert run("verify", episodes, store, "--snapshot", "after").code == 4
    (tmp_path / "all.toml").write_text("")
    assert run("verify", episodes, tmp_path / "all.toml", "--snapshot", "before").code == 8
    run("ask", store, QUESTION, "--policy", endpoint, "--out", episodes)
    said = run("verify", episodes, store, "--json")
    assert said.code == 0 and [row["holds"] for row in said.json()] == [True, True] and "not counted" in said.err
    episodes.write_text(episodes.read_text().replace('"quote": "Spielberg was born', '"quote": "Spielberg was bred'))
    assert run("verify", episodes, store).code == 7
    episodes.write_text("")
    assert run("verify", episodes, store).code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask", "STORE", ""), 3, "empty"),
        (("ask", "STORE", "x" * 100_000), 3, "100,000"),
        (("ask", "STORE", "q", "--strategy", "decompos"), 8, "did you mean 'decompose'"),
        (("ask", "STORE", "q", "--policy", "nonsense"), 8, "nonsense"),
        (("ask", "STORE", "q", "--policy", "http://127.0.0.1:1"), 8, "URL#model"),
        (("ask", "STORE", "q", "--adapter", "nowhere"), 8, "nowhere"),
        (("ask", "TMP/nothing", "q"), 4, "nothing"),
        (("search", "STORE", "q", "--mode", "telepathy"), 8, "telepathy"),
        (("search", "STORE", "q", "--where", "year"), 3, "--where"),
        (("search", "STORE", "q", "--where", "planet=mars"), 3, "planet"),
        (("search", "STORE", "q", "--where", "date~1990"), 3, "OPERATOR"),
        (("search", "TMP/nothing", "q"), 4, "nothing"),
        (("sql", "TMP/nothing", "select 1"), 4, "nothing"),
        (("build", "TMP/nothing", "--out", "TMP/new"), 3, "nothing"),
        (("build", "PAGES", "--out", "TMP/new", "--embedder", "telepathy"), 6, "telepathy"),
        (("build", "PAGES", "--out", "STORE", "--max-words", "50"), 4, "'max_words': 200"),
        (("build", "PAGES", "--out", "PAGES"), 4, "PAGES"),
        (("build", "TMP/recipe.toml", "PAGES", "--out", "TMP/new"), 8, "goes alone; found 2 paths"),
        (("build", "TMP/recipe.toml", "--out", "TMP/new", "--embedder", "static"), 8, "--embedder does not go with"),
        (("build", "PAGES", "--out", "TMP/new", "--engine", "ray"), 8, "--engine does not go with files"),
        (("search", "TMP/sources.toml", "q", "--mode", "dense"), 8, "--mode does not go with"),
        (("show", "TMP/nothing.jsonl"), 3, "nothing.jsonl"),
        (("show", "PAGES/shark.txt"), 3, "at least one episode"),
        (("verify", "TMP/nothing.jsonl", "STORE"), 3, "nothing.jsonl"),
        (("eval", "hotpotqas", "--store", "STORE"), 8, "hotpotqa_s"),
        (("train", "TMP/nothing.toml", "--data", "TMP", "--out", "TMP/out"), 3, "nothing.toml"),
        (("serve-policy", "--policy", "http://127.0.0.1:1/v1#m"), 8, "127.0.0.1:1"),
        (("help", "me"), 8, "exit-codes"),
        (("ask", "STORE"), 2, "question"),
        (("ask", "STORE", "q", "--searches", "-1"), 2, "searches"),
    ],
)
def test_bad_input_has_its_code_and_both_sides(
    arguments: tuple[str, ...], code: int, words: str, run: Run, store: Path, pages: Path, tmp_path: Path
) -> None:
    places = {"STORE": str(store), "PAGES": str(pages), "TMP": str(tmp_path)}
    given = []
    for argument in arguments:
        head, mark, tail = argument.partition("/")
        given.append(f"{places[head]}{mark}{tail}" if head in places else argument)
    said = run(*given)
    assert (said.code, said.out) == (code, ""), said.err
    assert places.get(words, words) in said.err.replace("\n", " ")
    assert code == 2 or any(line.startswith("error: ") for line in said.err.splitlines())


@pytest.mark.parametrize(
    ("damage", "words"), [("flip", "expected"), ("cut", "expected"), ("version", "expected store format 1, found 999")]
)
def test_a_damaged_store_is_refused(damage: str, words: str, run: Run, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    manifest = max((copy / "manifests").glob("*.json"))
    if damage == "version":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 999}))
        version, _ = json.loads((copy / "CURRENT").read_text())
        (copy / "CURRENT").write_text(json.dumps([version, hashlib.sha256(manifest.read_bytes()).hexdigest()]))
    else:
        largest = max((f for f in (copy / "segments").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        content = bytearray(largest.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 1
        largest.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    said = run("search", copy, "fish")
    assert said.code == 4 and said.err.startswith("error: ") and words in said.err


def test_what_an_episode_cannot_be_written_with_is_refused_before_the_run(
    run: Run, store: Path, endpoint: str, tmp_path: Path
) -> None:
    for option, value, code, words in (
        ("--out", tmp_path, 3, f"{tmp_path}: expected a file to append the episode to, found a folder"),
        ("--seconds", "inf", 8, "seconds: expected a finite number"),
        ("--temperature", "inf", 8, "temperature: expected a finite number, found inf"),
    ):
        said = run("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl", option, value)
        assert (said.code, said.out) == (code, "") and words in said.err, said.err
    assert list(tmp_path.iterdir()) == []


def test_a_reranker_is_for_strategies_that_search(
    run: Run, store: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleuth.retrieval.rerank.SHIPPED", tmp_path / "none")
    (tmp_path / "mine").mkdir()  # a folder, but no model
    mine = str(tmp_path / "mine")
    ask = ("ask", store, QUESTION, "--policy", endpoint, "--out", tmp_path / "e.jsonl", "-q", "--strategy")
    evaluated = ("eval", "hotpotqa_s", "--store", store, "--policy", endpoint, "--out", tmp_path / "o", "--strategy")
    for arguments, words in (
        ((*ask, "closed-book", "--reranker", mine), "expected a strategy that searches, found closed-book"),
        ((*ask, "naive-rag", "--reranker", mine), "expected config.json or adapter_config.json, found nothing"),
        ((*evaluated, "closed-book,iterative", "--reranker", mine), "or adapter_config.json, found nothing"),
        ((*ask, "chain"), "reranker 'shipped': this installation has none"),
        ((*evaluated, "naive-rag,chain"), "reranker 'shipped': this installation has none"),
        ((*ask, "chain", "--reranker", mine), "expected config.json or adapter_config.json, found nothing"),
    ):
        said = run(*arguments)
        assert said.code and words in " ".join(said.err.split()), said.err
    with pytest.raises(ModelError, match="found nothing"):
        sleuth.Session.open(store, policy=endpoint, strategy=strategy("chain", rerank=mine))
    said = run(*ask, "chain", "--reranker", "none", "--json")
    assert (said.code, json.loads(said.out)["config"]["strategy"]["rerank"]) == (0, "")


def test_a_session_answers_without_a_command_line(store: Path, endpoint: str) -> None:
    session = sleuth.Session.open(store, policy=endpoint)

    async def once() -> sleuth.Episode:
        try:
            return await session.ask(QUESTION)
        finally:
            await session.aclose()

    episode = asyncio.run(once())
    assert episode.answer is not None and episode.answer.text == "Cincinnati, Ohio"
    assert episode.stop == "answered" and episode.fingerprint == session.store.fingerprint
    named = sleuth.Session.open(store, policy=endpoint, strategy="naive-rag")
    assert named.strategy == sleuth.STRATEGIES["naive-rag"]
    with pytest.raises(ConfigError, match="did you mean 'naive-rag'"):
        sleuth.Session.open(store, policy=endpoint, strategy="naive-rga")


def test_strategies_are_measured_side_by_side(run: Run, store: Path, endpoint: str, tmp_path: Path) -> None:
    arguments = ("eval", "hotpotqa_s", "--store", store, "--policy", endpoint, "--limit", 2, "--out", tmp_path / "out")
    said = run(*arguments, "--strategy", "naive-rag, closed-book", "--json")
    assert said.code == 0, said.err
    assert "hotpotqa_s: 2 of 5 questions; 0 of the 2 that mark their evidence have it in this store" in said.err
    assert [report["name"] for report in said.json()] == ["naive-rag", "closed-book"]
    again = run(*arguments, "--strategy", "naive-rag, closed-book", "--resume")
    assert again.code == 0 and "closed-book" in again.out
    assert len((tmp_path / "out" / "naive-rag.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ("", (), "found no row at all"),
        ('{"id": "a", "qestion": "Who?", "answers": ["x"]}', (), "found 1 rows that cannot be used"),
        ('{"id": "a", "question": "Who?", "answers": ["x"]}', ("--reporting",), "found none among 1"),
        ('{"id": "a", "question": "LONG", "answers": ["x"]}', (), "with an episode, found none"),
    ],
)
def test_an_evaluation_of_nothing_is_an_error(
    rows: str, options: tuple[str, ...], words: str, run: Run, store: Path, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "q.jsonl").write_text(rows.replace("LONG", "x" * 100_000))
    arguments = ("--store", store, "--policy", endpoint, "--strategy", "naive-rag", "--out", tmp_path / "out")
    said = run("eval", tmp_path / "q.jsonl", *arguments, *options)
    assert said.code == 3 and words in said.err.replace("\n", " "), said.err
