"""Documents in, passages with character spans out: readers, extraction, chunking, deduplication."""
