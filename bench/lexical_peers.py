"""BM25 by other libraries, for bench/index.py.

Each indexes texts that are cut into terms, words between blanks, and gives a call from a query's terms to the rows of
the ``k`` best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def with_bm25s(cut: Sequence[str], k: int) -> Callable[[list[str]], list[int]]:
    import bm25s

    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index([text.split() for text in cut], show_progress=False)
    return lambda terms: index.retrieve([terms], k=k, show_progress=False, n_threads=1)[0][0].tolist() if terms else []


def with_tantivy(cut: Sequence[str], k: int) -> Callable[[list[str]], list[int]]:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", stored=False, tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("row", stored=False, fast=True)
    builder.add_integer_field("id", stored=True)
    index = tantivy.Index(builder.build())
    writer = index.writer(200_000_000, 1)
    for n, text in enumerate(cut):
        writer.add_document(tantivy.Document(text=text, id=n))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher, schema = index.searcher(), index.schema

    def call(terms: list[str]) -> list[int]:
        clauses = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "text", term)) for term in terms]
        hits = searcher.search(tantivy.Query.boolean_query(clauses), k).hits
        return [searcher.doc(address)["id"][0] for _, address in hits]

    return call


PEERS = {"bm25s": with_bm25s, "tantivy": with_tantivy}
