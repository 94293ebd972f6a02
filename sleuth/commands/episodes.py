"""Episodes after the run: shown to a person as a tree, and their citations recomputed from the store alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.agents.records import Episode, to_json
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.exits import CODES
from sleuth.terminal import emit, out, say, table

if TYPE_CHECKING:
    from sleuth.retrieval.records import Retriever

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]


def show(
    file: Annotated[Path, typer.Argument(help="A JSONL file of episodes, as `sleuth ask` writes.")],
    id: Annotated[str, typer.Option("--id", help="First characters of an episode's id.")] = "",
    every: Annotated[bool, typer.Option("--all", help="All episodes, not the last one only.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print an episode as a tree: plan, searches, evidence, answer, citations, what was spent.

    Example: sleuth show runs/ask.jsonl
    """
    from sleuth import view

    chosen = _chosen(file, id, every)
    for episode in chosen:
        if as_json:
            emit(to_json(episode))
        else:
            out().print(view.tree(episode))


def _chosen(file: Path, prefix: str, every: bool) -> list[Episode]:
    from sleuth.agents import episodes

    found = list(episodes.read(file, bad=say))
    if not found:
        raise InputError(f"{file}: expected at least one episode, found none")
    if prefix:
        matching = [episode for episode in found if episode.id.startswith(prefix)]
        if not matching:
            known = ", ".join(dict.fromkeys(episode.id for episode in found[-5:]))
            raise InputError(f"{file}: no episode's id starts with {prefix!r}; the last ones are {known}")
        found = matching
    return found if every else found[-1:]


def verify(
    file: Annotated[Path, typer.Argument(help="A JSONL file of episodes.")],
    store: Annotated[Path, typer.Argument(help="The datastore, or sources file, they were run on.")],
    snapshot: Annotated[str, typer.Option(metavar="NAME", help="The version that is pinned by this name.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Recompute every kept citation from the store alone; leaves with 7 when one does not hold.

    A citation holds when it names this store's fingerprint, its passage and span exist, the store's characters there
    equal the quote, and the run had retrieved the passage. Counted beside that: whether quotes carry the answer, and
    whether each shares a word with it or the question. Episodes of another store, or of another version of this one,
    are told apart and not counted. Example: sleuth verify runs/ask.jsonl store
    """
    from sleuth.agents import cite, episodes

    bad_lines: list[str] = []
    rows: list[dict[str, Any]] = []
    others: dict[str, list[int]] = {}  # version -> citations of each of its episodes
    searched = _opened(store, snapshot)
    version, here = searched.fingerprint, 0
    for episode in episodes.read(file, bad=bad_lines.append):
        if episode.fingerprint not in ("", version):
            said = episode.answer.sentences if episode.answer else ()
            others.setdefault(episode.fingerprint, []).append(sum(len(sentence.citations) for sentence in said))
            continue
        here += 1
        checks = cite.verify(episode, searched)
        rows += [{"episode": episode.id, **asdict(check), "holds": check.holds} for check in checks]
    for line in bad_lines:
        say(line)
    for other, counts in others.items():
        say(f"{sum(counts)} citations of {len(counts)} episodes made on version {other[:12]}…; this store is at "
            f"{version[:12]}…: not counted")  # fmt: skip
    if as_json:
        for row in rows:
            emit(row)
    elif here:
        _summary(rows)
    if bad_lines:
        raise InputError(f"{file}: {len(bad_lines)} lines are not episodes; the others were checked")
    if not here:
        elsewhere = sum(map(len, others.values()))
        found = f"{elsewhere} of other versions; --snapshot opens a pinned one" if elsewhere else "none"
        raise InputError(f"{file}: expected at least one episode of version {version[:12]}… of {store}, found {found}")
    if not all(row["holds"] for row in rows):
        raise typer.Exit(CODES["verification"])


def _opened(store: Path, snapshot: str) -> Retriever:
    from sleuth.agents.minds import minds
    from sleuth.retrieval.remote import is_address
    from sleuth.retrieval.sources import is_sources, open_any
    from sleuth.retrieval.store import Datastore

    if not snapshot:
        return open_any(store, minds=minds())  # none of them is asked: what was cited is only fetched
    if is_address(store) or is_sources(store):
        raise ConfigError(f"--snapshot: expected the folder of a datastore, found {store}")
    return Datastore.open(store, snapshot=snapshot)


def _summary(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if not row["holds"]:
            failed = [name for name in ("same_store", "exists", "verbatim", "retrieved") if not row[name]]
            place = row["citation"]
            say(f"✗ {row['episode']} {place['passage_id']}:{place['start']}-{place['end']} not {', '.join(failed)}")
    kinds = ("same_store", "exists", "verbatim", "retrieved", "holds", "supported", "on_topic")
    table(("citations", *kinds), [(len(rows), *(sum(row[kind] for row in rows) for kind in kinds))])
