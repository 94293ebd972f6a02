"""Metrics against tiny hand-built episodes; the answer scores themselves stand in test_eval_official.py."""

from __future__ import annotations

import dataclasses
import math

import pytest

from sleuth.agents.cite import checked
from sleuth.agents.records import Answer, Citation, Completion, Episode, Sentence, Spent, Step, ToolCall
from sleuth.corpora.errors import ConfigError
from sleuth.eval import metrics
from sleuth.eval.answers import items
from sleuth.eval.ranking import one_query
from sleuth.eval.records import Task
from tests.eval_episodes import FINGERPRINT, episode, passage


def test_the_best_accepted_answer_counts() -> None:
    task = Task("t", "Who?", ("G. Stanley Hall", "Stanley Hall"))
    run = episode(answer=Answer("Stanley Hall"))
    assert metrics.em(task, run) == metrics.f1(task, run) == metrics.cover_em(task, run) == 1
    assert metrics.f1(task, episode(answer=Answer("Hall of Fame"))) == pytest.approx(2 * 1 / (3 + 2))


def test_list_answers_are_sets() -> None:
    task = Task("t", "Which?", ("Riften, Geissant",), answer_items=("Riften", "Geissant"))
    assert items("Geissant; Riften and  the Kaldor,\nMuntaril, and Vost.") == {
        "geissant", "riften", "kaldor", "muntaril", "vost",
    }  # fmt: skip
    for text, em, f1, cover in [
        ("Geissant and Riften", 1, 1, 1),
        ("Riften, Kaldor", 0, 1 / 2, 0),
        ("Riften", 0, 2 / 3, 0),
        ("Riften, Geissant, Kaldor, Vost", 0, 2 / 3, 1),
        ("", 0, 0, 0),
    ]:
        run = episode(answer=Answer(text))
        assert (metrics.em(task, run), metrics.cover_em(task, run)) == (em, cover), text
        assert metrics.f1(task, run) == pytest.approx(f1), text


def test_an_item_with_and_in_its_name_can_be_matched() -> None:
    task = Task("t", "Which?", ("x",), answer_items=("Trinidad and Tobago", "Cuba"))
    assert metrics.em(task, episode(answer=Answer("Cuba, Trinidad and Tobago"))) == 1


PASSAGES = [
    passage("d1", "The first mayor of Vostberg was Anna Lund.", "Vostberg", 0),
    passage("d1", "It lies on a hill.", "Vostberg", 1),
    passage("d2", "Lund was born in Kaldor.", "Anna Lund"),
]
TASK = Task("t", "Where was the first mayor of Vostberg born?", ("Kaldor",), ("d1", "d2", "d3"), "all")


def test_evidence_counts_documents_once() -> None:
    run = episode(passages=PASSAGES, shown=PASSAGES[:2])
    assert metrics.evidence_recall(TASK, run) == pytest.approx(2 / 3)
    assert metrics.evidence_shown(TASK, run) == pytest.approx(1 / 3)
    anyone = Task("t", "?", ("x",), ("d2", "d9"), "any")
    assert metrics.evidence_recall(anyone, run) == 1
    assert metrics.evidence_shown(anyone, run) == 0
    assert metrics.evidence_recall(Task("t", "?", ("x",)), run) is None


def test_answer_in_context_needs_whole_tokens_of_one_passage() -> None:
    run = episode(passages=PASSAGES, shown=PASSAGES[:2])
    assert metrics.answer_in_context(TASK, run) == 0
    assert metrics.answer_in_retrieved(TASK, run) == 1
    assert metrics.answer_in_retrieved(Task("t", "?", ("Kald",)), run) == 0
    assert metrics.answer_in_retrieved(Task("t", "?", ("hill Anna Lund",)), run) == 0
    assert metrics.answer_in_retrieved(Task("t", "?", ("yes",)), run) is None
    assert metrics.answer_in_retrieved(Task("t", "?", ("x",), answer_items=("Kaldor", "Vost")), run) == 1 / 2


def test_citations_are_judged_by_gold_documents_and_spans() -> None:
    quotes = [PASSAGES[0].text, PASSAGES[1].text]
    answer = checked(TASK.question, "Kaldor", quotes, PASSAGES[:2], FINGERPRINT)
    run = episode(TASK.question, answer, PASSAGES, PASSAGES[:2])
    assert metrics.citation_precision(Task("t", "?", ("x",), ("d2",), "any"), run) == 0
    assert metrics.citation_precision(TASK, run) == 1
    assert metrics.citation_precision(Task("t", "?", ("x",)), run) is None
    assert metrics.citation_precision(TASK, episode(passages=PASSAGES)) == 0
    assert metrics.citation_valid(TASK, run) == 1
    assert metrics.citation_support(TASK, run) == 0, "neither quote names Kaldor"


def test_a_forged_citation_is_not_valid() -> None:
    good = Citation(FINGERPRINT, "d2", 0, 4, "Lund")
    forged = [Citation(FINGERPRINT, "d2", 0, 4, "Lind"), Citation(FINGERPRINT, "d9", 0, 4, "Lund")]
    for kept, share in [((good,), 1), ((good, *forged), 1 / 3), ((), None)]:
        answer = Answer("Kaldor", (Sentence("Kaldor", kept, True),))
        assert metrics.citation_valid(TASK, episode(answer=answer, passages=PASSAGES)) == share


def test_costs_come_from_the_episode() -> None:
    run = episode(spent=Spent(3, 120, 40, 7), timing={"seconds": 1.5})
    names = ("searches", "prompt_tokens", "completion_tokens", "seconds")
    assert [metrics.COSTS[name](TASK, run) for name in names] == [3, 120, 7, 1.5]
    assert metrics.seconds(TASK, episode(timing={})) is None


@pytest.mark.parametrize(
    ("text", "declined"), [("", 1), ("Unknown.", 1), ("I don't know", 1), ("Kaldor", 0), ("The Unknown Soldier", 0)]
)
def test_abstention(text: str, declined: float) -> None:
    assert metrics.abstained(TASK, episode(answer=Answer(text))) == declined


def test_no_answer_in_the_row_is_not_scored() -> None:
    task = Task("t", "Unanswerable?")
    run = episode(answer=Answer("x"))
    assert [m(task, run) for m in (metrics.em, metrics.f1, metrics.cover_em, metrics.answer_in_context)] == [None] * 4


def test_every_cause_names_a_metric() -> None:
    assert set(metrics.NONE_WHEN) <= set(metrics.METRICS)


def said(text: str, **fields: object) -> Episode:
    return episode(answer=Answer(text), **fields)


@pytest.mark.parametrize(
    ("gold", "text", "value"),
    [
        ("1,200", "about 1200 people", 1),
        ("5 million", "5,000,000", 1),
        ("twelve", "12", 1),
        ("5 February 1953", "February 5, 1953", 1),
        ("5 February 1953", "February 1953", 0),
        ("1953", "in 1953", 1),
        ("1953", "5 February 1953", 0),
        ("12", "12 or 13", 0),
        ("Boeing 747", "747", 0),
        ("12", "DirectX 12", 0),
        ("Kaldor", "kaldor", 1),
        ("-3", "3", 0),
        ("3", "", 0),
    ],
)
def test_numbers_and_dates_are_compared_by_value(gold: str, text: str, value: float) -> None:
    assert metrics.value_em(Task("t", "?", (gold,)), said(text)) == value


@pytest.mark.parametrize(
    ("items", "text", "value"),
    [
        (("1,000", "2,500"), "1000, 2500", 1),
        (("1,000", "2,500"), "2,500 and 1,000", 1),
        (("1,000", "2,500"), "1000", 0),
        (("1,000",), "1000, 3", 0),
        (("Rum and Coke", "Gin"), "gin, rum and coke", 1),
        (("1",), "", 0),
    ],
)
def test_items_of_a_list_are_compared_by_value(items: tuple[str, ...], text: str, value: float) -> None:
    assert metrics.value_em(Task("t", "?", (", ".join(items),), answer_items=items), said(text)) == value


def test_where_nothing_answers_declining_is_right_and_breaking_off_is_not() -> None:
    task = Task("t", "?", metadata={"answerable": False})
    for metric in (metrics.em, metrics.f1, metrics.cover_em, metrics.value_em, metrics.rouge_l, metrics.abstention):
        assert [metric(task, run) for run in (said("unknown"), said("Kaldor"), episode())] == [1, 0, 0], metric
    assert metrics.citation_support(task, said("unknown")) is None
    assert metrics.answer_in_context(task, said("unknown")) is None
    answerable = Task("t", "?", ("Kaldor",), metadata={"answerable": True})
    assert [metrics.abstention(answerable, run) for run in (said("unknown"), said("Moor"), episode())] == [0, 1, 0]
    assert metrics.abstention(Task("t", "?", ("x",)), said("x")) is None


@pytest.mark.parametrize(
    ("text", "declined"),
    [
        ("", True),
        ("Unknown.", True),
        ("Sorry, but I do not know.", True),
        ("I apologize, but I do not have that information.", True),
        ("The documents do not include information on how long it lasts.", True),
        ("It cannot be determined from the passages.", True),
        ("There is not enough information to answer.", True),
        ("The documents do not say when, but it was after 1950.", False),
        ("The Unknown Soldier", False),
        ("No", False),
        ("He did not know that Kaldor was a port.", False),
        ("Kaldor. I do not know more.", False),
    ],
)
def test_what_declines(text: str, declined: bool) -> None:
    assert metrics.declines(text) is declined


def test_asking_back_is_right_where_it_is_needed() -> None:
    needed, not_needed = (Task("t", "?", ("x",), metadata={"needs_clarification": v}) for v in (True, False))
    runs = said("There are two bridges. Which one do you mean?"), said("1953"), episode()
    assert [metrics.asked_back(needed, run) for run in runs] == [1, 0, 0]
    assert [metrics.clarification(needed, run) for run in runs] == [1, 0, 0]
    assert [metrics.clarification(not_needed, run) for run in runs] == [0, 1, 0]
    assert metrics.clarification(TASK, runs[0]) is None


def test_planted_answers_and_items() -> None:
    task = Task("t", "?", ("Kaldor",), answer_items=("Kaldor", "Orsk"), metadata={"wrong_answers": ["Tarn", "orsk"]})
    for text, strict, share, misled in [
        ("Kaldor and Orsk", 1, 1, 0),
        ("Kaldor, Orsk or Tarn", 0, 1, 1),
        ("Kaldor", 0, 1 / 2, 0),
        ("", 0, 0, 0),
    ]:
        run = said(text)
        assert (metrics.strict_cover(task, run), metrics.cover_share(task, run)) == (strict, share), text
        assert metrics.misled(task, run) == misled, text
    assert metrics.misled(TASK, said("Tarn")) is None
    assert metrics.first_hit(task, said("Orsk, Tarn")) == 1
    assert metrics.first_hit(task, said("Tarn, Orsk")) == 0


def test_long_answers() -> None:
    task = Task("t", "?", ("the river rises on Mount Ceres", "it comes from Mount Ceres"))
    run = said("Mount Ceres is where the river rises")
    assert metrics.rouge_l(task, run) == pytest.approx(2 * 2 / (6 + 5))
    assert metrics.token_recall(task, run) == pytest.approx(4 / 5)
    assert metrics.rouge_l(task, said("")) == metrics.token_recall(task, said("")) == 0


def test_key_findings_are_covered_and_matched_one_to_one() -> None:
    findings = ["The Dovrin is 312 km long.", "The Orsk Bridge was opened in 1953.", "Salt Hours won in 1996."]
    task = Task("t", "What is known?", metadata={"key_findings": findings})
    run = said("The river Dovrin is 312 km long. The Orsk Bridge, opened in 1953, spans it. Kaldor is a port.")
    assert metrics.key_findings(task, run) == pytest.approx(2 / 3)
    assert metrics.key_finding_f1(task, run) == pytest.approx(2 * 2 / (3 + 3))
    one = said("The Dovrin is 312 km long and the Orsk Bridge was opened in 1953.")
    assert metrics.key_findings(task, one) == pytest.approx(2 / 3)
    assert metrics.key_finding_f1(task, one) == pytest.approx(2 * 1 / (3 + 1)), "one sentence carries one finding"
    assert metrics.key_finding_f1(task, said("")) == 0 and metrics.key_findings(TASK, run) is None


def test_languages_are_scored_by_their_own_words() -> None:
    task = Task("t", "?", ("北京",), metadata={"lang": "zh"})
    assert (metrics.f1(task, said("北京市")), metrics.language_token_f1(task, said("北京市"))) == (
        0,
        pytest.approx(4 / 5),
    )
    assert metrics.language_em(task, said("北京。")) == 1


def test_citations_that_are_not_needed_and_evidence_that_is_not_gold() -> None:
    quotes = [PASSAGES[2].text, PASSAGES[1].text]
    answer = checked("Where was Lund born?", "Lund was born in Kaldor.", quotes, PASSAGES, FINGERPRINT)
    run = episode("Where was Lund born?", answer, PASSAGES, PASSAGES)
    assert [c.passage_id for c in metrics.citations(run)] == ["d2", "d1#1"]
    assert metrics.citation_relevance(TASK, run) == 1 / 2, "the hill carries nothing"
    assert metrics.citation_recall(TASK, run) == pytest.approx(2 / 3)
    assert metrics.evidence_precision(Task("t", "?", ("x",), ("d2",)), run) == 1 / 2
    assert metrics.citation_relevance(TASK, episode(passages=PASSAGES)) is None
    assert metrics.faithfulness(TASK, run) == 1
    invented = Answer("Lund was born in Orsk.", (Sentence("Lund was born in Orsk."),))
    assert metrics.faithfulness(TASK, episode("Where was Lund born?", invented, PASSAGES, PASSAGES)) == 0
    assert metrics.faithfulness(TASK, said("unknown")) is None


def test_confidence_is_of_the_tokens_that_were_chosen() -> None:
    reply = Completion(
        "x", token_ids=(1, 2, 3), logprobs=(0.0, math.log(0.5), math.log(0.125)), forced=(True, False, False)
    )
    run = episode()
    step = Step("answerer", completion=reply, answer=Answer("x"))
    run = dataclasses.replace(run, steps=(*run.steps, step), answer=step.answer)
    assert metrics.confidence(TASK, run) == pytest.approx(0.25)
    silent = dataclasses.replace(step, completion=dataclasses.replace(reply, logprobs=(), forced=()))
    assert metrics.confidence(TASK, dataclasses.replace(run, steps=(silent,))) is None
    assert metrics.confidence(TASK, episode()) is None


def test_queries_that_repeat_are_not_diverse() -> None:
    def asking(*queries: str) -> Episode:
        steps = tuple(Step("searcher", calls=(ToolCall("search", {"query": q}, []),)) for q in queries)
        return dataclasses.replace(episode(), steps=steps)

    assert metrics.query_diversity(TASK, asking("a river", "river")) == 0
    assert metrics.query_diversity(TASK, asking("first mayor", "birth place")) == 1
    assert metrics.query_diversity(TASK, asking("x y", "x z", "x y")) == pytest.approx(1 - (1 / 3 + 1 + 1 / 3) / 3)
    assert metrics.query_diversity(TASK, asking("x")) is None


def test_rankings_are_trec_evals() -> None:
    grades = {"d1": 1, "d2": 2}
    assert one_query(grades, ["d1", "d3", "d2"], "ndcg@10") == pytest.approx((1 + 2 / 2) / (2 + 1 / math.log2(3)))
    assert one_query(grades, ["d3", "d2"], "mrr@10") == 1 / 2
    assert one_query(grades, ["x"] * 10 + ["d1"], "mrr@10") == 0
    assert one_query(grades, ["d3", "d2"], "recall@5") == 1 / 2
    assert one_query(grades, [], "map") == 0
    with pytest.raises(ConfigError, match="unknown measure 'ndgc@10'"):
        one_query(grades, ["d1"], "ndgc@10")
    run = episode(passages=PASSAGES)
    assert metrics.ranked_documents(run) == ["d1", "d2"], "a document stands where its first passage stands"
    task = Task("t", "?", (), ("d2",), metadata={"excluded": ["d1"], "relevance": {"d2": 3}})
    assert metrics.RANKING["mrr@10"](task, run) == 1
    assert metrics.RANKING["mrr@10"](Task("t", "?", (), ("d2",)), run) == 1 / 2
    assert metrics.RANKING["mrr@10"](Task("t", "?"), run) is None


def test_tokens_by_role_and_money() -> None:
    reply = Completion("x", prompt_tokens=100, completion_tokens=10)
    steps = (Step("planner", completion=reply), Step("searcher"), Step("planner", completion=reply))
    run = dataclasses.replace(episode(spent=Spent(1, 200, 50, 20)), steps=steps)
    assert metrics.tokens_by_role(run) == {"planner": 220}
    assert metrics.role_tokens("planner")(TASK, run) == 220 and metrics.role_tokens("critic")(TASK, run) == 0
    assert metrics.money(1.0, 2.0)(TASK, run) == pytest.approx((200 + 40) / 1e6)
    assert metrics.money(1.0, 2.0, cached=0.1)(TASK, run) == pytest.approx((150 + 5 + 40) / 1e6)
