"""The evaluation loop over a scripted policy: what is counted, written, run again, and what the report says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sleuth.agents import episodes
from sleuth.agents.records import Answer, Episode, Message, PolicyError
from sleuth.agents.strategy import STRATEGIES, strategy
from sleuth.corpora.errors import ConfigError, InputError, ModelError
from sleuth.eval import publish, report
from sleuth.eval.causes import CORPUS_DEPTH
from sleuth.eval.evaluate import evaluate, score, tagged
from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING, em
from sleuth.eval.records import Benchmark, Task
from sleuth.eval.run import run_strategies
from sleuth.eval.stats import interval, paired_difference
from sleuth.retrieval.records import Filter, Hit
from tests import films
from tests.eval_episodes import episode
from tests.scripted import ScriptedPolicy

FILMS = Benchmark("films", loader("films"), QUESTION_ANSWERING, "f1", "ours")
TASKS = [
    Task("right", films.QUESTION, ("Cincinnati",), ("jaws", "spielberg"), "all"),
    Task("wrong", "Where was the director of Jaws buried?", ("Nowhere",), ("jaws",), "any"),
    Task("listed", "Where was the maker of Jaws born?", ("Cincinnati, Ohio",)),
]


def compared(out: Path, tasks: Sequence[Task] = TASKS, **options: object) -> list[report.Report]:
    settings = {"store": films.FilmStore(), "policy": ScriptedPolicy(films.reply), "names": STRATEGIES, **options}
    named = [strategy(name) if isinstance(name, str) else name for name in settings.pop("names")]
    return asyncio.run(
        run_strategies(FILMS, tasks, settings.pop("store"), settings.pop("policy"), named, out, **settings)
    )


def test_all_strategies_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films.use_reranker(monkeypatch)
    seen: list[tuple[str, int, int]] = []
    reports = compared(tmp_path, progress=lambda *state: seen.append(state), bad=["rows.jsonl:7: no id"])
    assert [r.name for r in reports] == list(STRATEGIES)
    decompose = reports[-1]
    assert decompose.values("cover_em") == {"right": 1, "wrong": 0, "listed": 1}
    assert decompose.values("f1") == pytest.approx({"right": 2 / 3, "wrong": 0, "listed": 1})
    assert decompose.values("evidence_recall") == {"right": 1, "wrong": 1}
    assert decompose.values("searches") == {"right": 3, "wrong": 3, "listed": 3}
    recall = decompose.summary("evidence_recall")
    assert recall.unscored == 2 and sum(recall.causes.values()) == 2
    assert recall.causes["the row could not be loaded"] == 1
    assert reports[0].name == "closed-book" and set(reports[0].values("searches").values()) == {0}
    assert seen[0] == ("closed-book", 0, 3) and seen[-1] == ("decompose", 3, 3)
    text = (tmp_path / "report.md").read_text()
    assert "| F1 | " in text and "rows.jsonl:7" in text and " nan" not in text.lower()
    data = json.loads((tmp_path / "report.json").read_text())
    assert data[3]["metrics"]["citation_valid"]["mean"] == 1
    assert data[3]["config"]["fingerprint"] == "films-1"
    assert [row["task_id"] for row in data[3]["rows"]] == ["right", "wrong", "listed"]


def test_a_reranker_that_is_not_there_is_told_before_anything_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleuth.retrieval.rerank.SHIPPED", tmp_path / "none")
    policy = ScriptedPolicy(films.reply)
    with pytest.raises(ModelError, match=r"reranker 'shipped'.*none is missing"):
        compared(tmp_path / "out", names=["naive-rag", "chain"], policy=policy)
    (tmp_path / "empty").mkdir()
    for spec, said in ((tmp_path / "empty", "found nothing"), (tmp_path / "no" / "such", "cannot be loaded")):
        with pytest.raises(ModelError, match=said):
            compared(tmp_path / "out", names=["naive-rag", strategy("chain", rerank=str(spec))], policy=policy)
    assert policy.seen == [] and not (tmp_path / "out").exists()


def test_episodes_of_one_reranker_are_not_gone_on_with_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films.use_reranker(monkeypatch)
    compared(tmp_path, names=["chain"])
    monkeypatch.setattr(films.ChainReader, "name", "shipped@other")
    with pytest.raises(ConfigError, match="reranker 'shipped@chain' there, 'shipped@other' now"):
        compared(tmp_path, names=["chain"], resume=True)


def test_gold_answers_do_not_reach_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films.use_reranker(monkeypatch)
    policy = ScriptedPolicy(films.reply)
    compared(tmp_path, [dataclasses.replace(TASKS[0], answers=("SENTINEL",))], policy=policy)
    assert policy.seen and "SENTINEL" not in str(policy.seen)


def test_resume_runs_only_what_did_not_end(tmp_path: Path) -> None:
    def failing(messages: Sequence[Message]) -> object:
        if "buried" in messages[1].content:
            return PolicyError("unreachable", "no route to the policy")
        return films.reply(messages)

    (first,) = compared(tmp_path, names=["naive-rag"], policy=ScriptedPolicy(failing))
    assert first.endings() == {"answered": 2, "error": 1}
    assert first.values("em")["wrong"] == 0, "a failed run is scored on the answer it has"
    assert "no route to the policy" in (tmp_path / "report.md").read_text()
    with pytest.raises(ConfigError, match="earlier run"):
        compared(tmp_path, names=["naive-rag"])
    with open(tmp_path / "naive-rag.jsonl", "ab") as file:
        file.write(b'{"id": "cut sho')
    again = ScriptedPolicy(films.reply)
    (second,) = compared(tmp_path, names=["naive-rag"], policy=again, resume=True)
    assert len(again.seen) == 1
    assert second.endings() == {"answered": 3}
    third = ScriptedPolicy(films.reply)
    (rescored,) = compared(tmp_path, names=["naive-rag"], policy=third, resume=True)
    assert not third.seen and rescored.scored == second.scored
    assert len(rescored.notes) == 1 and "naive-rag.jsonl:4" in rescored.notes[0]


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    compared(tmp_path, names=["naive-rag"])
    with pytest.raises(ConfigError, match="seed 0 there, 5 now"):
        compared(tmp_path, names=["naive-rag"], seeds=[5], resume=True)
    store = films.FilmStore()
    store.fingerprint = "films-2"
    with pytest.raises(ConfigError, match="fingerprint 'films-1' there, 'films-2' now"):
        compared(tmp_path, names=["naive-rag"], store=store, resume=True)
    with pytest.raises(ConfigError, match="the episode there asked"):
        compared(tmp_path, [dataclasses.replace(TASKS[0], question="Another?")], names=["naive-rag"], resume=True)


def test_cancelling_leaves_the_episode_so_far(tmp_path: Path) -> None:
    async def cut() -> None:
        policy = ScriptedPolicy(films.reply, delay_s=30)
        work = run_strategies(FILMS, TASKS, films.FilmStore(), policy, [STRATEGIES["naive-rag"]], tmp_path)
        running = asyncio.create_task(work)
        while len(policy.seen) < len(TASKS):
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cut())
    left = list(episodes.read(tmp_path / "naive-rag.jsonl"))
    assert {e.config["task"]["id"] for e in left} == {"right", "wrong", "listed"}
    assert {e.stop for e in left} == {"cancelled"} and all(e.passages() for e in left)
    (resumed,) = compared(tmp_path, names=["naive-rag"], resume=True)
    assert resumed.endings() == {"answered": 3}


def test_an_unusable_question_is_counted(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, [*TASKS, Task("long", "x" * 100_000, ("y",))], names=["naive-rag"])
    assert found.endings() == {"answered": 3, "not run": 1}
    assert found.summary("em").unscored == 1 and "100,000" in next(iter(found.summary("em").causes))


def test_searches_of_concurrent_episodes_are_batched_per_filter(tmp_path: Path) -> None:
    class Scoped(films.FilmStore):
        def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
            if k != CORPUS_DEPTH:  # the causes look for the answer, once the run is over
                filters.append((len(queries), where))
            return super().search(queries, k, where)

    filters: list[tuple[int, Filter | None]] = []
    tasks = [
        Task(f"{scope}{i}", f"Who made film {i}?", ("x",), where={"scope": scope}) for scope in "ab" for i in range(6)
    ]
    compared(tmp_path, tasks, names=["naive-rag"], store=Scoped())
    assert {where["scope"] for _, where in filters if where} == {"a", "b"} and len(filters) == sum(
        bool(w) for _, w in filters
    )
    assert sum(count for count, _ in filters) == 12 and len(filters) < 12
    assert next(iter(episodes.read(tmp_path / "naive-rag.jsonl"))).config["task"]["where"]["scope"] in "ab"


def test_a_metric_that_raises_or_gives_nan_is_named_and_not_scored() -> None:
    def broken(task: Task, run: Episode) -> float:
        raise ZeroDivisionError("no tokens")

    metrics = {"em": em, "broken": broken, "nan": lambda task, run: math.nan, "none": lambda task, run: None}
    row = score(TASKS[0], episode(answer=Answer("Cincinnati")), metrics)
    assert row.values == {"em": 1, "broken": None, "nan": None, "none": None}
    assert row.causes == {
        "broken": "the metric raised ZeroDivisionError: no tokens",
        "nan": "the metric gave nan",
        "none": "the metric does not apply",
    }


def test_a_defect_stops_the_evaluation_and_the_other_runs() -> None:
    stopped: list[str] = []

    async def run(task: Task) -> Episode:
        if task.id == "wrong":
            raise RuntimeError("a defect")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(task.id)
            raise
        raise AssertionError

    with pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(evaluate(TASKS, run, {"em": em}))
    assert sorted(stopped) == ["listed", "right"]


def test_concurrency_is_bounded() -> None:
    running, most = 0, 0

    async def run(task: Task) -> Episode:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        if task.id == "3":
            raise InputError("row 3 cannot be asked")
        return episode(answer=Answer("x"))

    tasks = [Task(str(i), "q", ("x",)) for i in range(20)]
    found = asyncio.run(evaluate(tasks, run, {"em": em}, concurrency=4))
    assert most == 4
    assert [row.task_id for row in found.scored] == [task.id for task in tasks]
    assert found.summary("em").causes == {"not run: row 3 cannot be asked": 1}


def test_nothing_to_evaluate_is_a_report_without_figures() -> None:
    async def run(task: Task) -> Episode:
        raise AssertionError

    found = asyncio.run(evaluate([], run, {"em": em}, name="x", benchmark="b"))
    assert found.summary("em").interval is None
    assert "| EM | – (0) |" in publish.markdown([found])


def test_the_tag_is_all_that_differs_from_the_rollouts_episode() -> None:
    run = episode(config={"seed": 3})
    assert tagged(run, TASKS[0]).config == {"seed": 3, "task": {"id": "right", "where": None}}
    assert dataclasses.replace(tagged(run, TASKS[0]), config=run.config) == run


def test_intervals_cover_and_repeat() -> None:
    values = list(np.random.default_rng(3).normal(5.0, 2.0, 400))
    found = interval(values)
    assert found == interval(values) and found is not None
    half = 1.96 * 2.0 / math.sqrt(400)
    assert found.low == pytest.approx(found.mean - half, abs=0.06)
    assert found.high == pytest.approx(found.mean + half, abs=0.06)
    assert interval([]) is None
    single = interval([0.5])
    assert single is not None and (single.low, single.mean, single.high, single.n) == (0.5, 0.5, 0.5, 1)


def test_many_values_have_the_same_intervals_by_the_quicker_way() -> None:
    values = np.random.default_rng(5).binomial(1, 0.3, 1_900).tolist()
    slow, quick = interval(values), interval(values * 2)
    assert slow is not None and quick is not None and quick.n == 3_800 and quick.mean == pytest.approx(slow.mean)
    assert quick.high - quick.low == pytest.approx((slow.high - slow.low) / math.sqrt(2), rel=0.1)


def test_intervals_hold_their_level() -> None:
    random = np.random.default_rng(0)
    draws = [interval(random.binomial(1, 0.3, 60).tolist(), seed=i, resamples=500) for i in range(200)]
    held = sum(d is not None and d.low <= 0.3 <= d.high for d in draws)
    assert 178 <= held <= 198  # 95 % of 200, the percentile bootstrap being a little narrow at n = 60


def test_a_paired_difference_uses_common_questions_only() -> None:
    ours = {str(i): 0.5 + 0.1 * (i % 2) for i in range(50)} | {"only ours": 0.0}
    theirs = {str(i): 0.3 + 0.1 * (i % 2) for i in range(50)} | {"only theirs": 1.0}
    found = paired_difference(ours, theirs)
    assert found is not None and found.n == 50
    assert found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None


def test_the_report_shows_scores_times_100_and_costs_as_they_are() -> None:
    found = interval([0.5, 0.5])
    assert report.figure("em", found) == "50.0 [50.0, 50.0]"
    assert report.figure("searches", found) == "0.5 [0.5, 0.5]"
    assert report.figure("prompt_tokens", interval([12345.0]), with_interval=False) == "12345"
    assert report.grid([["a"], ["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |"
