"""The parser: what `read` gives, whatever a page does to the process that it is parsed in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sleuth.corpora import pages, parser
from sleuth.corpora.errors import InputError, StoreError
from sleuth.corpora.pages import Page
from sleuth.corpora.read import read
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.shards import Limits
from sleuth.retrieval import grow
from sleuth.retrieval.build import BuildSpec, build
from sleuth.retrieval.store import Datastore
from tests.retrieval_stores import use_hash_embedder

PARSED = parser._parsed
LIMITS = Limits(seconds=1, memory_bytes=1 << 30)


def hostile(page: Page) -> Document:
    """A parser that never ends over one page, takes all memory over another, and falls over a third."""
    if b"endless" in page.data:
        while True:
            pass
    if b"crash" in page.data:
        import ctypes

        ctypes.string_at(0)
    if b"glutton" in page.data:
        bytearray(4 << 30)
    return pages.plain(page)


def poisoned(page: Page, limits: Limits) -> Any:
    """In the worker, where no fixture reaches."""
    pages.PAGES[".txt"] = hostile
    return PARSED(page, limits)


def folder_of(path: Path, texts: dict[str, str]) -> Path:
    path.mkdir()
    for name, text in texts.items():
        (path / name).write_text(text)
    return path


TEXTS = {
    "0.txt": "A page of the mill.", "1.txt": "An endless page.", "2.txt": "A page of the river.",
    "3.txt": "This page will crash you.", "4.jsonl": '{"id": "row", "text": "A row."}\n{"id": "none"}\n',
    "5.txt": "The page of a glutton.", "6.html": "<html><body><p>A page of the town.</p></body></html>", "7.pdf": "no",
}  # fmt: skip


def test_it_gives_what_reading_gives_in_the_same_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", TEXTS)
    here: list[Drop] = []
    there: list[Drop] = []
    expected = list(read([folder, Path("docs/reading.md")], here.append))
    assert list(parser.read([folder, Path("docs/reading.md")], there.append, LIMITS)) == expected
    assert there == here and len(expected) == 8 and len(here) == 2
    with pytest.raises(InputError, match="no such file"):
        parser.read([tmp_path / "none"], there.append, LIMITS)


def test_a_hostile_page_costs_itself_alone_and_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hash_embedder(monkeypatch)
    monkeypatch.setattr(parser, "_parsed", poisoned)
    folder = folder_of(tmp_path / "in", TEXTS)
    report = build([folder], tmp_path / "s", BuildSpec(), limits=LIMITS)
    assert (report.inputs, report.indexed, report.rejected) == (9, 4, 5)
    assert Datastore.open(tmp_path / "s").sql("select id from documents order by id")[1] == [
        (id_,) for id_ in ("in/0.txt", "in/2.txt", "in/6.html", "row")
    ]
    lines = Path(report.drops).read_text()
    for id_, reason in (("in/1.txt", "it took too long over this document (limits: 1 s of CPU"), ("in/5.txt", "Memory"),
                        ("in/3.txt", "its worker ended by SIGSEGV over this document")):  # fmt: skip
        assert any(id_ in line and reason in line for line in lines.splitlines())
    (folder / "8.txt").write_text("A page of the castle.")
    assert grow.add(tmp_path / "s", [folder], limits=LIMITS).added == 1


def ended(parent: int) -> None:
    os._exit(3)


def test_a_process_that_does_not_start_is_an_error_and_no_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "bound_to", ended)
    drops: list[Drop] = []
    with pytest.raises(StoreError, match="the process that parses pages does not start"):
        list(parser.read([folder_of(tmp_path / "in", TEXTS)], drops.append, LIMITS))
    assert drops == []
