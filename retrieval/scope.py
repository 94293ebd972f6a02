"""A scope is a span of time that a question is about; scoped search prunes by it first and ranks what is left.

Pruning before selecting is the order of Memory-T1 (Du et al. 2025, arXiv 2512.20092). Scopes are half open,
``start <= date < end``, and compare ISO 8601 dates as text: a date that is only a year is in a scope that begins by
that year, and in none that begins later in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.records import Filter, Hit, Retriever
from sleuth.retrieval.sharded import Hits

MONTHS = "january february march april may june july august september october november december".split()
_SHORT = {"may": "", "september": r"|sept?\.?"}
"""Of months that are not shortened to three letters."""
_MONTH = "|".join(name + _SHORT.get(name, rf"|{name[:3]}\.?") for name in MONTHS)
_COUNTED = (
    "words|people|men|women|children|days|hours|years|km|miles|metres|meters|feet|dollars|euros|pages|members|votes|"
    "copies|seats|percent"
)
"""What a number before it is not a year of."""
_WHEN = (
    rf"(?:(?P<m{{0}}>{_MONTH}) (?P<d{{0}}>[0-3]?\d)(?:st|nd|rd|th)?,? (?P<ya{{0}}>(?:1\d|20)\d{{{{2}}}})"
    rf"|(?P<e{{0}}>[0-3]?\d)(?:st|nd|rd|th)? (?P<n{{0}}>{_MONTH}),? (?P<yb{{0}}>(?:1\d|20)\d{{{{2}}}})"
    rf"|(?P<o{{0}}>{_MONTH}),? (?P<yc{{0}}>(?:1\d|20)\d{{{{2}}}})"
    r"|(?P<yd{0}>(?:1\d|20)\d{{2}})-(?P<p{0}>[01]\d)(?:-(?P<f{0}>[0-3]\d))?"
    r"|(?P<ye{0}>(?:1\d|20)\d{{2}})(?P<s{0}>s)?)(?!\d|-\d\d(?!\d)|,\d)" + rf"(?! (?:{_COUNTED})\b)"
)
_PATTERNS = (
    ("between", rf"\b(?:between|from) (?:the )?{_WHEN.format(1)} (?:and|to|until|till) (?:the )?{_WHEN.format(2)}"),
    ("between", rf"\b(?:in |during )?{_WHEN.format(1)}\s?[–-]\s?{_WHEN.format(2)}"),
    ("after", rf"\b(?:after|later than) (?:the )?{_WHEN.format(1)}"),
    ("since", rf"\b(?:since|from|starting in|as of) (?:the )?{_WHEN.format(1)}"),
    ("before", rf"\b(?:before|prior to|earlier than|until|till) (?:the )?{_WHEN.format(1)}"),
    ("in", rf"\b(?:in|on|during|of|throughout) (?:the (?:year )?)?(?:early |late |mid-?)?{_WHEN.format(1)}"),
)
_EXPRESSIONS = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS]
_RELATIVE = re.compile(
    r"\b(?:(?P<last>last|previous|this|past) (?P<unit>year|month|week|decade)|(?P<day>yesterday|today)"
    r"|(?:in |over |during |within )?the (?:last|past) (?P<count>\d+) (?P<units>year|month|week|day)s?)\b",
    re.IGNORECASE,
)
_ISO = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?")


@dataclass(frozen=True, slots=True)
class Scope:
    start: str = ""
    """First moment that is in, ISO 8601 as exact as it was said; empty is from the beginning."""
    end: str = ""
    """First moment that is out; empty is without end."""
    said: str = ""
    """The words that were read as this."""

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if value and not _ISO.fullmatch(value):
                raise ConfigError(f"scope: expected dates like 1998, 1998-03 or 1998-03-24, found {value!r}")
        if self.start and self.end and self.start >= self.end:
            raise ConfigError(f"scope: expected a start before the end, found {self.start} and {self.end}")

    def filter(self) -> dict[str, str]:
        """The condition on ``date``; documents without a date are in no scope."""
        bounds = {">=": self.start or "0000", "<": self.end}
        return {operator: bound for operator, bound in bounds.items() if bound}


def scope_of(query: str, today: date | None = None) -> Scope | None:
    """The scope that a question's words name, or None; of several the first kind of `_PATTERNS` that is there.

    ``last year`` and the like are read against ``today``, and not at all without it. A year that no preposition makes a
    time ("the 1998 film") scopes nothing, and impossible dates (March 45) do not either.
    """
    for kind, pattern in _EXPRESSIONS:
        for found in pattern.finditer(query):
            try:
                scope = _scope(kind, found)
            except (ValueError, ConfigError):
                continue
            if scope is not None:
                return scope
    relative = _RELATIVE.search(query) if today is not None else None
    return _relative(relative, today) if relative and today else None


def _scope(kind: str, found: re.Match[str]) -> Scope | None:
    start, after = _span(found, "1")
    if kind == "between":
        later, end = _span(found, "2")
        return Scope(start, end, found[0]) if start <= later else None
    bounds = {"after": (after, ""), "since": (start, ""), "before": ("", start), "in": (start, after)}
    return Scope(*bounds[kind], said=found[0])


def _span(found: re.Match[str], n: str) -> tuple[str, str]:
    """First moment of a time and first moment after it; raises ``ValueError`` for one that no calendar has."""
    part = {key[: -len(n)]: value for key, value in found.groupdict().items() if key.endswith(n) and value}
    year = int(next(part[key] for key in ("ya", "yb", "yc", "yd", "ye") if key in part))
    named = part.get("m") or part.get("n") or part.get("o")
    month = _month(named) if named else int(part.get("p", 0))
    day = int(part.get("d") or part.get("e") or part.get("f") or 0)
    if day:
        exact = date(year, month, day)
        return exact.isoformat(), (exact + timedelta(days=1)).isoformat()
    if month:
        date(year, month, 1)
        return f"{year}-{month:02d}", f"{year + month // 12}-{month % 12 + 1:02d}"
    return str(year), str(year + (10 if "s" in part else 1))


def _month(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name.lower().rstrip(".")))


def _relative(found: re.Match[str], today: date) -> Scope:
    said = found[0]
    if found["day"]:
        day = today - timedelta(days=found["day"].lower() == "yesterday")
        return Scope(day.isoformat(), (day + timedelta(days=1)).isoformat(), said)
    tomorrow = (today + timedelta(days=1)).isoformat()
    if found["count"]:
        return Scope(_back(today, int(found["count"]), found["units"].lower()).isoformat(), tomorrow, said)
    unit, which = found["unit"].lower(), found["last"].lower()
    if which == "past":
        return Scope(_back(today, 10 if unit == "decade" else 1, "year" if unit == "decade" else unit).isoformat(),
                     tomorrow, said)  # fmt: skip
    back = which != "this"
    if unit == "week":
        monday = today - timedelta(days=today.weekday() + 7 * back)
        return Scope(monday.isoformat(), (monday + timedelta(days=7)).isoformat(), said)
    if unit == "month":
        months = today.year * 12 + today.month - 1 - back
        first, after = (f"{m // 12}-{m % 12 + 1:02d}" for m in (months, months + 1))
        return Scope(first, after, said)
    year, years = (today.year - back, 1) if unit == "year" else (today.year // 10 * 10 - 10 * back, 10)
    return Scope(str(year), str(year + years), said)


def _back(today: date, count: int, unit: str) -> date:
    if unit in ("day", "week"):
        return today - timedelta(days=min(count, 100_000) * (7 if unit == "week" else 1))
    months = max(12, today.year * 12 + today.month - 1 - count * (12 if unit == "year" else 1))
    return date(months // 12, months % 12 + 1, min(today.day, 28))


@dataclass(frozen=True, slots=True)
class Scoped:
    """A retriever that looks only into the time that a query is about."""

    retriever: Retriever
    today: date | None = None
    """What ``last year`` counts from; None reads no such words."""
    scope: Scope | None = None
    """Of every query, in place of what its words say."""
    widen: bool = True
    """Where nothing of a scope is found, look everywhere, and say so in ``missing`` and the hits' ``retriever``."""

    @property
    def fingerprint(self) -> str:
        return self.retriever.fingerprint

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """As of any retriever; a condition on ``date`` in ``where`` stands, and no scope is read then."""
        if isinstance(queries, str):
            raise InputError("queries: expected a list of strings, found one string")
        dated = where is not None and "date" in where
        scopes = [None if dated else self.scope or scope_of(query, self.today) for query in queries]
        groups: dict[Scope | None, list[int]] = {}
        for at, scope in enumerate(scopes):
            groups.setdefault(replace(scope, said="") if scope else None, []).append(at)
        found: list[list[Hit]] = [[] for _ in queries]
        missing: list[tuple[str, str]] = []
        for scope, places in groups.items():
            narrowed: Any = where if scope is None else {**(where or {}), "date": scope.filter()}
            for at, hits in zip(places, self._asked([queries[at] for at in places], k, narrowed, missing), strict=True):
                found[at] = hits
        empty = [at for at, hits in enumerate(found) if scopes[at] is not None and not hits]
        if empty:
            wide = self._asked([queries[at] for at in empty], k, where, missing) if self.widen else [[] for _ in empty]
            for at, hits in zip(empty, wide, strict=True):
                scope = scopes[at]
                told = "all dates were searched" if self.widen else "nothing else was searched"
                missing.append((f"date {_shown(scope)}", f"nothing is dated so ({queries[at][:80]!r}); {told}"))
                found[at] = [replace(hit, retriever=f"{hit.retriever}, any date") for hit in hits]
        return Hits(found, missing)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        return self.retriever.fetch(passage_ids)

    def document(self, doc_id: str) -> Document:
        return self.retriever.document(doc_id)  # type: ignore[attr-defined]  # of all that a face opens

    def _asked(
        self, queries: Sequence[str], k: int, where: Filter | None, missing: list[tuple[str, str]]
    ) -> list[list[Hit]]:
        found = self.retriever.search(queries, k, where)
        missing.extend(getattr(found, "missing", ()))
        return found


def _shown(scope: Scope | None) -> str:
    return f"{scope.start or '…'} to {scope.end or '…'}" if scope else ""
