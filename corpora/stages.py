"""A stage takes documents in order and gives on those that it keeps; what it drops it names, with a reason.

``Stage = (documents, drop) -> documents``. A stage of one document at a time can run in any worker; one over the corpus
(``Corpus`` in the table) must see all of it in order, and runs once, after the others. Stages do not know one another.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sleuth.corpora.errors import ConfigError, nearest
from sleuth.corpora.records import Document, Drop

Stage: TypeAlias = Callable[[Iterable[Document], Callable[[Drop], None]], Iterator[Document]]
STAGES: dict[str, str] = {
    "length": "stages:length",
    "language": "language:language",
    "c4": "c4:c4",
    "gopher": "rules:gopher",
    "fineweb": "rules:fineweb",
    "quality": "quality:quality",
    "pii": "pii:pii",
    "hosts": "hosts:hosts",
    "licences": "hosts:licences",
    "decontaminate": "decontaminate:decontaminate",
}
"""By name: module and function under `sleuth.corpora` that makes the stage; its parameters are the options."""
CORPUS_STAGES: dict[str, str] = {
    "lines": "lines:repeated_lines",
    "near": "stages:near",
    "semantic": "semantic:semantic",
}
"""The same for stages over the corpus, which get ``corpus`` (a `Corpus`) besides their options."""
FOLDERS = (("quality", "model"),)
"""Stages and options of theirs that name a folder. Names of files need no such table: an option that is a word, as a
language is, may well be the name of a folder too, and hardly of a file."""
RESCANS = ("lines",)
"""Those of them that read the corpus before they change it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a stage over the corpus may use."""

    documents: Callable[[], Iterator[Document]]
    """All documents that come in, read anew at each call."""
    work: Path
    """An empty folder of its own."""
    embedder: Callable[[str], Any] | None = None
    """Opens an embedder by name, where the caller has some."""


def known(name: str, candidates: Iterable[str], what: str) -> None:
    """Raises `ConfigError` with the nearest name where ``name`` is none of the candidates."""
    names = sorted(candidates)
    if name not in names:
        raise ConfigError(f"unknown {what} {name!r}{nearest(name, names)}; known: {', '.join(names)}")


def factory(name: str) -> Callable[..., Stage]:
    known(name, [*STAGES, *CORPUS_STAGES], "stage")
    module, function = (STAGES.get(name) or CORPUS_STAGES[name]).split(":")
    return getattr(importlib.import_module(f"sleuth.corpora.{module}"), function)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for an unknown stage, an unknown option or one that is missing."""
    parameters = inspect.signature(factory(name)).parameters
    own = {key: parameter for key, parameter in parameters.items() if key != "corpus"}
    for option in options:
        known(option, own, f"option of stage {name!r}")
    missing = [key for key, parameter in own.items() if parameter.default is parameter.empty and key not in options]
    if missing:
        raise ConfigError(f"stage {name!r}: expected {', '.join(missing)}")


def chain(
    documents: Iterable[Document], chosen: Sequence[tuple[str, Mapping[str, Any]]], drop: Callable[[Drop], None]
) -> Iterator[Document]:
    """The stages of single documents, one after another."""
    for name, options in chosen:
        documents = factory(name)(**options)(documents, drop)
    return iter(documents)


def length(min_words: int = 1, max_words: int = 1_000_000) -> Stage:
    """Documents of that many words, counted as passages count them."""
    from sleuth.corpora.chunk import count_words

    def run(documents: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for document in documents:
            if min_words <= (words := count_words(document.text)) <= max_words:
                yield document
            else:
                drop(Drop(document.id, "length", f"{words} words, expected {min_words} to {max_words}"))

    return run


def near(
    corpus: Corpus, threshold: float = 0.72, words: int = 5, bands: int = 14, rows: int = 8, seed: int = 1
) -> Stage:
    """Near-duplicates, see `corpora.near`."""
    from sleuth.corpora.near import NearIndex, NearSpec, near_duplicates

    spec = NearSpec(threshold, words, bands, rows, seed)
    return lambda documents, drop: near_duplicates(documents, NearIndex.open(corpus.work / "near", spec), drop)
