"""A repeated line stands in many documents of one site: menus, notices, footers; what says it once is left.

Two passes. The first counts, for each site and line, the documents that have it: 64-bit hashes in DuckDB, which spills
to disk, so memory is bounded. The second takes those lines out (as CCNet does with paragraphs, Wenzek et al. 2020; here
by site, so that a phrase common to the language is not lost), and drops documents of which too little is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sleuth.corpora.errors import ConfigError
from sleuth.corpora.hosts import host_of
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shingle import batches
from sleuth.corpora.stages import Corpus, Stage

BATCH = 2_000
MEMORY = "512MB"


def repeated_lines(
    corpus: Corpus, documents: int = 6, share: float = 0.05, min_documents: int = 10, min_left: float = 0.3
) -> Stage:
    """Lines in at least ``documents`` documents of a site and in a ``share`` of them go; blank lines stay, and sites of
    fewer than ``min_documents`` as they are. A document that keeps less than ``min_left`` of its characters is dropped.
    """
    if documents < 2 or not 0 <= share <= 1 or not 0 <= min_left <= 1:
        raise ConfigError(f"lines: expected documents of at least 2 and shares in [0, 1], found {documents}, {share}, "
                          f"{min_left}")  # fmt: skip
    repeated = _repeated(corpus, documents, share, min_documents)

    def run(incoming: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for document in incoming:
            lines = document.text.split("\n")
            hashes = np.array([_hash(site(document), line) for line in lines], np.uint64)
            if not len(repeated):
                yield document
                continue
            gone = repeated[np.minimum(np.searchsorted(repeated, hashes), len(repeated) - 1)] == hashes
            kept = [line for line, out in zip(lines, gone, strict=True) if not (out and line.strip())]
            text = "\n".join(kept).strip()
            while "\n\n\n" in text:
                text = text.replace("\n\n\n", "\n\n")
            if len(text) < min_left * len(document.text) or not text:
                left = f"{len(text)} of {len(document.text)} characters"
                drop(Drop(document.id, "lines", f"{left} are left without lines that repeat over {site(document)!r}"))
            else:
                yield document if len(kept) == len(lines) else replace(document, text=text)

    return run


def site(document: Document) -> str:
    """The host of a document's address, else its source."""
    return host_of(document.url) or document.source


def _hash(site: str, line: str) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(f"{site}\0{' '.join(line.casefold().split())}".encode("utf-8", "surrogatepass"))


def _repeated(corpus: Corpus, documents: int, share: float, min_documents: int) -> np.ndarray:
    """Sorted hashes of (site, line)."""
    import duckdb

    settings: dict[str, Any] = {"memory_limit": MEMORY, "threads": "1", "temp_directory": str(corpus.work)}
    try:
        with duckdb.connect(str(corpus.work / "lines.duckdb"), config=settings) as connection:
            connection.execute("CREATE TABLE lines (site UBIGINT, line UBIGINT)")
            connection.execute("CREATE TABLE sites (site UBIGINT)")
            for batch in batches(corpus.documents(), BATCH):
                _count(connection, batch)
            rows = connection.execute(
                "SELECT line FROM (SELECT site, line, count(*) AS n FROM lines GROUP BY ALL HAVING n >= ?) "
                "JOIN (SELECT site, count(*) AS total FROM sites GROUP BY site HAVING total >= ?) USING (site) "
                "WHERE n >= ? * total ORDER BY line", [documents, min_documents, share],
            ).fetchnumpy()  # fmt: skip
    except (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException) as error:
        raise OSError(str(error).splitlines()[0]) from error  # a full disk, as other writers report it
    return np.asarray(rows["line"], np.uint64)


def _count(connection: Any, batch: list[Document]) -> None:
    import pyarrow as pa

    sites: list[int] = []
    of, lines = [], []
    for document in batch:
        name = site(document)
        sites.append(_hash(name, ""))
        distinct = {_hash(name, line) for line in document.text.split("\n") if line.strip()}
        lines += sorted(distinct)
        of += [sites[-1]] * len(distinct)
    arrow = pa.table({"site": pa.array(of, pa.uint64()), "line": pa.array(lines, pa.uint64())})
    named = pa.table({"site": pa.array(sites, pa.uint64())})
    for table, rows in (("lines", arrow), ("sites", named)):
        connection.register("incoming", rows)
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
        connection.unregister("incoming")
