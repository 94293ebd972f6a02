"""Answer metrics compare what a run answered with what its task accepts.

Each is a `Metric` in [0, 1] and takes the best over the accepted answers. Where the row says that nothing answers its
question (``answerable`` is false), the right answer is to decline, as in SQuAD v2.0 (arXiv 1806.03822, section 4): a
run that declines scores 1, one that ends without any answer 0.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from sleuth.agents.cite import supports
from sleuth.agents.records import Episode
from sleuth.corpora.text import sentences
from sleuth.eval.answers import (
    cover_match,
    exact_match,
    f1_score,
    gold_items,
    items,
    language_f1,
    language_match,
    normalise,
    set_f1,
)
from sleuth.eval.metrics.conduct import answer_text, declined
from sleuth.eval.records import Metric, Task
from sleuth.eval.values import same_value


def _or_declines(metric: Metric) -> Metric:
    """The metric, but where nothing answers the question, whether the run said so."""

    @functools.wraps(metric)
    def scored(task: Task, episode: Episode) -> float | None:
        if task.metadata.get("answerable", True) is False:
            return float(declined(episode))
        return metric(task, episode)

    return scored


@_or_declines
def em(task: Task, episode: Episode) -> float | None:
    """Exact match after the official normalisation, best over the accepted answers (`answers.exact_match`).

    For a list answer: 1 when the set of items is the wanted one.
    """
    if task.answer_items:
        return float(items(answer_text(episode)) == gold_items(task.answer_items))
    return _best(exact_match, task, episode)


@_or_declines
def f1(task: Task, episode: Episode) -> float | None:
    """Token F1, best over the accepted answers (`answers.f1_score`); for a list answer F1 over its items."""
    if task.answer_items:
        return set_f1(items(answer_text(episode)), gold_items(task.answer_items))
    return _best(f1_score, task, episode)


@_or_declines
def cover_em(task: Task, episode: Episode) -> float | None:
    """Cover-EM, best over the accepted answers (`answers.cover_match`); for a list 1 when every item is covered."""
    if task.answer_items:
        return float(all(cover_match(answer_text(episode), item) for item in task.answer_items))
    return _best(cover_match, task, episode)


@_or_declines
def cover_share(task: Task, episode: Episode) -> float | None:
    """Share of the wanted items that the answer covers: FanOutQA's loose accuracy (arXiv 2402.14116, section 4).

    Theirs lemmatises; here the official normalisation decides. Without items it is `cover_em`.
    """
    if not task.answer_items:
        return _best(cover_match, task, episode)
    return sum(cover_match(answer_text(episode), item) for item in task.answer_items) / len(task.answer_items)


@_or_declines
def value_em(task: Task, episode: Episode) -> float | None:
    """`em`, but an accepted answer that is a number or a date is matched by its value alone (`values.same_value`).

    So ``5,000,000`` is ``5 million``, and ``3.14`` is not ``314``, which it is by the official normalisation. Of a list
    each item must be matched, and by each that is said.
    """
    if not task.answer_items:
        return _best(_same_value, task, episode)
    said = [part for part in _VALUE_BREAK.split(answer_text(episode)) if part.strip()]
    same = [[_same_value(part, item) for part in said] for item in task.answer_items]
    matched = bool(said) and all(map(any, same)) and all(map(any, zip(*same, strict=True)))
    return max(float(matched), em(task, episode) or 0.0)


@_or_declines
def first_hit(task: Task, episode: Episode) -> float | None:
    """Hits@1 of knowledge-graph question answering: the first item answered is one of the wanted ones.

    A row's ``wordings``, where it has them, are all that is accepted.
    """
    wanted = gold_items(task.metadata.get("wordings") or task.answer_items or task.answers)
    said = answer_text(episode).split(",")[0]
    return float(bool(items(said)) and (normalise(said) in wanted or items(said) <= wanted)) if wanted else None


@_or_declines
def language_em(task: Task, episode: Episode) -> float | None:
    """EM as MLQA cuts the language of the row, its ``lang`` (`answers.language_match`)."""
    return _best(functools.partial(language_match, lang=_lang(task)), task, episode)


@_or_declines
def language_token_f1(task: Task, episode: Episode) -> float | None:
    """F1 as MLQA cuts the language of the row, its ``lang`` (`answers.language_f1`)."""
    return _best(functools.partial(language_f1, lang=_lang(task)), task, episode)


@_or_declines
def rouge_l(task: Task, episode: Episode) -> float | None:
    """ROUGE-L F1: 2 LCS / (m + n) over normalised tokens (Lin 2004, W04-1013), best over the references; no stemmer."""
    return _best(_rouge_l, task, episode)


@_or_declines
def token_recall(task: Task, episode: Episode) -> float | None:
    """Share of the reference's distinct tokens that the answer holds: what MTRAG (arXiv 2501.03468) calls recall."""
    return _best(_recall, task, episode)


def misled(task: Task, episode: Episode) -> float | None:
    """1 when the answer covers a planted wrong answer (``wrong_answers`` of the row) that is no accepted one."""
    wrong = [w for w in task.metadata.get("wrong_answers") or () if normalise(w) not in _accepted(task)]
    if not wrong:
        return None
    return float(any(cover_match(answer_text(episode), answer) for answer in wrong))


def strict_cover(task: Task, episode: Episode) -> float | None:
    """RAMDocs' exact match (arXiv 2504.13079): every wanted item is covered and no planted wrong answer is."""
    covered = cover_em(task, episode)
    return float(covered == 1 and not misled(task, episode)) if covered is not None else None


def key_findings(task: Task, episode: Episode) -> float | None:
    """Share of the row's ``key_findings`` that a sentence of the answer, or all of it, carries (`cite.supports`).

    The recall of O2-Searcher's open-ended reward (arXiv 2505.16582); theirs compares embeddings, here words decide.
    """
    findings = _findings(task)
    parts = [*_sentences(answer_text(episode)), answer_text(episode)]
    found = sum(any(supports("", finding, [part]) for part in parts) for finding in findings)
    return found / len(findings) if findings else None


def key_finding_f1(task: Task, episode: Episode) -> float | None:
    """O2-Searcher's F1 (arXiv 2505.16582): findings and the answer's sentences are matched one to one.

    The matching is a largest one (Hungarian), a pair counting when the sentence carries the finding's words.
    """
    findings, said = _findings(task), _sentences(answer_text(episode))
    if not findings or not said:
        return 0.0 if findings else None
    from scipy.optimize import linear_sum_assignment

    carried = [[supports("", finding, [part]) for part in said] for finding in findings]
    rows, columns = linear_sum_assignment(carried, maximize=True)
    matched = sum(carried[row][column] for row, column in zip(rows, columns, strict=True))
    return 2 * matched / (len(findings) + len(said))


def _best(score: Callable[[str, str], float], task: Task, episode: Episode) -> float | None:
    return max((score(answer_text(episode), gold) for gold in task.answers), default=None)


_VALUE_BREAK = re.compile(r"\s*(?:,(?!\d{3}(?!\d))|[;\n])\s*(?:and\s+)?|\s+and\s+")
"""Between items of a list; the comma of ``1,000`` is none."""


def _same_value(prediction: str, gold: str) -> float:
    same = same_value(prediction, gold)
    return exact_match(prediction, gold) if same is None else float(same)


def _rouge_l(prediction: str, gold: str) -> float:
    from rapidfuzz.distance import LCSseq

    said, wanted = normalise(prediction).split(), normalise(gold).split()
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted)) if said and wanted else 0.0


def _recall(prediction: str, gold: str) -> float:
    wanted = set(normalise(gold).split())
    return len(wanted & set(normalise(prediction).split())) / len(wanted) if wanted else 0.0


def _lang(task: Task) -> str:
    return str(task.metadata.get("lang") or "en")


def _accepted(task: Task) -> set[str]:
    return {normalise(answer) for answer in (*task.answers, *task.answer_items)}


def _findings(task: Task) -> Sequence[str]:
    return task.metadata.get("key_findings") or ()


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]
