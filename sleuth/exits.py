"""An exit code tells a script what kind of thing went wrong; this table is the one place where kinds become numbers."""

from __future__ import annotations

from typing import NamedTuple

from sleuth.agents.records import PolicyError
from sleuth.corpora.errors import ConfigError, InputError, ModelError, SleuthError, StoreError


class Exit(NamedTuple):
    code: int
    name: str
    meaning: str


TABLE = (
    Exit(0, "ok", "done; what was asked for is on stdout"),
    Exit(1, "failed", "anything else: a run that must not go on, or an error of ours with its traceback"),
    Exit(2, "usage", "an unknown command or option, or a missing argument"),
    Exit(3, "input", "a file, row, filter or question that cannot be used"),
    Exit(4, "store", "a datastore that is missing, damaged, locked, of another version or with another embedder"),
    Exit(5, "policy", "the policy could not be reached, was too slow, refused or talked nonsense"),
    Exit(6, "model", "an embedded model that is not set up, or does not match its checksum"),
    Exit(7, "verification", "a citation that was kept does not hold"),
    Exit(8, "config", "an unknown strategy, key, benchmark or value"),
    Exit(130, "interrupted", "Ctrl-C; the store is as it was, the episode so far is on disk"),
)
CODES = {row.name: row.code for row in TABLE}
_KINDS: tuple[tuple[type[SleuthError], str], ...] = (
    (PolicyError, "policy"),
    (StoreError, "store"),
    (ModelError, "model"),
    (ConfigError, "config"),
    (InputError, "input"),
)


def code_of(error: SleuthError) -> int:
    """The exit code of an expected failure."""
    return CODES[next((name for kind, name in _KINDS if isinstance(error, kind)), "failed")]


def code_named(name: str) -> int:
    """The exit code of an error by its class's name, as an episode records it."""
    return CODES[next((code for kind, code in _KINDS if name in _names(kind)), "failed")]


def _names(kind: type[SleuthError]) -> set[str]:
    return {kind.__name__}.union(*(_names(narrower) for narrower in kind.__subclasses__()))
