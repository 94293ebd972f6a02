"""A trace is the steps taken so far, read as a plan, notes and evidence.

Everything here is derived from the steps and from nothing else, so that the episode being written is the only state:
what a role knows, what the graph decides and what a resumed run continues from are all the same record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sleuth.agents.records import Step
from sleuth.corpora.records import Passage

UNKNOWN = "unknown"
"""What a reader answers when the passages before it do not hold the answer."""
LEAD_CHARS = 300
"""Of a passage that nothing was quoted from, how much a further search takes along."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one reading of one search brought."""

    goal: int
    """Index of the goal that was being worked on."""
    asked: str
    """The goal as it was asked, its references filled in."""
    quote: str
    """A sentence of a retrieved passage, verbatim; empty when nothing was useful."""
    passage_id: str
    """Where the quote stands; empty without a quote."""
    answer: str
    """The goal's answer, or `UNKNOWN`."""
    done: bool
    """The goal is answered or given up."""


@dataclass(frozen=True, slots=True)
class Trace:
    question: str
    steps: tuple[Step, ...] = ()

    def last(self, role: str) -> Step | None:
        return next((s for s in reversed(self.steps) if s.role == role), None)

    def goals(self) -> list[str]:
        """The planner's steps as written (``#1`` stands for the first answer), then the question itself."""
        planned = self.last("planner")
        steps = list(planned.parsed.get("steps", ())) if planned else []
        return steps if steps and steps[-1] == self.question else [*steps, self.question]

    def closing(self) -> bool:
        """Whether a plan is worked off: what is left is the question itself, which the answerer reads for."""
        goals = self.goals()
        return len(goals) > 1 and self.goal() == len(goals) - 1

    def notes(self) -> list[Note]:
        return [Note(**s.parsed["note"]) for s in self.steps if s.role == "reflector" and "note" in s.parsed]

    def goal(self) -> int:
        """Index of the goal in work; ``len(goals())`` when all are done."""
        return sum(map(ends_goal, self.steps))

    def resolved(self, goal: int) -> str:
        """A goal with each ``#n`` replaced by the answer found for goal n, or by that goal's own words."""
        answers = {note.goal: note.answer for note in self.notes() if self.carried(note)}
        goals = self.goals()

        def fill(match: re.Match[str]) -> str:
            index = int(match[1]) - 1
            return answers.get(index, goals[index] if 0 <= index < goal else match[0])

        return goals[goal] if goals[goal] == self.question else re.sub(r"#(\d+)", fill, goals[goal])

    def known(self, goal: int) -> list[str]:
        """Quotes noted so far for one goal, in order."""
        return [note.quote for note in self.notes() if note.goal == goal and note.quote]

    def carried(self, note: Note) -> bool:
        """Whether a note's answer stands in its own quote (or that passage's title), so that later steps may use it."""
        if note.answer.lower() == UNKNOWN or not note.quote:
            return False
        text = f"{self.passages()[note.passage_id].title} {note.quote}".lower()
        return note.answer.lower() in ("yes", "no") or note.answer.lower() in text

    def facts(self) -> list[tuple[str, str]]:
        """(goal as asked, answer) of every goal whose answer is carried by its quote, except the question itself."""
        done = [note for note in self.notes() if note.done and note.asked != self.question]
        return [(note.asked, note.answer) for note in done if self.carried(note)]

    def tried(self, goal: int) -> list[str]:
        """Queries already searched for one goal."""
        reached, queries = 0, []
        for step in self.steps:
            reached += ends_goal(step)
            queries += [str(c.arguments["query"]) for c in step.calls if c.tool == "search" and reached == goal]
        return queries

    def query(self) -> str:
        """What to search now: the rewriter's words where they are newer than the last search, else the goal, after a
        search of it with what was quoted last (or else with what stood first)."""
        for step in reversed(self.steps):
            if step.role == "searcher":
                break
            if step.role == "rewriter" and step.parsed.get("query"):
                return str(step.parsed["query"])
        goal = min(self.goal(), len(self.goals()) - 1)
        asked, lead = self.resolved(goal), self._lead(goal)
        return further(asked, *lead) if lead else asked

    def _lead(self, goal: int) -> tuple[Passage, str] | None:
        """The passage that a further search of a goal starts from, and what was quoted from it; None before the first.

        A quote leads that carries its answer, or that stands with none: one beside an answer read elsewhere is mostly
        about something else, and then what stood first is the better start.
        """
        if not self.tried(goal):
            return None
        noted = [note for note in self.notes() if note.goal == goal and note.quote]
        noted = [note for note in noted if note.answer.lower() == UNKNOWN or self.carried(note)]
        if noted:
            return self.passages()[noted[-1].passage_id], noted[-1].quote
        return next(((self.passages()[i], "") for i in self._turns(goal)[-1]), None)

    def _turns(self, goal: int) -> list[list[str]]:
        """Passage ids of each search of the goal in work; of a goal that nothing was read for, each search's without
        those that led to it, the first of each before: a search leads on, and what it started from is found already."""
        own = len(self.tried(goal))
        found = self.found()[-own:] if own else []
        if any(note.goal == goal for note in self.notes()):
            return found
        led: list[str] = []
        left = []
        for ids in found:
            left.append([i for i in ids if i not in led])
            led += left[-1][:1]
        return left

    def passages(self) -> dict[str, Passage]:
        return {passage.id: passage for step in self.steps for passage in step.passages}

    def found(self) -> list[list[str]]:
        """Passage ids of each search, best first, in the order of the searches."""
        return [
            [hit["passage_id"] for hit in call.result or ()]
            for step in self.steps
            for call in step.calls
            if call.tool == "search"
        ]

    def latest(self, k: int) -> list[Passage]:
        """The first k passages of the last search."""
        found, passages = self.found(), self.passages()
        return [passages[i] for i in (found[-1] if found else [])[:k]]

    def unread(self, k: int) -> list[Passage]:
        """Of the first k passages of the last search those that the reflector has not been shown since, and that were
        not quoted for this goal before: their sentence is known."""
        since = []
        for step in reversed(self.steps):
            if step.role == "searcher":
                break
            since += step.parsed.get("shown", ())
        goal = self.goal()
        quoted = {note.passage_id for note in self.notes() if note.goal == goal}
        return [p for p in self.latest(k) if p.id not in since and p.id not in quoted]

    def evidence(self, k: int, quoted: bool = False) -> list[Passage]:
        """The k passages an answerer should read, each once.

        First those whose note carries its answer, with ``quoted`` then those with any note, then, where no reading
        followed the last search, what the searches of its goal found, in turns (rank fusion would put what both of two
        found before the best of either; what a search started from is the one before's), then by reciprocal rank over
        all searches.
        """
        scores: dict[str, float] = {}
        for ids in self.found():
            for rank, passage_id in enumerate(ids, 1):
                scores[passage_id] = scores.get(passage_id, 0.0) + 1.0 / (60 + rank)
        noted = [note.passage_id for note in self.notes() if self.carried(note)]
        noted += [note.passage_id for note in self.notes() if quoted and note.quote]
        unread = self._turns(self.goal()) if self.steps and self.steps[-1].role == "searcher" else []
        turns = [i for row in zip_longest(*unread) for i in row if i is not None]
        ranked = sorted(scores, key=lambda i: (-scores[i], i))
        passages = self.passages()
        return [passages[i] for i in dict.fromkeys([*noted, *turns, *ranked])][:k]


def further(goal: str, passage: Passage, quote: str = "") -> str:
    """The query of a further search for a goal, led by a passage: by what was quoted from it, or by its first
    `LEAD_CHARS` characters. What is trained for such searches asks in these words."""
    return " ".join([goal, passage.title, quote or passage.text[:LEAD_CHARS]])


def ends_goal(step: Step) -> bool:
    """Whether a step is the last of its goal: a reading that answers or gives up, or no query left to try."""
    return bool(step.parsed.get("note", {}).get("done") or step.parsed.get("nothing_new"))


def numbered(passages: Sequence[Passage]) -> str:
    """Passages as a policy reads them: ``[1] Title: text``, one a line."""
    lines = (f"[{i}] {p.title}: {p.text}" if p.title else f"[{i}] {p.text}" for i, p in enumerate(passages, 1))
    return "\n".join(" ".join(line.split()) for line in lines)
