"""Datastores on disk and the retrievers over them: BM25, dense, hybrid; one signature, batch in, batch out."""
