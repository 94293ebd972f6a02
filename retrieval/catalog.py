"""The catalog answers SQL over a store's documents and passages, and turns a filter into the rows it allows.

DuckDB reads the store's Arrow tables in place. After the two views are made it can reach no file, no network, no Python
variable and no setting any more, and one SELECT is all that is run: a stranger's query can only read these views.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sleuth.corpora.errors import InputError
from sleuth.corpora.records import Scalar
from sleuth.retrieval.records import Filter

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

COLUMNS = ("id", "title", "url", "source", "lang", "date")
ORDERS = ("<", "<=", ">", ">=")
OPERATORS = {"=": "=", "==": "=", "!=": "IS DISTINCT FROM", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
SQL_TYPES = {"bool": "BOOLEAN", "int": "BIGINT", "float": "DOUBLE", "str": "VARCHAR"}
MAX_MASKS = 256
"""Filters whose rows are remembered, one byte a document each."""
MEMORY = "2GB"
SEALED = (
    "python_enable_replacements = false",
    "allow_persistent_secrets = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
"""Settings of a connection that answers strangers, the last of which keeps the others."""


class Catalog:
    """Views ``documents`` (id, title, url, source, lang, date, metadata fields, text) and ``passages``."""

    def __init__(self, tables: Callable[[], tuple[pa.Table, pa.Table]], fields: Mapping[str, str]) -> None:
        self._tables = tables
        self.fields = _columns(fields)
        """Column name -> (key in the metadata, type)."""
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._masks: dict[str, np.ndarray] = {}

    def sql(self, query: str, limit: int = 1000, seconds: float = 60.0) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and at most ``limit`` rows of one SELECT; raises `InputError` with DuckDB's own words."""
        with self._lock:
            return select(self._open(), query, limit, seconds, "views: documents, passages")

    def mask(self, where: Filter) -> np.ndarray:
        """(documents,) bool: which documents a filter allows, in store order; raises `InputError`."""
        import duckdb

        known = dict.fromkeys(COLUMNS, True) | {name: kind == "str" for name, (_, kind) in self.fields.items()}
        allowed, values = condition(where, known)
        key = repr((allowed, values))
        with self._lock:
            if key not in self._masks:
                if len(self._masks) >= MAX_MASKS:
                    self._masks.pop(next(iter(self._masks)))
                statement = f"SELECT coalesce({allowed}, false) AS ok FROM _rows ORDER BY _row"
                try:
                    self._masks[key] = self._open().execute(statement, values).fetchnumpy()["ok"].astype(bool)
                except (duckdb.Error, UnicodeError, TypeError) as error:
                    raise InputError(f"filter {dict(where)!r} does not fit the fields' types: {error}") from error
            return self._masks[key]

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            connection = connect()
            documents, passages = self._tables()
            connection.register("_documents", documents)
            connection.register("_passages", passages)
            extra = "".join(f", {_extract(key, kind)} AS {quoted(name)}" for name, (key, kind) in self.fields.items())
            connection.execute(
                f"CREATE VIEW _rows AS SELECT {', '.join(COLUMNS)}{extra}, text, metadata, _row, _alive FROM _documents"
            )
            connection.execute("CREATE VIEW documents AS SELECT * EXCLUDE (_row, _alive) FROM _rows WHERE _alive")
            connection.execute(
                'CREATE VIEW passages AS SELECT p.id, d.id AS doc_id, d.title, p.start, p."end", '
                'substring(d.text, p.start + 1, p."end" - p.start) AS text '
                "FROM _passages p JOIN _documents d ON p._document = d._row WHERE d._alive"
            )
            seal(connection)
            self._connection = connection
        return self._connection


def connect() -> duckdb.DuckDBPyConnection:
    """An empty database in memory, which may take `MEMORY` and no disk; to be filled, then given to `seal`."""
    import duckdb

    return duckdb.connect(":memory:", config={"memory_limit": MEMORY, "threads": "2", "temp_directory": ""})


def seal(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on the connection reaches what it holds and nothing else, and no setting can be changed back."""
    for setting in SEALED:
        connection.execute(f"SET {setting}")


def select(
    connection: duckdb.DuckDBPyConnection, query: str, limit: int, seconds: float, names: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and at most ``limit`` rows of one SELECT on a sealed connection, which the caller holds.

    Raises `InputError` with DuckDB's own words and ``names``, what there is to select from.
    """
    import duckdb

    if query != query.encode("utf-8", "replace").decode():
        raise InputError("the query holds half a surrogate pair, which is no character")
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise InputError(f"expected one SELECT, found {kinds}: a datastore is read-only")
        timer = threading.Timer(seconds, connection.interrupt)
        timer.start()
        try:
            found = connection.execute(statements[0])
            return [column[0] for column in found.description or ()], found.fetchmany(max(0, limit))
        finally:
            timer.cancel()
    except duckdb.InterruptException as error:
        raise InputError(f"the query was stopped after {seconds:g} s") from error
    except duckdb.Error as error:
        raise InputError(f"{error} ({names})") from error


def condition(where: Filter, known: Mapping[str, bool]) -> tuple[str, list[Scalar]]:
    """SQL that holds where a filter does, and its values; ``known`` says of each field whether it is text.

    A text that is empty is one that is missing (a document without a date): like NULL it is in no order. Raises
    `InputError` for a field that is not known, or an operator that is none.
    """
    parts: list[str] = ["true"]
    values: list[Scalar] = []
    for field, wanted in where.items():
        if field not in known:
            raise InputError(f"filter: unknown field {field!r}; known fields: {', '.join(known)}")
        is_text = known[field]
        for operator, value in _comparisons(field, wanted):
            name = quoted(field)
            if isinstance(value, list):
                parts.append(f"({name} IN ({', '.join('?' * len(value)) or 'NULL'}))")
                values.extend(_as_text(item) if is_text else item for item in value)
            elif value is None:
                parts.append(f"({name} IS {'NOT ' if operator == '!=' else ''}NULL)")
            else:
                stated = f" AND {name} <> ''" if is_text and operator in ORDERS else ""
                parts.append(f"({name} {OPERATORS[operator]} ?{stated})")
                values.append(_as_text(value) if is_text else value)
    return " AND ".join(parts), values


def _columns(fields: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Column names for metadata keys: the key itself unless SQL, which ignores case, has that name already."""
    taken = {*COLUMNS, "text", "metadata", "_row", "_alive"}
    named: dict[str, tuple[str, str]] = {}
    for key, kind in fields.items():
        name = key or "metadata."
        while name.lower() in taken:
            name = f"metadata.{name}"
        taken.add(name.lower())
        named[name] = (key, kind)
    return named


def _comparisons(field: str, wanted: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(wanted, Mapping):
        for operator, value in wanted.items():
            if operator not in OPERATORS or isinstance(value, list | tuple | Mapping):
                known = " ".join(OPERATORS)
                raise InputError(
                    f"filter on {field!r}: expected an operator of {known} with a value, found {operator!r}"
                )
        return list(wanted.items())
    if isinstance(wanted, Sequence | set | frozenset) and not isinstance(wanted, str):
        return [("in", list(wanted))]
    return [("=", wanted)]


def _as_text(value: Scalar) -> Scalar:
    """A number or truth value as the text column beside it has it."""
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _extract(key: str, kind: str) -> str:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    path = "'" + pointer.replace("'", "''") + "'"
    return f"TRY_CAST(json_extract_string(metadata, {path}) AS {SQL_TYPES[kind]})"


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'
