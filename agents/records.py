"""What an agent run is made of: messages to a policy, its completions, the steps of an episode, the checked answer.

These records import neither torch nor langgraph. An `Episode` is the whole truth of one run: eval scores it, training
cuts samples from it, the viewer prints it, and nobody re-tokenises anything. Wall-clock times live in ``timing`` alone,
so that two runs with one seed compare equal on the rest (`Episode.digest`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from sleuth.corpora.errors import ConfigError, SleuthError
from sleuth.corpora.records import Passage

JsonSchema: TypeAlias = Mapping[str, Any]
"""A JSON Schema. One extension: a string property may carry ``"x-span": [text, ...]``; an engine that can constrain
decoding then lets the value be only a run of whole words copied from one of those texts; others drop it. A string
property with ``"x-quote": true`` holds a quote: its ``enum`` is the sentences it may be."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    """The same seed, prompt and policy give the same completion, whatever else is in the batch (embedded engine)."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature):  # neither drawn with nor written
            raise ConfigError(f"temperature: expected a finite number, found {self.temperature}")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy said, exactly as it was sampled."""

    text: str
    prompt_ids: tuple[int, ...] = ()
    """Token ids of the rendered prompt; empty where a remote endpoint does not give them."""
    token_ids: tuple[int, ...] = ()
    """Sampled token ids, the end-of-turn token included when it was sampled."""
    logprobs: tuple[float, ...] = ()
    """Natural log-probability of each sampled token under the temperature and mask it was drawn with."""
    forced: tuple[bool, ...] = ()
    """True where the decoding mask left one choice: such a token weighs nothing in training."""
    policy_version: str = ""
    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    """Of a server that counts neither these nor ``completion_tokens``, a quarter of the characters."""
    cached_tokens: int = 0
    """Prompt tokens that came out of the prefix cache."""
    completion_tokens: int = 0


class Policy(Protocol):
    """Anything that answers messages: embedded, OpenAI-compatible, scripted (tests)."""

    @property
    def name(self) -> str:
        """What a person selects it by, with a hash where that does not tell it; goes into the episode's config."""
        ...

    async def sample(
        self, messages: Sequence[Message], sampling: Sampling, schema: JsonSchema | None = None
    ) -> Completion:
        """One completion; raises `PolicyError` when none can be had."""
        ...


class PolicyError(SleuthError):
    """A completion could not be had. ``kind`` is one of the values below, ``retryable`` says whether waiting helps."""

    def __init__(self, kind: str, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        """``unreachable``, ``timeout``, ``rate_limit``, ``server``, ``auth``, ``bad_request``, ``bad_reply`` or
        ``too_long``."""
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote and where it stands: ``passage.text[start:end] == quote`` in the datastore of that fingerprint."""

    fingerprint: str
    passage_id: str
    start: int
    """First character within the passage's text; add ``passage.start`` for the document's."""
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the answer with the citations that were kept for it."""

    text: str
    citations: tuple[Citation, ...] = ()
    supported: bool = False
    """The checker found that the cited quotes carry the sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    """The answer as a person reads it; for a short-answer question just the short answer."""
    sentences: tuple[Sentence, ...] = ()
    """Of a list, its items."""
    rejected: tuple[str, ...] = ()
    """Quotes the policy gave that are not verbatim in anything it was shown; never kept as citations."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    tool: str
    arguments: Mapping[str, Any]
    result: Any = None
    """For ``search``: a list of ``{"passage_id", "score"}``, best first, with ``date`` where the source has one; the
    passages stand once in the episode."""
    error: str = ""
    """Empty when the call worked."""
    missing: tuple[str, ...] = ()
    """Of a search, what it could not be looked for in, each with the reason: ``shard: not answered within 4 s``. Told
    of all queries that were searched together; left out of the digest."""


@dataclass(frozen=True, slots=True)
class Step:
    """One act of one role."""

    role: str
    messages: tuple[Message, ...] = ()
    """What the policy was shown; empty for a role that does not ask the policy."""
    completion: Completion | None = None
    parsed: Mapping[str, Any] = field(default_factory=dict)
    """What the role's parser read in the completion (JSON values), or what the role decided."""
    calls: tuple[ToolCall, ...] = ()
    passages: tuple[Passage, ...] = ()
    """Passages this step brought that no earlier step had."""
    answer: Answer | None = None
    """Set by the answering role."""
    error: str = ""
    seconds: float = 0.0
    """Wall-clock; left out of the digest."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most an episode may spend; None is no limit."""

    searches: int | None = 12
    tokens: int | None = 60_000
    """Prompt and completion tokens together."""
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not math.isfinite(self.seconds):
            raise ConfigError(f"seconds: expected a finite number, or none for no limit, found {self.seconds}")


@dataclass(frozen=True, slots=True)
class Spent:
    searches: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Episode:
    """The record of one run; append-only JSONL, one line each."""

    id: str
    question: str
    config: Mapping[str, Any]
    """The resolved strategy, sampling, budget, seed, policy name: all that is needed to run it again."""
    fingerprint: str
    """Of the datastore; empty for a run without one."""
    steps: tuple[Step, ...]
    answer: Answer | None
    stop: str
    """``answered``, ``budget:searches|tokens|seconds`` (the answer is the best so far), ``cancelled`` or ``error``."""
    error: str = ""
    spent: Spent = field(default_factory=Spent)
    timing: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock: ``started`` (Unix time), ``seconds``; not part of the digest."""

    def passages(self) -> dict[str, Passage]:
        """Every passage that was retrieved in this run, by id, in the order of arrival."""
        return {passage.id: passage for step in self.steps for passage in step.passages}

    def digest(self) -> str:
        """SHA-256 over everything but the accidents of a machine's moment: equal digests mean identical episodes.

        Left out are wall-clock times, how many prompt tokens a cache happened to hold, and what was said to be down.
        """
        data = to_json(self)
        data.pop("timing")
        data["spent"].pop("cached_tokens")
        for step in data["steps"]:
            step.pop("seconds")
            for call in step["calls"]:
                call.pop("missing")
            if step["completion"]:
                step["completion"].pop("cached_tokens")
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON values; `episode_from_json` reads an episode back."""
    return dataclasses.asdict(record)


def step_from_json(data: Mapping[str, Any]) -> Step:
    """The inverse of `to_json` for a step; an unknown key raises ``TypeError``."""
    completion = data.get("completion")
    if completion is not None:
        lists = {key: tuple(completion.get(key, ())) for key in ("prompt_ids", "token_ids", "logprobs", "forced")}
        completion = Completion(**{**completion, **lists})
    return Step(
        **{
            **data,
            "messages": tuple(Message(**m) for m in data.get("messages", ())),
            "completion": completion,
            "calls": tuple(ToolCall(**{**c, "missing": tuple(c.get("missing", ()))}) for c in data.get("calls", ())),
            "passages": tuple(Passage(**p) for p in data.get("passages", ())),
            "answer": answer_from_json(data.get("answer")),
        }
    )


def answer_from_json(data: Mapping[str, Any] | None) -> Answer | None:
    if data is None:
        return None
    sentences = tuple(
        Sentence(**{**s, "citations": tuple(Citation(**c) for c in s.get("citations", ()))}) for s in data["sentences"]
    )
    return Answer(data["text"], sentences, tuple(data.get("rejected", ())))


def episode_from_json(data: Mapping[str, Any]) -> Episode:
    """The inverse of `to_json` for an episode; an unknown or missing key raises ``TypeError`` or ``KeyError``."""
    return Episode(
        **{
            **data,
            "steps": tuple(step_from_json(s) for s in data["steps"]),
            "answer": answer_from_json(data["answer"]),
            "spent": Spent(**data.get("spent", {})),
        }
    )
