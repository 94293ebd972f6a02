"""Documents as they lie on a disk between two steps of a build: Parquet, a column a field, metadata as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sleuth.corpora.errors import StoreError
from sleuth.corpora.files import sync_folder
from sleuth.corpora.records import Document

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMNS = ("id", "text", "title", "url", "source", "lang", "date")
GROUP = 1_000
"""Rows of a row group."""


def schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([*((name, pa.large_string()) for name in (*TEXT_COLUMNS, "metadata"))])


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """As Parquet; the same documents give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[str]] = {name: [getattr(d, name) for d in documents] for name in TEXT_COLUMNS}
    columns["metadata"] = [json.dumps(dict(d.metadata), ensure_ascii=False, sort_keys=True) for d in documents]
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.table(columns, schema()), temporary, compression="zstd", row_group_size=GROUP)
    sync_folder(temporary)
    temporary.replace(path)


def read_documents(path: Path) -> Iterator[Document]:
    """Raises `StoreError` for a file that is damaged or none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(256):
                for row in batch.to_pylist():
                    yield Document(**{name: row[name] for name in TEXT_COLUMNS}, metadata=json.loads(row["metadata"]))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(f"{path}: expected documents in Parquet, found something else: {error}") from error
