"""Chunking and deduplication: exact spans, equal shares, nothing lost, duplicates named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleuth.corpora.chunk import count_words, passages
from sleuth.corpora.dedup import Seen, digest
from sleuth.corpora.records import Document

TEXT = " ".join(f"Sentence number {n} speaks about rivers and mills." for n in range(30))


def test_a_short_document_is_one_passage_with_the_documents_id() -> None:
    (passage,) = passages(Document("d", "  One. Two.\n", title="T"))
    assert (passage.id, passage.doc_id, passage.title, passage.text) == ("d", "d", "T", "One. Two.")
    assert passages(Document("d", " \n")) == []


def test_a_long_document_is_cut_at_sentences_into_about_equal_shares() -> None:
    found = passages(Document("d", TEXT), max_words=100)
    assert [p.id for p in found] == ["d#0", "d#1", "d#2"]
    assert all(p.text.startswith("Sentence") and p.text.endswith(".") for p in found)
    sizes = [count_words(p.text) for p in found]
    assert max(sizes) <= 100 and min(sizes) > 60


@pytest.mark.parametrize("text", ["word " * 1000, "一" * 1000, "x" * 5000, TEXT])
def test_no_passage_is_larger_than_the_budget(text: str) -> None:
    assert all(0 < count_words(p.text) <= 50 for p in passages(Document("d", text), max_words=50))


@given(st.text(alphabet="aB. \n\t漢。é1", max_size=200), st.integers(1, 20))
def test_spans_are_exact_and_no_character_is_lost(text: str, max_words: int) -> None:
    end_before = 0
    for passage in passages(Document("d", text), max_words):
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert text[end_before : passage.start].strip() == ""
        end_before = passage.end
    assert text[end_before:].strip() == ""


def test_duplicates_are_the_same_title_text_and_metadata_after_normalisation() -> None:
    base = Document("a", "Some  Text", title="T", metadata={"scope": "1"})
    same = Document("b", "some text\n", title="t", url="elsewhere", source="copy", metadata={"scope": "1"})
    other_scope = Document("c", "Some Text", title="T", metadata={"scope": "2"})
    assert digest(base) == digest(same) != digest(other_scope)
    seen = Seen()
    assert seen.drop(base, digest(base)) is None
    seen.keep("a", digest(base))
    duplicate = seen.drop(same, digest(same))
    assert duplicate and duplicate.id == "b" and "'a'" in duplicate.reason
    clash = Document("a", "Another text", source="file.jsonl")
    refused = seen.drop(clash, digest(clash))
    assert refused and "taken" in refused.reason and "file.jsonl" in refused.reason
