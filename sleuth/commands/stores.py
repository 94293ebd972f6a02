"""Datastores from the command line: build one, search it, ask it in SQL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Scalar
from sleuth.terminal import emit, out, plain, progress, say, table

if TYPE_CHECKING:
    from rich.text import Text

    from sleuth.retrieval.records import Filter, Hit

SNIPPET_CHARS = 260
OPERATORS = (">=", "<=", "!=", "=", ">", "<")
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", help="field=value, field=a|b, field>=value, ...; repeat it to narrow further."),
]


def where_of(conditions: list[str] | None) -> Filter | None:
    """The filter that ``--where`` options say; a value that reads as JSON (3, true, null, "3") is taken as that."""
    found: dict[str, Any] = {}
    for condition in conditions or ():
        match = re.fullmatch(rf"\s*([\w.]+)\s*({'|'.join(OPERATORS)})(.*)", condition, re.DOTALL)
        if match is None:
            known = " ".join(OPERATORS)
            raise InputError(f"--where {condition!r}: expected FIELD OPERATOR VALUE with one of {known}")
        field, operator, text = match[1], match[2], match[3].strip()
        if operator == "=":
            values = [_scalar(part) for part in text.split("|")]
            if field in found:
                raise InputError(f"--where {condition!r}: {field} has a condition already")
            found[field] = values[0] if len(values) == 1 else values
        else:
            earlier = found.setdefault(field, {})
            if not isinstance(earlier, dict):
                raise InputError(f"--where {condition!r}: {field} has a condition already")
            earlier[operator] = _scalar(text)
    return found or None


def _scalar(text: str) -> Scalar:
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, str | int | float | bool) else text


def _marked(hit: Hit, query: str) -> Text:
    """The part of a passage where most of the query's words stand, these marked."""
    from rich.text import Text

    text = " ".join(plain(hit.passage.text).split())
    words = sorted({re.escape(w) for w in re.findall(r"\w+", query.lower()) if len(w) > 2}, key=len, reverse=True)
    pattern = re.compile(rf"\b(?:{'|'.join(words)})\w*", re.IGNORECASE) if words else None
    places = [m.start() for m in pattern.finditer(text)] if pattern else []
    best = max(places, key=lambda p: sum(p <= q < p + SNIPPET_CHARS for q in places), default=0)
    start = text.rfind(" ", 0, max(0, best - 40)) + 1
    end = min(len(text), start + SNIPPET_CHARS)
    shown = Text(("…" if start else "") + text[start:end] + ("…" if end < len(text) else ""))
    if pattern:
        shown.highlight_regex(pattern, "bold yellow")
    return shown


def build_store(paths: list[Path], store: Path) -> None:
    raise InputError("pending")


def build(paths: list[Path]) -> None:
    """Example: sleuth build"""


def search(store: Path) -> None:
    """Example: sleuth search"""


def sql(store: Path) -> None:
    """Example: sleuth sql"""
