"""Tables are a knowledge base of rows: CSV, Parquet, HTML tables and DuckDB files, searched by schema, words and SQL.

A row is a passage whose text names each column and its value; what a SELECT yields are rows too, and their ids carry
the SELECT, so that `fetch` gives the same text again and a citation of a figure can be checked. The guard is that of a
store's catalog: once the tables are there, nothing can be written and no file or address be reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Document, Passage
from sleuth.retrieval.catalog import condition, quoted, seal, select
from sleuth.retrieval.lexical import Lexical
from sleuth.retrieval.records import Filter, Hit
from sleuth.retrieval.sharded import Hits

if TYPE_CHECKING:
    import duckdb

SAMPLES = 20
"""Different values of a text column that schema search sees."""
MAX_CELL_CHARS = 1000
"""Of a value in a row's text; what is cut ends in an ellipsis."""
MAX_ROWS = 500_000
"""Rows of a table that are found by their words; those of a larger one are reached by SQL alone."""
MAX_YIELD = 10_000
"""Rows that a SELECT's ids may name."""
SECONDS = 10.0
"""Of one SELECT."""
SHOWN = 5
"""Tables that the writer of SQL is shown."""
BY_SQL = "sql:"
"""An id that starts so holds a SELECT, and after the last number sign the row of what it yields."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of a table before a row of it is read."""

    name: str
    """As SQL writes it."""
    path: str
    columns: Mapping[str, str]
    """Name to DuckDB's type."""
    rows: int
    samples: Mapping[str, tuple[str, ...]]
    """Some values of each text column."""

    def text(self) -> str:
        """What schema search reads: the names in words, and the samples."""
        names = " ".join([self.name, *self.columns]).replace("_", " ")
        return f"{names} {' '.join(' '.join(values) for values in self.samples.values())}"


WriteSQL: TypeAlias = "Callable[[str, Sequence[Table]], str]"
"""``write(question, tables)`` gives one SELECT over the tables it is shown, or nothing; a policy, say."""


class Tables:
    """A `Retriever` over the rows of tables; safe to share between threads. `open_tables` makes one."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, tables: Sequence[Table], fingerprint: str, language: str,
        write_sql: WriteSQL | None = None,
    ) -> None:  # fmt: skip
        """``connection`` holds the tables and is sealed here."""
        seal(connection)
        self._connection, self._lock = connection, threading.RLock()
        self.tables = {table.name: table for table in tables}
        self.fingerprint, self._language, self.write_sql = fingerprint, language, write_sql
        self._schemas = Lexical([table.text() for table in tables], language)
        self._rows: dict[str, Lexical] = {}

    def find(self, query: str, k: int = SHOWN) -> list[tuple[Table, float]]:
        """Tables by their names, columns and sample values, best first."""
        tables = list(self.tables.values())
        return [(tables[at], score) for at, score in self._schemas.search(query, k)]

    def shown(self, most: int) -> list[str]:
        """At most so many texts that show what is in the tables: each one's schema, and its first rows."""
        found = [table.text() for table in self.tables.values()]
        for name in self.tables:
            columns, rows = self._read(name, first=max(1, most // len(self.tables)))
            found += [f"{name} {row_text(columns, row)}" for row in rows]
        return found[:most]

    def sql(self, query: str, limit: int = 1000, seconds: float = SECONDS) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and at most ``limit`` rows of one SELECT; raises `InputError` with DuckDB's own words."""
        with self._lock:
            return select(self._connection, query, limit, seconds, f"tables: {', '.join(self.tables)}")

    def search(self, queries: Sequence[str], k: int, where: Filter | None = None) -> list[list[Hit]]:
        """Rows with the words of a query, those of tables whose schema has them too before others.

        Where there is a writer of SQL and no filter, what its SELECT yields comes first. ``where`` names columns; a
        table without one of them is left out, and `InputError` raised where no table has them all. What could not be
        looked for stands in the result's ``missing``.
        """
        if isinstance(queries, str) or k < 1:
            raise InputError(f"expected a list of queries and k of at least 1, found {queries!r}, {k}")
        masks = self._masks(where)
        missing = [(name, f"{self.tables[name].rows:,} rows are more than {MAX_ROWS:,}: ask in SQL")
                   for name in masks if self.tables[name].rows > MAX_ROWS]  # fmt: skip
        found = []
        for query in queries:
            ranked: list[tuple[str, float]] = []
            if self.write_sql is not None and not where:
                try:
                    ranked = self._selected(query, k)
                except InputError as error:
                    missing.append(("sql", str(error)))
            best = ranked[-1][1] if ranked else None
            ranked += self._worded(query, k, masks, best)
            found.append(self._hits(dict.fromkeys(id_ for id_, _ in ranked), dict(reversed(ranked)), k))
        return Hits(found, missing)

    def fetch(self, passage_ids: Sequence[str]) -> list[Passage]:
        """Rows by id, in order; raises ``KeyError`` naming the ids that are not there."""
        found = {id_: self._passage(id_) for id_ in dict.fromkeys(passage_ids)}
        if missing := [id_ for id_, passage in found.items() if passage is None]:
            raise KeyError(f"no such rows in the tables {', '.join(self.tables)}: {', '.join(missing[:10])}")
        return [passage for id_ in passage_ids if (passage := found[id_])]

    def document(self, doc_id: str) -> Document:
        """A row as a document of its own; raises ``KeyError``."""
        (passage,) = self.fetch([doc_id])
        table = self.tables.get(doc_id.rpartition("#")[0])
        return Document(doc_id, passage.text, passage.title, source=Path(table.path).name if table else "sql")

    def _selected(self, query: str, k: int) -> list[tuple[str, float]]:
        """Ids of what the written SELECT yields, rows of nothing but NULL left out; above all scores by words."""
        shown = [table for table, _ in self.find(query)] or list(self.tables.values())[:SHOWN]
        written = self.write_sql(query, shown).strip().rstrip(";") if self.write_sql else ""
        if not written:
            return []
        if self.sql(written, k) != (first := self.sql(written, k)):
            raise InputError(f"{written}: gives other rows each time, so they could not be cited")
        columns, rows = first
        return [(f"{BY_SQL}{written}#{n}", 1e6 - n) for n, row in enumerate(rows) if row_text(columns, _cells(row))]

    def _worded(
        self, query: str, k: int, masks: Mapping[str, np.ndarray | None], below: float | None
    ) -> list[tuple[str, float]]:
        schemas = self.find(query, len(self.tables))
        most = max((score for _, score in schemas), default=1.0)
        favour = {table.name: score / most for table, score in schemas}
        ranked = []
        for name, mask in masks.items():
            if self.tables[name].rows <= MAX_ROWS:
                for row, score in self._index(name).search(query, k, mask):
                    ranked.append((f"{name}#{row}", score * (1 + favour.get(name, 0.0))))
        ranked = sorted(ranked, key=lambda pair: (-pair[1], pair[0]))[:k]
        if below is not None and ranked:  # what a SELECT yielded comes first
            ranked = [(id_, min(score, below - 1)) for id_, score in ranked]
        return ranked

    def _hits(self, ids: Mapping[str, None], scores: Mapping[str, float], k: int) -> list[Hit]:
        chosen = list(ids)[:k]
        hits = []
        for rank, (id_, passage) in enumerate(zip(chosen, self.fetch(chosen), strict=True), 1):
            hits.append(Hit(passage, scores[id_], rank, "sql" if id_.startswith(BY_SQL) else "table",
                            source=passage.title))  # fmt: skip
        return hits

    def _masks(self, where: Filter | None) -> dict[str, np.ndarray | None]:
        """Of each table that has all the fields, which rows a filter allows; None allows all."""
        import duckdb

        if not where:
            return dict.fromkeys(self.tables)
        masks: dict[str, np.ndarray | None] = {}
        for table in self.tables.values():
            if set(where) <= set(table.columns):
                known = {name: kind == "VARCHAR" for name, kind in table.columns.items()}
                allowed, values = condition(where, known)
                statement = f"SELECT coalesce({allowed}, false) AS ok FROM {table.name} ORDER BY rowid"
                try:
                    with self._lock:
                        found = self._connection.execute(statement, values).fetchnumpy()["ok"]
                    masks[table.name] = found.astype(bool)
                except (duckdb.Error, TypeError) as error:
                    raise InputError(f"filter {dict(where)!r} does not fit table {table.name}: {error}") from error
        if not masks:
            known_fields = "; ".join(f"{table.name}: {', '.join(table.columns)}" for table in self.tables.values())
            raise InputError(f"filter: no table has all of {', '.join(where)}; columns are {known_fields}")
        return masks

    def _index(self, name: str) -> Lexical:
        with self._lock:
            if name not in self._rows:
                columns, rows = self._read(name)
                self._rows[name] = Lexical([row_text(columns, row) for row in rows], self._language)
            return self._rows[name]

    def _read(
        self, name: str, row: int | None = None, first: int | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """All rows as text, the ``first`` ones, or one, counted from 0 in the order of the table."""
        columns = list(self.tables[name].columns)
        cells = ", ".join(f"CAST({quoted(column)} AS VARCHAR)" for column in columns)
        only = f" LIMIT 1 OFFSET {row}" if row is not None else f" LIMIT {first}" if first is not None else ""
        with self._lock:
            return columns, self._connection.execute(f"SELECT {cells} FROM {name} ORDER BY rowid{only}").fetchall()

    def _passage(self, id_: str) -> Passage | None:
        head, sign, number = id_.rpartition("#")
        if not sign or not (number.isascii() and number.isdecimal() and len(number) < 12):
            return None
        if head in self.tables and int(number) < self.tables[head].rows:
            columns, rows = self._read(head, int(number))
            title = head
        elif head.startswith(BY_SQL) and int(number) < MAX_YIELD:
            try:
                columns, found = self.sql(head.removeprefix(BY_SQL), int(number) + 1)
            except InputError:
                return None
            rows, title = [_cells(row) for row in found[int(number) :]], head.removeprefix(BY_SQL)
        else:
            return None
        text = row_text(columns, rows[0]) if rows else ""
        return Passage(id_, id_, 0, len(text), title, text) if text else None


def row_text(columns: Sequence[str], row: Sequence[str | None]) -> str:
    """``column: value; column: value``, without what is empty; one line."""
    cells = []
    for column, value in zip(columns, row, strict=True):
        flat = " ".join(value.split()) if value else ""
        if flat:
            cells.append(f"{column}: {flat[:MAX_CELL_CHARS]}{'…' if len(flat) > MAX_CELL_CHARS else ''}")
    return "; ".join(cells)


def _cells(row: Sequence[Any]) -> tuple[str | None, ...]:
    return tuple(None if value is None else str(value) for value in row)
