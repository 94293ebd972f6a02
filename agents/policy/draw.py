"""A draw takes one token from the logits of one row: greedy or by a seeded uniform number, among the allowed ids.

It works on one row at a time in float64, so that a row's draw cannot depend on who shares its batch.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def draw(
    logits: NDArray[np.float32],
    allowed: NDArray[np.int64] | None,
    temperature: float,
    top_p: float,
    rng: random.Random,
) -> tuple[int, float]:
    """The token and its natural log-probability. ``logits`` (vocabulary,); ``allowed`` ids ascending, None for all.

    At temperature 0 the best token is taken, the lowest id among equals, and its log-probability is the one at
    temperature 1. With ``top_p`` below 1 the log-probability is that of the truncated distribution.
    """
    import numpy as np

    kept = (logits if allowed is None else logits[allowed]).astype(np.float64)
    logprobs = kept - kept.max()
    if temperature > 0:
        with np.errstate(over="ignore"):  # next to nothing: all but the best are at minus infinity then
            logprobs /= temperature
    logprobs -= np.log(np.exp(logprobs).sum())
    if temperature <= 0:
        place = int(np.argmax(kept))
    else:
        if top_p < 1.0:
            logprobs = _nucleus(logprobs, top_p)
        total = np.cumsum(np.exp(logprobs))
        place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        place = min(place, int(np.flatnonzero(np.isfinite(logprobs))[-1]))
    token = place if allowed is None else int(allowed[place])
    return token, min(0.0, float(logprobs[place]))


def _nucleus(logprobs: NDArray[np.float64], top_p: float) -> NDArray[np.float64]:
    """The fewest likeliest tokens that hold ``top_p`` of the mass, renormalised (arXiv 1904.09751, section 3.1)."""
    import numpy as np

    order = np.argsort(-logprobs, kind="stable")
    mass = np.cumsum(np.exp(logprobs[order]))
    keep = order[: int(np.searchsorted(mass, top_p)) + 1]
    out = np.full_like(logprobs, -np.inf)
    out[keep] = logprobs[keep] - np.log(np.exp(logprobs[keep]).sum())
    return out
