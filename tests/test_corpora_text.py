"""Sentences: abbreviations, initials, decimals, other scripts, and that no character is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleuth.corpora.text import sentences


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. J. R. Smith of the U.S. Army paid $3.14 in 1999.", "He left.", "It was in the U.S.", "The end."],
        ['He said "Go!" and left.', '"Really?" she asked.', "Yahoo! is a firm.", "See Fig. 3 and No. 5."],
        ["I said no.", "Five of them left.[1]", "Next one."],
        ["Acme Inc.", "The firm grew.", "Acme Inc. Chairman Bob left... and so on.", "Wait...", "What?"],
        ["Am 3. Oktober 1990 war es.", "Das ist z. B. gut, d. h. nicht schlecht.", "Ende."],
        ["Это первое.", "А это второе.", "И я.", "Он."],
        ["He studied art.", "The second (see Smith et al. 2009).", "Then 2 of 3."],
        ["هل هذا جيد؟", "نعم."],
    ],
)
def test_sentences_are_cut_where_a_reader_would_cut_them(expected: list[str]) -> None:
    assert cut(" ".join(expected)) == expected


def test_scripts_without_spaces_are_cut_at_their_own_stops() -> None:
    assert cut("我爱北京。你呢？“好！”结束") == ["我爱北京。", "你呢？", "“好！”", "结束"]


def test_headings_lists_and_blank_lines_end_sentences_but_wrapped_lines_do_not() -> None:
    text = "# Title\nSome text\nwrapped here. More\n\n- item one\n1. First thing\n2. Second thing"
    assert cut(text) == [
        "# Title", "Some text\nwrapped here.", "More", "- item one", "1. First thing", "2. Second thing",
    ]  # fmt: skip


@given(st.text(alphabet="aB. !?\n\t#-1\"')[]。é\u3000\x0c…", max_size=80))
def test_every_character_belongs_to_exactly_one_trimmed_span(text: str) -> None:
    end_before = 0
    for start, end in sentences(text):
        assert text[end_before:start].strip() == ""
        assert start < end and text[start:end] == text[start:end].strip()
        end_before = end
    assert text[end_before:].strip() == ""
