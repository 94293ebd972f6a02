"""A choice is the set of tokens that a policy could have written at one place of a reply, under its grammar.

A reply is walked through the very constraint that decoding runs under, so training scores each token among the tokens
that decoding would have drawn it from, and tokens that the grammar forces, which nobody draws, weigh nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sleuth.agents.policy.constrain import Tokens as Grammars
from sleuth.agents.records import JsonSchema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FREE = 0.5
"""A choice among more than this share of the vocabulary is no constraint worth storing."""


def walk(grammars: Grammars, schema: JsonSchema, text: str, end: int) -> tuple[list[int], list[Any]] | None:
    """``(token ids, choices)`` of a reply, the ``end`` token included; None for a reply that the schema does not allow.

    A choice is the ascending ids that could stand there (int64), ``()`` for a forced token, None for a free one.
    """
    constraint = grammars.constraint(schema)
    assert constraint is not None
    rest, ids, choices = text.encode(), list[int](), list[Any]()
    while True:
        forced = constraint.forced()
        told = grammars.table.decode_bytes(forced)
        if not rest.startswith(told):
            return None
        constraint.take(forced)
        ids, choices, rest = ids + forced, choices + [()] * len(forced), rest[len(told) :]
        if constraint.done:
            return None if rest else ([*ids, end], [*choices, ()])
        allowed = constraint.allowed()
        token = _next(grammars, rest, allowed, end)
        if token is None:
            return None
        ids.append(token)
        choices.append(() if len(allowed) == 1 else None if len(allowed) > FREE * grammars.vocab_size else allowed)
        if token == end:
            return ids, choices
        constraint.take([token])
        rest = rest[len(grammars.table.decode_bytes([token])) :]


def _next(grammars: Grammars, rest: bytes, allowed: NDArray[np.int64], end: int) -> int | None:
    """The token that the tokenizer would go on with; where that one may not stand, the longest that may."""
    import numpy as np

    if not rest:
        return end if end in allowed else None
    for cut in range(len(rest), 0, -1) if len(rest) < 24 else (len(rest), *range(24, 0, -1)):
        token = grammars.table.tokenize_bytes(rest[:cut])[0]
        place = int(np.searchsorted(allowed, token))
        if place < len(allowed) and allowed[place] == token:
            return int(token)
    return None
