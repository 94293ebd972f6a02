"""A store that grows, from the command line: add, delete, compact, and keep versions by name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sleuth.commands.stores import JsonFlag, StoreArgument, WhereOption, show_report, where_of
from sleuth.corpora.errors import InputError
from sleuth.terminal import emit, progress, say, table

SHOWN_MISSING = 5
MANY_SEGMENTS = 32
"""From here on compacting is worth a hint."""


def add(
    store: StoreArgument,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders, as `sleuth build` reads them.")],
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Reject changed texts of stored ids.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add documents to a store as it was built; a changed text takes the place of the stored one with its id.

    The cost is that of what is added, whatever the store holds. Run again, it goes on where it stopped.

    Example: sleuth add store new-pages/
    """
    from sleuth.corpora import parser
    from sleuth.retrieval import grow, layout, merge

    with progress() as tell:
        report = grow.add(store, paths, tell, update=not keep_old, limits=parser.LIMITS)
    if as_json:
        emit(asdict(report))
        return
    show_report(report)
    if report.updated:
        print(f"{report.updated:,} of the added took the place of an older text")
    small = sum(map(len, merge.runs(layout.read_manifest(store)[0].segments, merge.MAX_DOCUMENTS)))
    if small >= MANY_SEGMENTS:
        say(f"{small} small segments; `sleuth compact {store}` merges them")


def delete(
    store: StoreArgument,
    ids: Annotated[list[str] | None, typer.Option("--id", help="A document's id; repeat it for more.")] = None,
    ids_from: Annotated[
        Path | None, typer.Option("--ids", exists=True, dir_okay=False, help="A file with one id a line.")
    ] = None,
    where: WhereOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete documents by id or by filter, in one commit; their bytes go with the next compaction.

    Example: sleuth delete store --where "date<1990"
    """
    from sleuth.retrieval import grow

    wanted = list(ids or ())
    if ids_from is not None:
        try:
            wanted += [line for line in ids_from.read_text(encoding="utf-8").split("\n") if line]
        except UnicodeDecodeError as error:
            raise InputError(f"{ids_from}: expected one id a line in UTF-8: {error}") from error
    if not wanted and not where:
        raise InputError("delete: expected --id, --ids or --where; nothing says what to delete")
    done = grow.delete(store, wanted, where_of(where))
    if as_json:
        emit(asdict(done))
        return
    print(f"{store}: {done.deleted:,} of {done.asked:,} deleted, {done.documents:,} documents left")
    for id_ in done.missing[:SHOWN_MISSING]:
        say(f"  not there: {id_}")
    if len(done.missing) > SHOWN_MISSING:
        say(f"  and {len(done.missing) - SHOWN_MISSING:,} more; --json names them all")


def compact(store: StoreArgument, as_json: JsonFlag = False) -> None:
    """Merge small segments and let go of what was deleted; nothing is embedded again and no answer changes.

    Example: sleuth compact store
    """
    from sleuth.retrieval import grow

    with progress() as tell:
        done = grow.compact(store, progress=tell)
    if as_json:
        emit(asdict(done))
        return
    print(f"{store}: {done.segments_before} segments before, {done.segments} now; {done.documents:,} documents")
    if done.removed:
        say(f"{done.removed:,} deleted documents are stored no more, but for the last version and snapshots")


def snapshots(
    store: StoreArgument,
    pin: Annotated[str, typer.Option(metavar="NAME", help="Keep the current version under a name.")] = "",
    drop: Annotated[str, typer.Option(metavar="NAME", help="Forget a named version.")] = "",
    restore: Annotated[str, typer.Option(metavar="NAME", help="Make a named version the current one again.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """List the versions of a store that are kept by name; pin, drop or restore one.

    Example: sleuth snapshots store --pin before-cleaning
    """
    from sleuth.retrieval import grow

    if sum(map(bool, (pin, drop, restore))) > 1:
        raise InputError("snapshots: expected one of --pin, --drop and --restore")
    if pin:
        grow.pin(store, pin)
    if drop:
        grow.drop(store, drop)
    if restore:
        grow.restore(store, restore)
    found = grow.snapshots(store)
    if as_json:
        for snapshot in found:
            emit(asdict(snapshot))
        return
    rows = [(s.name or "(current)", s.version, s.documents, s.passages, s.fingerprint[:12]) for s in found]
    table(("name", "version", "documents", "passages", "fingerprint"), rows)
