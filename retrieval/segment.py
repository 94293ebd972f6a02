"""A segment is an immutable part of a store: some documents, their passages, vectors and postings.

Documents and passages are Arrow files read through a memory map, so that a passage is fetched without reading others;
text is held once, in the document, and a passage is a span of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sleuth.corpora.errors import StoreError
from sleuth.corpora.records import Document, Passage, Scalar
from sleuth.retrieval import keys
from sleuth.retrieval.bm25 import Postings, load_array

if TYPE_CHECKING:
    import pyarrow as pa

DOCUMENTS, PASSAGES, VECTORS = "documents.arrow", "passages.arrow", "vectors.npy"
SPAN_COLUMNS = ("document", "start", "end", "byte_start", "byte_end")
"""Row of the document in the segment, then the passage in its text: in characters, and in bytes of UTF-8."""
TEXT_COLUMNS = ("id", "text", "title", "url", "source", "lang", "date")
NULL = "null"
"""Type of a field that has no value yet, beside Python's own names of the others: it yields to any of them."""


def schemas() -> tuple[pa.Schema, pa.Schema]:
    import pyarrow as pa

    documents = [(name, pa.large_string()) for name in TEXT_COLUMNS]
    spans = [(name, pa.int64()) for name in SPAN_COLUMNS]
    return (
        pa.schema([*documents, ("metadata", pa.large_string()), ("digest", pa.binary(16))]),
        pa.schema([("id", pa.large_string()), *spans]),
    )


def save(
    folder: Path,
    documents: Sequence[Document],
    digests: Sequence[bytes],
    passages: Sequence[Sequence[Passage]],
    vectors: np.ndarray,
    postings: Postings,
) -> None:
    """Write the data files of a segment; ``passages`` per document, ``vectors`` (N, D) in the order of all passages."""
    import pyarrow as pa

    document_schema, passage_schema = schemas()
    columns: dict[str, list[object]] = {name: [getattr(d, name) for d in documents] for name in TEXT_COLUMNS}
    columns["metadata"] = [json.dumps(dict(d.metadata), ensure_ascii=False, sort_keys=True) for d in documents]
    columns["digest"] = list(digests)
    _write(folder / DOCUMENTS, pa.table(columns, document_schema))
    rows = [row for n, d in enumerate(documents) for row in _spans(n, d.text, passages[n])]
    _write(folder / PASSAGES, pa.Table.from_pylist(rows, passage_schema))
    np.save(folder / VECTORS, vectors.astype(np.float16), allow_pickle=False)
    postings.save(folder)
    first = np.cumsum([0, *(len(of) for of in passages)])[:-1]
    keys.save(folder, [document.id for document in documents], digests, first)


def merge(folder: Path, parts: Sequence[Segment]) -> tuple[int, int]:
    """Write a segment of the living documents of ``parts`` in order; the numbers of documents and of passages."""
    import pyarrow as pa

    kept = [np.ones(len(part.documents), bool) if part.alive is None else part.alive for part in parts]
    rows = [mask[part.spans["document"]] for part, mask in zip(parts, kept, strict=True)]
    firsts = np.cumsum([0, *(np.count_nonzero(mask) for mask in kept)])
    documents = pa.concat_tables(
        [part.documents.filter(pa.array(mask)) for part, mask in zip(parts, kept, strict=True)]
    )
    tables, owners = [], [np.zeros(0, np.int64)]
    for part, mask, chosen, first in zip(parts, kept, rows, firsts, strict=False):
        table = part.passages.filter(pa.array(chosen))
        owners.append((np.cumsum(mask) - 1 + first)[part.spans["document"][chosen]])
        tables.append(table.set_column(table.schema.get_field_index("document"), "document", pa.array(owners[-1])))
    passages = pa.concat_tables(tables)
    _write(folder / DOCUMENTS, documents)
    _write(folder / PASSAGES, passages)
    vectors = np.concatenate([part.vectors[chosen] for part, chosen in zip(parts, rows, strict=True)])
    np.save(folder / VECTORS, vectors, allow_pickle=False)
    Postings.merged([part.postings for part in parts], rows).save(folder)
    starts = np.searchsorted(np.concatenate(owners), np.arange(len(documents)))
    keys.save(folder, documents["id"].to_pylist(), documents["digest"].to_pylist(), starts)
    return len(documents), len(passages)


def _spans(number: int, text: str, passages: Sequence[Passage]) -> list[dict[str, object]]:
    """Rows of the passage table: character spans and the same in UTF-8 bytes."""
    rows: list[dict[str, object]] = []
    at = bytes_at = 0
    for p in passages:
        byte_start = bytes_at + len(text[at : p.start].encode())
        at, bytes_at = p.end, byte_start + len(p.text.encode())
        rows.append({"id": p.id, "document": number, "start": p.start, "end": p.end,
                     "byte_start": byte_start, "byte_end": bytes_at})  # fmt: skip
    return rows


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment opened for reading: nothing is copied into memory."""

    folder: Path
    documents: pa.Table
    passages: pa.Table
    vectors: np.ndarray
    """(N, D) float16, unit length, one row a passage."""
    postings: Postings
    columns: Mapping[str, pa.Array]
    """Of the documents, as single arrays."""
    texts: Mapping[str, Strings]
    """Of the documents, the columns named in `TEXT_COLUMNS`."""
    ids: Strings
    """Of the passages."""
    spans: Mapping[str, np.ndarray]
    """Of the passages: the columns named in `SPAN_COLUMNS`."""
    alive: np.ndarray | None = None
    """(documents,) bool, false where deleted; None where nothing is."""

    @property
    def alive_passages(self) -> np.ndarray | None:
        """(N,) bool, or None where nothing is deleted."""
        return None if self.alive is None else self.alive[self.spans["document"]]

    @classmethod
    def open(cls, folder: Path, dims: int, alive: np.ndarray | None = None) -> Segment:
        """Raises `StoreError` where the files are not what this format holds."""
        import pyarrow as pa

        try:
            tables = []
            for name, schema in zip((DOCUMENTS, PASSAGES), schemas(), strict=True):
                with pa.memory_map(str(folder / name)) as source:
                    table = pa.ipc.open_file(source).read_all()
                if table.schema != schema:
                    raise ValueError(f"{name}: expected {_typed(schema)}; found {_typed(table.schema)}")
                if any(column.num_chunks != 1 for column in table.columns):
                    raise ValueError(f"{name}: expected one batch of rows")
                tables.append(table)
            vectors = open_vectors(folder, len(tables[1]), dims)
            columns = {name: tables[0][name].chunk(0) for name in tables[0].column_names}
            spans = {name: numbers(tables[1][name].chunk(0)) for name in SPAN_COLUMNS}
            texts, ids = {name: Strings(columns[name]) for name in TEXT_COLUMNS}, Strings(tables[1]["id"].chunk(0))
            return cls(folder, tables[0], tables[1], vectors, Postings.load(folder), columns, texts, ids, spans, alive)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise StoreError(f"{folder}: not a segment of this format: {error}") from error

    def document(self, row: int) -> Document:
        values = {name: self.texts[name][row] for name in TEXT_COLUMNS}
        return Document(**values, metadata=json.loads(self.columns["metadata"][row].as_py()))

    def passage_of(self, document: int, passage_id: str) -> Passage | None:
        """The passage of that id among those of a document's row, which stand together in order; None for no such."""
        first, last = np.searchsorted(self.spans["document"], [document, document + 1])
        number = passage_id.rpartition("#")[2]
        row = int(first) + (int(number) if last - first > 1 and number.isdecimal() and len(number) < 10 else 0)
        if row < last and self.ids[row] == passage_id:
            return self.passage(row)[0]
        return None

    def passage(self, row: int) -> tuple[Passage, Mapping[str, str]]:
        """The passage of a row, and url, source and date of its document."""
        document, start, end, byte_start, byte_end = (int(self.spans[name][row]) for name in SPAN_COLUMNS)
        texts = self.texts
        shown = {"url": texts["url"][document], "source": texts["source"][document], "date": texts["date"][document]}
        text, doc_id = texts["text"].part(document, byte_start, byte_end), texts["id"][document]
        return Passage(self.ids[row], doc_id, start, end, texts["title"][document], text), shown


class Strings:
    """A column of texts, read one by one: a tenth of what Arrow's own objects cost."""

    __slots__ = ("_data", "_ends")

    def __init__(self, column: pa.Array) -> None:
        _, offsets, data = column.buffers()
        self._ends = memoryview(offsets or bytes(8)).cast("q")[column.offset :]
        self._data = memoryview(data or b"")

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._ends[row] : self._ends[row + 1]], "utf-8")

    def part(self, row: int, start: int, end: int) -> str:
        """From one byte to another of the text of a row."""
        at = self._ends[row]
        return str(self._data[at + start : at + end], "utf-8")


def numbers(column: pa.Array) -> np.ndarray:
    """A column of int64 as it lies on disk, without pandas (30 MB), which Arrow imports; ``ValueError`` for nulls."""
    if column.null_count:
        raise ValueError(f"expected numbers, found {column.null_count} nulls")
    data = column.buffers()[1]
    return np.frombuffer(data or b"", np.int64)[column.offset : column.offset + len(column)]


def open_vectors(folder: Path, rows: int, dims: int) -> np.ndarray:
    """(rows, dims) float16, memory-mapped; raises `StoreError` where the file holds something else."""
    try:
        vectors = load_array(folder / VECTORS)
    except (ValueError, OSError) as error:
        raise StoreError(f"{folder / VECTORS}: not a segment of this format: {error}") from error
    if vectors.shape != (rows, dims) or vectors.dtype != np.float16:
        found = f"{vectors.dtype} {vectors.shape}"
        raise StoreError(f"{folder / VECTORS}: expected float16 {(rows, dims)}, found {found}")
    return vectors


def field_types(documents: Sequence[Document]) -> dict[str, str]:
    """Type of each metadata field over ``documents``: the narrowest that holds all its values."""
    return merged_types({name: _kind(value) for name, value in document.metadata.items()} for document in documents)


def _kind(value: Scalar) -> str:
    return NULL if value is None else type(value).__name__


def merged_types(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Type of each field over parts that have one each, by name: the narrowest for the values of all of them."""
    kinds: dict[str, set[str]] = {}
    for part in parts:
        for name, kind in part.items():
            kinds.setdefault(name, set()).add(kind)
    return {name: _narrowest(found) for name, found in sorted(kinds.items())}


def _narrowest(kinds: set[str]) -> str:
    if len(typed := kinds - {NULL}) <= 1:
        return next(iter(typed), NULL)
    return "float" if typed == {"int", "float"} else "str"


def _typed(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)
