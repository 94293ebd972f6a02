"""Learning offline takes stored episodes, anybody's, and makes a policy likelier to act as the good ones did.

Four ways to choose: ``accept`` (rejection sampling: the best successful episodes of each question), ``reflect`` (those,
and failed ones whose answer a reflector mended: `training.reflect`), ``prime`` (episodes that show how good searchers
behave, whatever they answered), ``prefer`` (pairs of replies to the same prompt whose episodes differ in reward).
Samples are cut as for learning online, so nothing is re-tokenised; all but ``prefer``, which is DPO, are trained on by
likelihood.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sleuth.agents import episodes as episode_files
from sleuth.agents.records import Episode
from sleuth.agents.trace import UNKNOWN
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval.evaluate import task_id
from sleuth.eval.records import Task
from sleuth.training import checkpoint
from sleuth.training.algorithms import Algorithm
from sleuth.training.judging import Ask, nobody
from sleuth.training.rewards import Graded, RewardSpec, grade
from sleuth.training.samples import Masks, Sample, to_samples
from sleuth.training.sft import Progress, export, same_settings
from sleuth.training.update import Learner, UpdateSpec

LOG = "log.jsonl"
REFLECTOR = "reflector"
"""Policy version of a reply that a reflector wrote: it alone is trained on, what led to it is not."""
LIKELIHOOD = Algorithm("likelihood", baseline="none", scale="none", aggregate="episode", cap=0.0)
"""An advantage of 1 and no ratio: the gradient of the log-likelihood."""


@dataclass(frozen=True, slots=True)
class OfflineSpec:
    method: Literal["accept", "reflect", "prime", "prefer"] = "accept"
    episodes: tuple[str, ...] = ()
    """Files of stored episodes, for a recipe; each names its task in its config."""
    keep: int = 2
    """Episodes (or pairs) of one question at most."""
    margin: float = 0.1
    """Least difference of reward between the two of a pair."""
    behaviours: int = 2
    """Least number of behaviours that an episode must show to prime with."""
    reflector: str = "embedded:first"
    """Who mends failed answers, as ``--policy`` names it, such as ``URL#model``."""
    beta: float = 0.1
    """DPO's strength of staying near the start."""
    batch: int = 8
    """Episodes (or pairs) a step."""
    epochs: int = 1
    checkpoint_every: int = 10
    seed: int = 0
    reward: RewardSpec = field(default_factory=RewardSpec)
    update: UpdateSpec = field(default_factory=UpdateSpec)

    def __post_init__(self) -> None:
        if min(self.keep, self.batch, self.epochs) < 1 or self.beta <= 0:
            raise ConfigError("offline: expected keep, batch and epochs >= 1 and beta > 0")


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode from disk with its task and what it is worth."""

    task: Task
    episode: Episode
    graded: Graded


def stored(paths: Iterable[str | Path], tasks: Sequence[Task], spec: RewardSpec, ask: Ask = nobody) -> list[Stored]:
    """The episodes of some files that name one of the tasks in their config, graded; those that failed are left out.

    ``ask``: the judge of the reward, where it has one.
    """
    known = {task.id: task for task in tasks}
    read = (episode for path in paths for episode in episode_files.read(path, bad=lambda message: None))
    found = [(known[task_id(episode)], episode) for episode in read if task_id(episode) in known]
    verdicts = ask(found)
    rows = (Stored(task, episode, grade(task, episode, spec, verdicts)) for task, episode in found)
    return [row for row in rows if row.graded.reward is not None]


def accepted(rows: Sequence[Stored], keep: int) -> list[Stored]:
    """Successful episodes, for each question those of highest reward that say different things (RFT, 2308.01825)."""
    chosen: list[Stored] = []
    for group in by_task(rows).values():
        told: set[tuple[str, ...]] = set()
        for row in sorted(group, key=lambda r: -(r.graded.reward or 0.0)):
            said = tuple(step.completion.text for step in row.episode.steps if step.completion)
            if row.graded.success and said not in told and len(told) < keep:
                told.add(said)
                chosen.append(row)
    return chosen


def behaviours(task: Task, episode: Episode) -> set[str]:
    """Which behaviours an episode shows: ``verification`` (its answer stands in two documents that it retrieved),
    ``adaptive`` (a later query uses a word that only an earlier search brought), ``recovery`` (a reading that found
    nothing is followed by one that found something).

    Behavior Priming (arXiv 2510.06534, section 3) names four and has a model judge them; judging the authority of a
    source is left out, and these three are read off the record.
    """
    shown = set()
    said = (episode.answer.text if episode.answer else "").strip().lower()
    holding = {p.doc_id for p in episode.passages().values() if said and said != UNKNOWN and said in p.text.lower()}
    if len(holding) >= 2:
        shown.add("verification")
    read: set[str] = set()
    known = set(episode.question.lower().split())
    blank = False
    for step in episode.steps:
        for call in step.calls:
            words = set(str(call.arguments.get("query", "")).lower().split())
            if words & (read - known):
                shown.add("adaptive")
        read |= {word for p in step.passages for word in f"{p.title} {p.text}".lower().split()}
        note = step.parsed.get("note")
        if note is not None:
            nothing = str(note.get("answer", UNKNOWN)).lower() == UNKNOWN
            if blank and not nothing:
                shown.add("recovery")
            blank = nothing
    return shown


def priming(rows: Sequence[Stored], keep: int, least: int) -> list[Stored]:
    """For each question the episodes that show most behaviours, at least ``least``, right or wrong."""
    chosen = []
    for group in by_task(rows).values():
        ranked = sorted(group, key=lambda r: -len(behaviours(r.task, r.episode)))
        chosen += [row for row in ranked[:keep] if len(behaviours(row.task, row.episode)) >= least]
    return chosen


def pairs(rows: Sequence[Stored], masks: Masks, keep: int, margin: float) -> list[tuple[Sample, Sample]]:
    """(chosen, rejected): replies of one role to one and the same prompt, whose episodes' rewards differ by ``margin``.

    Step-level preferences as in Step-DPO (arXiv 2406.18629); what led to the prompt is common to both.
    """
    made: list[tuple[Sample, Sample]] = []
    for group in by_task(rows).values():
        by_prompt: dict[tuple[int, ...], list[tuple[float, Sample]]] = {}
        for row in group:
            for index, step in enumerate(row.episode.steps):
                if step.completion is None:
                    continue
                only: list[float | None] = [None] * len(row.episode.steps)
                only[index] = 1.0
                for sample in to_samples(row.episode, only, masks):
                    by_prompt.setdefault(step.completion.prompt_ids, []).append((row.graded.reward or 0.0, sample))
        found = []
        for replies in by_prompt.values():
            best, worst = max(replies, key=lambda r: r[0]), min(replies, key=lambda r: r[0])
            if best[0] - worst[0] >= margin and best[1].ids != worst[1].ids:
                found.append((best[0] - worst[0], best[1], worst[1]))
        found.sort(key=lambda pair: -pair[0])
        made += [(best, worst) for _, best, worst in found[:keep]]
    return made


def train(
    spec: OfflineSpec,
    adapted: Any,
    masks: Masks,
    rows: Sequence[Stored],
    out: str | Path,
    *,
    base: str,
    resume: bool = False,
    progress: Progress = print,
) -> Path:
    """Train the adapter ``adapted`` on what the method chooses among ``rows``; the adapter's folder ``out/adapter``.

    Raises `InputError` where the method finds nothing. Resumable as the other trainers, byte for byte on a CPU, and
    from its beginning where it was stopped before its first checkpoint.
    """
    import torch

    out = Path(out)
    with checkpoint.locked(out):
        going_on = checkpoint.goes_on(out, out / LOG, resume)
        torch.manual_seed(spec.seed)
        learner = Learner(adapted, spec.update, LIKELIHOOD)
        units = _units(spec, masks, rows)
        if not units:
            counts = f"{len(rows)} episodes, {sum(row.graded.success for row in rows)} of them successful"
            raise InputError(f"method {spec.method!r} finds nothing to learn from in {counts}")
        batches = _schedule(len(units), spec)
        done = _restore(out, learner, spec, base, progress) if going_on else 0
        for step in range(done + 1, len(batches) + 1):
            chosen = [units[i] for i in batches[step - 1]]
            if spec.method == "prefer":
                figures = learner.prefer([(u[0], u[1]) for u in chosen], step, spec.beta)
            else:
                batch = [dataclasses.replace(s, episode=n) for n, unit in enumerate(chosen) for s in unit]
                figures = learner.update(batch, step, spec.seed)
            checkpoint.finite(out, step, figures["loss"], figures["norm"])
            checkpoint.append(out / LOG, {"step": step, "units": len(units), **figures})
            if step % spec.checkpoint_every == 0 or step == len(batches):
                state = checkpoint.optimizer_tensors(learner.optimizer, learner.params)
                start = {f"start/{name}": p for name, p in zip(learner.params, learner.start, strict=True)}
                meta = {"spec": dataclasses.asdict(spec), "base": base}
                checkpoint.save(out, step, {**state, **start}, meta)
            progress(f"step {step}/{len(batches)}  loss {figures['loss']:.3f}")
        return export(adapted, out, masks.grammars.tokenizer)


def _units(spec: OfflineSpec, masks: Masks, rows: Sequence[Stored]) -> list[tuple[Sample, ...]]:
    """What one place in a batch holds: the samples of an episode, or a pair."""
    if spec.method == "prefer":
        return [*pairs(rows, masks, spec.keep, spec.margin)]
    chosen = priming(rows, spec.keep, spec.behaviours) if spec.method == "prime" else accepted(rows, spec.keep)
    made = []
    for row in chosen:
        replies = [step.completion for step in row.episode.steps]
        mended = [reply is not None and reply.policy_version == REFLECTOR for reply in replies]
        trained = mended if any(mended) else [reply is not None for reply in replies]
        good = [1.0 if is_trained else None for is_trained in trained]
        made.append(tuple(to_samples(row.episode, good, masks)))
    return [unit for unit in made if unit]


def _schedule(count: int, spec: OfflineSpec) -> list[list[int]]:
    draw = random.Random(spec.seed)
    batches: list[list[int]] = []
    for _ in range(spec.epochs):
        order = list(range(count))
        draw.shuffle(order)
        batches += [order[i : i + spec.batch] for i in range(0, count, spec.batch)]
    return batches


def _restore(out: Path, learner: Learner, spec: OfflineSpec, base: str, progress: Progress) -> int:
    state, meta = checkpoint.load(out, progress)
    if meta["base"] != base:
        raise InputError(f"the checkpoint in {out} is over {meta['base']}, the model is {base}")
    same_settings(meta["spec"], json.loads(json.dumps(dataclasses.asdict(spec))), out)
    checkpoint.restore_optimizer(state, learner.optimizer, learner.params)
    learner.start = [state[f"start/{name}"] for name in learner.params]
    checkpoint.trim(out / LOG, meta["step"])
    return int(meta["step"])


def by_task(rows: Sequence[Stored]) -> Mapping[str, list[Stored]]:
    groups: dict[str, list[Stored]] = {}
    for row in rows:
        groups.setdefault(row.task.id, []).append(row)
    return groups
