"""Chunking and deduplication: exact spans, equal shares, nothing lost, duplicates named."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleuth.corpora.chunk import count_words, passages, token_starts
from sleuth.corpora.dedup import Seen, digest
from sleuth.corpora.records import Document
from sleuth.corpora.structure import path_at, sections, units

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


LINES = st.lists(
    st.sampled_from(
        ["# A", "## B c", "### ", "| a | b |", "|", "```", "- item", "One two. Three!", "漢字。é", "", " "]
    ),
    max_size=20,
)


@given(st.one_of(st.text(alphabet="aB. \n\t漢。é1#|`", max_size=200), LINES.map("\n".join)), st.integers(1, 20))
def test_spans_are_exact_and_no_character_is_lost(text: str, max_words: int) -> None:
    end_before = 0
    for passage in passages(Document("d", text), max_words):
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert text[end_before : passage.start].strip() == ""
        end_before = passage.end
    assert text[end_before:].strip() == ""


SECTION = "Sentence one of it speaks about rivers. Sentence two speaks about mills and corn. " * 3


def test_passages_begin_at_headings_and_never_end_with_one() -> None:
    text = "\n\n".join(f"{'#' * level} Part {n}\n\n{SECTION}" for n, level in enumerate((1, 2, 2, 1)))
    found = passages(Document("d", text), max_words=60)
    assert [p.text.partition("\n")[0] for p in found] == ["# Part 0", "## Part 1", "## Part 2", "# Part 3"]
    crowded = passages(Document("d", "Words before it go on for a while here.\n\n# Part\n\n" + SECTION), max_words=20)
    assert not any(p.text.endswith("# Part") for p in crowded)


TABLE = "\n".join(f"| row {n} | value {n} |" for n in range(8))


def test_tables_and_code_stay_whole_where_they_fit_and_are_cut_between_lines_where_not() -> None:
    code = "```\n" + "\n".join(f"call({n})  # note {n}." for n in range(8)) + "\n```"
    text = f"{SECTION}\n\n{TABLE}\n\n{SECTION}\n\n{code}\n\n{SECTION}"
    whole = [p.text for p in passages(Document("d", text), max_words=50)]
    assert any(TABLE in p for p in whole) and any(code in p for p in whole)
    cut = passages(Document("d", text), max_words=10)
    rows = [line for p in cut for line in p.text.splitlines() if "row" in line]
    assert rows == TABLE.splitlines()


def test_a_budget_in_tokens_of_an_embedder_holds_exactly() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer

    pieces = [
        "[UNK]",
        *"abcdefghijklmnopqrstuvwxyzS.0123456789",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    ]
    tokenizer = Tokenizer(WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.enable_truncation(8)
    found = passages(Document("d", TEXT), 120, token_starts(tokenizer))
    assert len(found) > 3 and all(p.text.endswith(".") for p in found)
    tokenizer.no_truncation()
    sizes = [len(tokenizer.encode(p.text).ids) for p in found]
    assert max(sizes) <= 120 and sum(sizes) == len(tokenizer.encode(TEXT).ids)


def test_sections_nest_and_name_their_parents() -> None:
    text = "Lead.\n\n# A\n\none\n\n## B\n\ntwo\n\n```\n# no heading\n```\n\n# C\n\nthree"
    found = sections(text)
    assert [(s.title, s.level, s.parent) for s in found] == [("A", 1, None), ("B", 2, 0), ("C", 1, None)]
    assert text[found[0].start : found[0].end].endswith("```") and text[found[1].start :].startswith("## B")
    assert [s.title for s in path_at(found, text.index("two"))] == ["A", "B"]
    assert path_at(found, 0) == () and [s.title for s in path_at(found, len(text) - 1)] == ["C"]
    assert [u.kind for u in units(text)] == [
        "sentence",
        "heading",
        "sentence",
        "heading",
        "sentence",
        "code",
        "heading",
        "sentence",
    ]


@pytest.mark.parametrize("line", ["```a\nx\n", "# -\n", "# h\n\nsome words here.\n\n"])
def test_code_that_nothing_closes_and_many_headings_cost_in_proportion(line: str) -> None:
    text = 80_000 // len(line) * line + " word" * 300
    started = time.process_time()
    assert passages(Document("d", text)) and sections(text) is not None
    assert time.process_time() - started < 3  # of a square of the length: 9 s and more
    assert {u.kind for u in units("```a\nx\n# h\n")} == {"sentence", "heading"}


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
