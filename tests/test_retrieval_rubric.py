"""Rerankers by a rubric and by late interaction, within the budget of any reranker."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from sleuth.agents import rubric as asking
from sleuth.agents import sql as writing
from sleuth.agents.records import Message
from sleuth.corpora.errors import ConfigError, ModelError
from sleuth.corpora.records import Passage
from sleuth.retrieval.late import LateInteraction
from sleuth.retrieval.rerank import Reranked
from sleuth.retrieval.rubric import RELEVANCE, Rubric
from sleuth.retrieval.tables import Table
from tests.films import BIRTH, FILM, PASSAGES, FilmStore
from tests.scripted import ScriptedPolicy


def test_several_marks_of_a_passage_are_integrated_into_their_mean() -> None:
    seen = []

    def judge(query: str, texts: Sequence[str], rubric: str, samples: int) -> list[list[float | None]]:
        seen.append((query, rubric, samples))
        return [[100.0, 50.0, None] if BIRTH in text else [10.0, 20.0, 400.0] for text in texts]

    rubric = Rubric(judge, samples=3)
    assert rubric("q", PASSAGES) == pytest.approx([0.15, 0.75, 0.15])
    assert seen == [("q", RELEVANCE, 3)] and (rubric.asked, rubric.unread) == (9, 3)
    (hits,) = Reranked(FilmStore(), rubric, depth=3).search(["fish"], 2)
    assert hits[0].passage.id == "spielberg" and hits[0].score == 0.75


@pytest.mark.parametrize("reply", ["I cannot say.", '{"mark": "very"}', '{"mark": 900}', '{"mark": true}', "[]"])
def test_a_judge_that_talks_nonsense_leaves_the_order_as_it_was(reply: str) -> None:
    policy = ScriptedPolicy(lambda messages: reply)
    rubric = Rubric(asking.judge(policy), samples=2)
    before = [hit.passage.id for hit in FilmStore().search(["a film of Spielberg"], 3)[0]]
    (hits,) = Reranked(FilmStore(), rubric).search(["a film of Spielberg"], 3)
    assert [hit.passage.id for hit in hits] == before and (rubric.asked, rubric.unread) == (6, 6)


def test_marks_of_another_number_are_an_error() -> None:
    with pytest.raises(ModelError, match="expected marks of 3 passages, found 0"):
        Rubric(lambda query, texts, rubric, samples: [])("q", PASSAGES)
    with pytest.raises(ConfigError, match="samples of at least 1"):
        Rubric(lambda query, texts, rubric, samples: [], samples=0)


def test_a_policy_is_a_judge_whose_samples_have_seeds_of_their_own() -> None:
    def reply(messages: Sequence[Message]) -> dict[str, int]:
        return {"mark": 90 if FILM in messages[1].content else 5}

    policy = ScriptedPolicy(reply)
    marks = asking.judge(policy)("Who directed Jaws?", [p.text for p in PASSAGES], RELEVANCE, 2)
    assert marks == [[90.0, 90.0], [5.0, 5.0], [5.0, 5.0]]
    assert len(policy.seen) == 6 and policy.schemas[0] == asking.schema()
    assert policy.seen[0][1].content.startswith("Rubric: 80 to 100") and policy.seen[0][0].content == asking.PROMPT


def test_the_prompts_own_examples_are_read() -> None:
    example = asking.PROMPT.partition("Example reply: ")[2]
    assert asking.read(example) == 95.0 and set(asking.schema()["properties"]) == set(json.loads(example))
    lines = asking.PROMPT.splitlines()[1:-1]
    rubric, question, passage = (line.partition(": ")[2] for line in lines)
    shown = [line.removeprefix("Example ") for line in lines]
    assert asking.user(question, passage, rubric).splitlines() == [line[0].upper() + line[1:] for line in shown]
    sql = writing.read(writing.PROMPT.partition("Example reply: ")[2])
    assert sql.startswith("SELECT country, sum(people)")
    table = Table("cities", "", {"name": "VARCHAR", "country": "VARCHAR", "people": "BIGINT"}, 3,
                  {"country": ("France", "Germany")})  # fmt: skip
    assert writing.described(table) == writing.PROMPT.splitlines()[1].removeprefix("Example table: ")


def test_a_policy_writes_sql_that_tables_run_or_refuse() -> None:
    policy = ScriptedPolicy(lambda messages: {"sql": "SELECT 1 AS one"} if "one" in messages[1].content else "no idea")
    write = writing.writer(policy)
    assert write("give one", []) == "SELECT 1 AS one" and write("give two", []) == ""


def test_late_interaction_is_the_mean_of_each_query_tokens_nearest() -> None:
    scorer = LateInteraction()
    passages = [*PASSAGES, Passage("e", "e", 0, 0, "", "")]
    scores = scorer("Where was Steven Spielberg born?", passages)
    assert max(range(4), key=scores.__getitem__) == 1 and all(-1.0001 <= score <= 1.0001 for score in scores)
    assert scorer("Where was Steven Spielberg born?", [PASSAGES[1]])[0] == pytest.approx(scores[1], abs=1e-4)
    same = Passage("s", "s", 0, 0, "", "Where was Steven Spielberg born?")
    assert scorer(same.text, [same])[0] == pytest.approx(1.0, abs=1e-4)
    assert scorer("", PASSAGES) == [0.0, 0.0, 0.0]


def test_a_late_model_that_is_none_is_an_error(tmp_path: object) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as an encoder"):
        LateInteraction(str(tmp_path))("q", PASSAGES)
