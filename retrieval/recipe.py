"""A recipe becomes a store: its corpus is made beside the store, indexed into it, and reported with the store's drops.

The work folder keeps the shards, so that a recipe which was stopped, or has more input, goes on from there. A document
whose text changed takes the place of the stored one; documents that the corpus holds no more stay until deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from sleuth.corpora import corpus, recipe, report
from sleuth.corpora.account import Account
from sleuth.corpora.chunk import count_words
from sleuth.corpora.corpus import Corpus
from sleuth.corpora.pool import Engine
from sleuth.corpora.records import Drop
from sleuth.retrieval import layout
from sleuth.retrieval.build import BuildReport, BuildSpec, Progress, build
from sleuth.retrieval.embed import embedder


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """What a recipe made."""

    name: str
    corpus: str
    """Digest of the corpus, which does not depend on workers, engine or interruptions."""
    account: Account
    """Of every input, by source; what the store refused is among the drops."""
    build: BuildReport
    files: tuple[str, ...]
    """The report as Markdown, JSON and HTML, and all drops as JSONL."""


def build_recipe(
    path: str | Path, out: str | Path, progress: Progress | None = None, device: str = "cpu", workers: int = 0,
    engine: Engine = "local", work: str | Path | None = None,
) -> RecipeReport:  # fmt: skip
    """Make the corpus of the recipe at ``path`` and index it into the store at ``out``.

    ``workers`` processes run shards and segments; 0 runs shards in one for each core and segments in this one. Raises
    what reading the recipe, making the corpus and building raise.
    """
    out = Path(out)
    found = recipe.load(path, [field.name for field in fields(BuildSpec)])
    work = Path(work) if work is not None else out.parent / f"{out.name}.work"
    made = corpus.make(found, work, workers, engine, progress, lambda name: embedder(name, device))
    spec = BuildSpec(**found.store)
    built = build(iter(made), out, spec, progress, device, update=True, workers=workers, engine=engine)
    account = _with_refused(made, Path(built.drops))
    if unbalanced := account.unbalanced():
        raise AssertionError(f"inputs of {', '.join(unbalanced)} do not add up: {account}")
    folder = out / "reports" / f"{layout.read_manifest(out)[0].version:06d}.corpus"
    facts = {"documents": f"{built.documents:,}", "passages": f"{built.passages:,}", "corpus": made.digest[:12],
             "store": built.fingerprint[:12], **_seconds(made.seconds, built.seconds)}  # fmt: skip
    files = report.write(folder, found.name, account, facts)
    drops = folder / "drops.jsonl"
    with drops.open("w", encoding="utf-8") as log:
        for one in (made.folder / "drops.jsonl", Path(built.drops)):
            with one.open(encoding="utf-8") as lines:
                log.writelines(lines)
    return RecipeReport(found.name, made.digest, account, built, tuple(map(str, [*files, drops])))


def _seconds(*stages: dict[str, float]) -> dict[str, str]:
    return {f"{name} s": f"{seconds:.1f}" for part in stages for name, seconds in part.items() if name != "total"}


def _with_refused(made: Corpus, drops: Path) -> Account:
    """The corpus's account, with the documents that the store refused moved to its drops."""
    account = Account.from_json(made.account.to_json())
    refused: dict[str, list[Drop]] = {}
    for drop in _read(drops):
        refused.setdefault(drop.id, []).append(drop)
    if not refused:
        return account
    met: dict[str, list[tuple[str, int, int]]] = {}
    for source, document in made.sourced():
        if document.id in refused:
            size = len(document.text.encode())
            met.setdefault(document.id, []).append((source, count_words(document.text), size))
    for id_, found in refused.items():  # of several with one id the first went in, unless all were refused
        for drop, (source, words, size) in zip(found, met[id_][-len(found) :], strict=True):
            account.lose(source, drop, words, size)
    return account


def _read(path: Path) -> Iterable[Drop]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Drop(**json.loads(line))
