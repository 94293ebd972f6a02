"""A sample is one sequence of tokens as a policy met it, with the places that it drew and the log-probability of each.

`to_samples` cuts an episode into samples without re-tokenising anything: prompts and completions are the ids that were
sampled, and each sampled token is trained once. Where a prompt continues an earlier prompt and its reply, both are one
sample (prefix merge); prompts, observations and tokens that the grammar forced are not among the drawn places.

An episode does not hold its decoding masks. They are found again by letting each role act once more on the trace as it
stood, with a policy that notes what it is asked and gives the recorded reply.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sleuth.agents.context import Context
from sleuth.agents.policy.constrain import Choice, Constraint, Mode, replay
from sleuth.agents.policy.constrain import Tokens as Grammars
from sleuth.agents.records import Completion, Episode, JsonSchema, Message, Sampling, Step
from sleuth.agents.roles import ROLES
from sleuth.agents.strategy import Strategy
from sleuth.agents.trace import Trace
from sleuth.corpora.errors import InputError
from sleuth.training.choices import is_forced

QUOTES = ',"quotes":['
"""What follows the answer of a reply that quotes (the answerer's schema, printed compactly)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens of one context; the tuples from ``drawn`` on are aligned with one another."""

    ids: tuple[int, ...]
    drawn: tuple[int, ...]
    """Places in ``ids`` of the tokens that were drawn among several, ascending; never 0."""
    choices: tuple[Choice, ...]
    """What each was drawn from."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each as it was sampled."""
    advantages: tuple[float, ...]
    """Of the step that drew it."""
    steps: tuple[int, ...]
    """Index of that step in its episode."""
    temperature: float = 1.0
    """Logits were divided by it."""
    episode: int = 0
    """Number of the episode in its batch."""
    true: bool = False
    """The replies are not the policy's own (`inject`)."""

    def __len__(self) -> int:
        return len(self.ids)


class Masks:
    """The grammars of schemas for one tokenizer; the same schema, as all rollouts of a group ask it, compiles once."""

    def __init__(self, grammars: Grammars, mode: Mode = "span", keep: int = 64) -> None:
        self.grammars, self.mode, self.keep = grammars, mode, keep
        self._made: dict[str, Constraint] = {}

    def choices(self, schema: JsonSchema | None, token_ids: Sequence[int]) -> list[Choice]:
        """What each token was drawn from; shorter than the reply where the schema does not allow it."""
        return list(replay(self._constraint(schema), token_ids, self.grammars.eos))

    def _constraint(self, schema: JsonSchema | None) -> Constraint | None:
        if schema is None or self.mode == "none":
            return None
        key = json.dumps(schema, sort_keys=True)
        if key not in self._made:
            while len(self._made) >= self.keep:
                self._made.pop(next(iter(self._made)))
            made = self.grammars.constraint(schema, self.mode)
            assert made is not None
            self._made[key] = made
        self._made[key].restart()
        return self._made[key]


def to_samples(
    episode: Episode,
    advantages: Sequence[float | None],
    masks: Masks,
    number: int = 0,
    after: Sequence[float | None] | None = None,
) -> list[Sample]:
    """The samples of an episode. ``advantages`` has one value per step; None leaves a step's tokens out of training.

    ``after``: the advantage of what a step's reply says after its answer, where that is another one.

    Raises `InputError` for an episode without token ids (some endpoints give none), one that was cut by ``top_p``, and
    one whose prompts or replies are not what the roles would ask for now.
    """
    if len(advantages) != len(episode.steps):
        raise InputError(f"episode {episode.id}: {len(episode.steps)} steps, but {len(advantages)} advantages")
    sampling = episode.config.get("sampling", {})
    if sampling.get("top_p", 1.0) != 1.0:
        raise InputError(f"episode {episode.id}: sampled with top_p {sampling['top_p']}; training needs 1.0")
    open_: list[_Open] = []
    for index, step, schema in asked(episode):
        reply = step.completion
        assert reply is not None
        choices = _choices(episode, index, reply, schema, masks)
        context = _continued(open_, reply.prompt_ids)
        context.ids += [*reply.prompt_ids[len(context.ids) :], *reply.token_ids]
        start = len(context.ids) - len(reply.token_ids)
        advantage, rest = advantages[index], (after or advantages)[index]
        settled = len(choices) if rest == advantage else answered(reply, masks.grammars)
        for n, (choice, logprob) in enumerate(zip(choices, reply.logprobs, strict=True)):
            credited = advantage if n < settled else rest
            if advantage is not None and credited is not None and not is_forced(choice):
                context.drawn.append((start + n, choice, logprob, credited, index))
    temperature = sampling.get("temperature", 1.0) or 1.0  # a greedy draw's log-probability is that at 1
    samples = []
    for made in open_:
        if made.drawn:
            drawn, kept, logprobs, worth, steps = zip(*made.drawn, strict=True)
            samples.append(Sample(tuple(made.ids), drawn, kept, logprobs, worth, steps, temperature, number))
    return samples


def answered(reply: Completion, grammars: Grammars) -> int:
    """How many tokens of a reply it takes until its answer stands; all of them where nothing follows it."""
    end = reply.text.find(QUOTES)
    if not reply.text.startswith('{"answer":') or end < 0:
        return len(reply.token_ids)
    left = len(reply.text[:end].encode())
    for count, token in enumerate(reply.token_ids):
        if left <= 0:
            return count
        left -= len(grammars.table.decode_bytes([token]))
    return len(reply.token_ids)


def asked(episode: Episode) -> Iterator[tuple[int, Step, JsonSchema | None]]:
    """Each step that asked the policy, with its index and the schema it asked for.

    Raises `InputError` where a role would now show other messages than the episode recorded.
    """
    for index, step in enumerate(episode.steps):
        if step.completion is None:
            continue
        noted = _Noted(step.completion)
        context = Context(noted, Strategy(**episode.config["strategy"]), {}, episode.fingerprint)
        _finish(ROLES[step.role].act(Trace(episode.question, episode.steps[:index]), context))
        found = [schema for messages, schema in noted.seen if messages == step.messages]
        if not found:
            raise InputError(
                f"episode {episode.id}, step {index}: the {step.role} was shown {_shown(step.messages)} then, "
                f"it would be shown {_shown(noted.seen[-1][0]) if noted.seen else 'nothing'} now"
            )
        yield index, step, found[-1]


@dataclass(slots=True)
class _Open:
    ids: list[int] = field(default_factory=list)
    drawn: list[tuple[int, Choice, float, float, int]] = field(default_factory=list)


class _Noted:
    """A policy that gives one recorded reply and notes what it was asked."""

    name = "recorded"

    def __init__(self, reply: Completion) -> None:
        self.reply = reply
        self.seen: list[tuple[tuple[Message, ...], JsonSchema | None]] = []

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        self.seen.append((tuple(messages), schema))
        return self.reply


def _finish(act: Awaitable[Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        next(act.__await__())
    except StopIteration as done:
        return done.value
    raise InputError("a role that asks the policy also waited for something else: it cannot be followed again")


def _continued(open_: list[_Open], prompt: Sequence[int]) -> _Open:
    """The longest sample that the prompt continues, or a new one."""
    head = tuple(prompt)
    fitting = [made for made in open_ if head[: len(made.ids)] == tuple(made.ids)]
    if not fitting:
        open_.append(_Open())
        return open_[-1]
    return max(fitting, key=lambda made: len(made.ids))


def _choices(episode: Episode, index: int, reply: Completion, schema: JsonSchema | None, masks: Masks) -> list[Choice]:
    where = f"episode {episode.id}, step {index}"
    if not reply.prompt_ids or not reply.token_ids or len(reply.logprobs) != len(reply.token_ids):
        lengths = f"{len(reply.prompt_ids)}, {len(reply.token_ids)}, {len(reply.logprobs)}"
        raise InputError(f"{where}: training needs prompt ids, ids and log-probabilities as sampled; found {lengths}")
    choices = masks.choices(schema, reply.token_ids)
    if len(choices) != len(reply.token_ids):
        raise InputError(f"{where}: the schema does not allow token {len(choices)} of the reply {reply.text[:80]!r}")
    now = tuple(is_forced(choice) for choice in choices)
    if reply.forced and now != reply.forced:
        place = next(i for i, (a, b) in enumerate(zip(now, reply.forced, strict=True)) if a != b)
        raise InputError(f"{where}: token {place} was {'forced' if reply.forced[place] else 'drawn'} then, not now")
    return choices


def _shown(messages: Sequence[Message]) -> str:
    text = messages[-1].content if messages else ""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
