"""A true trajectory is what an answering step should have said, put into a group in which every rollout failed.

Such a group has nothing to learn from: all rewards are equal. The reply is made of the task's gold answer and evidence,
only where the evidence was retrieved and the grammar lets it be said; it is trained on under the prompt that a rollout
of the group really had. No gold reaches a prompt: it is a target, as in supervised training.

Mixing in off-policy traces: LUFFY (arXiv 2504.14945, section 3); giving them where all rollouts fail: Guide
(arXiv 2506.13923). Differs: the trace is one reply of the answering role, not a whole solution of a larger model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TypeAlias

from sleuth.agents.cite import checked, quotable
from sleuth.agents.records import Completion, Episode, JsonSchema, Step
from sleuth.agents.roles import answerer
from sleuth.corpora.records import Passage
from sleuth.eval.records import Task
from sleuth.training.choices import walk
from sleuth.training.samples import Masks, asked

Place: TypeAlias = tuple[Step, Sequence[Passage], JsonSchema]
"""An answering step, the passages that it was shown, and what its reply was held to."""


def true_episode(task: Task, episodes: Sequence[Episode], masks: Masks) -> Episode | None:
    """The first episode whose last reply can be replaced by the right one, with that reply; None where none can."""
    for episode in episodes:
        place = answering(episode)
        if place is None:
            continue
        _, shown, _ = place
        quotes = [quote for passage in shown for quote in quotable([passage]) if _is_evidence(task, passage, quote)]
        for answer in task.answers if quotes else ():
            made = replaced(episode, place, answer, quotes[: answerer.MAX_QUOTES], masks, "truth")
            if made is not None:
                return made
    return None


def answering(episode: Episode) -> Place | None:
    """The last step of an episode, where it is an answer that a policy was asked for."""
    last = episode.steps[-1] if episode.steps else None
    if last is None or last.role != "answerer" or last.completion is None or "shown" not in last.parsed:
        return None
    found = episode.passages()
    schema = next((schema for index, _, schema in asked(episode) if index == len(episode.steps) - 1), None)
    return None if schema is None else (last, [found[i] for i in last.parsed["shown"] if i in found], schema)


def replaced(
    episode: Episode, place: Place, answer: str, quotes: Sequence[str], masks: Masks, version: str
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
    ids, choices = walked
    completion = Completion(
        text=text,
        prompt_ids=last.completion.prompt_ids,
        token_ids=tuple(ids),
        logprobs=(0.0,) * len(ids),
        forced=tuple(isinstance(choice, tuple) for choice in choices),
        policy_version=version,
        prompt_tokens=last.completion.prompt_tokens,
        completion_tokens=len(ids),
    )
    given = checked(episode.question, answer, quotes, shown, episode.fingerprint)
    parsed = {**last.parsed, "answer": answer, "quotes": list(quotes)}
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
    return passage.doc_id in task.supporting and any(a.lower() in quote.lower() for a in task.answers)
