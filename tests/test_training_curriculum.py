"""Which questions are asked, how often, and when a run must stop."""

from __future__ import annotations

from typing import Any

import pytest

from sleuth.corpora.errors import ConfigError
from sleuth.eval.records import Task
from sleuth.training.curriculum import CurriculumSpec, apportion, choose, past, update
from sleuth.training.guards import GuardSpec, best_step, judge

TASKS = [Task(f"t{i}", f"q{i}", ("a",), type="ab"[i % 2], hops=1 + i // 6) for i in range(12)]


def names(chosen: list[tuple[Task, int]]) -> list[str]:
    return [task.id for task, _ in chosen]


def records(**rates: float) -> dict[str, dict[str, float]]:
    return {name: {"n": 8, "success": rate, "reward": rate, "step": 5} for name, rate in rates.items()}


def test_every_question_is_asked_once_before_any_is_asked_twice() -> None:
    past_: dict[str, dict[str, float]] = {}
    spec, seen = CurriculumSpec(), list[str]()
    for step in range(4):
        chosen = choose(TASKS, past_, spec, step, 3, 4, seed=1)
        assert chosen == choose(TASKS, past_, spec, step, 3, 4, seed=1) and {n for _, n in chosen} == {4}
        for task, _ in chosen:
            update(past_, spec, step, task, [0.5, 0.5], 1)
        seen += names(chosen)
    assert sorted(seen) == sorted(task.id for task in TASKS)
    assert names(choose(TASKS, {}, spec, 0, 12, 4, 1)) != names(choose(TASKS, {}, spec, 1, 12, 4, 1))


def test_what_always_or_never_succeeds_is_set_aside_for_a_while() -> None:
    known = records(**{f"t{i}": [0.0, 1.0, 0.5][i % 3] for i in range(12)})
    spec = CurriculumSpec(again=20)
    open_ = {f"t{i}" for i in range(12) if i % 3 == 2}
    assert set(names(choose(TASKS, known, spec, 6, 4, 4, 0))) == open_
    assert len(choose(TASKS, known, spec, 6, 6, 4, 0)) == 6  # set-aside ones fill up
    assert set(names(choose(TASKS, known, spec, 25, 12, 4, 0))) == {t.id for t in TASKS}
    assert not open_ >= set(names(choose(TASKS, known, spec, 25, 4, 4, 0)))
    young = {name: {**record, "n": 4} for name, record in known.items()}
    assert not open_ >= set(names(choose(TASKS, young, spec, 6, 4, 4, 0)))


def test_means_move_and_failures_say_nothing() -> None:
    known: dict[str, dict[str, float]] = {}
    spec = CurriculumSpec(memory=0.5)
    assert past(known, TASKS[0]) is None
    update(known, spec, 1, TASKS[0], [1.0, 0.0], 1)
    update(known, spec, 2, TASKS[0], [], 0, failed=2)
    update(known, spec, 3, TASKS[0], [1.0, 1.0], 2)
    assert known["t0"] == {"n": 4, "failed": 2, "success": 0.75, "reward": 0.75, "step": 3}
    assert past(known, TASKS[0]) == 0.75
    update(known, spec, 3, TASKS[1], [], 0, failed=4)
    assert past(known, TASKS[1]) is None


def test_a_question_that_always_fails_is_asked_no_oftener_than_others() -> None:
    known: dict[str, dict[str, float]] = {}
    asked: list[str] = []
    for step in range(12):
        chosen = choose(TASKS, known, CurriculumSpec(tries=99, hops=True), step, 3, 4, seed=1)
        for task, count in chosen:
            rewards = [] if task.id in ("t0", "t1") else [0.2, 0.8] * (count // 2)
            update(known, CurriculumSpec(), step, task, rewards, len(rewards) // 2, count - len(rewards))
        asked += names(chosen)
    assert max(map(asked.count, asked)) - min(map(asked.count, asked)) <= 1
    spec = CurriculumSpec(tries=4, again=20)
    assert set(names(choose(TASKS[:6], known, spec, 12, 4, 4, 0))) == {"t2", "t3", "t4", "t5"}


def test_with_all_questions_set_aside_domains_are_filled_up_from_those() -> None:
    known = records(**{f"t{i}": 0.0 for i in range(12)})
    assert len(choose(TASKS, known, CurriculumSpec(domains=True), 6, 4, 8, 0)) == 4


def test_rollouts_go_where_outcomes_differ() -> None:
    known = records(t0=0.5, t1=1.0, t2=0.0, t3=0.5)
    spec = CurriculumSpec(allocate=True, again=0)
    chosen = {task.id: count for task, count in choose(TASKS[:4], known, spec, 9, 4, 8, 0)}
    assert sum(chosen.values()) == 32 and min(chosen.values()) >= 2
    assert chosen["t0"] == chosen["t3"] > 1.5 * chosen["t1"] == 1.5 * chosen["t2"]


def test_domains_are_asked_by_how_often_they_fail() -> None:
    known = records(**{f"t{i}": 0.9 if i % 2 else 0.1 for i in range(12)})
    chosen = choose(TASKS, known, CurriculumSpec(domains=True, again=0), 9, 6, 4, 0)
    kinds = [task.type for task, _ in chosen]
    assert kinds.count("a") == 5 and kinds.count("b") == 1


def test_hops_come_one_after_another() -> None:
    spec = CurriculumSpec(hops=True, ready=0.6)
    assert {task.hops for task, _ in choose(TASKS, {}, spec, 0, 12, 4, 0)} == {1}
    weak, able = records(t0=0.5, t1=0.6), records(t0=0.7, t1=0.6)
    assert {task.hops for task, _ in choose(TASKS, weak, spec, 9, 12, 4, 0)} == {1}
    assert {task.hops for task, _ in choose(TASKS, able, spec, 9, 12, 4, 0)} == {1, 2}


def test_apportion() -> None:
    assert apportion([1, 1, 1], 4) == [2, 1, 1] and apportion([3, 1], 4) == [3, 1] and apportion([0, 0], 3) == [2, 1]


def line(success: float | None, **more: Any) -> dict[str, Any]:
    return {"success": success, "entropy": 0.5, "informative": 3, "failed": 0, "episodes": 8, "why": "", **more}


SPEC = GuardSpec(window=3, dead=2)


@pytest.mark.parametrize(
    ("log", "kind", "said"),
    [
        ([line(0.1)] * 9, None, ""),
        ([line(0.6)] * 4 + [line(0.2)] * 3, "collapse", "success fell from 0.600 to 0.200"),
        ([line(0.6)] * 4 + [line(0.4)] * 3, None, ""),
        # few questions a step: success varies so much that a mean halves by chance
        ([line(r) for r in (0.0, 0.8, 0.5, 0.7, 0.1, 0.5, 0.0)], None, ""),
        ([line(r) for r in (0.7, 0.8, 0.7, 0.8, 0.1, 0.2, 0.0)], "collapse", "success fell from 0.767 to 0.100"),
        # harder questions are drawn: the held-out ones, which stay the same, say that nothing fell
        ([line(0.6, dev_success=0.3)] + [line(0.6)] * 3 + [line(0.2, dev_success=0.3)] + [line(0.2)] * 2, None, ""),
        ([line(0.6, dev_success=0.3)] + [line(0.6)] * 3 + [line(0.2, dev_success=0.1)] + [line(0.2)] * 2,
         "collapse", "success fell from 0.600 to 0.200"),
        ([line(0.6, dev_success=0.3)] + [line(0.6)] * 3 + [line(0.2)] * 3, "collapse", "success fell"),
        ([line(0.6, dev_success=0.0)] + [line(0.6)] * 3 + [line(0.2, dev_success=0.0)] + [line(0.2)] * 2,
         "collapse", "success fell"),  # held-out questions that were never answered say nothing
        ([line(1.0)] * 3, "solved", "success 1.000"),
        ([line(0.4, informative=0)] * 6, "collapse", "told its rollouts apart, at success 0.400"),
        ([line(0.4, informative=0, norm=0.0)] * 6, "collapse", "told its rollouts apart"),
        ([line(0.0, informative=0, norm=0.3)] * 6, None, ""),  # learned from true trajectories, or across the batch
        ([line(0.4), line(None, failed=8, why="search: gone"), line(None, failed=8, why="search: gone")],
         "dead", "every episode failed in 2 steps, the last by: search: gone"),
        ([line(0.5)] * 3 + [line(0.4, entropy=0.001)] * 3, "collapse", "entropy under 0.01 for 3 steps"),
        ([line(0.5)] * 3 + [line(0.6, entropy=0.001)] * 3, None, ""),
    ],
)  # fmt: skip
def test_guards(log: list[dict[str, Any]], kind: str | None, said: str) -> None:
    verdict = judge(log, SPEC)
    assert (verdict and verdict.kind) == kind and (not verdict or said in verdict.seen)
    assert judge(log, GuardSpec(on=False, window=3)) is None


def test_the_best_step_is_the_end_of_the_best_window() -> None:
    log = [line(rate, step=i + 1) for i, rate in enumerate([0.1, 0.5, 0.7, 0.6, 0.1, 0.2])]
    assert best_step(log, 3) == 4 and best_step(log[:2], 3) is None


def test_unusable_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"low < high <= 1; found 0.5 and 0.5"):
        CurriculumSpec(low=0.5, high=0.5)
    with pytest.raises(ConfigError, match="window >= 2"):
        GuardSpec(window=1)
