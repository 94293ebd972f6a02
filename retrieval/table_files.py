"""A table file is CSV, TSV, Parquet, HTML or a DuckDB database; what is read of it becomes the tables of one database.

Each file is read once, when it is opened, into memory that has a bound; DuckDB files are attached read-only and stay on
disk. A file that cannot be read is an error that names it and says what was found, never a table with rows missing.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sleuth.corpora.decode import decode
from sleuth.corpora.errors import InputError
from sleuth.retrieval.catalog import connect, quoted
from sleuth.retrieval.tables import SAMPLES, Table, Tables, WriteSQL

if TYPE_CHECKING:
    import duckdb

KINDS = (".csv", ".tsv", ".parquet", ".html", ".htm", ".duckdb", ".db")
DELIMITERS = ",;\t|"
MAX_SPAN = 100
"""Columns or rows that one cell of an HTML table may stand for."""
MAX_SAID = 300
"""Characters of DuckDB's own words in a message: the rest is its advice to itself."""
RESERVED = frozenset(
    "all and any as asc both case cast check collate column constraint create default desc distinct do else end except "
    "false fetch for foreign from grant group having in initially intersect into is lateral leading limit not null "
    "offset on only or order placing primary qualify references returning select show some summarize symmetric table "
    "then to trailing true union unique unpivot using variadic when where window with".split()
)
"""Words of SQL that name nothing."""


def is_tables(path: str | Path) -> bool:
    """Whether a path names a file of tables."""
    return Path(path).suffix.lower() in KINDS and Path(path).is_file()


def holds_tables(path: Path) -> bool:
    """Whether a path is a file of tables, or a folder of some that is no datastore."""
    return is_tables(path) or (path.is_dir() and not (path / "CURRENT").exists() and bool(_files(path)))


def open_tables(paths: Sequence[str | Path], language: str = "english", write_sql: WriteSQL | None = None) -> Tables:
    """The tables of files, and of all such files in folders; raises `InputError` for one that holds none."""
    import duckdb

    files = [file for path in map(Path, paths) for file in _files(path)]
    if not files:
        raise InputError(f"tables: expected files that end in {' '.join(KINDS)}, found none in {list(map(str, paths))}")
    connection = connect()
    tables: list[Table] = []
    digest = hashlib.sha256()
    for file in files:
        try:
            found = list(_load(connection, file, {table.name for table in tables}))
        except (duckdb.Error, UnicodeError, OSError) as error:
            said = " ".join(str(error).split())[:MAX_SAID]
            raise InputError(f"{file}: cannot be read as a table: {said}") from error
        if not found:
            raise InputError(f"{file}: expected a table with columns and rows, found none")
        with file.open("rb") as opened:
            digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
        tables += found
    return Tables(connection, tables, digest.hexdigest(), language, write_sql)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if is_tables(file))
    if not path.is_file():
        raise InputError(f"{path}: no such file of tables")
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{path}: expected a file that ends in {' '.join(KINDS)}, found {path.suffix!r}")
    return [path]


def _load(connection: duckdb.DuckDBPyConnection, file: Path, taken: set[str]) -> Iterator[Table]:
    kind = file.suffix.lower()
    if kind in (".duckdb", ".db"):
        yield from _attached(connection, file, taken)
        return
    sources = _html(file) if kind in (".html", ".htm") else [(file.stem, file)]
    for title, source in sources:
        name = _name(title, taken)
        if kind == ".parquet":
            read = f"read_parquet({_literal(source)})"
        else:
            delimiter = "," if kind in (".html", ".htm") else _delimiter(source, kind)
            options = f"delim={_literal(delimiter)}, quote='\"', header=true, skip=0, sample_size=-1"
            read = f"read_csv({_literal(source)}, {options})"
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {read}")
        yield _table(connection, name, file)


def _attached(connection: duckdb.DuckDBPyConnection, file: Path, taken: set[str]) -> Iterator[Table]:
    """The base tables of a database; views are left out, for a row of one has no place."""
    database = _name(f"db_{file.stem}", taken)
    connection.execute(f"ATTACH {_literal(file)} AS {database} (READ_ONLY)")
    found = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND NOT internal ORDER BY 1, 2",
        [database],
    ).fetchall()
    for schema, table in found:
        yield _table(connection, ".".join([database, *map(_plain, (schema, table))]), file)


def _table(connection: duckdb.DuckDBPyConnection, name: str, file: Path) -> Table:
    described = connection.execute(f"DESCRIBE {name}").fetchall()
    columns = {str(row[0]): str(row[1]) for row in described}
    (rows,) = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
    samples = {}
    for column, kind in columns.items():
        if kind == "VARCHAR":
            cell = quoted(column)
            values = connection.execute(
                f"SELECT {cell} FROM (SELECT {cell}, min(rowid) AS first FROM {name} WHERE {cell} IS NOT NULL "
                f"GROUP BY {cell} ORDER BY first LIMIT {SAMPLES})"
            ).fetchall()
            samples[column] = tuple(value[:80] for (value,) in values)
    return Table(name, str(file), columns, rows, samples)


def _delimiter(file: Path, kind: str) -> str:
    """The tab of a .tsv, else what stands most often in the first line: DuckDB then holds every line to it."""
    if kind == ".tsv":
        return "\t"
    with file.open(encoding="utf-8", newline="") as lines:
        head = lines.readline(1_000_000)
    return max(DELIMITERS, key=head.count)


def _html(file: Path) -> Iterator[tuple[str, Path]]:
    """Each table of a page that has a head and a row, as a name and a CSV file that lives until the next."""
    from lxml import html

    try:
        text, _ = decode(file.read_bytes(), html=True)
        page = html.fromstring(text.encode(), parser=html.HTMLParser(encoding="utf-8"))
    except (InputError, ValueError, html.etree.ParserError) as error:
        raise InputError(f"{file}: not a page: {error}") from error
    for number, table in enumerate(page.iter("table"), 1):
        rows = _grid(table)
        width = max(map(len, rows), default=0)
        if len(rows) < 2 or width < 2:
            continue
        head = [cell or f"column {n}" for n, cell in enumerate(rows[0] + [""] * (width - len(rows[0])), 1)]
        caption = " ".join("".join(table.xpath("string(caption)")).split())
        with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as made:
            csv.writer(made, quoting=csv.QUOTE_ALL).writerows(
                [_distinct(head), *(row + [""] * (width - len(row)) for row in rows[1:])]
            )
            made.flush()
            yield caption[:60] or f"{file.stem} {number}", Path(made.name)


def _grid(table: object) -> list[list[str]]:
    """Cells of a table's own rows; one that spans several stands in each."""
    grid: list[list[str]] = []
    hanging: dict[int, tuple[str, int]] = {}
    for row in table.xpath("./tr | ./thead/tr | ./tbody/tr | ./tfoot/tr"):  # type: ignore[attr-defined]
        cells: list[str] = []
        for cell in row.xpath("./td | ./th"):
            _hang(cells, hanging)
            text = " ".join(cell.text_content().split())
            wide, high = (min(MAX_SPAN, int(n)) if (n := cell.get(key, "1")).isdecimal() else 1
                          for key in ("colspan", "rowspan"))  # fmt: skip
            for _ in range(max(1, wide)):
                if high > 1:
                    hanging[len(cells)] = (text, high)
                cells.append(text)
        _hang(cells, hanging)
        hanging = {at: (text, left - 1) for at, (text, left) in hanging.items() if left > 1}
        if cells:
            grid.append(cells)
    return grid


def _hang(cells: list[str], hanging: dict[int, tuple[str, int]]) -> None:
    """Cells of earlier rows that reach down to here."""
    while len(cells) in hanging:
        cells.append(hanging[len(cells)][0])


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found


def _name(title: str, taken: set[str]) -> str:
    """A name that SQL takes without quotes, and no other table has."""
    name = re.sub(r"\W+", "_", title.lower(), flags=re.ASCII).strip("_") or "table"
    name = f"t_{name}" if name[0].isdigit() else name
    base, number = name, 2
    while name in taken or name in RESERVED:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in RESERVED else quoted(name)


def _literal(value: str | Path) -> str:
    return "'" + str(value).replace("'", "''") + "'"
