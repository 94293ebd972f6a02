"""Citations: found by a program, verbatim, and checked again from the store alone."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sleuth import view
from sleuth.agents.cite import checked, locate, quotable, supports, verify
from sleuth.agents.graph import build_graph
from sleuth.agents.records import Answer, Citation, Episode, Sentence
from sleuth.agents.rollout import rollout
from sleuth.corpora.records import Passage
from sleuth.eval.exports.formats import cited
from sleuth.eval.metrics import citation_support, citations, quote_support, quoted
from sleuth.eval.records import Task
from tests.films import BIRTH, FILM, PASSAGES, QUESTION, FilmStore, context, reply
from tests.scripted import ScriptedPolicy


def episode() -> Episode:
    ctx = context()
    return asyncio.run(rollout(build_graph(ctx.strategy), QUESTION, ctx))


def with_citation(run: Episode, **changes: Any) -> Episode:
    assert run.answer is not None
    (sentence,) = run.answer.sentences
    first = dataclasses.replace(sentence.citations[0], **changes)
    altered = dataclasses.replace(sentence, citations=(first, *sentence.citations[1:]))
    return dataclasses.replace(run, answer=dataclasses.replace(run.answer, sentences=(altered,)))


def test_every_kept_citation_of_a_run_holds() -> None:
    checks = verify(episode(), FilmStore())
    assert len(checks) == 2 and all(check.holds and check.supported for check in checks)


def test_each_way_to_forge_a_citation_is_found() -> None:
    run, store = episode(), FilmStore()
    forged = {
        "same_store": with_citation(run, fingerprint="another"),
        "exists": with_citation(run, passage_id="nowhere"),
        "verbatim": with_citation(run, start=1),
        "retrieved": dataclasses.replace(run, steps=()),
    }
    for field, altered in forged.items():
        check = verify(altered, store)[0]
        assert not check.holds and not getattr(check, field), field
    assert not verify(with_citation(run, start=-5, end=3), store)[0].exists
    assert not verify(with_citation(run, end=10_000), store)[0].exists
    assert not verify(with_citation(run, quote=FILM.replace("1975", "1976")), store)[0].verbatim


def test_a_citation_that_says_nothing_of_question_or_answer_holds_and_is_marked() -> None:
    run, shark = episode(), "A shark is a kind of fish."
    assert run.answer is not None
    (sentence,) = run.answer.sentences
    stray = Citation(sentence.citations[0].fingerprint, "shark", 0, len(shark), shark)
    altered = dataclasses.replace(sentence, citations=(*sentence.citations, stray))
    run = dataclasses.replace(run, answer=dataclasses.replace(run.answer, sentences=(altered,)))
    checks = verify(run, FilmStore())
    assert [(check.holds, check.on_topic) for check in checks] == [(True, True), (True, True), (True, False)]
    out = io.StringIO()
    Console(file=out, width=200).print(view.answer(run, checks=checks))
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "“" in line] == ["✓", "✓", "~"]
    assert "says nothing of question or answer" in lines[-1] and "says nothing" not in lines[1]


def test_an_answer_without_a_carrying_quote_gets_the_sentence_that_carries_it() -> None:
    (sentence,) = checked(QUESTION, "Cincinnati, Ohio", [FILM], PASSAGES, "f").sentences
    assert [c.quote for c in sentence.citations] == [FILM, BIRTH] and sentence.supported
    (nowhere,) = checked(QUESTION, "Berlin", [FILM], PASSAGES, "f").sentences
    assert [c.quote for c in nowhere.citations] == [FILM] and not nowhere.supported
    (bare,) = checked("Is a shark a kind of mammal?", "no", [], PASSAGES, "f").sentences
    assert not bare.citations and not bare.supported


def test_white_space_may_differ_and_nothing_else() -> None:
    passage = Passage("p", "p", 0, 60, "T", "He said:\n  “It is\tdone”, and left the house. Then silence.")
    assert locate("He said: “It is done”, and left the house.", [passage]) == Citation(
        "", "p", 0, 44, "He said:\n  “It is\tdone”, and left the house."
    )
    assert locate('He said: "It is done", and left the house.', [passage]) is None
    assert locate("he said: “It is done”, and left the house.", [passage]) is None
    assert locate("is", [passage]) is None  # too short to prove anything
    assert locate("Then silence.", [passage]) is not None
    assert locate(" \n", [passage]) is None


def test_a_quote_is_not_cut_within_a_word_or_a_number() -> None:
    def found(quote: str, text: str) -> int | None:
        place = locate(quote, [Passage("p", "p", 0, len(text), "T", text)])
        return place.start if place else None

    assert found("legal under federal law", "It is illegal under federal law.") is None
    assert found("legal under federal law", "Not illegal under federal law but legal under federal law.") == 34
    assert found("The attack killed 15", "The attack killed 150 people.") is None
    assert found("The attack killed 15", "The attack killed 15.5 thousand.") is None
    assert found("The attack killed 15.", "The attack killed 15.5 thousand.") is None
    assert found("The attack killed 15.", "The attack killed 15. It was war.") == 0
    assert found("The attack killed 15", "The attack killed 15, 3 of them soldiers.") == 0
    assert found("The town has 1,200", "The town has 1,200,000 inhabitants.") is None
    assert found("200,000 inhabitants", "The town has 1,200,000 inhabitants.") is None
    assert found(",000 inhabitants", "The town has 1,200,000 inhabitants.") is None
    assert found("東京は日本の首都である。人口は", "東京は日本の首都である。人口は1400万人です。") == 0
    assert found("本の首都である。人口は1400", "東京は日本の首都である。人口は1400万人です。") == 4
    assert found("本の首都である。人口は140", "東京は日本の首都である。人口は1400万人です。") is None
    assert found("the city of Tokyo", "東京はthe city of Tokyoである。") == 3


@given(st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=4))
def test_whatever_is_quotable_can_be_located_and_is_verbatim(texts: list[str]) -> None:
    passages = [Passage(str(i), str(i), 0, len(t), "", t) for i, t in enumerate(texts)]
    for quote in quotable(passages):
        place = locate(quote, passages)
        assert place is not None
        assert texts[int(place.passage_id)][place.start : place.end] == place.quote
        assert place.quote.split() == quote.split()


def test_support_is_lexical_and_says_no_to_what_is_not_there() -> None:
    film, birth = f"Jaws (film) {FILM}", f"Steven Spielberg {BIRTH}"
    assert supports(QUESTION, "Cincinnati, Ohio", [film, birth])
    assert not supports(QUESTION, "Phoenix, Arizona", [film, birth])
    assert not supports(QUESTION, "Cincinnati, Ohio", [film])
    assert not supports(QUESTION, "Cincinnati, Ohio", [])
    assert not supports("When did the war end?", "Cincinnati", [birth])  # about something else
    assert supports("Was Jaws directed by Steven Spielberg?", "yes", [film])
    assert not supports("Is the moon older than the sun?", "yes", [film])
    assert supports("In which year was Jaws made?", "1975", [film])
    assert not supports("In which year was Jaws made?", "1976", [film])


def test_sentences_of_a_longer_answer_keep_only_what_speaks_of_them() -> None:
    text = "Jaws was directed by Steven Spielberg. Mozart wrote forty symphonies."
    answer = checked("Who directed Jaws?", text, [FILM, BIRTH], PASSAGES, "f")
    first, second = answer.sentences
    assert first.supported and {c.quote for c in first.citations} == {FILM, BIRTH}
    assert not second.supported and second.citations == ()


def test_the_items_of_a_list_are_cited_one_by_one() -> None:
    def listing(messages: Any) -> Any:
        given = reply(messages)
        return {**given, "answer": ["Ohio", "fish", "Ohio"]} if "quotes" in given else given

    ctx = context("naive-rag", policy=ScriptedPolicy(listing))
    run = asyncio.run(rollout(build_graph(ctx.strategy), QUESTION, ctx))
    assert run.answer and run.answer.text == "Ohio, fish" and run.steps[-1].parsed["items"] == ["Ohio", "fish"]
    ohio, fish = run.answer.sentences
    assert (ohio.text, [c.quote for c in ohio.citations]) == ("Ohio", [FILM, BIRTH])  # the film names neither item
    assert (fish.text, [c.quote for c in fish.citations]) == ("fish", [FILM, "A shark is a kind of fish."])
    assert ohio.supported and fish.supported and all(check.holds for check in verify(run, FilmStore()))
    names = {"jaws": "1", "spielberg": "2", "shark": "3"}
    assert cited(run.answer, names) == "Ohio [1] [2], fish [1] [3]"
    elsewhere = Answer("Born there.\nHe left.", (Sentence("Born there."), Sentence("He left."), Sentence("Not in it.")))
    assert cited(elsewhere, names) == "Born there. He left. Not in it."
    single = run_with({"answer": ["Ohio"], "quotes": [BIRTH]})
    assert single.answer and single.answer.text == "Ohio" and single.steps[-1].parsed["items"] == []


def run_with(said: Any) -> Episode:
    ctx = context("naive-rag", policy=ScriptedPolicy(lambda messages: said))
    return asyncio.run(rollout(build_graph(ctx.strategy), QUESTION, ctx))


def test_what_a_program_added_to_an_answer_does_not_count_for_the_policy() -> None:
    def careless(messages: Any) -> Any:
        given = reply(messages)
        return {**given, "quotes": [FILM]} if "quotes" in given else given

    ctx = context(policy=ScriptedPolicy(careless))
    run, task = asyncio.run(rollout(build_graph(ctx.strategy), QUESTION, ctx)), Task("t", QUESTION)
    assert [c.quote for c in citations(run)] == [FILM, BIRTH] and [c.quote for c in quoted(run)] == [FILM]
    assert (citation_support(task, run), quote_support(task, run)) == (1.0, 0.0)
    assert quote_support(task, episode()) == 1.0
