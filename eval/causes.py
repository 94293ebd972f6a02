"""A cause says at which stage a run lost the right answer, by rules that anybody can check against the episode.

`cause` is a pure function of a task and its episode (and, where it is at hand, the store). Its rules are tried in a
fixed order and the first that holds decides, so every episode has exactly one outcome:

1. the run ended in an error or was cancelled: ``failed``
2. the answer is right (`right`): ``right``, or ``citation`` where none of its sentences is carried by a quote
3. nothing was answered though the policy replied, or the answer holds the right one among other words: ``format``
4. needed evidence was not retrieved, and the store does not hold it: ``not in the corpus``
5. a limit ended the run: ``budget``
6. needed evidence was not retrieved, and no query names anything that the question names: ``question misread``
7. needed evidence was not retrieved: ``not retrieved``
8. it was retrieved, but stood below what the answerer was shown: ``ranked low``
9. all of it was shown, and the answer is of another kind than the one asked for: ``question misread``
10. the right answer has to be derived (yes or no, or it stands nowhere in the evidence), or the answer given comes from
    another hop: ``reasoned wrongly``
11. otherwise: ``read wrongly``

Evidence is the gold documents where the row marks them, and otherwise the passages in which an accepted answer stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sleuth.agents.records import Episode
from sleuth.corpora.records import Passage
from sleuth.eval import metrics
from sleuth.eval.answers import cover_match, f1_score, normalise
from sleuth.eval.load import holds
from sleuth.eval.records import Metric, Task
from sleuth.eval.slices import answer_kind, task_kind
from sleuth.retrieval.records import Retriever

CAUSES: Mapping[str, str] = {
    "not run": "the question could not be asked, or no episode of it is on file",
    "failed": "the run ended in an error or was cancelled",
    "not in the corpus": "the store does not hold the evidence",
    "budget": "a limit ended the run",
    "question misread": "no query has what the question names, or the answer is of another kind than asked for",
    "not retrieved": "no search brought the evidence",
    "ranked low": "the evidence was retrieved, but not among what the answerer was shown",
    "read wrongly": "the evidence was shown, and the wrong words were taken from it",
    "reasoned wrongly": "the evidence was shown, and the wrong conclusion was drawn from it",
    "format": "no answer could be read, or the right one stands among other words",
    "citation": "the answer is right, but no quote was found to carry it",
}
"""What takes away from "all questions", in the order in which a run passes the stages, with what each means."""
RIGHT = "right"

LONG_WORDS = 8
"""An accepted answer of more words is prose, for which EM means nothing: F1 of `LONG_F1` then counts as right."""
LONG_F1 = 0.5
NEAR_F1 = 0.5
"""From here a short answer that is not EM is the right one worded otherwise."""
CORPUS_DEPTH = 50
"""Passages looked through for an accepted answer before it is said not to be in the store."""

_NAME = re.compile(r"[\"“]([^\"”]+)[\"”]|((?:[A-ZÀ-Þ][\w’'.-]*\s*)+)")
_OPENERS = frozenset(
    "a an and are as at by can could did do does during for from had has have how if in is of on or the to was were "
    "what when where which who whom whose why will with would".split()
)


@dataclass(frozen=True, slots=True)
class Cause:
    name: str
    """A key of `CAUSES`, or `RIGHT`."""
    why: str
    """One sentence with the figures or ids that the rule looked at."""


def cause(task: Task, episode: Episode, store: Retriever | None = None, primary: Metric | None = None) -> Cause:
    """The outcome of one episode by the rules above; without ``store`` rule 4 is passed over.

    Its name is empty where the row has neither an answer nor the word that there is none (key findings, rankings).
    ``primary`` is the benchmark's own main metric: where it gives 1 the answer is right, whatever EM says.
    """
    said = metrics.answer_text(episode).strip()
    if episode.stop in ("error", "cancelled"):
        return Cause("failed", f"The run ended with {episode.stop}: {episode.error or 'it was stopped from outside'}.")
    if right(task, episode, primary):
        return _cited(episode, said)
    if not (task.answers or task.answer_items or unanswerable(task)):
        return Cause("", "The row has no answer that this one could be compared with.")
    return (
        _format(task, episode, said)
        or _missing(task, episode, store)
        or _ranked_low(task, episode)
        or _other_kind(task, said)
        or _reasoned(task, episode, said)
        or Cause("read wrongly", _read(task, episode, said))
    )


def right(task: Task, episode: Episode, primary: Metric | None = None) -> bool:
    """EM is 1 (prose: F1 is at least `LONG_F1`), or ``primary`` is; with nothing to find, the run declined."""
    if primary is not None and primary(task, episode) == 1:
        return True
    if unanswerable(task):
        return metrics.declined(episode)
    prose = bool(task.answers) and min(len(answer.split()) for answer in task.answers) > LONG_WORDS
    if prose and not task.answer_items and (metrics.f1(task, episode) or 0) >= LONG_F1:
        return True
    return metrics.em(task, episode) == 1


def unanswerable(task: Task) -> bool:
    """The row says that nothing answers it."""
    return task.metadata.get("answerable") is False


def waterfall(causes: Iterable[str]) -> list[tuple[str, int]]:
    """From all questions to those right and cited: ``("all", n)``, what each cause takes, then ``("right", n)``."""
    counts = Counter(causes)
    steps = [(name, counts[name]) for name in CAUSES if counts[name]]
    unknown = [(name or "unknown", count) for name, count in counts.items() if name not in CAUSES and name != RIGHT]
    return [("all", sum(counts.values())), *steps, *unknown, (RIGHT, counts[RIGHT])]


def _cited(episode: Episode, said: str) -> Cause:
    sentences = episode.answer.sentences if episode.answer else ()
    held = sum(sentence.supported for sentence in sentences)
    if not sentences or held or not _searched(episode):
        return Cause(RIGHT, f"Answered {_q(said)}; {held} of {len(sentences)} sentences are carried by their quotes.")
    kept = len(metrics.citations(episode))
    return Cause("citation", f"Answered {_q(said)} rightly; none of {kept} kept citations carries it.")


def _format(task: Task, episode: Episode, said: str) -> Cause | None:
    if not task.answers:
        return None
    if not said and not episode.stop.startswith("budget:"):
        replies = [step.completion for step in episode.steps if step.role == "answerer" and step.completion]
        if replies:
            cut = ", which was cut at its token limit" if replies[-1].finish == "length" else ""
            return Cause("format", f"No answer could be read in the reply {_q(replies[-1].text)}{cut}.")
        return None
    if task.answer_items:
        return None
    gold, score = max(((answer, f1_score(said, answer)) for answer in task.answers), key=lambda pair: pair[1])
    held = next((answer for answer in task.answers if cover_match(said, answer)), None)
    if held is not None:
        return Cause("format", f"The answer {_q(said)} holds {_q(held)} among other words.")
    if score >= NEAR_F1:
        return Cause("format", f"The answer {_q(said)} is {_q(gold)} in other words (F1 {score:.2f}).")
    return None


def _missing(task: Task, episode: Episode, store: Retriever | None) -> Cause | None:
    """Rules 4 to 7: what holds when needed evidence was not retrieved, and the budget, which cuts any stage short."""
    lacking = _lacking(task, list(episode.passages().values()))
    what = _named([_titled(item, task, store) for item in lacking])
    if lacking and store is not None and (gone := _not_held(task, lacking, store)):
        return Cause("not in the corpus", f"The store does not hold {_named(gone)}.")
    if episode.stop.startswith("budget:"):
        limit = episode.stop.partition(":")[2]
        tokens = episode.spent.prompt_tokens + episode.spent.completion_tokens
        used = f"{_count(episode.spent.searches, 'search')} and {tokens:,} tokens"
        return Cause("budget", f"The limit of {limit} ended the run after {used}.")
    if not lacking:
        return None
    queries = _queries(episode)
    if not queries:
        return Cause("not retrieved", f"No search was made; {what} was needed.")
    left_out = _left_out(task.question, queries)
    if left_out:
        return Cause("question misread", f"The question names {_named(left_out)}; no query does ({len(queries)} made).")
    found = len(episode.passages())
    return Cause("not retrieved", f"{_count(len(queries), 'search')} brought {found} passages, but not {what}.")


def _ranked_low(task: Task, episode: Episode) -> Cause | None:
    shown = metrics.shown(episode)
    lacking = _lacking(task, shown)
    if not lacking or not _searched(episode):
        return None
    ranks = [rank for item in lacking if (rank := _best_rank(task, item, episode))]
    at = f" (best rank {max(ranks)})" if ranks else ""
    titles = {p.doc_id: f"{p.title} ({p.doc_id})" for p in episode.passages().values() if p.title}
    what, among = _named([titles.get(item, item) for item in lacking]), f"among the {len(shown)} passages shown"
    return Cause("ranked low", f"{what} was retrieved{at}, but is not {among}.")


def _other_kind(task: Task, said: str) -> Cause | None:
    wanted = task_kind(task)
    if wanted in ("list", "none") or metrics.declines(said):
        return None
    kinds, found = {answer_kind(answer) for answer in task.answers}, answer_kind(said)
    numeric = {"date", "number"}
    if found in kinds or (found in numeric and kinds & numeric):
        return None
    return Cause("question misread", f"The question asks for {wanted}, the answer {_q(said)} is {found}.")


def _reasoned(task: Task, episode: Episode, said: str) -> Cause | None:
    if unanswerable(task):
        return Cause("reasoned wrongly", f"There is nothing to find, but {_q(said)} was answered.")
    shown = metrics.shown(episode)
    wanted = [answer for answer in task.answer_items or task.answers if _in_any(answer, shown)]
    if task_kind(task) == "yes/no":
        marked = f"{len(task.supporting)} gold documents were shown" if task.supporting else "no gold is marked"
        return Cause("reasoned wrongly", f"The answer has to be derived; {_q(said)} was concluded ({marked}).")
    if not wanted:
        return Cause("reasoned wrongly", f"{_q(_gold(task))} stands nowhere in what was shown: it has to be derived.")
    needed = [p for p in shown if p.doc_id in task.supporting]
    others = [p for p in needed if not any(_in_any(answer, [p]) for answer in wanted)]
    if len(task.supporting) > 1 and _in_any(said, others) and not _in_any(said, [p for p in needed if p not in others]):
        place = next(p for p in others if _in_any(said, [p]))
        return Cause("reasoned wrongly", f"{_q(said)} stands in {place.id}, another hop than the one that answers.")
    return None


def _read(task: Task, episode: Episode, said: str) -> str:
    if metrics.declines(said):
        return f"The evidence was shown with {_q(_gold(task))} in it, but the run declined to answer."
    place = next((p.id for p in metrics.shown(episode) if _in_any(said, [p])), None)
    where = f"stands in {place}" if place else "stands in no passage shown"
    return f"The evidence was shown with {_q(_gold(task))} in it; the answer {_q(said)} {where}."


def _lacking(task: Task, passages: Sequence[Passage]) -> list[str]:
    """Gold documents, or without any the accepted answers, that ``passages`` do not hold; empty when enough is there.

    A yes or no without gold documents proves nothing by standing in a text, so nothing can be said to lack.
    """
    if task.supporting:
        documents = {passage.doc_id for passage in passages}
        missing = [gold for gold in task.supporting if gold not in documents]
        return [] if task.support_mode == "any" and len(missing) < len(task.supporting) else missing
    if task_kind(task) in ("yes/no", "none"):
        return []
    missing = [answer for answer in task.answer_items or task.answers if not _in_any(answer, passages)]
    return [] if not task.answer_items and len(missing) < len(task.answers) else missing


def _not_held(task: Task, lacking: Sequence[str], store: Retriever) -> list[str]:
    """Those of ``lacking`` that the store does not hold: documents by id, answers by searching for their words."""
    if task.supporting:
        document = getattr(store, "document", None)
        gone = [gold for gold in lacking if document is not None and not holds(store, gold)]
        return [] if task.support_mode == "any" and len(gone) < len(lacking) else gone
    found = store.search(list(lacking), CORPUS_DEPTH, task.where)
    gone = [a for a, hits in zip(lacking, found, strict=True) if not _in_any(a, [hit.passage for hit in hits])]
    return [] if not task.answer_items and len(gone) < len(lacking) else gone


def _titled(item: str, task: Task, store: Retriever | None) -> str:
    """A gold document's title and id, where the store has them; an answer as it is."""
    document = getattr(store, "document", None)
    if not task.supporting or document is None or not holds(store, item):
        return item
    title = document(item).title
    return f"{title} ({item})" if title else item


def _best_rank(task: Task, item: str, episode: Episode) -> int | None:
    """The best rank that any search gave to a passage of this gold document, or with this answer."""
    passages = episode.passages()
    ranks = [
        rank
        for step in episode.steps
        for call in step.calls
        if call.tool == "search"
        for rank, hit in enumerate(call.result or (), 1)
        if (p := passages.get(hit["passage_id"])) and (p.doc_id == item if task.supporting else _in_any(item, [p]))
    ]
    return min(ranks, default=None)


def _left_out(question: str, queries: Sequence[str]) -> list[str]:
    """What the question names, when no query has a word of any of it; empty otherwise."""
    names = []
    for quoted, run in _NAME.findall(question):
        words = [word for word in normalise(quoted or run).split() if word not in _OPENERS]
        if words:
            names.append(" ".join(words))
    asked = set(normalise(" ".join(queries)).split())
    return names if names and not any(asked & set(name.split()) for name in names) else []


def _queries(episode: Episode) -> list[str]:
    return [
        str(call.arguments.get("query", "")) for step in episode.steps for call in step.calls if call.tool == "search"
    ]


def _searched(episode: Episode) -> bool:
    return any(call.tool == "search" for step in episode.steps for call in step.calls)


def _in_any(answer: str, passages: Iterable[Passage]) -> bool:
    wanted = normalise(answer)
    return bool(wanted) and any(f" {wanted} " in f" {normalise(f'{p.title} {p.text}')} " for p in passages)


def _gold(task: Task) -> str:
    return ", ".join(task.answer_items) or (task.answers[0] if task.answers else "")


def _named(items: Sequence[str]) -> str:
    shown = ", ".join(_short(item, 60) for item in items[:3])
    return shown + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 'es'}"


def _q(text: str) -> str:
    return f"“{_short(text)}”"


def _short(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
