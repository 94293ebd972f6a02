"""A true trajectory is what an answering step should have said, put into a group in which every rollout failed.

Such a group has nothing to learn from: all rewards are equal. The reply is made of the task's gold answer and evidence
(`true_episode`), only where the evidence was retrieved and the grammar lets it be said, or it is the policy's own to a
prompt with a hint (`hinted_episode`). It is trained on under the prompt that a rollout of the group really had. Gold is
a target, as in supervised training; no gold answer reaches a prompt, and gold titles that of a hint alone.

Mixing in off-policy traces: LUFFY (arXiv 2504.14945, section 3); giving them where all rollouts fail, and hints: Guide
(arXiv 2506.13923). Differs: the trace is one reply of the answering role, not a whole solution; hints name sources, and
the replies weigh by LUFFY's shaping, not by Guide's importance ratio.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from sleuth.agents.cite import checked, quotable
from sleuth.agents.records import Completion, Episode, JsonSchema, Policy, PolicyError, Sampling, Step
from sleuth.agents.roles import answerer
from sleuth.corpora.records import Passage
from sleuth.eval.records import Task
from sleuth.training.algorithms import Algorithm
from sleuth.training.choices import is_forced, walk
from sleuth.training.samples import Masks, asked

HINT = "Hint: the answer is decided in {}."
MAX_TOKENS = 320
"""Of a reply that takes an answer's place."""
Teach: TypeAlias = Callable[[Sequence[tuple[Task, Sequence[Episode]]]], "list[Episode | None]"]
"""Gives the true trajectory of each group in which every rollout failed; None where none can be had."""
Place: TypeAlias = tuple[Step, Sequence[Passage], JsonSchema]
"""An answering step, the passages that it was shown, and what its reply was held to."""


def teacher(choices: Algorithm, masks: Masks, policy: Policy) -> Teach:
    """What an algorithm teaches failing groups by; ``policy`` answers where that is by hints."""
    if not choices.inject:
        return lambda failed: [None] * len(failed)
    if choices.hint:
        return partial(hinted_episodes, masks=masks, policy=policy)
    return lambda failed: [true_episode(task, episodes, masks) for task, episodes in failed]


def true_episode(task: Task, episodes: Sequence[Episode], masks: Masks) -> Episode | None:
    """The first episode whose last reply can be replaced by the right one, with that reply; None where none can."""
    for episode in episodes:
        place = answering(episode)
        if place is None:
            continue
        _, shown, _ = place
        quotes = [quote for passage in shown for quote in quotable([passage]) if _is_evidence(task, passage, quote)]
        several = [task.answer_items] if len(task.answer_items) > 1 else []
        for answer in (*several, *task.answers) if quotes else ():
            made = replaced(episode, place, answer, quotes[: answerer.MAX_QUOTES], masks, "truth")
            if made is not None:
                return made
    return None


def hinted_episodes(
    failed: Sequence[tuple[Task, Sequence[Episode]]], masks: Masks, policy: Policy
) -> list[Episode | None]:
    """`hinted_episode` of each group, all asked at once. Not for code that runs on an event loop."""

    async def all_() -> list[Episode | None]:
        return list(await asyncio.gather(*(hinted_episode(task, found, masks, policy) for task, found in failed)))

    return asyncio.run(all_())


async def hinted_episode(task: Task, episodes: Sequence[Episode], masks: Masks, policy: Policy) -> Episode | None:
    """The first episode that was shown gold passages, with the policy's greedy reply to the prompt and their titles.

    None where no such reply can be had.
    """
    for episode in episodes:
        place = answering(episode)
        if place is None:
            continue
        titles = list(dict.fromkeys(p.title for p in place[1] if p.title and p.doc_id in task.supporting))
        if not titles:
            continue
        *before, last = place[0].messages
        hinted = dataclasses.replace(last, content=f"{last.content}\n{HINT.format(' and '.join(titles))}")
        try:
            reply = await policy.sample((*before, hinted), Sampling(max_tokens=MAX_TOKENS), place[2])
        except PolicyError:
            return None
        return spoken(episode, place, reply.text, masks, "hinted")
    return None


def answering(episode: Episode) -> Place | None:
    """The last step of an episode, where it is an answer that a policy was asked for."""
    last = episode.steps[-1] if episode.steps else None
    if last is None or last.role != "answerer" or last.completion is None or "shown" not in last.parsed:
        return None
    found = episode.passages()
    schema = next((schema for index, _, schema in asked(episode) if index == len(episode.steps) - 1), None)
    return None if schema is None else (last, [found[i] for i in last.parsed["shown"] if i in found], schema)


def spoken(episode: Episode, place: Place, text: str, masks: Masks, version: str) -> Episode | None:
    """`replaced` by what a reply says, each quote once."""
    said = answerer.read(text, place[1])
    quotes = list(dict.fromkeys(said["quotes"]))[: answerer.MAX_QUOTES]
    return replaced(episode, place, said["items"] or said["answer"], quotes, masks, version)


def replaced(
    episode: Episode, place: Place, answer: str | Sequence[str], quotes: Sequence[str], masks: Masks, version: str
) -> Episode | None:
    """The episode with another answer and quotes as its last reply; None where the grammar does not let them be said.

    The prompt stays as it was. The reply has log-probability 0 for every token: whoever wrote it would always have
    written it. ``version`` names who did.
    """
    last, shown, schema = place
    assert last.completion is not None
    reply = answerer.target(answer, quotes if shown else None)
    text = json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
    walked = walk(masks.grammars, schema, text, masks.grammars.eos[0])
    if walked is None:
        return None
    ids, _ = walked
    completion = Completion(
        text=text,
        prompt_ids=last.completion.prompt_ids,
        token_ids=tuple(ids),
        logprobs=(0.0,) * len(ids),
        forced=tuple(is_forced(choice) for choice in masks.choices(schema, ids)),
        policy_version=version,
        prompt_tokens=last.completion.prompt_tokens,
        completion_tokens=len(ids),
    )
    said = answerer.read(text, shown)
    given = checked(episode.question, said["answer"], quotes, shown, episode.fingerprint, said["items"])
    parsed = {**last.parsed, **said}
    step = dataclasses.replace(last, completion=completion, parsed=parsed, answer=given)
    return dataclasses.replace(episode, steps=(*episode.steps[:-1], step), answer=given, stop="answered")


def _is_evidence(task: Task, passage: Passage, quote: str) -> bool:
    """Does the sentence hold marked evidence; where none is marked, an answer, in a gold document?"""
    marked = [e for e in task.metadata.get("evidence") or () if e["document"] == passage.doc_id]
    if marked:
        start = passage.start + passage.text.find(quote)
        return any(min(e["end"], start + len(quote)) - max(e["start"], start) > len(quote) / 2 for e in marked)
    if task.metadata.get("evidence"):
        return False
    return passage.doc_id in task.supporting and any(
        a.lower() in quote.lower() for a in task.answer_items or task.answers
    )
