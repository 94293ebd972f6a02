"""Datastores from the command line: build one, search it, ask it in SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleuth.commands.evaluating import refuse
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Scalar
from sleuth.terminal import emit, out, plain, progress, say, table

if TYPE_CHECKING:
    from sleuth.retrieval.build import BuildReport
    from sleuth.retrieval.records import Filter, Hit

SNIPPET_CHARS = 240
SHOWN_DROPS = 5
INDEXED_FROM = 200_000
"""Passages from which a build indexes the vectors unasked: comparing all takes tens of milliseconds a query."""
OPERATORS = (">=", "<=", "!=", "=", ">", "<")
_FILES = {"paths", "store", "embedder", "max_words", "language", "title_weight", "memory", "workers", "as_json"}
_RECIPE = {"paths", "store", "memory", "workers", "engine", "as_json"}
"""What goes with a recipe, which says the rest itself."""
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
StoreArgument = Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`.")]
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
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, str | int | float | bool) else text


def build_store(
    paths: Sequence[Path],
    store: Path,
    *,
    embedder: str = "minilm",
    max_words: int = 200,
    language: str = "english",
    title_weight: int = 3,
    workers: int = 0,
) -> BuildReport:
    """`build` with its progress shown."""
    from sleuth.corpora import parser
    from sleuth.retrieval.build import BuildSpec, build

    with progress() as tell:
        spec = BuildSpec(embedder, max_words, language, title_weight)
        return build(paths, store, spec, tell, workers=workers, limits=parser.LIMITS)


def build(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: HTML, Markdown, text, PDF, JSONL, Parquet.")],
    store: Annotated[Path, typer.Option("--out", help="The datastore's folder; made, or added to.")],
    embedder: Annotated[str, typer.Option(help="minilm, static (fast), or a sentence-transformers id.")] = "minilm",
    max_words: Annotated[int, typer.Option(min=1, help="Most words of a passage.")] = 200,
    language: Annotated[str, typer.Option(help="Stemmer of lexical search, or none.")] = "english",
    title_weight: Annotated[int, typer.Option(min=0, help="What a word of a title counts for in lexical search.")] = 3,
    memory: Annotated[str | None, typer.Option(help="Index the vectors within this, such as 8GB.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes beside one another; 0 decides.")] = 0,
    engine: Annotated[str, typer.Option(help="Where a recipe's workers run: local or ray.")] = "local",
    as_json: JsonFlag = False,
) -> None:
    """Index files and folders, or a recipe (one .toml), into a datastore; run again, it goes on where it stopped.

    Every input is indexed, a duplicate, or rejected with its reason, and the report adds up. A recipe brings its own
    embedder, language and size of passages.

    Example: sleuth build docs/ notes.pdf --out store
    """
    if memory is not None:
        from sleuth.retrieval.plan import parse_size

        parse_size(memory)  # a slip shows before the work
    recipe = next((path for path in paths if path.suffix == ".toml"), None)
    if recipe is not None:
        from sleuth.commands.recipes import build_recipe

        if len(paths) > 1:
            raise ConfigError(f"{recipe}: a recipe names its inputs and goes alone; found {len(paths)} paths")
        refuse(context, str(recipe), _RECIPE)
        report = build_recipe(recipe, store, workers, engine, as_json)  # type: ignore[arg-type]  # checked there
    else:
        refuse(context, "files and folders", _FILES)
        report = build_store(
            paths, store, embedder=embedder, max_words=max_words, language=language, title_weight=title_weight,
            workers=workers,
        )  # fmt: skip
        if as_json:
            emit(asdict(report))
        else:
            show_report(report)
    if memory is not None or report.passages >= INDEXED_FROM:
        from sleuth.commands.indexing import index_store, show_index
        from sleuth.retrieval.index import TARGET

        indexed = index_store(store, memory)
        if as_json:
            emit(asdict(indexed))
        else:
            show_index(indexed, TARGET)


def show_report(report: BuildReport) -> None:
    """The account of every input, where the rest is written, and what it cost."""
    heads = ("inputs", "=", "indexed", "+", "duplicates", "+", "rejected")
    account = (report.inputs, "=", report.indexed, "+", report.duplicates, "+", report.rejected)
    table(heads, [account])
    print(f"{report.store}: {report.documents:,} documents, {report.passages:,} passages, {report.added:,} added now")
    if report.duplicates or report.rejected:
        with Path(report.drops).open(encoding="utf-8") as lines:
            shown = [json.loads(line) for line in islice(lines, SHOWN_DROPS)]
        for drop in shown:
            say(f"  {drop['stage']}: {drop['id']}: {drop['reason']}")
        say(f"every duplicate and rejected input with its reason: {report.drops}")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items())
    say(f"seconds: {stages}; peak memory {report.peak_bytes / 2**20:,.0f} MiB; fingerprint {report.fingerprint[:12]}")


def search(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(help="A datastore, made by `sleuth build`, or a sources file (.toml).")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Most hits.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, bm25 or dense.")] = "hybrid",
    where: WhereOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search a datastore: title, score, and a snippet with the matched words marked.

    A sources file asks several knowledge bases, each in the mode that it names; docs/knowledge.md has its form.

    Example: sleuth search store "lighthouse keepers" -k 3 --where "date>=1990"
    """
    from datetime import date

    from sleuth.agents.minds import minds
    from sleuth.retrieval.route import Routed
    from sleuth.retrieval.sources import is_sources, open_any
    from sleuth.retrieval.store import Datastore

    found = where_of(where)
    if is_sources(store):
        refuse(context, str(store), {"store", "query", "k", "where", "as_json"})
    opened = open_any(store, minds=minds(), today=date.today())
    if isinstance(opened, Routed):
        answer = opened.search([query], k, found)
    else:
        answer = opened.search([query], k, found, mode)  # type: ignore[arg-type]  # checked there
    hits = answer[0]
    for what, why in getattr(answer, "missing", ()):
        say(f"not looked for in {what}: {why}")
    if as_json:
        for hit in hits:
            emit(asdict(hit))
        return
    for hit in hits:
        _show(hit, query, opened.manifest.language if isinstance(opened, Datastore) else "english")
    if not hits:
        say("nothing found")


def _show(hit: Hit, query: str, language: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from sleuth.retrieval.snippet import snippet

    title = plain(hit.passage.title or hit.passage.doc_id)
    out().print(Text.assemble((f"{hit.rank} ", "cyan"), (title, "bold"), (f"  {hit.score:.4f}", "dim")))
    text = " ".join(plain(hit.passage.text).split())
    pieces = snippet(query, text, SNIPPET_CHARS, language)
    out().print(Padding(Text.assemble(*((piece, "bold yellow" if hot else "") for piece, hot in pieces)), (0, 0, 0, 2)))
    out().print(Text(f"  {plain(hit.url or hit.passage.id)}", "dim"), soft_wrap=True)


def sql(
    store: Annotated[Path, typer.Argument(help="A datastore, or a file or folder of tables (CSV, Parquet, DuckDB).")],
    query: Annotated[str, typer.Argument(help="One SELECT over the views documents and passages, or the tables.")],
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 1000,
    as_json: JsonFlag = False,
) -> None:
    """Ask the metadata in SQL. Nothing can be written, and no file or address can be reached.

    Example: sleuth sql store "select source, count(*) from documents group by source"
    """
    from sleuth.retrieval.store import Datastore
    from sleuth.retrieval.table_files import holds_tables, open_tables

    opened = open_tables([store]) if holds_tables(store) else Datastore.open(store)
    columns, rows = opened.sql(query, limit)
    if as_json:
        for row in rows:
            emit(dict(zip(columns, row, strict=True)))
    else:
        table(columns, rows, raw=True)
    if len(rows) == limit:
        say(f"the first {limit:,} rows; --limit shows more")
