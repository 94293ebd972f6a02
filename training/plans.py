"""A plan is a question's decomposition in natural words: one look-up a step, ``#n`` for the answer of step n.

Published decompositions come in several spellings (``Hello Love >> performer``, answers already filled in, logic steps
that nothing can be searched for); these functions bring them to the one that the planner is to write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sleuth.training.sets import QuestionSet, Row, find_span

MAX_STEPS = 4

_RELATIONS = {
    "performer": "Who is the performer of {}?",
    "country": "Which country is {} in?",
    "country of citizenship": "Which country is {} a citizen of?",
    "located in the administrative territorial entity": "In which administrative area is {} located?",
    "shares border with": "What shares a border with {}?",
    "educated at": "Where was {} educated?",
    "instance of": "What is {} an instance of?",
    "applies to jurisdiction": "Which jurisdiction does {} apply to?",
    "continent": "Which continent is {} on?",
    "conflict": "In which conflict did {} take part?",
    "location": "Where is {} located?",
    "located in or next to body of water": "Which body of water is {} next to?",
    "member of sports team": "Which sports team does {} play for?",
    "place of birth": "Where was {} born?",
    "place of death": "Where did {} die?",
    "part of": "What is {} part of?",
    "follows": "What does {} follow?",
    "capital of": "What is {} the capital of?",
    "employer": "Who employs {}?",
    "owned by": "Who owns {}?",
    "founded by": "Who founded {}?",
    "named after": "What is {} named after?",
}
_PERSONS = frozenset("author composer director producer sibling spouse mother father child".split())

_ATTRIBUTES = (
    (r"\b(older|oldest|younger|youngest|born)\b", "When was {} born?"),
    (r"\b(founded|formed|established|published|first|earlier|century)\b", "When was {} founded?"),
    (r"\b(members)\b", "How many members does {} have?"),
    (r"\b(profession|occupation|role|(author|writer|director|actor|musician)s?)\b", "What is the profession of {}?"),
    (r"\b(nationality|american|british|citizens?)\b", "What is the nationality of {}?"),
    (r"\b(country|city|state|located|based|headquarters?|place)\b", "Where is {} located?"),
)
_LOGIC = re.compile(r"(?i)^(is|are|was|were|do|does|did|can|could|would|will|has|have|had|if|of|based)\b")


def natural(step: str) -> str:
    """A decomposition step as a question: relations put into words, spacing, first letter and question mark mended."""
    subject, arrow, relation = (part.strip() for part in step.partition(">>"))
    if arrow:
        wh = "Who is the {} of {{}}?" if relation in _PERSONS else "What is the {} of {{}}?"
        step = _RELATIONS.get(relation, wh.format(relation)).format(re.sub(r"\s*\(\s*(#\d)\s*\)", r", \1", subject))
    step = re.sub(r"\s+([?,.'’])", r"\1", " ".join(step.split()))
    step = step[:1].upper() + step[1:]
    return step if step.endswith("?") else f"{step}?"


def resolved(steps: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Each step with the answers of earlier ones filled in; ``#32`` with no such step is left (a jersey number)."""

    def filled(index: int, step: str) -> str:
        return re.sub(r"#(\d+)", lambda m: answers[int(m[1]) - 1] if 0 < int(m[1]) <= index else m[0], step)

    return [filled(index, step) for index, step in enumerate(steps)]


def from_decomposition(row: Row) -> list[str]:
    """Steps of a set that marks a passage for each (MuSiQue, MoreHopQA); logic steps without a passage are left out.

    Empty when a step refers to one that is left out, and when a later step refers to no earlier answer and some answer
    is not used later: nothing unlinked is taught.
    """
    steps: list[str] = []
    answers: list[str] = []
    numbers: dict[int, int] = {}  # in the plan, by number in the row
    for place, part in enumerate(row["decomposition"], 1):
        if not part["passage"]:
            continue
        step = natural(part["question"])
        if any(0 < n < place and n not in numbers for n in map(int, re.findall(r"#(\d+)", step))):
            return []
        step = re.sub(r"#(\d+)", lambda m: f"#{numbers.get(int(m[1]), m[1])}", step)
        numbers[place] = len(numbers) + 1
        if "#" not in step:
            for number, answer in enumerate(answers, 1):
                bare = re.sub(r"\s*\(.*\)|,.*", "", answer)
                said = find_span(answer, step) or find_span(bare, step)
                step = step.replace(said, f"#{number}") if said else step
        steps.append(step)
        answers.append(part["answer"].strip())
    used = all(any(f"#{n}" in later for later in steps[n:]) for n in range(1, len(steps)))
    linked = used or all("#" in step for step in steps[1:]) or row["id"].startswith("musique")
    return steps if linked and len(steps) <= MAX_STEPS else []


def from_strategy(row: Row) -> list[str]:
    """StrategyQA's steps without the closing logic ("Is #2 before #1?"): the answerer decides that."""
    steps = [natural(step) for step in row["decomposition"]]
    while len(steps) > 1 and "#" in steps[-1] and _LOGIC.match(steps[-1]):
        steps.pop()
    return steps if len(steps) <= MAX_STEPS else []


def from_comparison(qa: QuestionSet, row: Row) -> list[str]:
    """One look-up for each of the two titles that a comparison question names; empty when it does not name two."""
    bare = (bare_title(qa.passages[i].title) for i in dict.fromkeys([*row["supporting"], *row["candidates"]]))
    named = [title for title in dict.fromkeys(bare) if find_span(title, row["question"])]
    named = [t for t in named if not any(t != other and find_span(t, other) for other in named)]
    if len(named) != 2:
        return []
    named.sort(key=lambda title: row["question"].lower().find(title.lower()))
    form = next((form for pattern, form in _ATTRIBUTES if re.search(pattern, row["question"].lower())), "What is {}?")
    return [form.format(title) for title in named]


def bare_title(title: str) -> str:
    """``Muse (band)`` as people write it: ``Muse``."""
    return re.sub(r"\s*\([^)]*\)$", "", title)
