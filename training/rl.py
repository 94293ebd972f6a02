"""Reinforcement learning is one loop: tasks, rollouts, rewards, credit, samples, update, new weights for the engine.

Rollouts run in process on the embedded engine, through `agents.rollout` like every other run; the trainer holds an
adapter over its own copy of the base and publishes the merged weights after each update. Everything that a step needs
is a function of the checkpoint, so on a CPU a run that was killed and resumed ends with the same bytes as one that was
not: weights, optimiser, generator and curriculum are in the checkpoint, rollouts are seeded by step, task and number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from sleuth.agents import episodes as episode_files
from sleuth.agents.records import Episode, Sampling
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.eval.evaluate import tagged
from sleuth.eval.records import Task
from sleuth.retrieval.records import Retriever
from sleuth.training import adapter, checkpoint, credit, curriculum, guards
from sleuth.training.algorithms import Algorithm
from sleuth.training.checkpoint import TrainingError
from sleuth.training.crew import Crew
from sleuth.training.curriculum import CurriculumSpec
from sleuth.training.engines import Engine, give
from sleuth.training.groups import Group, grade_groups, samples, shared
from sleuth.training.guards import GuardSpec
from sleuth.training.inject import teacher
from sleuth.training.judging import asking
from sleuth.training.rewards import RewardSpec, grade
from sleuth.training.rollouts import Ahead, RolloutSpec, ask, oldest, rollout_seed
from sleuth.training.run_page import write_page
from sleuth.training.samples import Masks
from sleuth.training.sft import Progress, SftSpec, adapt, export, same_settings
from sleuth.training.shards import gathered, part, shard
from sleuth.training.telling import Clock, describe, tensorboard, told
from sleuth.training.update import Learner, UpdateSpec

LOG = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class RlSpec:
    """A run, but for its model, its store and its tasks."""

    steps: int = 100
    """Updates; 0 for the warm start alone."""
    seed: int = 0
    rank: int = 8
    """Of the adapter; 0 trains all weights."""
    alpha: int = 16
    shard: bool = False
    """Each of several processes holds a part of the trainer's model in place of all of it; one process holds all."""
    rollout: RolloutSpec = field(default_factory=RolloutSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    algorithm: Algorithm = field(default_factory=Algorithm)
    curriculum: CurriculumSpec = field(default_factory=CurriculumSpec)
    update: UpdateSpec = field(default_factory=UpdateSpec)
    guards: GuardSpec = field(default_factory=GuardSpec)
    reference_every: int = 0
    """Steps after which the policy that a divergence is taken from becomes the present one, and the optimiser begins
    anew (ProRL, arXiv 2505.24864); needs `kl`. 0 for never."""
    checkpoint_every: int = 5
    """Steps."""
    dev_every: int = 0
    """Steps between greedy runs of the dev tasks; 0 for none but before the first step and after the last one (then in
    ``final.json``)."""
    keep_every: int = 10
    """Steps between those whose episodes are kept in ``episodes/``; 0 for none."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with; `recipe` opens them."""

    model: Any
    """The base; changed in place."""
    base: str
    """Its name, as adapters give it."""
    engine: Engine
    """Another copy of the base, for rollouts."""
    store: Retriever
    tasks: Sequence[Task]
    dev: Sequence[Task] = ()
    start: str | Path | None = None
    """An adapter to start from."""
    crew: Crew = field(default_factory=Crew)


def train(
    spec: RlSpec,
    parts: Parts,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress = print,
    record: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> Path:
    """Train and return the adapter's folder ``out/adapter``; ``out/best`` holds the one of the best window so far.

    Beside them stand ``metrics.jsonl`` (a line a step, also handed to ``record``), ``run.html``, ``checkpoints/``,
    ``episodes/`` and, where tensorboard is installed, ``tensorboard/``. Raises `TrainingError` at what is not a number
    or a collapse; checkpoints stay as they were at the last good step.
    """
    out, first = Path(out), parts.crew.first
    with checkpoint.locked(out) if first else contextlib.nullcontext():
        if first and not resume and (out / LOG).exists():
            raise InputError(f"{out} already holds a run: resume it, or give another folder")
        if not parts.tasks:
            raise InputError("no tasks to train on")
        if spec.rollout.staleness and parts.crew.size > 1:
            raise ConfigError("rollout.staleness needs one process: with several, each step's groups are shared out")
        with contextlib.closing(_Run(spec, parts, out)) as run:
            done = run.restore(progress) if resume else run.save(0)
            with tensorboard(out, done) if first else contextlib.nullcontext(lambda line: None) as board:
                tell = [board, record, lambda line: progress(told(line, spec.steps))]
                _steps(run, done, tell if first else [], progress if first else lambda line: None)
            run.close()
            final = run.dev_figures() if parts.dev else {}
        if first:
            write_page(out)
        if first and final:
            (out / "final.json").write_text(json.dumps(final, indent=1) + "\n", encoding="utf-8")
        made = run.export()
        return made if first else out


def _steps(run: _Run, done: int, watchers: Sequence[Callable[[Any], None]], progress: Progress) -> None:
    """Turn after turn until the steps are done, the tasks are solved, or a guard stops the run; each line is shown."""
    spec = run.spec
    for step in range(done + 1, spec.steps + 1):
        line = run.step(step)
        run.log(line)
        verdict = guards.judge(run.lines, spec.guards)
        ended = verdict is not None and verdict.kind != "solved"
        if not ended and (step % spec.checkpoint_every == 0 or step == spec.steps or verdict):
            run.save(step)
        for watch in watchers:
            watch(line)
        if verdict and ended:
            fell = verdict.kind == "collapse" and run.crew.first
            good = checkpoint.fall_back(run.out) if fell else checkpoint.last_good(run.out)
            kept = f"last good checkpoint: {good}, best adapter: {run.out / 'best'}"
            raise TrainingError(f"step {step}: {verdict.seen}; {kept}")
        if verdict:
            progress(f"done at step {step}: {verdict.seen}")
            break


class _Run:
    """The state of a run: the learner, the curriculum's records, the log."""

    def __init__(self, spec: RlSpec, parts: Parts, out: Path) -> None:
        import torch

        random.seed(spec.seed)
        torch.manual_seed(spec.seed)
        self.spec, self.parts, self.out = spec, parts, out
        adapted = adapt(parts.model, SftSpec(rank=spec.rank, alpha=spec.alpha), parts.base)
        if parts.start is not None:
            adapter.load_weights(adapted, parts.start, parts.base)
        self.crew = parts.crew
        if spec.shard and self.crew.size > 1:
            shard(adapter.base_of(adapted), self.crew, adapter.precision(adapted))
        self.ask = asking(spec.reward, out / f"verdicts-{parts.crew.rank}.jsonl")
        self.learner = Learner(adapted, spec.update, spec.algorithm, parts.crew)
        self.records: curriculum.Records = {}
        self.lines: list[dict[str, Any]] = []
        parts.engine.load()
        self.base_version = parts.engine.policy_version
        self.versions: deque[int] = deque(maxlen=spec.rollout.staleness + 1)
        """The steps whose weights were published last; a step that moved nothing publishes nothing. Replies from before
        the first of them are too old."""
        self.masks = Masks(parts.engine.tokens, parts.engine.constrain, keep=4 * spec.rollout.questions)
        self.teach = teacher(spec.algorithm, self.masks, parts.engine)
        self.publish(0)
        self.began = 1
        """The first step of this process."""
        self.saved = 0
        """The step of the last checkpoint."""
        self.ahead = Ahead(parts.engine, parts.store, spec.rollout) if spec.rollout.staleness else None

    def export(self, name: str = "") -> Path:
        """`sft.export` of the present weights, by the first member."""
        tokenizer = self.parts.engine.tokens.tokenizer
        return export(self.learner.adapted, self.out, tokenizer, name, write=self.crew.first)

    def publish(self, step: int) -> None:
        """The engine goes on with the learner's weights, under the version of that step."""
        give(self.parts.engine, self.learner.adapted, f"{self.base_version}+{self.out.name}@{step}", self.crew)
        self.versions.append(step)

    def close(self) -> None:
        """End the rollouts that run ahead."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None

    def step(self, step: int) -> dict[str, Any]:
        """One turn of the loop; the line that the log gets."""
        clock = Clock()
        version = self.parts.engine.policy_version
        dev = self._dev(step)
        clock("dev_s")
        groups = self._taken(step) if self.ahead else self._groups(step)
        self._keep(groups, step)
        behind = self._behind(groups)
        clock("rollout_s")
        spec = self.spec
        history = [curriculum.past(self.records, group.task) for group in groups]
        batch = samples(groups, spec.algorithm, history, self.masks)
        clock("samples_s")
        moves = any(self.crew.gather(bool(batch)))
        learned = self.learner.update(batch, step, spec.seed) if moves else {"entropy": None}
        checkpoint.finite(self.out, step, learned.get("loss"), learned.get("norm"))
        clock("update_s")
        if moves:
            self.publish(step)
        if spec.reference_every and step % spec.reference_every == 0:
            self.learner.start_here()
        clock("publish_s")
        for group in groups:
            rewards = [g.reward for g in group.graded if g.reward is not None]
            wins = sum(g.success for g in group.graded if g.reward is not None)
            failed = len(group.graded) - len(rewards)
            curriculum.update(self.records, spec.curriculum, step, group.task, rewards, wins, failed)
        about = {**curriculum.describe(self.records, spec.curriculum, step), **behind}
        figures = describe([group.graded for group in groups])
        return {"step": step, "version": version, **dev, **figures, **learned, **about, **clock.spent}

    def _behind(self, groups: Sequence[Group]) -> dict[str, Any]:
        """How many updates the weights behind a step's groups are behind, and how many groups were too far."""
        if self.ahead is None:
            return {}
        found = [oldest(group.episodes, self.versions[-1]) for group in groups]
        ages = [sum(version > step for version in self.versions) for step in found]
        return {"staleness": fmean(ages), "staleness_max": max(ages), "stale_dropped": self.ahead.dropped}

    def _groups(self, step: int) -> list[Group]:
        """The rollouts of a step, graded; further questions while too few groups tell their rollouts apart."""
        spec = self.spec.rollout
        made: list[Group] = []
        for _ in range(spec.rounds):
            asked = {group.task.id for group in made}
            informative = sum(not credit.equal(group.graded) for group in made)
            left = [task for task in self.parts.tasks if task.id not in asked]
            wanted = spec.questions - informative
            if wanted <= 0 or not left:
                break
            chosen = curriculum.choose(
                left, self.records, self.spec.curriculum, step, wanted, spec.group, self.spec.seed
            )
            made += self._roll(chosen, step)
        return made

    def _roll(self, chosen: Sequence[tuple[Task, int]], step: int) -> list[Group]:
        """The groups of all members, in order; each rolls out every ``size``-th of them."""
        mine = chosen[self.crew.rank :: self.crew.size]
        jobs = [(task, rollout_seed(self.spec.seed, step, task.id, n)) for task, count in mine for n in range(count)]
        found = iter(ask(self.parts, self.spec.rollout, jobs, Sampling(temperature=self.spec.rollout.temperature)))
        groups = self._graded([(task, tuple(next(found) for _ in range(count))) for task, count in mine])
        return shared(self.crew, [task for task, _ in chosen], groups)

    def _taken(self, step: int) -> list[Group]:
        """The groups of a step out of those that run ahead; as many batches are put in as the bound lets be behind."""
        assert self.ahead is not None
        spec, first = self.spec, self.began
        while first + self.ahead.started < step + spec.rollout.staleness + 1:
            self._put_in(first + self.ahead.started)
        taken = self.ahead.take(spec.rollout.questions, self.versions[0])
        while not taken:  # all were too old: ask again under the present weights
            self._put_in(first + self.ahead.started)
            taken = self.ahead.take(spec.rollout.questions, self.versions[0])
        return self._graded([(row.task, row.episodes) for row in taken])

    def _put_in(self, batch: int) -> None:
        """Start the rollouts of a batch, of tasks that are not under way."""
        assert self.ahead is not None
        spec, busy = self.spec, self.ahead.waiting()
        left = [task for task in self.parts.tasks if task.id not in busy] or list(self.parts.tasks)
        rollout = spec.rollout
        chosen = curriculum.choose(
            left, self.records, spec.curriculum, batch, rollout.questions, rollout.group, spec.seed
        )
        self.ahead.start(chosen, lambda task, number: rollout_seed(spec.seed, batch, task.id, number))

    def _graded(self, rolled: Sequence[tuple[Task, Sequence[Episode]]]) -> list[Group]:
        return grade_groups(rolled, self.spec.reward, self.teach, self.ask)

    def _keep(self, groups: Sequence[Group], step: int) -> None:
        """Write the episodes that this member rolled out in every `keep_every`-th step."""
        if not (self.crew.first and self.spec.keep_every and (step - 1) % self.spec.keep_every == 0):
            return
        path = self.out / "episodes" / f"step-{step:05d}.jsonl"
        path.unlink(missing_ok=True)
        for group in groups:
            for episode in group.episodes:
                episode_files.append(path, tagged(episode, group.task))

    def _dev(self, step: int) -> dict[str, Any]:
        """Figures of greedy runs of the dev tasks with the weights as they are before the step."""
        due = step == 1 or (self.spec.dev_every and (step - 1) % self.spec.dev_every == 0)
        return self.dev_figures() if due and self.parts.dev else {}

    def dev_figures(self) -> dict[str, Any]:
        """Success and the mean of every reward term over the dev tasks, greedy."""
        groups = []
        mine = self.parts.dev[self.crew.rank :: self.crew.size]
        found = ask(self.parts, self.spec.rollout, [(t, self.spec.seed) for t in mine], Sampling(temperature=0.0))
        verdicts = self.ask(list(zip(mine, found, strict=True)))
        for task, episode in zip(mine, found, strict=True):
            groups.append(Group(task, (episode,), (grade(task, episode, self.spec.reward, verdicts),)))
        all_ = shared(self.crew, self.parts.dev, groups)
        figures = describe([group.graded for group in all_])
        return {f"dev_{key}": figures[key] for key in figures if key in ("success", "reward", "searches") or "/" in key}

    def log(self, line: dict[str, Any]) -> None:
        if self.crew.first:
            checkpoint.append(self.out / LOG, line)
        self.lines.append(line)

    def save(self, step: int) -> int:
        """Write a checkpoint; it is good, and ``best/`` its adapter, where the best window ended since the last one."""
        first = self.crew.first
        state = checkpoint.optimizer_tensors(self.learner.optimizer, self.learner.params)
        if self.spec.algorithm.kl:
            state |= {f"start/{n}": p for n, p in zip(self.learner.params, self.learner.start, strict=True)}
        state = gathered(state.items(), keep=first)
        best = guards.best_step(self.lines, self.spec.guards.window)
        good = best is None or best > self.saved
        if first:
            meta = {"spec": dataclasses.asdict(self.spec), "base": self.parts.base, "records": self.records}
            checkpoint.save(self.out, step, state, {**meta, "version": self.versions[-1]}, good)
        if good:
            self.export("best")
        self.saved = step
        if first and self.lines:
            write_page(self.out)
        return step

    def restore(self, progress: Progress) -> int:
        """Go on from the last whole checkpoint; the steps that are done."""
        state, meta = checkpoint.load(self.out, progress)
        if meta["base"] != self.parts.base:
            raise InputError(f"the checkpoint in {self.out} is over {meta['base']}, the model is {self.parts.base}")
        ours = dataclasses.asdict(self.spec)
        theirs, ours_but = {**meta["spec"], "steps": 0}, {**ours, "steps": 0}  # a run may be made longer
        same_settings(theirs, ours_but, self.out)
        checkpoint.restore_optimizer(state, self.learner.optimizer, self.learner.params)
        if self.spec.algorithm.kl:
            self.learner.start = [part(state[f"start/{name}"], p) for name, p in self.learner.params.items()]
        self.records = meta["records"]
        if self.crew.first:
            checkpoint.trim(self.out / LOG, meta["step"])
        self.crew.gather(None)
        self.lines = checkpoint.read_log(self.out / LOG)
        self.publish(meta.get("version", meta["step"]))  # none in those of older versions
        self.saved = int(meta["step"])
        self.began = self.saved + 1
        return int(meta["step"])
