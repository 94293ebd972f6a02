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


def test_a_list_of_two_guesses_earns_what_word_f1_gives_it() -> None:
    """Not little: docs/training.md says so, and what to do where a policy is found at it."""
    hedged = grade(TASK, answered("Berlin, Cincinnati, Ohio", []), RewardSpec())
    assert not hedged.success and hedged.reward == pytest.approx(0.8)
    listed = dataclasses.replace(
        TASK, answer_items=("Ohio",)
    )  # where a list is asked for, an item too many costs as well
    assert grade(listed, answered("Ohio, Berlin", []), RewardSpec()).reward == pytest.approx(2 / 3)


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
    kept = RewardSpec({"em": Term(1.0), "answer_in_context": Term(0.1, "wrong")})  # AutoRefine's
    assert grade(TASK, right, kept).reward == 1.0 and grade(TASK, wrong, kept).reward == pytest.approx(0.1)


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
    refusals = [answered(text, []) for text in ("unknown", "Unknown.", "I don't know", "Ohio")]
    assert rewards.voted(TASK, refusals).answers == ("Ohio",)
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
    assert [g.reward for g in rewards.agreeing([graded("unknown"), graded("unknown")], 2.0)] == [0.1, 0.1]


def test_the_step_that_first_brings_the_answer_is_marked() -> None:
    steps = (
        Step("searcher", passages=(PASSAGES[0],)),
        Step("searcher", passages=(PASSAGES[1],)),
        Step("searcher", passages=(PASSAGES[1], PASSAGES[2])),
    )
    made = dataclasses.replace(PERFECT, steps=steps)
    assert rewards.reached(TASK, made) == [0.0, 1.0, 0.0]


def dated(text: str, quotes: list[str], dates: dict[str, str]) -> Episode:
    """An answer over `PASSAGES` whose search noted these dates."""
    made = answered(text, quotes)
    hits = [{"passage_id": p.id, "score": 1.0} | ({"date": dates[p.id]} if p.id in dates else {}) for p in PASSAGES]
    call = ToolCall("search", {"query": QUESTION, "k": 5}, hits)
    return dataclasses.replace(made, steps=(dataclasses.replace(made.steps[0], calls=(call,)), *made.steps[1:]))


DATES = {"jaws": "1976-02-01", "sp": "2011-05"}
TIMED = dataclasses.replace(TASK, question="Where was the director of Jaws born, as told since 2010?")


def test_citations_are_held_to_the_time_that_the_question_is_about() -> None:
    told = lambda quotes, task=TIMED, dates=DATES: rewards.temporal(task, dated("Ohio", quotes, dates))  # noqa: E731
    assert told(GOLD[1:]) == 1.0 and told(GOLD) == 0.5 and told(GOLD[:1]) == 0.0
    assert told([*GOLD[1:], *GOLD[1:]]) == 1.0 and told([GOLD[1], *GOLD]) == 0.5  # said twice counts once
    assert told([GOLD[1], "A shark is a fish."]) == 0.5  # a source without a date is in no time
    assert told([]) == 0.0
    assert told(GOLD, TASK) is None  # no time is named
    assert told(GOLD, dates={}) is None  # no source of the run has a date, as in episodes of older versions
    where = dataclasses.replace(TASK, where={"date": {">=": "1970", "<": "1980"}})
    assert told(GOLD, where) == 0.5 and told(GOLD[:1], where) == 1.0
    assert told(GOLD, dataclasses.replace(TASK, where={"date": ["1976-02-01", "2011-05"]})) == 1.0
    assert told(GOLD, dataclasses.replace(TASK, where={"date": "1976-02-01", "lang": "en"})) == 0.5


def searched(*queries: str) -> Episode:
    return dataclasses.replace(PERFECT, steps=tuple(search([], [], query) for query in queries))


def test_queries_are_held_against_what_is_really_asked() -> None:
    steps = [
        {"question": "Jaws >> director", "answer": "Steven Spielberg", "passage": "jaws"},
        {"question": "where was #1 born", "answer": "Ohio", "passage": "sp"},
        {"question": "Is #2 a state?", "answer": "yes", "passage": None},
    ]
    task = dataclasses.replace(TASK, metadata={"decomposition": steps})
    first, second = "Who is the director of Jaws", "where was Steven Spielberg born"
    assert rewards.intent(task, searched(second, first, "shark")) == 1.0
    assert rewards.intent(task, searched(first)) == pytest.approx((1 + 0) / 2)
    assert rewards.intent(task, searched("Spielberg born")) == pytest.approx((0 + 4 / 7) / 2)
    assert rewards.intent(task, searched()) == 0.0
    alone = dataclasses.replace(TASK, question="And where was he born?", metadata={"standalone": second, "history": []})
    assert rewards.intent(alone, searched("where was he born", second)) == 1.0
    assert rewards.intent(alone, searched("And where was he born?")) == pytest.approx(2 * 3 / (5 + 5))
    words = dataclasses.replace(TASK, metadata={"decomposition": ["Who directed Jaws?"]})
    assert rewards.intent(words, searched("who directed jaws")) == 1.0
    assert rewards.intent(TASK, searched(first)) is None  # its metadata marks evidence and says nothing of the kind


AIMS = RewardSpec({"em": Term(0.6), "citation_f1": Term(0.2), "temporal": Term(0.1), "intent": Term(0.1)})
AIM_PROBES = {
    "empty": ("", [], "", 0.0),
    "all-citing, wrong": ("Jaws", quotable(PASSAGES), "", 0.2 * 0.4 + 0.1 * 3 / 8),
    "question-echo": (TIMED.question, GOLD[:1], TIMED.question, 0.2 * 2 / 3 + 0.1 * 12 / 16),
    "unknown": ("unknown", [], "", 0.0),
    "copied passage": (LIFE, quotable(PASSAGES[1:2]), "", 0.2 * 0.4 + 0.1),
}


@pytest.mark.parametrize("name", AIM_PROBES)
def test_keeping_to_the_aim_cannot_be_won_alone(name: str) -> None:
    text, quotes, query, worth = AIM_PROBES[name]
    asked = "Where was the director of Jaws born"
    task = dataclasses.replace(TIMED, metadata={**TASK.metadata, "standalone": asked})
    tried = dated(text, quotes, DATES)
    (call,) = tried.steps[0].calls
    first = dataclasses.replace(tried.steps[0], calls=(dataclasses.replace(call, arguments={"query": query}),))
    graded = grade(task, dataclasses.replace(tried, steps=(first, *tried.steps[1:])), AIMS)
    assert graded.reward == pytest.approx(worth) and not graded.success and worth < 0.25
