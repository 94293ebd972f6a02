"""A role is a value: a name, a prompt, and an act that turns a trace into one step.

`asking` makes the usual kind of role, one that asks the policy once and reads its reply as JSON; `node` makes any role
a LangGraph node. A role's file holds its prompt and its parser together, and a test parses the prompt's own example.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from operator import add
from typing import Annotated, Any, TypedDict

from langgraph.runtime import Runtime

from sleuth.agents.context import Context
from sleuth.agents.records import Completion, JsonSchema, Message, Step
from sleuth.agents.trace import Trace

MAX_DIGITS = 18
"""Of an integer in a reply; a longer one, which 64 bits would not hold, is read as a floating-point number."""
MAX_DEPTH = 16
"""Nothing is salvaged from within more brackets than this."""


class State(TypedDict):
    """The graph's state: the question, and the episode being written."""

    question: str
    steps: Annotated[list[Step], add]


Act = Callable[[Trace, Context], Awaitable[Step]]


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    act: Act
    prompt: str = ""
    """System message; empty for a role that does not ask the policy."""


def asking(
    name: str,
    prompt: str,
    *,
    user: Callable[[Trace, Context], str],
    schema: Callable[[Trace, Context], JsonSchema],
    read: Callable[[str, Trace, Context], Mapping[str, Any]],
    max_tokens: int,
) -> Role:
    """A role that shows the policy ``prompt`` and ``user``, asks for ``schema``, and records what ``read`` found.

    ``read`` never raises on what a policy says: a reply it cannot use is read as the role's own "nothing".
    """

    async def act(trace: Trace, context: Context) -> Step:
        messages = (Message("system", prompt), Message("user", user(trace, context)))
        sampling = dataclasses.replace(
            context.sampling, max_tokens=max_tokens, seed=step_seed(context.seed, len(trace.steps))
        )
        completion: Completion = await context.policy.sample(messages, sampling, schema(trace, context))
        return Step(name, messages, completion, read(completion.text, trace, context))

    return Role(name, act, prompt)


def node(role: Role) -> Any:  # langgraph keeps its protocol of a node that takes a runtime to itself
    """The role as a LangGraph node, ``(State, Runtime[Context]) -> update``, that appends its one step."""

    async def run(state: State, runtime: Runtime[Context]) -> dict[str, list[Step]]:
        started = time.perf_counter()
        step = await role.act(Trace(state["question"], tuple(state["steps"])), runtime.context)
        return {"steps": [dataclasses.replace(step, seconds=round(time.perf_counter() - started, 4))]}

    run.__name__ = role.name
    return run


def step_seed(seed: int, index: int) -> int:
    """A seed of its own for every step, the same in every run with the same episode seed."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=4).digest())


def parse_object(text: str) -> dict[str, Any]:
    """The first JSON object in a reply, or ``{}``; a reply cut short yields the fields that were complete.

    Small and remote models wrap JSON in prose or fences and stop early; what can be read is read, nothing is guessed.
    """
    start = text.find("{")
    if start < 0:
        return {}
    text = text[start:]
    try:
        return dict(_JSON.raw_decode(text)[0])
    except json.JSONDecodeError as error:
        return _salvage(text[: error.pos])
    except RecursionError:
        return {}


def _number(text: str) -> float | None:
    """A number, whatever its length; None where it is not finite."""
    value = float(text)
    return value if math.isfinite(value) else None


def _integer(text: str) -> float | None:
    return int(text) if len(text) < MAX_DIGITS else _number(text)


_JSON = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_number)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[^\s",:{}\[\]]++|\S')


def _salvage(text: str) -> dict[str, Any]:
    """Close a cut object at its last complete element and read that; ``text`` is the part that was well formed.

    One pass, whatever the length: what a server says must not decide how long it is thought about.
    """
    closers: list[str] = []
    end, tail, before = 0, "", ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == '"' or len(closers) > MAX_DEPTH:  # a lone quotation mark begins a string that does not end
            break
        if token in "{[":
            closers.append("}" if token == "{" else "]")
        elif token in "}]":
            closers.pop()
        if token in "}]" or (token not in "{[,:" and (before == ":" or closers[-1] == "]")):  # keys are no elements
            end, tail = match.end(), "".join(reversed(closers))
        before = token
    return dict(_JSON.decode(text[:end] + tail)) if end else {}


def strings(value: Any) -> list[str]:
    """The non-empty strings of a list; a lone string counts as a list of one; anything else is dropped.

    Half a surrogate pair, which JSON can spell, is no character and becomes a question mark.
    """
    values = value if isinstance(value, list) else [value]
    return [v.strip().encode("utf-8", "replace").decode() for v in values if isinstance(v, str) and v.strip()]
