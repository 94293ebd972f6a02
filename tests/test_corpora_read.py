"""Reading: every format becomes documents, everything else a drop with file, line and reason."""

import gzip
import io
import json
import os
from pathlib import Path

import pytest

from sleuth.corpora.decode import decode
from sleuth.corpora.errors import InputError
from sleuth.corpora.read import read
from sleuth.corpora.records import Document, Drop

PAGE = """<!doctype html><html lang="de"><head><meta charset="{charset}"><title>Über Mühlen</title></head><body>
<nav>Start | Impressum</nav><article><h1>Über Mühlen</h1><p>Die alte Mühle am Fluss mahlte über drei Jahrhunderte
Getreide für das ganze Dorf und die Höfe der Umgebung.</p><p>Heute steht dort ein Museum, das jedes Jahr tausende Gäste
empfängt und die Geschichte der Müllerei erzählt.</p></article></body></html>"""


def gather(*paths: Path) -> tuple[list[Document], list[Drop]]:
    drops: list[Drop] = []
    return list(read(paths, drops.append)), drops


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_the_three_published_shapes_are_read(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "c.jsonl",
        {"_id": "b1", "title": "T", "text": "beir"},
        {"id": 7, "contents": '"Title"\nflash rag'},
        {"id": "o1", "text": "own", "lang": "en", "date": "2001", "url": "u", "source": "s", "year": 3,
         "metadata": {"a": True}, "sents": [0, 5]},
    )  # fmt: skip
    beir, flash, own = gather(path)[0]
    assert (beir.id, beir.title, beir.text, beir.source) == ("b1", "T", "beir", "c.jsonl")
    assert (flash.id, flash.title, flash.text) == ("7", "Title", "flash rag")
    assert own == Document("o1", "own", "", "u", "s", "en", "2001", {"a": True, "year": 3})


def test_gzip_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": f"d{n}", "title": "t", "text": f"text {n}", "year": n} for n in range(3)]
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (zipped, no_drops), (columns, none) = gather(tmp_path / "c.jsonl.gz"), gather(tmp_path / "c.parquet")
    assert no_drops == none == []
    assert [(d.id, d.text, d.metadata) for d in zipped] == [(d.id, d.text, d.metadata) for d in columns]
    assert zipped[2].metadata == {"year": 2}


def test_bad_lines_are_dropped_with_their_number_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b'{"id":"a","text":"good"}\n{"id":"b"}\nnot json\n[1]\n{"text":"no id"}\n{"id":"c","text":"\xff"}\n'
        b'{"id":"d","text":null}\n{"id":"e","text":"  "}\n{"id":"f","text":"\\ud800"}\n\n{"id":"g","text":"good too"}\n'
        + b"[" * 100_000 + b"\n" + b'{"id":"h","text":"pair \\ud83d\\ude00"}\n{"id":true,"text":"x"}\n'
        + b'{"id":"","text":"x"}'
    )  # fmt: skip
    documents, drops = gather(path)
    assert [d.id for d in documents] == ["a", "g", "h"] and documents[2].text == "pair 😀"
    assert len(drops) == 11
    reasons = {drop.id.removeprefix(f"{path}:"): drop.reason for drop in drops}
    assert "'text'" in reasons["2"] and "'id'" in reasons["2"]
    assert "not json" in reasons["3"] and "list" in reasons["4"] and "'id'" in reasons["5"]
    assert "0xff" in reasons["6"] and "NoneType" in reasons["7"]
    assert "empty" in reasons["e"] and "surrogate" in reasons["f"]


@pytest.mark.parametrize("field", ["date", "lang", "source", "title", "url", "year"])
def test_half_a_character_in_any_field_is_one_drop(tmp_path: Path, field: str) -> None:
    path = lines(tmp_path / "c.jsonl", {"id": "a", "text": "bad", field: "19\ud800"}, {"id": "b", "text": "good"})
    documents, drops = gather(path)
    assert [d.id for d in documents] == ["b"]
    assert [(drop.id, "surrogate" in drop.reason) for drop in drops] == [("a", True)]


def test_rows_of_a_table_that_python_has_no_values_for_cost_themselves_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"one", b"two \xff", b"three", b"four"]).cast(pa.binary()).view(pa.string())
    dates = pa.array([0, 0, 1 << 50, 0], pa.int64()).view(pa.timestamp("ms"))
    pq.write_table(
        pa.table({"id": pa.array(["a", "b", "c", "d"]), "text": texts, "day": dates}), tmp_path / "t.parquet"
    )
    documents, drops = gather(tmp_path / "t.parquet")
    assert [d.id for d in documents] == ["a", "d"]
    assert [drop.id.rpartition(":")[2] for drop in drops] == ["2", "3"]
    assert "UnicodeDecodeError" in drops[0].reason


def test_a_cut_gzip_gives_what_it_holds_and_says_where_it_stopped(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"id":"%d","text":"%d"}\n' % (n, n * 7919) for n in range(5000)))
    (tmp_path / "c.jsonl.gz").write_bytes(data[: len(data) // 2])
    documents, drops = gather(tmp_path / "c.jsonl.gz")
    assert 0 < len(documents) < 5000
    assert len(drops) == 1 and f"line {len(documents)}" in drops[0].reason


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252"])
def test_html_gives_main_text_title_and_language_in_its_declared_charset(tmp_path: Path, charset: str) -> None:
    (tmp_path / "p.html").write_bytes(PAGE.format(charset=charset).encode(charset))
    (page,), drops = gather(tmp_path / "p.html")
    assert drops == []
    assert page.title == "Über Mühlen" and page.lang == "de"
    assert "Getreide für das ganze Dorf" in page.text and "Impressum" not in page.text
    assert ("encoding" in page.metadata) == (charset != "utf-8")


def test_markdown_front_matter_becomes_fields_and_a_heading_the_title(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: 'From front'\ndate: 2020-01-02\nteam: core\n---\n# Heading\nBody")
    (tmp_path / "b.md").write_text("intro\n\n# Heading here\nBody")
    first, second = gather(tmp_path / "a.md", tmp_path / "b.md")[0]
    assert (first.title, first.date, first.metadata, first.text) == (
        "From front", "2020-01-02", {"team": "core"}, "# Heading\nBody",
    )  # fmt: skip
    assert second.title == "Heading here"


def test_pdf_text_is_read_and_encrypted_or_textless_files_are_dropped(tmp_path: Path) -> None:
    import pypdf

    (tmp_path / "text.pdf").write_bytes(tiny_pdf("Hello from a page"))
    writer = pypdf.PdfWriter(clone_from=tmp_path / "text.pdf")
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    blank = pypdf.PdfWriter()
    blank.add_blank_page(100, 100)
    blank.write(tmp_path / "scan.pdf")
    (tmp_path / "torn.pdf").write_bytes(tiny_pdf("x")[:80])
    documents, drops = gather(tmp_path)
    assert [d.text for d in documents] == ["Hello from a page"] and documents[0].metadata == {"pages": 1}
    reasons = {Path(drop.id).name: drop.reason for drop in drops}
    assert "password" in reasons["locked.pdf"] and "OCR" in reasons["scan.pdf"] and "pypdf" in reasons["torn.pdf"]


def test_pages_beyond_the_limits_are_one_drop_and_their_neighbours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pypdf

    from sleuth.corpora import pages

    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "deep.html").write_text("<div>" * 10_000 + "<p>deep</p>")
    (tmp_path / "huge.html").write_bytes(b"<p>" + b"word " * (11 << 20))
    (tmp_path / "tags.html").write_text("<p " + "a=1 " * 100_000 + ">text")
    (tmp_path / "bomb.html.gz").write_bytes(gzip.compress(bytes(20 << 20)))
    endless = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(tiny_pdf("again"))))
    for _ in range(5):
        endless.add_page(endless.pages[0])
    endless.write(tmp_path / "endless.pdf")
    (tmp_path / "z.html.gz").write_bytes(gzip.compress(PAGE.format(charset="utf-8").encode()))
    monkeypatch.setattr(pages, "MAX_PDF_PAGES", 5)
    documents, drops = gather(tmp_path)
    assert [Path(d.id).name for d in documents] == ["a.txt", "z.html.gz"]
    reasons = {Path(drop.id).name: drop.reason for drop in drops}
    said = {"deep.html": "256 levels", "huge.html": "HTML page", "tags.html": "attributes", "bomb.html.gz": "inflates",
            "endless.pdf": "6 pages"}  # fmt: skip
    assert reasons.keys() == said.keys() and all(word in reasons[name] for name, word in said.items())


def tiny_pdf(text: str) -> bytes:
    stream = b"BT /F1 12 Tf 10 50 Td (" + text.encode() + b") Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table, len(out),
    )  # fmt: skip


def test_folders_are_walked_in_order_and_what_is_no_document_is_named(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "b.txt").write_text("bee")
    (root / "sub" / "a.txt").write_text("ay")
    (root / "empty.txt").write_text("")
    (root / "binary.txt").write_bytes(b"a\0b")
    (root / "tool.exe").write_bytes(b"MZ")
    (root / ".hidden").write_text("x")
    (root / "link.txt").symlink_to(root / "b.txt")
    documents, drops = gather(root)
    assert [(d.id, d.text) for d in documents] == [("docs/b.txt", "bee"), ("docs/sub/a.txt", "ay")]
    reasons = {Path(drop.id).name: drop.reason for drop in drops}
    assert set(reasons) == {"empty.txt", "binary.txt", "tool.exe", ".hidden", "link.txt"}
    assert "empty" in reasons["empty.txt"] and "NUL" in reasons["binary.txt"] and ".exe" in reasons["tool.exe"]


def test_names_that_are_not_utf8_are_named_and_end_nothing(tmp_path: Path) -> None:
    for name in (b"bad\xff.txt", b"bad\xff.jsonl", b".hidden\xff", b"bad\xff.exe"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(b'{"id": "x", "text": "text"}\n')
    (tmp_path / "good.txt").write_text("good")
    documents, drops = gather(tmp_path)
    assert [d.text for d in documents] == ["good"]
    assert sorted("not UTF-8" in drop.reason for drop in drops) == [False, True, True, True]


def test_folders_of_one_name_give_different_ids(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "a.txt").write_text(parent)
    documents, _ = gather(tmp_path / "x" / "docs", tmp_path / "y" / "docs")
    assert len({d.id for d in documents}) == 2


def test_a_path_that_does_not_exist_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read([tmp_path / "nowhere"], lambda drop: None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_marked_and_utf8_texts_decode(encoding: str) -> None:
    assert decode("Žluťoučký\r\nkůň".encode(encoding))[0] == "Žluťoučký\nkůň"


@pytest.mark.parametrize("label", ["latin-1", "iso8859-1", "iso88591", "ISO_8859-1", "l1", "x-cp1252", "cp819"])
def test_each_label_of_latin_1_is_read_as_browsers_read_it(label: str) -> None:
    page = f"<meta charset={label}><p>it’s “café”</p>"
    assert decode(page.encode("cp1252"), html=True) == (page, "cp1252")
    assert decode("it’s “café”".encode("cp1252"), charset=label) == ("it’s “café”", "cp1252")


def test_labels_of_other_scripts_and_declarations_that_cannot_be() -> None:
    for label, encoding in (("windows-31j", "cp932"), ("x-sjis", "cp932"), ("euc-kr", "cp949"), ("tis-620", "cp874")):
        text = {"cp932": "古い水車①", "cp949": "오래된 물레방아 똠", "cp874": "โรงสี…"}[encoding]
        assert decode(text.encode(encoding), html=True, charset=label) == (text, encoding)
    page = "<meta charset=utf-16><p>" + "Съешь же ещё этих мягких французских булок. " * 20
    assert decode(page.encode()[:-2] + b"\xff", html=True)[1] == "utf-8 (1 damaged)"
    assert "же ещё" in decode(page.encode("cp1251"), html=True)[0]
    assert decode("café".encode("cp1252"), charset="x-user-defined\0")[1].endswith("(guessed)")


def test_an_unmarked_encoding_is_guessed_and_says_so() -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 5
    found, encoding = decode(text.encode("cp1251"))
    assert found == text and encoding.endswith("(guessed)")


def test_a_page_repeats_no_title_and_invents_no_date(tmp_path: Path) -> None:
    body = "<h1>Ararat</h1><p>Ararat is a film that opened on 5 November 2002 in Toronto, where it was made.</p>"
    for name, head in (("plain", ""), ("dated", "<meta property='article:published_time' content='2003-04-05'>")):
        page = f"<html><head><title>Ararat</title>{head}</head><body><article>{body}</article></body></html>"
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    dated, undated = read([tmp_path], lambda drop: pytest.fail(drop.reason))
    assert (dated.title, dated.date, undated.date) == ("Ararat", "2003-04-05", "")
    assert dated.text.startswith("Ararat is a film")
