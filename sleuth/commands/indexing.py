"""The index of a store from the command line: make it within a memory budget, and look at what a store holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleuth.commands.stores import JsonFlag, StoreArgument
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.terminal import emit, progress, say, table

if TYPE_CHECKING:
    from sleuth.retrieval.index import IndexReport

PLOTS = (".png", ".svg")


def index(
    store: StoreArgument,
    memory: Annotated[
        str | None, typer.Option(help="Most memory of the index, such as 8GB; 64 bytes a vector where not given.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="flat, sq8, rabitq or pq, instead of what fits best.")] = None,
    recall: Annotated[float, typer.Option(help="Share of the true ten nearest that a search is to find.")] = 0.98,
    as_json: JsonFlag = False,
) -> None:
    """Index a store's vectors: compressed codes in memory propose, exact vectors on disk decide.

    What is added later is compared in full until this is run again. The recall is measured and written down.

    Example: sleuth index store --memory 2GB
    """
    report = index_store(store, memory, kind, recall)
    if as_json:
        emit(asdict(report))
    else:
        show_index(report, recall)


def index_store(store: Path, memory: str | None, kind: str | None = None, recall: float = 0.98) -> IndexReport:
    """`build_index` with its progress shown."""
    from typing import get_args

    from sleuth.retrieval.index import build_index
    from sleuth.retrieval.plan import Kind, parse_size

    if kind is not None and kind not in get_args(Kind):
        raise ConfigError(f"unknown kind of index {kind!r}; known: {', '.join(get_args(Kind))}")
    with progress() as tell:
        return build_index(store, parse_size(memory) if memory else None, kind, recall, tell)  # type: ignore[arg-type]


def show_index(report: IndexReport, target: float) -> None:
    """What was chosen, and what it finds."""
    if report.recall is None:
        print(f"{report.store}: {report.num_vectors:,} vectors are compared exactly; no code was needed")
        return
    print(
        f"{report.store}: {report.num_vectors:,} vectors as {report.kind}{report.width}, {report.bytes_per_vector} "
        f"bytes each in memory; recall@10 {report.recall:.3f} at {report.nprobe} lists, {report.depth} compared exactly"
    )
    if report.recall < target:
        say(f"that is below {target:g}: give more --memory")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items())
    say(f"seconds: {stages}; {report.vectors_per_s:,.0f} vectors/s; peak memory {report.peak_bytes / 2**20:,.0f} MiB")


def inspect(
    store: StoreArgument,
    plot: Annotated[Path | None, typer.Option(help="Write recall against latency here, as .png or .svg.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a store holds, what each part weighs, and how its index trades recall for time.

    Example: sleuth inspect store --plot curve.svg
    """
    from sleuth.retrieval.inspect import describe, frontier
    from sleuth.retrieval.inspect import plot as draw
    from sleuth.retrieval.plan import plan as planned
    from sleuth.retrieval.plan import size

    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot {plot}: expected a file that ends in {' or '.join(PLOTS)}, found {plot.suffix!r}")
    found = describe(store)
    if plot is not None and not found.curve:
        exact = planned(found.rows, found.dims).kind == "flat"  # what `sleuth index` would make of it
        few = f"{found.rows:,} vectors are few enough to be compared exactly; there is no curve"
        none = f"has no index with a curve; `sleuth index {store}` measures one"
        raise InputError(f"--plot: {store}: {few if exact else none}")
    if plot is not None:
        draw(found, plot)
    if as_json:
        emit(asdict(found))
        return
    counts = f"{found.documents:,} documents, {found.passages:,} passages, {found.segments} segments"
    print(f"{found.store}: {counts}, {found.deleted:,} deleted; version {found.version}, {found.fingerprint[:12]}")
    print(f"embedder {found.embedder} ({found.revision}), {found.dims} dimensions; language {found.language}")
    rows = [(part, size(total), found.disk_per_passage[part]) for part, total in found.parts.items()]
    table(("part", "on disk", "bytes/passage"), rows)
    kept = f"in memory {size(found.memory)}, {found.memory_per_passage} bytes a passage"
    if not found.curve:
        print(f"index {found.index}: all vectors are compared; {kept}")
        return
    rest = found.rows - found.indexed
    print(f"index {found.index} of {found.indexed:,} passages, {rest:,} compared besides; {kept}")
    own = (found.nprobe, found.depth)
    shown = [
        (p.nprobe, p.depth, p.recall, p.p50_ms, "default" if (p.nprobe, p.depth) == own else "")
        for p in frontier(found.curve)
    ]
    table(("lists", "compared", "recall@10", "p50 ms", ""), shown, title="Measured when it was built, one thread")
