"""A corpus is documents cut into passages; what is left out of it is a drop with a reason.

These records import nothing heavy and are frozen: every later folder may hold on to them. The one contract that
everything rests on is ``document.text[passage.start:passage.end] == passage.text``, so that a citation made from a
passage is always a span of the document that can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the corpus after extraction."""

    id: str
    """Unique in a datastore; stable across rebuilds of the same input."""
    text: str
    """Cleaned plain text; every offset in the project counts its characters (Unicode code points)."""
    title: str = ""
    """Empty when the source has none."""
    url: str = ""
    """Where a reader can see the source; empty when unknown."""
    source: str = ""
    """Name of the collection or file it came from."""
    lang: str = ""
    """ISO 639-1 code; empty when unknown."""
    date: str = ""
    """ISO 8601 date or date-time; empty when unknown."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Flat extra fields, kept for filters and SQL."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of one document: the unit that is indexed, retrieved and cited."""

    id: str
    """``<doc_id>`` for a document of one passage, otherwise ``<doc_id>#<n>`` with n counting from 0."""
    doc_id: str
    start: int
    """First character in ``document.text``."""
    end: int
    """One past the last character in ``document.text``."""
    title: str
    """Title of the document."""
    text: str
    """Exactly ``document.text[start:end]``."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Something that did not enter the corpus, and why; written to the report, never lost in silence."""

    id: str
    """Document id where there is one, otherwise the path (and line) of the input."""
    stage: str
    """The stage that dropped it: ``read``, ``extract``, ``clean``, ``dedup``, ``chunk``, ``embed``."""
    reason: str
    """One line a person can act on: what was expected and what was found."""
