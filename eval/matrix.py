"""A matrix is strategies, policies, stores and benchmarks to be run in every combination, as one TOML file says it.

`read` checks the file against the records here: an unknown key or name is an error that gives the nearest known one.
What becomes of it stands in `cells`.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from sleuth.agents.records import Budget, Sampling
from sleuth.agents.strategy import STRATEGIES, Strategy, strategy
from sleuth.corpora.errors import ConfigError, nearest
from sleuth.corpora.files import read_toml
from sleuth.eval.benchmarks import benchmark as find

OWN = "own"
"""The store that is built from the benchmark's own corpus."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Matrix:
    name: str
    benchmarks: tuple[str, ...]
    """Names, or paths of question files."""
    strategies: tuple[str | Mapping[str, Any], ...] = tuple(STRATEGIES)
    """Names, or tables: a name and the choices that differ, as ``{name = "decompose", k = 8}``."""
    policies: tuple[str, ...] = ("embedded",)
    """As after ``--policy``."""
    stores: tuple[str, ...] = (OWN,)
    """``own``, or folders; ``{corpus}`` in a folder stands for the benchmark's corpus."""
    data: str = ""
    """Folder with ``qa/`` and ``corpora/``; empty for the shipped rows."""
    limit: int = 0
    """Questions drawn of each benchmark; 0 for all."""
    seed: int = 0
    repeats: int = 1
    """Runs of every question, each with the next seed: for pass@k, and with ``sampling.temperature`` above 0."""
    reporting: bool = False
    """Only the rows kept for reporting, which no training takes."""
    concurrency: int = 16
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    price: Mapping[str, Price] = field(default_factory=dict)
    """By policy."""


def read(path: str | Path, **changes: Any) -> Matrix:
    """The matrix in a TOML file; ``changes`` (not None) replace its keys. Raises errors that name file and key."""
    path = Path(path)
    data = read_toml(path)
    data |= {key: value for key, value in changes.items() if value is not None}
    for key in ("name", "benchmarks"):
        if not data.get(key):
            raise ConfigError(f"{path}: key {key!r} is missing; known keys: {', '.join(_fields(Matrix))}")
    prices = data.pop("price", {})
    if not isinstance(prices, Mapping):
        raise ConfigError(f"{path}: price must be a table; found {prices!r}")
    made: dict[str, Any] = {
        "budget": _record(path, "budget", data.pop("budget", {}), Budget),
        "sampling": _record(path, "sampling", data.pop("sampling", {}), Sampling),
        "price": {policy: _record(path, f"price.{policy}", table, Price) for policy, table in prices.items()},
    }
    matrix: Matrix = _record(path, "", {**data, **made}, Matrix)
    if matrix.repeats < 1:
        raise ConfigError(f"{path}: repeats must be at least 1; found {matrix.repeats}")
    for policy in matrix.price:
        _known(path, "price.", policy, matrix.policies)
    for name in matrix.benchmarks:
        find(name)
    for entry in matrix.strategies:
        named_strategy(entry)
    return matrix


def named_strategy(entry: str | Mapping[str, Any]) -> tuple[str, Strategy]:
    """A label and the strategy of an entry: ``decompose``, or ``decompose k=8`` for one with changed choices."""
    if isinstance(entry, str):
        return entry, strategy(entry)
    changes = {key: value for key, value in entry.items() if key != "name"}
    label = " ".join([str(entry.get("name", "")), *(f"{key}={value}" for key, value in changes.items())])
    return label, strategy(str(entry.get("name", "")), **changes)


def _record(path: Path, prefix: str, table: Any, record: Any) -> Any:
    """The dataclass of a table, every key known and every plain value of its field's type; lists become tuples."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: {prefix or 'the file'} must be a table; found {table!r}")
    kinds = get_type_hints(record)
    values = {}
    for key, value in table.items():
        _known(path, f"{prefix}." if prefix else "", key, _fields(record))
        name, kind = f"{prefix}.{key}" if prefix else key, kinds[key]
        if str(kind).startswith("tuple"):
            if not isinstance(value, list | tuple) or not value:
                raise ConfigError(f"{path}: {name} must be a list of at least one entry; found {value!r}")
            if not all(isinstance(item, str | Mapping if key == "strategies" else str) for item in value):
                raise ConfigError(f"{path}: {name} must hold strings; found {value!r}")
            value = tuple(value)
        elif (plain := _plain(kind)) and (not isinstance(value, plain) or isinstance(value, bool) != (bool in plain)):
            raise ConfigError(f"{path}: {name} must be {' or '.join(k.__name__ for k in plain)}; found {value!r}")
        values[key] = value
    return record(**values)


def _plain(kind: Any) -> tuple[type, ...]:
    """The plain types that a field takes; none for records and mappings, which are checked by themselves."""
    choices = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
    kinds = [k for k in (int, float, bool, str) if k in choices]
    return (int, float) if float in kinds else tuple(kinds)


def _fields(record: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(record)]


def _known(path: Path, prefix: str, key: str, known: Collection[str]) -> None:
    if key not in known:
        raise ConfigError(f"{path}: unknown key {prefix + key!r}{nearest(key, known)}; known: {', '.join(known)}")
