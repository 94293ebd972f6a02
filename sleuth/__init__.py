"""Sleuth: local datastores from web-scale text, research agents over them, answers whose every citation is verified.

The names below are the public API; each is imported when it is first used, so that ``import sleuth`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleuth.agents.records import Answer, Budget, Citation, Episode
    from sleuth.agents.strategy import STRATEGIES, Strategy
    from sleuth.corpora.errors import SleuthError
    from sleuth.corpora.records import Document, Passage
    from sleuth.retrieval.records import Hit
    from sleuth.retrieval.store import Datastore
    from sleuth.session import Session

__version__ = "0.14.0"

_HOMES = {
    "Answer": "sleuth.agents.records",
    "Budget": "sleuth.agents.records",
    "Citation": "sleuth.agents.records",
    "Datastore": "sleuth.retrieval.store",
    "Document": "sleuth.corpora.records",
    "Episode": "sleuth.agents.records",
    "Hit": "sleuth.retrieval.records",
    "Passage": "sleuth.corpora.records",
    "STRATEGIES": "sleuth.agents.strategy",
    "Session": "sleuth.session",
    "SleuthError": "sleuth.corpora.errors",
    "Strategy": "sleuth.agents.strategy",
}

__all__ = [
    "STRATEGIES",
    "Answer",
    "Budget",
    "Citation",
    "Datastore",
    "Document",
    "Episode",
    "Hit",
    "Passage",
    "Session",
    "SleuthError",
    "Strategy",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sleuth' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
