"""A metric turns one episode into a figure, given the task it was for; rewards are made of these same functions.

Each is a `Metric`: scores lie in [0, 1], costs are counts or seconds, None means that it does not apply (`NONE_WHEN`
says when). The answer is the episode's, whatever stopped it; without an answer, scores of the answer are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sleuth.agents.records import Citation, Episode
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.records import Passage
from sleuth.eval.answers import cover_match, exact_match, f1_score, gold_items, items, normalise, set_f1
from sleuth.eval.records import Metric, Task

ABSTENTIONS = frozenset(
    {UNKNOWN, "noanswer", "no answer", "i dont know", "dont know", "not known", "cannot be determined"}
)
"""Normalised answers that decline."""


def answer_text(episode: Episode) -> str:
    return episode.answer.text if episode.answer else ""


def em(task: Task, episode: Episode) -> float | None:
    """Exact match after the official normalisation, best over the accepted answers (`answers.exact_match`).

    For a list answer: 1 when the set of items is the wanted one.
    """
    if task.answer_items:
        return float(items(answer_text(episode)) == gold_items(task.answer_items))
    return _best(exact_match, task, episode)


def f1(task: Task, episode: Episode) -> float | None:
    """Token F1, best over the accepted answers (`answers.f1_score`); for a list answer F1 over its items."""
    if task.answer_items:
        return set_f1(items(answer_text(episode)), gold_items(task.answer_items))
    return _best(f1_score, task, episode)


def cover_em(task: Task, episode: Episode) -> float | None:
    """Cover-EM, best over the accepted answers (`answers.cover_match`); for a list 1 when every item is covered."""
    if task.answer_items:
        return float(all(cover_match(answer_text(episode), item) for item in task.answer_items))
    return _best(cover_match, task, episode)


def evidence_recall(task: Task, episode: Episode) -> float | None:
    """Share of the gold documents that the run retrieved a passage of; with support mode ``any``, 1 when one was."""
    return _share_found(task, {passage.doc_id for passage in episode.passages().values()})


def evidence_shown(task: Task, episode: Episode) -> float | None:
    """`evidence_recall` counted over what the answerer was shown, not over all that was retrieved."""
    return _share_found(task, {passage.doc_id for passage in shown(episode)})


def answer_in_context(task: Task, episode: Episode) -> float | None:
    """1 when an accepted answer stands, normalised, in what the answerer was shown; for a list its items' share."""
    return _stands_in(task, shown(episode))


def answer_in_retrieved(task: Task, episode: Episode) -> float | None:
    """`answer_in_context` over everything that the run retrieved."""
    return _stands_in(task, episode.passages().values())


def citation_precision(task: Task, episode: Episode) -> float | None:
    """Share of the cited passages that belong to gold documents; 0 where the answer cites nothing.

    ALCE (Gao et al., arXiv 2305.14627) judges precision by entailment; here the benchmark's own gold marks decide.
    """
    if not task.supporting:
        return None
    passages = episode.passages()
    cited = {citation.passage_id for citation in citations(episode)}
    gold = sum(i in passages and passages[i].doc_id in task.supporting for i in cited)
    return gold / len(cited) if cited else 0.0


def citation_support(task: Task, episode: Episode) -> float | None:
    """Share of the answer's sentences that the checker marked as carried by their quotes; 0 without an answer."""
    sentences = episode.answer.sentences if episode.answer else ()
    return sum(s.supported for s in sentences) / len(sentences) if sentences else 0.0


def citation_valid(task: Task, episode: Episode) -> float | None:
    """Share of the kept citations whose quote is verbatim at its span in a passage of this very run."""
    passages, kept = episode.passages(), citations(episode)
    holding = sum(c.passage_id in passages and passages[c.passage_id].text[c.start : c.end] == c.quote for c in kept)
    return holding / len(kept) if kept else None


def abstained(task: Task, episode: Episode) -> float | None:
    """1 when there is no answer or the answer declines (`ABSTENTIONS`)."""
    return float(normalise(answer_text(episode)) in ABSTENTIONS or not answer_text(episode).strip())


def searches(task: Task, episode: Episode) -> float | None:
    """Calls of the search tool."""
    return float(episode.spent.searches)


def prompt_tokens(task: Task, episode: Episode) -> float | None:
    """Tokens of all prompts, those from the prefix cache included."""
    return float(episode.spent.prompt_tokens)


def completion_tokens(task: Task, episode: Episode) -> float | None:
    """Tokens sampled by all roles."""
    return float(episode.spent.completion_tokens)


def seconds(task: Task, episode: Episode) -> float | None:
    """Wall-clock seconds of the run; with concurrent runs it holds their waiting for one another."""
    return episode.timing.get("seconds")


def shown(episode: Episode) -> list[Passage]:
    """The passages that the last answering step put before the policy."""
    passages = episode.passages()
    for step in reversed(episode.steps):
        if "shown" in step.parsed:
            return [passages[i] for i in step.parsed["shown"] if i in passages]
    return []


def citations(episode: Episode) -> list[Citation]:
    """The kept citations of the answer, in order."""
    sentences = episode.answer.sentences if episode.answer else ()
    return [citation for sentence in sentences for citation in sentence.citations]


def _best(score: Callable[[str, str], float], task: Task, episode: Episode) -> float | None:
    return max((score(answer_text(episode), gold) for gold in task.answers), default=None)


def _share_found(task: Task, documents: set[str]) -> float | None:
    if not task.supporting:
        return None
    found = sum(gold in documents for gold in task.supporting)
    return float(found > 0) if task.support_mode == "any" else found / len(task.supporting)


def _stands_in(task: Task, passages: Iterable[Passage]) -> float | None:
    wanted = [normalise(answer) for answer in task.answer_items or task.answers]
    if not any(wanted) or set(wanted) <= {"yes", "no"}:
        return None
    text = " | ".join(normalise(f"{passage.title} {passage.text}") for passage in passages)
    found = [f" {answer} " in f" {text} " for answer in wanted if answer]
    return sum(found) / len(found) if task.answer_items else float(any(found))


SCORES: dict[str, Metric] = {
    "em": em,
    "f1": f1,
    "cover_em": cover_em,
    "evidence_recall": evidence_recall,
    "evidence_shown": evidence_shown,
    "answer_in_context": answer_in_context,
    "answer_in_retrieved": answer_in_retrieved,
    "citation_precision": citation_precision,
    "citation_support": citation_support,
}
"""Gold gives 1 and nothing gives 0 on every benchmark's shipped rows (tests/test_eval_benchmarks.py)."""

CHECKS: dict[str, Metric] = {"citation_valid": citation_valid, "abstained": abstained}

COSTS: dict[str, Metric] = {
    "searches": searches,
    "prompt_tokens": prompt_tokens,
    "completion_tokens": completion_tokens,
    "seconds": seconds,
}

QUESTION_ANSWERING: dict[str, Metric] = {**SCORES, **CHECKS, **COSTS}

_NO_GOLD_PASSAGES = "the row marks no gold passages"
_NO_STRING = "the row has no answer, or only yes or no, which proves nothing by standing in a text"
NONE_WHEN: Mapping[str, str] = {
    "em": "the row has no answer",
    "f1": "the row has no answer",
    "cover_em": "the row has no answer",
    "evidence_recall": _NO_GOLD_PASSAGES,
    "evidence_shown": _NO_GOLD_PASSAGES,
    "answer_in_context": _NO_STRING,
    "answer_in_retrieved": _NO_STRING,
    "citation_precision": _NO_GOLD_PASSAGES,
    "citation_valid": "the answer keeps no citation",
    "seconds": "the episode has no timing",
}
"""Why a metric gave None, by its name: what the report prints as the cause."""
