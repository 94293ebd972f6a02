"""Rewards: every term on small episodes, what cheating earns, and what failed episodes do not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sleuth.agents.cite import locate, quotable
from sleuth.agents.records import Answer, Completion, Episode, Sentence, Spent, Step, ToolCall
from sleuth.corpora.errors import ConfigError
from sleuth.corpora.records import Passage
from sleuth.eval.records import Task
from sleuth.training import rewards
from sleuth.training.rewards import RewardSpec, Term, failure, grade
from tests.eval_episodes import episode, passage

FILM = "Jaws is a 1975 film. It was directed by Steven Spielberg. It was a success."
LIFE = "Spielberg makes films. He was born in Cincinnati, Ohio. He has a sister."
OTHER = "A shark is a fish. It swims in the sea all day."
PASSAGES = [passage("jaws", FILM, "Jaws"), passage("sp", LIFE, "Steven Spielberg"), passage("shark", OTHER, "Shark")]
GOLD = ["It was directed by Steven Spielberg.", "He was born in Cincinnati, Ohio."]
QUESTION = "Where was the director of Jaws born?"


def span(doc: str, text: str, quote: str) -> dict[str, Any]:
    return {"document": doc, "start": text.index(quote), "end": text.index(quote) + len(quote), "text": quote}


TASK = Task("t", QUESTION, ("Cincinnati, Ohio",), ("jaws", "sp"), "all", hops=2,
            metadata={"evidence": [span("jaws", FILM, GOLD[0]), span("sp", LIFE, GOLD[1])]})  # fmt: skip


def said(text: str, quotes: list[str], passages: list[Passage]) -> Answer:
    """One sentence with exactly these quotes as its citations."""
    places = tuple(place for quote in quotes if (place := locate(quote, passages, "f00d")))
    return Answer(text, (Sentence(text, places, bool(places)),))


def answered(text: str, quotes: list[str]) -> Episode:
    return episode(QUESTION, said(text, quotes, PASSAGES), PASSAGES, PASSAGES)


PERFECT = answered("Cincinnati, Ohio", GOLD)
PROBES = {
    "empty": (episode(QUESTION, Answer("")), 0.0),
    "no quotes": (answered("Jaws", []), 0.0),
    "all-citing, wrong": (answered("Jaws", quotable(PASSAGES)), 0.15),
    "question-echo": (answered(QUESTION, GOLD[:1]), 0.3),
    "unknown": (answered("unknown", []), 0.0),
    "unknown, all-citing": (answered("unknown", quotable(PASSAGES)), 0.15),
    "copied passage": (answered(LIFE, quotable(PASSAGES)), 0.5),
}


@pytest.mark.parametrize("name", PROBES)
def test_cheating_earns_little(name: str) -> None:
    full = grade(TASK, PERFECT, RewardSpec())
    assert full.reward == pytest.approx(1.3) and full.success
    cheat, most = PROBES[name]
    got = grade(TASK, cheat, RewardSpec())
    assert got.reward is not None and not got.success
    assert 0.0 <= got.reward <= most, (name, got.terms)


def test_citing_everything_costs_even_where_the_answer_is_right() -> None:
    all_citing = grade(TASK, answered("Cincinnati, Ohio", quotable(PASSAGES)), RewardSpec())
    assert all_citing.terms["citation_f1"] == pytest.approx(2 * 0.25 / 1.25)  # 2 of 8 sentences, both found
    assert all_citing.reward is not None and all_citing.reward < 1.15


def test_citations_are_judged_by_span_where_the_task_marks_them_else_by_document() -> None:
    half = answered("Cincinnati, Ohio", [GOLD[1], "He has a sister."])
    assert rewards.citation_span_precision(TASK, half) == 0.5 and rewards.citation_span_recall(TASK, half) == 0.5
    by_document = dataclasses.replace(TASK, metadata={})
    assert rewards.citation_f1(by_document, half) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert rewards.citation_span_recall(by_document, half) is None
    unmarked = dataclasses.replace(by_document, supporting=())
    assert rewards.citation_f1(unmarked, half) is None
    graded = grade(unmarked, half, RewardSpec())
    assert graded.reward == 1.0 and graded.terms["citation_f1"] is None
    moved = Passage("sp", "sp", 7, 7 + len(LIFE), "S", LIFE)  # a passage that starts later in its document
    assert rewards._cited(answered("Cincinnati, Ohio", [GOLD[1]]))[0][1] == LIFE.index(GOLD[1])
    late = episode(QUESTION, said("Cincinnati, Ohio", [GOLD[1]], [moved]), [moved])
    assert rewards._cited(late)[0][1] == 7 + LIFE.index(GOLD[1])


def test_honesty_and_evasion_apply_to_one_side_each() -> None:
    lacking = dataclasses.replace(TASK, answers=(), metadata={"answerable": False})
    declined, guessed = answered("unknown", []), answered("Jaws", [])
    assert [rewards.honesty(lacking, e) for e in (declined, guessed)] == [1.0, 0.0]
    assert rewards.honesty(TASK, declined) is None and rewards.evasion(lacking, declined) is None
    assert [rewards.evasion(TASK, e) for e in (declined, guessed)] == [1.0, 0.0]


def search(found: list[Passage], hits: list[Passage], query: str = "q") -> Step:
    call = ToolCall("search", {"query": query, "k": 3}, [{"passage_id": p.id, "score": 1.0} for p in hits])
    return Step("searcher", calls=(call,), passages=tuple(found))


def test_steps_are_rewarded_for_what_their_search_brought() -> None:
    jaws, life, shark = PASSAGES
    steps = (
        search([shark], [shark]),
        search([jaws], [jaws, shark]),
        search([], [jaws, shark]),
        search([life], [life, jaws]),
        Step("reflector", parsed={"note": {"passage_id": "sp"}}),
        Step("reflector", parsed={"note": {"passage_id": "shark"}}),
    )
    run = dataclasses.replace(PERFECT, steps=steps)
    assert rewards.gain(TASK, run) == [0, 0.5, 0, 0.5, 0, 0]
    assert rewards.repeats(TASK, run) == [0, 0.5, 1, 0.5, 0, 0]
    assert rewards.noted(TASK, run) == [0, 0, 0, 0, 1, 0]
    assert rewards.redundancy(TASK, run) == 0.25
    graded = grade(TASK, run, RewardSpec(steps={"gain": 2.0, "repeats": -1.0}))
    assert graded.steps == (0, 0.5, -1, 0.5, 0, 0)


def test_costs_count_only_where_they_may() -> None:
    terms = {"em": Term(1.0), "length": Term(-0.5, "correct"), "unsupported": Term(-0.3, "correct")}
    spec = RewardSpec(terms)
    right = dataclasses.replace(PERFECT, spent=Spent(1, 10, 0, 128))
    wrong = dataclasses.replace(answered("Jaws", []), spent=Spent(1, 10, 0, 128))
    assert grade(TASK, right, spec).reward == pytest.approx(0.75)
    assert grade(TASK, wrong, spec).reward == 0.0
    bare = dataclasses.replace(answered("Cincinnati, Ohio", []), spent=Spent(1, 10, 0, 0))
    assert grade(TASK, bare, spec).reward == pytest.approx(0.7)  # right, and nothing carries it


def test_a_noisy_checker_is_corrected_without_bias() -> None:
    spec = RewardSpec({"em": Term(1.0)}, false_positive=0.1, false_negative=0.3)
    right, wrong = (grade(TASK, e, spec).reward for e in (PERFECT, answered("Jaws", [])))
    assert right is not None and wrong is not None
    assert 0.7 * right + 0.3 * wrong == pytest.approx(1.0)  # a right answer, as often as it is accepted
    assert 0.1 * right + 0.9 * wrong == pytest.approx(0.0)


def test_the_majority_can_stand_in_for_the_gold_answer() -> None:
    told = [answered(text, []) for text in ("Jaws", "the Ohio", "Ohio", "")]
    dead = dataclasses.replace(answered("Jaws", []), stop="error", error="x")
    vote = rewards.voted(TASK, [*told, dead])
    assert vote.answers == ("the Ohio",) and vote.id == TASK.id
    assert [grade(vote, e, RewardSpec({"em": Term(1.0)})).reward for e in told] == [0.0, 1.0, 1.0, 0.0]
    nobody = rewards.voted(TASK, [answered("", [])])
    assert nobody.answers == () and grade(nobody, told[0], RewardSpec({"em": Term(1.0)})).reward == 0.0
    assert grade(TASK, told[1], RewardSpec()).answer == "ohio"


def test_what_failed_has_no_reward() -> None:
    dead = dataclasses.replace(PERFECT, stop="error", error="searcher: ConnectionError: gone")
    assert "gone" in failure(dead) and grade(TASK, dead, RewardSpec()).reward is None
    call = ToolCall("search", {"query": "q"}, None, error="timeout")
    broken = dataclasses.replace(PERFECT, steps=(Step("searcher", calls=(call,)), *PERFECT.steps))
    graded = grade(TASK, broken, RewardSpec())
    assert graded.reward is None and graded.why == "tool: timeout" and not graded.success
    late = dataclasses.replace(PERFECT, stop="budget:tokens")
    assert grade(TASK, late, RewardSpec()).reward is not None


def test_replies_that_are_void_or_cut_are_told() -> None:
    say = lambda text, finish="stop": Step("planner", completion=Completion(text, finish=finish))  # type: ignore[arg-type]  # noqa: E731
    run = dataclasses.replace(PERFECT, steps=(say('{"steps":["x"]}'), say("I think"), say('{"a":"b"', "length")))
    graded = grade(TASK, run, RewardSpec())
    assert graded.void and graded.cut and graded.roles == ("planner",) * 3
    assert rewards.format(TASK, run) == pytest.approx(1 / 3)
    assert rewards.format(TASK, PERFECT) is None
    whole = grade(TASK, dataclasses.replace(PERFECT, steps=(say('{"steps":["x"]}'),)), RewardSpec())
    assert not whole.void and not whole.cut


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"terms": {"f2": Term(1.0)}}, r"unknown reward term 'f2'"),
        ({"steps": {"gains": 1.0}}, r"unknown step term 'gains' \(did you mean 'gain'\?\)"),
        ({"terms": {}}, "at least one term"),
        ({"false_positive": 0.6, "false_negative": 0.4}, "sum is < 1; found 0.6 and 0.4"),
    ],
)
def test_unusable_rewards_are_named(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RewardSpec(**spec)


def test_a_quote_given_twice_counts_once_and_costs() -> None:
    def quoting(quotes: list[str]) -> Episode:
        made = answered("Cincinnati, Ohio", quotes)
        last = dataclasses.replace(made.steps[-1], parsed={**made.steps[-1].parsed, "quotes": quotes})
        return dataclasses.replace(made, steps=(*made.steps[:-1], last))

    once, four = quoting(GOLD), quoting([*GOLD, *GOLD])
    assert rewards.citation_f1(TASK, once) == rewards.citation_f1(TASK, four) == 1.0
    assert rewards.repetition(TASK, once) == 0.0 and rewards.repetition(TASK, four) == 0.5
    assert rewards.repetition(TASK, quoting([])) == 0.0


def test_grounded_is_a_right_answer_with_its_evidence_and_nothing_else() -> None:
    assert rewards.grounded(TASK, PERFECT) == 1.0
    assert rewards.grounded(TASK, answered("Jaws", GOLD)) == 0.0
    assert rewards.grounded(TASK, answered("Cincinnati, Ohio", GOLD[:1])) == 0.0
    assert rewards.grounded(TASK, answered("Cincinnati, Ohio", [*GOLD, "It was a success."])) == 0.0


def test_what_the_answer_settles_is_kept_apart() -> None:
    spec = RewardSpec({"em": Term(1.0), "citation_f1": Term(0.5), "repetition": Term(-0.5)})
    graded = grade(TASK, PERFECT, spec)
    assert graded.reward == pytest.approx(1.5) and graded.settled == 1.0
    wrong = grade(TASK, answered("Jaws", GOLD), spec)
    assert wrong.reward == pytest.approx(0.5) and wrong.settled == 0.0


def test_agreement_is_the_share_of_the_groups_answers() -> None:
    def graded(answer: str, reward: float | None = 0.1) -> rewards.Graded:
        return rewards.Graded(reward, False, {}, (), (), answer=answer)

    group = [graded("ohio"), graded("ohio"), graded("maine"), graded(""), graded("ohio", None)]
    found = rewards.agreeing(group, 2.0)
    assert [g.reward for g in found] == [pytest.approx(1.1), pytest.approx(1.1), pytest.approx(0.6), 0.1, None]
    assert found[0].settled == 1.0 and found[3].settled == 0.0


def test_the_step_that_first_brings_the_answer_is_marked() -> None:
    steps = (
        Step("searcher", passages=(PASSAGES[0],)),
        Step("searcher", passages=(PASSAGES[1],)),
        Step("searcher", passages=(PASSAGES[1], PASSAGES[2])),
    )
    made = dataclasses.replace(PERFECT, steps=steps)
    assert rewards.reached(TASK, made) == [0.0, 1.0, 0.0]
