"""The demo: real pages in, a store, two two-hop questions, answers whose citations are checked."""

from __future__ import annotations


def demo() -> None:
    """placeholder."""
