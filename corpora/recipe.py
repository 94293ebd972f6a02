"""A recipe says in TOML what a corpus is made of: named sources, stages in order, limits, and the store to build.

An unknown key is an error that names the nearest known one. Paths are relative to the recipe's own folder. What a
recipe resolves to can be written as JSON and is all that decides the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sleuth.corpora.errors import ConfigError
from sleuth.corpora.files import read_toml
from sleuth.corpora.shards import Limits
from sleuth.corpora.stages import CORPUS_STAGES, FOLDERS, RESCANS, STAGES, check, known

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class Source:
    """One named collection of files."""

    name: str
    paths: tuple[str, ...]
    weight: float | None = None
    """Share of words relative to the other weighted sources; the scarcest of them is taken whole. None: all of it."""
    max_documents: int | None = None
    max_words: int | None = None
    licence: str = ""
    """Metadata field ``licence`` of documents that do not bring their own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe, checked."""

    name: str
    sources: tuple[Source, ...]
    stages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Stages of single documents, in order, with their options."""
    corpus_stages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Stages over the corpus, after those."""
    store: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `retrieval.build.BuildSpec`."""
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    """Decides which documents of a source are taken where not all are."""
    shard_bytes: int = 64 << 20
    shard_files: int = 1_000


def load(path: str | Path, store_keys: Sequence[str]) -> Recipe:
    """The recipe of a TOML file; ``store_keys`` are those of its table ``store``.

    Raises `InputError` for a file that is no TOML, and `ConfigError` naming the key and what was expected there.
    """
    path = Path(path)
    values = read_toml(path)
    try:
        return _recipe(values, path, store_keys)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _recipe(values: Mapping[str, Any], path: Path, store_keys: Sequence[str]) -> Recipe:
    keys = ("name", "seed", "sources", "stages", "stage", "store", "limits", "shards")
    tables = {key: _table(values, key) for key in ("sources", "stage", "store", "limits", "shards")}
    for key in values:
        known(key, keys, "key")
    if not tables["sources"]:
        raise ConfigError("expected at least one table [sources.NAME]")
    names = _typed(values, "stages", list, [], "")
    for name in tables["stage"]:
        known(name, names, "table of stage options (its stage is not in `stages`):")
    stages = [(name, _options(name, tables["stage"].get(name, {}), path.parent)) for name in names]
    for name, options in stages:
        check(name, options)
    single = [stage for stage in stages if stage[0] in STAGES]
    over_all = [stage for stage in stages if stage[0] in CORPUS_STAGES]
    if stages != single + over_all:
        raise ConfigError(f"stages: {', '.join(CORPUS_STAGES)} look at the whole corpus and come last, found {names}")
    if any(name in RESCANS for name, _ in over_all[1:]):
        raise ConfigError(f"stages: {', '.join(RESCANS)} must be the first stage over the corpus, found {names}")
    for key in tables["store"]:
        known(key, store_keys, "key of [store]")
    for key in tables["limits"]:
        known(key, ("seconds", "memory"), "key of [limits]")
    for key in tables["shards"]:
        known(key, ("bytes", "files"), "key of [shards]")
    limits = Limits(_positive(tables["limits"], "seconds", 2, "limits."),
                    _bytes(tables["limits"].get("memory", Limits().memory_bytes), "limits.memory"))  # fmt: skip
    return Recipe(
        name=_typed(values, "name", str, path.stem, ""), sources=tuple(_sources(tables["sources"], path.parent)),
        stages=tuple(single), corpus_stages=tuple(over_all), store=dict(tables["store"]), limits=limits,
        seed=_typed(values, "seed", int, 0, ""), shard_files=_positive(tables["shards"], "files", 1_000, "shards."),
        shard_bytes=_bytes(tables["shards"].get("bytes", 64 << 20), "shards.bytes"),
    )  # fmt: skip


def _sources(tables: Mapping[str, Any], home: Path) -> list[Source]:
    found = []
    for name in tables:
        table, where = _table(tables, name), f"sources.{name}."
        for key in table:
            known(key, Source.__slots__[1:], f"key of [sources.{name}]")
        paths = _typed(table, "paths", list, None, where)
        if not paths or not all(isinstance(path, str) for path in paths):
            raise ConfigError(f"{where}paths: expected a list of files and folders, found {paths!r}")
        weight = table.get("weight")
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0):
            raise ConfigError(f"{where}weight: expected a number above 0, found {weight!r}")
        documents, words = (_positive(table, key, None, where) for key in ("max_documents", "max_words"))
        licence = _typed(table, "licence", str, "", where)
        found.append(Source(name, tuple(str(home / path) for path in paths), weight, documents, words, licence))
    return found


def _options(stage: str, table: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Options as given, but names of files and models that stand beside the recipe become paths."""

    def resolved(value: Any, is_there: Callable[[Path], bool]) -> Any:
        if isinstance(value, list):
            return [resolved(part, is_there) for part in value]
        return str(home / value) if isinstance(value, str) and is_there(home / value) else value

    return {
        key: resolved(value, Path.is_dir if (stage, key) in FOLDERS else Path.is_file) for key, value in table.items()
    }


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _typed(values, key, dict, {}, "")


def _typed(values: Mapping[str, Any], key: str, kind: type, default: Any, where: str) -> Any:
    value = values.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{where}{key}: expected {kind.__name__}, found {value!r}")
    return value


def _positive(values: Mapping[str, Any], key: str, default: int | None, where: str) -> Any:
    value = values.get(key, default)
    if key in values and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"{where}{key}: expected a whole number of at least 1, found {value!r}")
    return value


def _bytes(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", value, re.IGNORECASE) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        raise ConfigError(f"{where}: expected bytes, as in 500_000_000 or '2GB', found {value!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])
