"""A group is the rollouts of one question with what each is worth; a step learns from several.

`grade_groups` makes them, `samples` cuts a batch of them into what the learner is given, `shared` puts the groups of
all members of a crew together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from sleuth.agents.records import Episode
from sleuth.eval.records import Task
from sleuth.training import credit
from sleuth.training.algorithms import Algorithm
from sleuth.training.crew import Crew
from sleuth.training.inject import Teach
from sleuth.training.judging import Ask, nobody
from sleuth.training.rewards import Graded, RewardSpec, agreeing, grade, graded_from_json, voted
from sleuth.training.samples import Masks, Sample, to_samples


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one question."""

    task: Task
    episodes: tuple[Episode, ...]
    """Empty where another member of the crew rolled them out."""
    graded: tuple[Graded, ...]
    truth: Episode | None = None
    """A true trajectory that is trained on with them, and is in no figure."""
    truth_graded: Graded | None = None


def grade_groups(
    rolled: Sequence[tuple[Task, Sequence[Episode]]], reward: RewardSpec, teach: Teach, ask: Ask = nobody
) -> list[Group]:
    """A group per question with its rewards; where every rollout failed with a true trajectory, if one is taught that
    succeeds.

    ``ask`` is waited for: the judge of the reward, where it has one, is asked about all answers of all groups at once,
    and so is what teaches them.
    """
    rows = [(voted(t, episodes) if reward.labels == "majority" else t, episodes) for t, episodes in rolled]
    verdicts = ask([(judged, e) for judged, episodes in rows for e in episodes])
    groups = []
    for (task, _), (judged, episodes) in zip(rolled, rows, strict=True):
        graded = tuple(grade(judged, e, reward, verdicts) for e in episodes)
        graded = agreeing(graded, reward.agreement) if reward.agreement else graded
        groups.append(Group(task, tuple(episodes), graded))
    failed = [n for n, group in enumerate(groups) if not any(g.success for g in group.graded)]
    heard = [[e for e, g in zip(groups[n].episodes, groups[n].graded, strict=True) if not g.why] for n in failed]
    taught = teach([(groups[n].task, episodes) for n, episodes in zip(failed, heard, strict=True)]) if failed else []
    truths = [(n, truth) for n, truth in zip(failed, taught, strict=True) if truth]
    verdicts = ask([(groups[n].task, truth) for n, truth in truths]) if truths else {}
    for n, truth in truths:
        true = grade(groups[n].task, truth, reward, verdicts)
        if true.success:
            groups[n] = dataclasses.replace(groups[n], truth=truth, truth_graded=true)
    return groups


def samples(groups: Sequence[Group], choices: Algorithm, history: Sequence[float | None], masks: Masks) -> list[Sample]:
    """What a step trains on. ``history``: per group the mean of the question's past rewards."""
    graded = [(*group.graded, *([group.truth_graded] if group.truth_graded else [])) for group in groups]
    later = [[dataclasses.replace(g, reward=None if g.reward is None else g.reward - g.settled) for g in group]
             for group in graded]  # fmt: skip
    given = credit.advantages(graded, choices, history)
    after = credit.advantages(later, dataclasses.replace(choices, drop_equal=False)) if choices.to_go else given
    made: list[Sample] = []
    number = 0
    for group, rows, rest in zip(groups, given, after, strict=True):
        episodes = (*group.episodes, *([group.truth] if group.truth else [])) if group.episodes else ()
        for n, (episode, row) in enumerate(zip(episodes, rows, strict=False)):
            true = episode is group.truth
            if true:  # only its last reply is true; what led to it was a rollout's own
                row = [*[None] * (len(row) - 1), row[-1]]
            if any(value is not None for value in row):
                cut = to_samples(episode, row, masks, number + n, rest[n])
                made += [dataclasses.replace(s, true=true) for s in cut]
        number += len(rows)
    return made


def shared(crew: Crew, chosen: Sequence[Task], mine: Sequence[Group]) -> list[Group]:
    """All members' groups in the order of ``chosen``, every ``size``-th its own; the others' without their episodes."""
    if crew.size == 1:
        return list(mine)
    plain = [
        [[dataclasses.asdict(g) for g in group.graded], group.truth_graded and dataclasses.asdict(group.truth_graded)]
        for group in mine
    ]
    theirs = crew.gather(plain)
    groups = []
    for place, task in enumerate(chosen):
        owner, number = place % crew.size, place // crew.size
        if owner == crew.rank:
            groups.append(mine[number])
            continue
        given, true = theirs[owner][number]
        graded = tuple(map(graded_from_json, given))
        groups.append(Group(task, (), graded, None, graded_from_json(true) if true else None))
    return groups
