"""A reward is a weighted sum of metrics: the very functions that reports print, so what is trained is what is measured.

`TERMS` holds the metrics of eval and the few that only training asks for, under one signature; `STEP_TERMS` give a
figure per step of an episode. A term that does not apply (None) adds nothing and is counted as such. An episode that
failed, or whose search or judge did, has no reward at all: it must weigh nothing. Citations count where the policy
gave them itself; those that a program added to its answer earn it nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from sleuth.agents.records import Episode, Step
from sleuth.agents.role import parse_object
from sleuth.corpora.errors import ConfigError, nearest
from sleuth.eval.answers import normalise
from sleuth.eval.evaluate import score
from sleuth.eval.judge import Case, Verdict, answer_alone, case_key, judged, spared, with_quotes
from sleuth.eval.metrics import QUESTION_ANSWERING, abstained, answer_text, declines, quote_support, quoted
from sleuth.eval.records import Metric, Task
from sleuth.training.aims import intent, temporal

StepMetric: TypeAlias = Callable[[Task, Episode], Sequence[float]]
"""One figure per step of the episode, 0 where a step has none."""

OVERLAP = 0.5
"""Share of the shorter of two spans that they must have in common to be about the same sentence."""
TOKENS = 256
"""Completion tokens at which `length` is full."""
ANSWERS = ("em", "f1", "cover_em")
"""Terms that an answer checker gives and that its known error rates correct."""
SETTLED = (*ANSWERS, "honesty", "evasion", "intent")
"""Terms that are decided once the answer stands: what the same reply says after it, its quotes, changes nothing."""
JUDGED = "judged"
"""The term that the judge of a reward gives: 1 where it says correct."""


@dataclass(frozen=True, slots=True)
class Term:
    weight: float
    when: Literal["always", "correct", "wrong"] = "always"
    """Counts only in episodes that succeed, or only in those that do not (`RewardSpec.success`)."""


@dataclass(frozen=True, slots=True)
class RewardSpec:
    terms: Mapping[str, Term] = field(default_factory=lambda: {"f1": Term(1.0), "citation_f1": Term(0.3)})
    steps: Mapping[str, float] = field(default_factory=dict)
    """Weights of `STEP_TERMS`; they are credited to steps and are no part of the episode's own reward."""
    success: str = "em"
    """The term whose value of at least `threshold` makes an episode a success."""
    threshold: float = 1.0
    labels: Literal["gold", "majority"] = "gold"
    """``majority``: what most rollouts of a group answer stands in for the gold answer, so that no label is needed
    (TTRL, arXiv 2504.16084; EMPO, arXiv 2504.05812, rewards the share itself)."""
    agreement: float = 0.0
    """Weight of the share of a group's answers that are this one (EMPO, arXiv 2504.05812); needs no label."""
    false_positive: float = 0.0
    """How often the checker accepts a wrong answer."""
    false_negative: float = 0.0
    """How often it rejects a right one."""
    judge: str = ""
    """Who gives the term ``judged``: ``URL#model``, ``embedded``, or empty for nobody (`training.judging`)."""
    rubric: str = ""
    """What the judge's grades mean, in place of `eval.judge.RUBRIC`; with it the judge sees the answer's quotes too."""

    def __post_init__(self) -> None:
        for name in [*self.terms, self.success]:
            _known("reward term", name, (*TERMS, JUDGED))
        for name in self.steps:
            _known("step term", name, STEP_TERMS)
        if not self.terms:
            raise ConfigError("a reward needs at least one term")
        if not (min(self.false_positive, self.false_negative) >= 0 and self.false_positive + self.false_negative < 1):
            found = f"{self.false_positive} and {self.false_negative}"
            raise ConfigError(
                f"reward: false_positive and false_negative must be rates whose sum is < 1; found {found}"
            )
        if self.judge and not re.fullmatch(r"embedded|https?://[^#]+#.+", self.judge):
            raise ConfigError(f"reward.judge: expected URL#model or embedded, found {self.judge!r}")
        if not self.judge and (self.rubric or self.judges()):
            raise ConfigError("reward: the term judged and a rubric need a judge (URL#model or embedded); found none")

    def judges(self) -> bool:
        """Is the judge's verdict a part of it?"""
        return JUDGED in self.terms or self.success == JUDGED

    def case(self, task: Task, episode: Episode) -> Case:
        """What the judge sees of an episode."""
        return with_quotes(task, episode) if self.rubric else answer_alone(task, episode)


@dataclass(frozen=True, slots=True)
class Graded:
    """What one episode is worth."""

    reward: float | None
    """None for an episode that failed: it has no part in any mean and is not trained on."""
    success: bool
    terms: Mapping[str, float | None]
    """Every term's value before its weight; None where it does not apply."""
    steps: tuple[float, ...]
    """Weighted step rewards."""
    roles: tuple[str, ...]
    """Of the steps; empty for a step that did not ask the policy."""
    void: bool = False
    """Some reply could not be used at all."""
    cut: bool = False
    """Some reply ran into its token limit."""
    why: str = ""
    """Why there is no reward."""
    settled: float = 0.0
    """The part of the reward that was decided once the answer stood (`SETTLED`)."""
    searches: int = 0
    tokens: int = 0
    """Completion tokens."""
    answer: str = ""
    """Normalised."""


def grade(
    task: Task, episode: Episode, spec: RewardSpec, verdicts: Mapping[str, Verdict] = MappingProxyType({})
) -> Graded:
    """The reward of an episode with every term it is made of; ``verdicts`` are those of its judge."""
    terms = {**TERMS, JUDGED: judged(verdicts, spec.case)}
    scored = score(task, episode, {name: terms[name] for name in {*spec.terms, spec.success}})
    settled_by = SETTLED if spec.rubric else (*SETTLED, JUDGED)
    success = (scored.values[spec.success] or 0.0) >= spec.threshold
    total = settled = 0.0
    for name, term in spec.terms.items():
        value = scored.values[name]
        if value is not None and term.when in ("always", "correct" if success else "wrong"):
            worth = term.weight * (corrected(value, spec) if name in ANSWERS else value)
            total += worth
            settled += worth if name in settled_by else 0.0
    steps = [0.0] * len(episode.steps)
    for name, weight in spec.steps.items():
        steps = [sum_ + weight * value for sum_, value in zip(steps, STEP_TERMS[name](task, episode), strict=True)]
    why = failure(episode) or unheard(task, episode, spec, verdicts)
    return Graded(
        reward=None if why else total,
        success=success and not why,
        terms=dict(scored.values),
        steps=tuple(steps),
        roles=tuple(step.role if step.completion else "" for step in episode.steps),
        void=any(is_void(step) for step in episode.steps),
        cut=any(step.completion is not None and step.completion.finish == "length" for step in episode.steps),
        why=why,
        settled=settled,
        searches=episode.spent.searches,
        tokens=episode.spent.completion_tokens,
        answer=normalise(answer_text(episode)),
    )


def agreeing(graded: Sequence[Graded], weight: float) -> tuple[Graded, ...]:
    """A group with the share of its answers that are each one's own added to the rewards, times ``weight``.

    Empty answers, and those that decline, agree with nothing: refusals are all alike. EMPO, arXiv 2504.05812, section
    3: the likelihood of an answer's meaning; answers mean the same here when they are equal, normalised.
    """
    answers = [g.answer for g in graded if g.reward is not None]
    return tuple(
        dataclasses.replace(g, reward=g.reward + share, settled=g.settled + share)
        if g.reward is not None
        and (share := 0.0 if declines(g.answer) else weight * answers.count(g.answer) / len(answers))
        else g
        for g in graded
    )


def voted(task: Task, episodes: Sequence[Episode]) -> Task:
    """The task with the most frequent answer of the episodes that did not fail as its only one; the first among equals.

    Who declines has no vote. Without any answer the task has none, and answer terms do not apply.
    """
    told = [text for episode in episodes if not failure(episode) and not declines(text := answer_text(episode))]
    counts = Counter(normalise(text) for text in told)
    winner = next((text for text in told if counts[normalise(text)] == max(counts.values())), "")
    return dataclasses.replace(task, answers=(winner,) if winner else (), answer_items=())


def graded_from_json(data: Mapping[str, Any]) -> Graded:
    """The inverse of ``dataclasses.asdict``."""
    return Graded(**{**data, "steps": tuple(data["steps"]), "roles": tuple(data["roles"])})


def failure(episode: Episode) -> str:
    """Why an episode says nothing about the policy (an error, a search that died), or an empty string."""
    if episode.stop in ("error", "cancelled"):
        return episode.error or episode.stop
    broken = [call.error for step in episode.steps for call in step.calls if call.error]
    return f"tool: {broken[0]}" if broken else ""


def unheard(task: Task, episode: Episode, spec: RewardSpec, verdicts: Mapping[str, Verdict]) -> str:
    """Why the judge that a reward asks gave no verdict on an episode, or an empty string."""
    if not spec.judges() or spared(task):
        return ""
    verdict = verdicts.get(case_key(*spec.case(task, episode)), Verdict(None, cause="it was not asked"))
    return "" if verdict.grade else f"judge: {verdict.cause}"


def corrected(value: float, spec: RewardSpec) -> float:
    """A checker's verdict as an unbiased estimate of the truth, given its error rates.

    The backward correction of noisy labels (Natarajan et al. 2013), as used for rewards in arXiv 2510.00915, section 4:
    ``(value - fp) / (1 - fp - fn)``.
    """
    return (value - spec.false_positive) / (1 - spec.false_positive - spec.false_negative)


def is_void(step: Step) -> bool:
    """A reply with nothing in it that its role could use (SimpleTIR, arXiv 2509.02479: a void turn)."""
    return step.completion is not None and not parse_object(step.completion.text)


def format(task: Task, episode: Episode) -> float | None:
    """Share of the replies that were complete and usable; None where the policy was not asked."""
    replies = [step for step in episode.steps if step.completion is not None]
    usable = [s for s in replies if s.completion and s.completion.finish == "stop" and not is_void(s)]
    return len(usable) / len(replies) if replies else None


def citation_span_precision(task: Task, episode: Episode) -> float | None:
    """Share of the citations that stand on a gold evidence sentence; 0 where the answer cites nothing."""
    gold = _evidence(task)
    if not gold:
        return None
    cited = _cited(episode)
    return sum(any(_same(c, g) for g in gold) for c in cited) / len(cited) if cited else 0.0


def citation_span_recall(task: Task, episode: Episode) -> float | None:
    """Share of the gold evidence sentences that a citation stands on (the grounding reward of CaRR and Memory-T1)."""
    gold = _evidence(task)
    if not gold:
        return None
    cited = _cited(episode)
    return sum(any(_same(c, g) for c in cited) for g in gold) / len(gold)


def citation_f1(task: Task, episode: Episode) -> float | None:
    """Harmonic mean of the precision and recall of citations: by span where the task marks spans, else by document."""
    if _evidence(task):
        precision, recall = citation_span_precision(task, episode) or 0.0, citation_span_recall(task, episode) or 0.0
    elif task.supporting:
        passages = episode.passages()
        cited = {passages[c.passage_id].doc_id for c in quoted(episode) if c.passage_id in passages}
        hits = len(cited & set(task.supporting))
        wanted = 1 if task.support_mode == "any" else len(task.supporting)
        precision, recall = (hits / len(cited) if cited else 0.0), min(1.0, hits / wanted)
    else:
        return None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def grounded(task: Task, episode: Episode) -> float | None:
    """1 for a right answer (`em`) whose citations are all the gold evidence and nothing else."""
    cited, right = citation_f1(task, episode), QUESTION_ANSWERING["em"](task, episode)
    return None if cited is None or right is None else float(right == 1 and cited == 1)


def repetition(task: Task, episode: Episode) -> float | None:
    """Share of the answer's quotes that repeat an earlier one; 0 where it gives none.

    A citation counts once, so that saying it four times would cost nothing: a policy learned to (docs/training.md).
    """
    given: Sequence[str] = next((s.parsed["quotes"] for s in reversed(episode.steps) if "quotes" in s.parsed), ())
    return 1 - len(set(given)) / len(given) if given else 0.0


def honesty(task: Task, episode: Episode) -> float | None:
    """1 for declining a question that the corpus does not answer, 0 for answering it; None where it does answer it."""
    return None if _answerable(task) else abstained(task, episode)


def evasion(task: Task, episode: Episode) -> float | None:
    """1 for declining a question that the corpus answers; None where it does not answer it."""
    return abstained(task, episode) if _answerable(task) else None


def redundancy(task: Task, episode: Episode) -> float | None:
    """Share of the searches that brought no passage the run did not have; 0 without a search.

    With ``when = "correct"`` this is the penalty of LightSearcher (arXiv 2512.06653).
    """
    found = [bool(step.passages) for step in episode.steps for call in step.calls if call.tool == "search"]
    return 1 - sum(found) / len(found) if found else 0.0


def length(task: Task, episode: Episode) -> float | None:
    """Completion tokens as a share of `TOKENS`, at most 1."""
    return min(1.0, episode.spent.completion_tokens / TOKENS)


def unsupported(task: Task, episode: Episode) -> float | None:
    """1 minus `quote_support`; with ``when = "correct"`` a right answer without its chain is held back (FAPO)."""
    support = quote_support(task, episode)
    return None if support is None else 1 - support


def gain(task: Task, episode: Episode) -> list[float]:
    """For each step the share of the gold documents that it was the first to bring.

    The information gain of InForage (arXiv 2505.09316) and StepSearch (arXiv 2505.15107), over gold marks instead of
    similarities.
    """
    gold, found, gains = set(task.supporting), set[str](), []
    for step in episode.steps:
        new = {passage.doc_id for passage in step.passages} & gold - found
        found |= new
        gains.append(len(new) / len(gold) if gold else 0.0)
    return gains


def repeats(task: Task, episode: Episode) -> list[float]:
    """For each step the share of its hits that an earlier search had brought (StepSearch's redundancy)."""
    seen, shares = set[str](), []
    for step in episode.steps:
        hits = {hit["passage_id"] for call in step.calls if call.tool == "search" for hit in call.result or ()}
        shares.append(len(hits & seen) / len(hits) if hits else 0.0)
        seen |= hits
    return shares


def reached(task: Task, episode: Episode) -> list[float]:
    """1 for the step whose passages are the first to hold an accepted answer.

    What a step adds to being able to answer, as in VSRM (arXiv 2508.10293); there measured by answering after every
    step, here read from the passages.
    """
    wanted = [normalise(answer) for answer in task.answers if normalise(answer)]
    found, marks = False, []
    for step in episode.steps:
        here = any(f" {answer} " in f" {normalise(p.text)} " for p in step.passages for answer in wanted)
        marks.append(float(here and not found))
        found |= here
    return marks


def noted(task: Task, episode: Episode) -> list[float]:
    """1 for a reading step whose quote stands in a gold document: it saw the search's worth (ReSeek's utility)."""
    passages = episode.passages()
    notes = [step.parsed.get("note") or {} for step in episode.steps]
    ids = [str(note.get("passage_id") or "") for note in notes]
    return [float(i in passages and passages[i].doc_id in task.supporting) for i in ids]


TERMS: dict[str, Metric] = {
    **QUESTION_ANSWERING,
    "format": format,
    "citation_span_precision": citation_span_precision,
    "citation_span_recall": citation_span_recall,
    "citation_f1": citation_f1,
    "grounded": grounded,
    "repetition": repetition,
    "honesty": honesty,
    "evasion": evasion,
    "redundancy": redundancy,
    "length": length,
    "unsupported": unsupported,
    "temporal": temporal,
    "intent": intent,
}
STEP_TERMS: dict[str, StepMetric] = {"gain": gain, "repeats": repeats, "noted": noted, "reached": reached}


def _evidence(task: Task) -> list[tuple[str, int, int]]:
    """``(document, start, end)`` of the gold sentences, where the task marks them."""
    marked: Sequence[Mapping[str, Any]] = task.metadata.get("evidence") or ()
    return [(str(e["document"]), int(e["start"]), int(e["end"])) for e in marked]


def _cited(episode: Episode) -> list[tuple[str, int, int]]:
    """Citations as spans of their documents, each once."""
    passages = episode.passages()
    places = [(passages[c.passage_id], c) for c in quoted(episode) if c.passage_id in passages]
    return list(dict.fromkeys((p.doc_id, p.start + c.start, p.start + c.end) for p, c in places))


def _same(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    shared = min(one[2], other[2]) - max(one[1], other[1])
    return one[0] == other[0] and shared >= OVERLAP * min(one[2] - one[1], other[2] - other[1]) > 0


def _answerable(task: Task) -> bool:
    return bool(task.metadata.get("answerable", True)) and bool(task.answers or task.answer_items)


def _known(what: str, name: str, table: Collection[str]) -> None:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}{nearest(name, table)}; known: {', '.join(table)}")
