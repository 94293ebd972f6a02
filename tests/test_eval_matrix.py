"""A matrix over a scripted policy and a film store: the file's errors, the plan, resuming, taking over, the reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sleuth import cli
from sleuth.agents import episodes
from sleuth.agents.records import Message
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval import cells, matrix, publish
from sleuth.eval.benchmarks import benchmark
from sleuth.eval.cells import Planned, run
from sleuth.eval.compare import read_reports
from sleuth.eval.stored import index
from tests import films
from tests.scripted import ScriptedPolicy
from tests.training_data import make

ROWS = [
    {"id": "right", "question": films.QUESTION, "answers": ["Cincinnati, Ohio"], "supporting": ["jaws"]},
    {"id": "wrong", "question": "Where was the director of Jaws buried?", "answers": ["Nowhere"]},
    {"id": "bad", "question": "", "answers": ["x"]},
]
POLICY = ScriptedPolicy(films.reply)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A matrix file over questions of its own; stores and policies are the scripted ones."""
    (tmp_path / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    text = f'name = "films"\nbenchmarks = ["{tmp_path}/films.jsonl"]\nstrategies = ["closed-book", "naive-rag"]\n'
    (tmp_path / "matrix.toml").write_text(text + 'policies = ["scripted"]\nstores = ["films"]\n')
    monkeypatch.setattr(cells.Opened, "store", lambda self, store, benchmark, build=True: films.FilmStore())
    monkeypatch.setattr(cells.Opened, "policy", lambda self, spec: POLICY)
    POLICY.seen.clear()
    return tmp_path


def ran(folder: Path, out: str = "out", **options: Any) -> tuple[list[Any], list[Planned]]:
    plans: list[Planned] = []
    show = options.pop("show", lambda planned: plans.extend(planned) or True)
    return asyncio.run(run(folder / "matrix.toml", folder / out, show=show, **options)), plans


def test_every_cell_has_a_report_and_all_stand_on_one_page(folder: Path) -> None:
    reports, plans = ran(folder)
    assert [(r.benchmark, r.name, len(r.scored)) for r in reports] == [
        ("films", "closed-book", 2),
        ("films", "naive-rag", 2),
    ]
    assert [(p.done, p.reused, p.left, p.seconds) for p in plans] == [(0, 0, 2, None)] * 2
    assert "films.jsonl:3" in reports[0].bad[0]
    assert reports[1].values("em") == {"right": 1, "wrong": 0}
    assert read_reports(folder / "out")[1].scored == reports[1].scored
    page = (folder / "out" / "report.html").read_text()
    assert "naive-rag" in page and "films.jsonl:3" in page


def test_a_second_run_runs_nothing_and_a_third_only_what_is_new(folder: Path) -> None:
    ran(folder)
    asked = len(POLICY.seen)
    again, plans = ran(folder)
    assert len(POLICY.seen) == asked == 4 and [(p.done, p.left) for p in plans] == [(2, 0)] * 2
    assert again[0].values("em") == {"right": 1, "wrong": 0}
    path = folder / "matrix.toml"
    path.write_text(path.read_text().replace('"closed-book"', '{ name = "naive-rag", k = 2 }'))
    changed, plans = ran(folder)
    assert [r.name for r in changed] == ["naive-rag k=2", "naive-rag"] and [p.left for p in plans] == [2, 0]
    assert len(POLICY.seen) == asked + 2


def test_the_plan_estimates_by_the_cells_that_were_run(folder: Path) -> None:
    ran(folder)
    file = next((folder / "out" / "episodes").rglob("naive-rag.*.jsonl"))
    file.write_text(file.read_text().splitlines()[0] + "\n")
    path = folder / "matrix.toml"
    path.write_text(path.read_text() + '[price.scripted]\nprompt = 1e6\ncompletion = 2e6\ncurrency = "EUR"\n')
    closed, rag = planned(folder)
    (kept_one,) = episodes.read(file)
    spent = kept_one.spent
    assert (closed.left, closed.money) == (0, 0.0) and (rag.done, rag.left) == (1, 1)
    assert rag.tokens == spent.prompt_tokens + spent.completion_tokens
    assert rag.money == spent.prompt_tokens + 2 * spent.completion_tokens and rag.currency == "EUR"
    reports, _ = ran(folder)
    assert reports[1].values("money")["right"] == spent.prompt_tokens + 2 * spent.completion_tokens
    assert "money" in (folder / "out" / "report.md").read_text()


def planned(folder: Path) -> list[Planned]:
    """The plan alone."""
    plans: list[Planned] = []
    reports, _ = ran(folder, show=lambda lines: plans.extend(lines))
    assert reports == []
    return plans


def test_the_plan_comes_before_the_stores_are_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bool] = []
    there: list[Any] = []

    def store(self: cells.Opened, store: str, benchmark: Any, build: bool = True) -> Any:
        built.append(build)
        there.extend([films.FilmStore()] if build else [])
        return there[0] if there else cells.UNBUILT

    monkeypatch.setattr(cells.Opened, "store", store)
    assert [(p.done, p.left) for p in planned(folder)] == [(0, 2)] * 2 and built == [False, False]
    reports, plans = ran(folder)
    assert [p.left for p in plans] == [2, 2] and built[2:4] == [False, False] and built[4]
    assert reports[1].values("em") == {"right": 1, "wrong": 0}
    assert [(p.done, p.left) for p in planned(folder)] == [(2, 0)] * 2


def test_an_own_store_that_is_missing_is_built_on_demand_alone(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(
        'name = "own"\nbenchmarks = ["hotpotqa_s"]\nstrategies = ["naive-rag"]\npolicies = ["x"]\nstores = ["own"]\n'
    )
    data = make(tmp_path / "data")
    opened = cells.Opened(matrix.read(path, data=str(data)), tmp_path / "out", lambda *_: None)
    assert opened.store(matrix.OWN, benchmark("hotpotqa_s")[0], build=False) is cells.UNBUILT
    assert not (tmp_path / "out").exists()


def test_equal_episodes_of_another_folder_are_taken_over(folder: Path) -> None:
    first, _ = ran(folder, "elsewhere")
    asked = len(POLICY.seen)
    taken, plans = ran(folder, "out", reuse=[folder / "elsewhere"])
    assert len(POLICY.seen) == asked and [(p.done, p.reused, p.left) for p in plans] == [(0, 2, 0)] * 2
    assert [r.values("em") for r in taken] == [r.values("em") for r in first]
    assert taken[0].notes and "2 episodes were taken over from" in taken[0].notes[0]
    ran(folder, "seeded", reuse=[folder / "elsewhere"], seed=1)
    assert len(POLICY.seen) == asked + 4, "another seed is another episode"


def test_repeats_are_runs_of_their_own_seed_and_pass_at_k_is_over_them(folder: Path) -> None:
    reports, plans = ran(folder, repeats=2, strategies=["naive-rag"])
    assert [r.name for r in reports] == ["naive-rag, seed 0", "naive-rag, seed 1"] and [p.left for p in plans] == [2, 2]
    assert [r.config["seed"] for r in reports] == [0, 1]
    ((name, found),) = publish.passes(reports)
    assert name == "naive-rag, seed 0"
    assert [(plain.k, plain.interval.mean) for plain, _ in found] == [(1, 0.5), (2, 0.5)]
    text = (folder / "out" / "report.md").read_text()
    assert "Right in at least one of k runs:" in text and "| naive-rag, seed 0 | 2 | 50.0 [0.0, 100.0] |" in text
    assert "Right in at least one of k runs" in (folder / "out" / "report.html").read_text()
    again, plans = ran(folder, repeats=3, strategies=["naive-rag"])
    assert [p.left for p in plans] == [0, 0, 2] and len(publish.passes(again)[0][1]) == 3
    assert publish.passes(ran(folder, "out")[0]) == [], "other strategies are not repeats of one another"


def test_other_weights_are_not_taken_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(folder, "elsewhere")
    asked = len(POLICY.seen)
    monkeypatch.setattr(cells, "weights_of", lambda policy: "other weights")
    ran(folder, "out", reuse=[folder / "elsewhere"])
    assert len(POLICY.seen) == asked + 4
    monkeypatch.setattr(cells, "weights_of", lambda policy: "scripted")
    ran(folder, "third", reuse=[folder / "elsewhere"])
    assert len(POLICY.seen) == asked + 4


def test_stored_only_reports_on_what_there_is(folder: Path) -> None:
    with pytest.raises(InputError, match="expected episodes with these settings"):
        ran(folder, stored_only=True)
    ran(folder)
    file = next((folder / "out" / "episodes").rglob("naive-rag.*.jsonl"))
    file.write_text(file.read_text().splitlines()[0] + "\n")
    asked = len(POLICY.seen)
    reports, _ = ran(folder, stored_only=True)
    assert [len(r.scored) for r in reports] == [2, 1] and len(POLICY.seen) == asked


def test_what_was_scored_is_written_when_the_run_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(messages: Sequence[Message]) -> Any:
        if "[1]" in messages[1].content:
            raise KeyboardInterrupt
        return films.reply(messages)

    stopping = ScriptedPolicy(reply)
    monkeypatch.setattr(cells.Opened, "policy", lambda self, spec: stopping)
    with pytest.raises(KeyboardInterrupt):
        ran(folder)
    assert [r.name for r in read_reports(folder / "out")] == ["closed-book"]


def test_the_index_reads_only_episodes_that_ended(folder: Path) -> None:
    ran(folder)
    file = next((folder / "out" / "episodes").rglob("naive-rag.*.jsonl"))
    before = len(index([folder / "out"]))
    file.write_text(file.read_text().replace('"stop": "answered"', '"stop": "error"') + '{"cut\n[1]\n{"steps": []}\n')
    assert len(index([folder / "out"])) == before / 2
    with pytest.raises(InputError, match="expected a folder with episode files"):
        index([folder / "nowhere"])


ERRORS = [
    ('name = "x"\n', "key 'benchmarks' is missing"),
    ('name = "x"\nbenchmarks = ["hotpotqas"]\n', "did you mean 'hotpotqa_s'"),
    (
        'name = "x"\nbenchmarks = ["hotpotqa_s"]\nstrategy = "x"\n',
        "unknown key 'strategy' (did you mean 'strategies'?)",
    ),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nstrategies = ["decompos"]\n', "did you mean 'decompose'"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nstrategies = [{ name = "decompose", kk = 2 }]\n', "'kk'"),
    ('name = "x"\nbenchmarks = "hotpotqa_s"\n', "benchmarks must be a list"),
    ('name = "x"\nbenchmarks = []\n', "key 'benchmarks' is missing"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nlimit = "10"\n', "limit must be int; found '10'"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nlimit = true\n', "limit must be int; found True"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nrepeats = 0\n', "repeats must be at least 1; found 0"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nreporting = 1\n', "reporting must be bool; found 1"),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\n[budget]\nsearch = 1\n', "'budget.search' (did you mean 'searches'?)"),
    (
        'name = "x"\nbenchmarks = ["hotpotqa_s"]\n[price.embeded]\nprompt = 1\n',
        "'price.embeded' (did you mean 'embedded'?)",
    ),
    ('name = "x"\nbenchmarks = ["hotpotqa_s"]\nprice = 3\n', "price must be a table; found 3"),
    ("name = ", "not a TOML file"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises((ConfigError, InputError)) as error:
        matrix.read(path)
    assert message in str(error.value)


def test_the_shipped_matrix_is_one() -> None:
    found = matrix.read(Path(__file__).parent.parent / "recipes" / "matrix.toml", limit=5, data=None)
    assert (len(found.benchmarks), len(found.strategies), len(found.policies), found.limit) == (6, 4, 3, 5)


def test_the_command_shows_the_plan_and_refuses_what_it_would_ignore(folder: Path) -> None:
    file = str(folder / "matrix.toml")
    result = CliRunner().invoke(cli.app, ["eval", file, "--out", str(folder / "out"), "--plan", "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["run"], row["left"]) for row in rows] == [("closed-book", 2), ("naive-rag", 2)] and not POLICY.seen
    result = CliRunner().invoke(cli.app, ["eval", file, "--policy", "embedded"])
    assert isinstance(result.exception, ConfigError) and "--policy does not go with" in str(result.exception)
    result = CliRunner().invoke(cli.app, ["eval", file, "--out", str(folder / "out"), "--limit", "1"])
    assert result.exit_code == 0 and "| EM |" in result.stdout and len(POLICY.seen) == 2
