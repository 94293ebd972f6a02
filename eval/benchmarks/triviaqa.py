"""TriviaQA: questions of quiz writers, whose answers have many accepted aliases.

Joshi et al. 2017, arXiv 1705.03551. Rows as published (``QuestionId``, ``Question``, ``Answer`` with ``Value`` and
``Aliases`` under ``Data``) or as in ``hf:mandarjoshi/trivia_qa:rc.nocontext@validation`` (the same in lower case). The
published script also takes typographic quotes for punctuation and underscores for blanks; aliases cover most of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sleuth.eval.load import loader
from sleuth.eval.metrics import QUESTION_ANSWERING
from sleuth.eval.records import Benchmark


def convert(row: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    published = "QuestionId" in row
    id_, question, answer = ("QuestionId", "Question", "Answer") if published else ("question_id", "question", "answer")
    held = row[answer]
    value, aliases = (held["Value"], held["Aliases"]) if published else (held["value"], held["aliases"])
    people = held.get("HumanAnswers") or ()  # of the verified files
    answers = [text for text in dict.fromkeys([value, *aliases, *people]) if text.strip()]
    yield {"id": row[id_], "question": row[question], "answers": answers}


TRIVIAQA = Benchmark(
    name="triviaqa",
    load=loader("triviaqa", convert),
    metrics=QUESTION_ANSWERING,
    primary="em",
    licence="stated at the source",
)
