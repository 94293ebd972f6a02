"""Formats: office files, wikis, ZIM, dumps and tables become documents; what is damaged or hostile is one drop."""

import bz2
import gzip
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard

from sleuth.corpora.read import read
from sleuth.corpora.records import Document, Drop
from sleuth.corpora.wiki import plain

SENTENCE = "The old mill at the river ground corn for the village and the farms around it. "
PARAGRAPHS = "".join(f"<p>{n} {SENTENCE * 3}</p>" for n in range(6))


def gather(path: Path) -> tuple[list[Document], list[Drop]]:
    drops: list[Drop] = []
    return list(read([path], drops.append)), drops


def zipped(path: Path, members: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    'wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)


def docx_members(body: str) -> dict[str, str | bytes]:
    core = (
        '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/">'
        "<dc:creator>Ada</dc:creator><dcterms:created>2020-01-02T03:04:05Z</dcterms:created></cp:coreProperties>"
    )
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return {"[Content_Types].xml": CONTENT_TYPES, "_rels/.rels": RELATIONS, "word/document.xml": document,
            "docProps/core.xml": core}  # fmt: skip


def paragraph(text: str, style: str = "") -> str:
    mark = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{mark}<w:r><w:t>{text}</w:t></w:r></w:p>"


def test_a_docx_keeps_headings_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("mammoth")
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("Kind", "Year"))
    body = paragraph("Mills", "Heading1") + paragraph(SENTENCE) + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    (found,), drops = gather(zipped(tmp_path / "a.docx", docx_members(body)))
    assert drops == [] and found.text == f"# Mills\n\n{SENTENCE.strip()}\n\n| Kind | Year |"
    assert (found.title, found.date, found.metadata) == ("Mills", "2020-01-02", {"author": "Ada"})


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
    "<dc:title>Mills</dc:title><dc:creator>Ada</dc:creator><dc:language>en-GB</dc:language><dc:rights>CC0</dc:rights>"
    '</metadata><manifest><item id="b" href="text/two.xhtml"/><item id="a" href="one%20a.xhtml"/>'
    '<item id="c" href="../../etc/passwd"/></manifest>'
    '<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="c"/></spine></package>'
)


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    chapters = {"OPS/one a.xhtml": "<html><head><title>x</title></head><body><h1>One</h1></body></html>",
                "OPS/text/two.xhtml": "<body><p>Two</p><script>x()</script></body>"}  # fmt: skip
    members = {"META-INF/container.xml": CONTAINER, "OPS/book.opf": PACKAGE, **chapters}
    (found,), drops = gather(zipped(tmp_path / "a.epub", members))
    assert drops == [] and (found.text, found.title, found.lang) == ("# One\n\nTwo", "Mills", "en")
    assert found.metadata == {"author": "Ada", "chapters": 2, "licence": "CC0", "missing_chapters": 1}


@pytest.mark.parametrize("encoding", ["windows-1251", "utf-16", "utf-8"])
def test_a_chapter_of_an_epub_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    chapter = f'<?xml version="1.0" encoding="{encoding}"?><html><body><p>Глава первая.</p></body></html>'
    members = {"META-INF/container.xml": CONTAINER, "OPS/book.opf": PACKAGE,
               "OPS/one a.xhtml": chapter.encode(encoding), "OPS/text/two.xhtml": bytes(300)}  # fmt: skip
    (found,), drops = gather(zipped(tmp_path / "a.epub", members))
    assert drops == [] and found.text == "Глава первая." and found.metadata["missing_chapters"] == 2


ENTITY = '<!DOCTYPE c [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("name", "members", "word"),
    [
        ("a.epub", {"../../evil": "x"}, "outside"),
        ("a.docx", {"/abs": "x"}, "outside"),
        ("a.docx", {"word/document.xml": bytes(40 << 20)}, "inflates"),
        ("a.epub", {"META-INF/container.xml": "<container"}, "damaged XML"),
        ("a.epub", {"META-INF/container.xml": ENTITY + "<c>&x;</c>"}, "no EPUB"),
        ("a.epub", {"other": "x"}, "no EPUB"),
        ("a.docx", {"other": "x"}, "no DOCX"),
        ("a.docx", {"word/document.xml": "<w:document"}, "mammoth"),
        ("a.docx", docx_members(""), "no text"),
    ],
)
def test_hostile_and_damaged_zips_are_one_drop(
    tmp_path: Path, name: str, members: Mapping[str, str], word: str
) -> None:
    pytest.importorskip("mammoth")
    documents, drops = gather(zipped(tmp_path / name, members))
    assert documents == [] and len(drops) == 1 and word in drops[0].reason


@pytest.mark.parametrize("name", ["a.docx", "a.epub"])
def test_damaged_bytes_end_no_build(tmp_path: Path, name: str) -> None:
    members = docx_members(paragraph(SENTENCE)) if name == "a.docx" else {"META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE, "OPS/one a.xhtml": "<p>One</p>"}  # fmt: skip
    whole = zipped(tmp_path / name, members).read_bytes()
    chooser = random.Random(name)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chooser.choice((1, 3))):
            data[chooser.randrange(len(data))] = chooser.randrange(256)
        (tmp_path / name).write_bytes(data)
        documents, drops = gather(tmp_path / name)
        assert len(documents) + len(drops) == 1


def test_what_only_pretends_to_be_a_zip_is_one_drop(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\3\4 rubbish")
    assert "zip" in gather(tmp_path / "a.docx")[1][0].reason


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en">
<siteinfo><base>https://en.wiki.example/wiki/Main_Page</base></siteinfo>
<page><title>Old mill</title><ns>0</ns><id>7</id><revision><id>70</id><timestamp>2024-01-02T03:04:05Z</timestamp>
<text>{{Infobox|x=1}}The '''old mill'''&lt;ref&gt;no&lt;/ref&gt; by the [[River Ems|river]] &amp;amp; wood.

== Kinds ==
* [[Wind]] mill
* water mill
[[File:mill.jpg|thumb|A mill]][[Category:Mills]]
{| class="wikitable"
| cell
|}
See [https://x.example here].</text></revision></page>
<page><title>Talk:Mill</title><ns>1</ns><id>8</id><revision><text>talk</text></revision></page>
<page><title>Mil</title><ns>0</ns><id>9</id><redirect title="Old mill"/><revision><text>#R</text></revision></page>
<page><title>Empty</title><ns>0</ns><id>10</id><revision><text>{{stub}}</text></revision></page>
<page><title>Last</title><ns>0</ns><id>11</id><revision><text>Words.</text></revision></page>
</mediawiki>"""


@pytest.mark.parametrize("name", ["wiki.xml", "wiki.xml.bz2", "wiki.xml.gz"])
def test_articles_of_a_mediawiki_dump(tmp_path: Path, name: str) -> None:
    pytest.importorskip("mwparserfromhell")
    pack = {"2": bz2.compress, "z": gzip.compress}.get(name[-1], bytes)
    (tmp_path / name).write_bytes(pack(DUMP.encode()))
    documents, drops = gather(tmp_path / name)
    assert [d.title for d in documents] == ["Old mill", "Last"] and len(drops) == 1 and "Empty" in drops[0].id
    mill = documents[0]
    assert mill.text == "The old mill by the river & wood.\n\n## Kinds\n\n- Wind mill\n- water mill\n\nSee here."
    assert (mill.id, mill.url) == (f"{name}/7", "https://en.wiki.example/wiki/Old_mill")
    assert (mill.lang, mill.date, mill.metadata) == ("en", "2024-01-02", {"revision": "70"})


@pytest.mark.parametrize("at", [12, 3_000])
def test_a_damaged_gzip_of_a_dump_is_one_drop(tmp_path: Path, at: int) -> None:
    pytest.importorskip("mwparserfromhell")
    noise = "".join(f"<!--{random.Random(n).random()}-->" for n in range(2_000))
    data = bytearray(gzip.compress(DUMP.replace("<page>", noise + "<page>", 1).encode(), 1))
    data[at : at + 40] = b"\xff" * 40
    (tmp_path / "wiki.xml.gz").write_bytes(data)
    documents, drops = gather(tmp_path / "wiki.xml.gz")
    assert documents == [] and len(drops) == 1


def test_a_cut_dump_gives_what_it_holds(tmp_path: Path) -> None:
    pytest.importorskip("mwparserfromhell")
    (tmp_path / "wiki.xml").write_text(DUMP[: DUMP.index("<title>Last")])
    documents, drops = gather(tmp_path / "wiki.xml")
    assert [d.title for d in documents] == ["Old mill"] and "stopped" in drops[-1].reason


@pytest.mark.parametrize("text", ["", "<html><p>x</p></html>", "<mediawiki></mediawiki>", "<posts></posts>"])
def test_xml_without_articles_is_one_drop(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    documents, drops = gather(tmp_path / "a.xml")
    assert documents == [] and len(drops) == 1


def test_wikitext_that_never_closes_is_still_read() -> None:
    pytest.importorskip("mwparserfromhell")
    assert "words" in plain("{{" * 50 + " words [[a|b")


POSTS = """<?xml version="1.0"?><posts>
<row Id="1" PostTypeId="1" Title="How does a mill work?" Body="&lt;p&gt;I &lt;b&gt;wonder&lt;/b&gt;.&lt;/p&gt;"
 CreationDate="2020-01-02T00:00:00.0" Score="5" Tags="|mill|" ContentLicense="CC BY-SA 4.0"/>
<row Id="2" PostTypeId="2" ParentId="1" Score="-1" Body="&lt;pre&gt;turn()&lt;/pre&gt;"/>
<row Id="3" PostTypeId="5" Body="wiki"/><row Id="4" PostTypeId="2" Body=""/></posts>"""


def test_posts_of_a_question_site(tmp_path: Path) -> None:
    (tmp_path / "Posts.xml").write_text(POSTS)
    (question, answer), drops = gather(tmp_path / "Posts.xml")
    assert (question.text, question.title, question.date) == ("I wonder.", "How does a mill work?", "2020-01-02")
    assert question.metadata == {"kind": "question", "licence": "CC BY-SA 4.0", "tags": "|mill|", "score": 5}
    assert answer.title == question.title and answer.text == "```\nturn()\n```" and answer.metadata["parent"] == "1"
    assert [drop.id.rsplit(":", 1)[1] for drop in drops] == ["4"]


ARXIV = {"id": "0704.0001", "title": "On\n  mills", "abstract": "  We grind.\n ", "categories": "cs.CL",
         "authors": "A. B.", "update_date": "2008-11-26", "license": "http://cc", "doi": None}  # fmt: skip
ENTERPRISE = {
    "identifier": 7, "name": "Old mill", "url": "https://en.wiki.example/wiki/Old_mill",
    "date_modified": "2024-01-02T00:00:00Z",
    "in_language": {"identifier": "en"}, "license": [{"url": "https://cc/by-sa"}], "version": {"identifier": 70},
    "article_body": {"html": f"<html><body>{PARAGRAPHS}</body></html>"},
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a.jsonl.zst", "a.tar.gz"])
def test_lines_of_arxiv_and_wikimedia_enterprise(tmp_path: Path, name: str) -> None:
    data = "".join(
        json.dumps(row) + "\n" for row in (ARXIV, ENTERPRISE, {"identifier": 1, "article_body": {}})
    ).encode()
    if name.endswith(".tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            info = tarfile.TarInfo("../x_0.ndjson")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    else:
        (tmp_path / name).write_bytes(zstandard.compress(data) if name.endswith(".zst") else data)
    (paper, article), drops = gather(tmp_path / name)
    assert (paper.id, paper.title, paper.text, paper.date) == ("0704.0001", "On mills", "We grind.", "2008-11-26")
    assert paper.url == "https://arxiv.org/abs/0704.0001" and paper.metadata["categories"] == "cs.CL"
    assert (article.title, article.lang, article.date) == ("Old mill", "en", "2024-01-02")
    assert article.metadata == {"revision": "70", "licence": "https://cc/by-sa"} and article.text.startswith(
        "0 The old"
    )
    assert len(drops) == 1 and "article_body" in drops[0].reason
    assert list(tmp_path.parent.glob("x_0*")) == []


def test_lines_of_wikimedia_enterprise_that_are_not_as_published(tmp_path: Path) -> None:
    changed = [{"version": "3"}, {"license": 5}, {"license": "CC0"}, {"in_language": "en"}, {"name": "half \ud800"},
               {"article_body": {"html": "<p>half \ud800 of it</p>"}}]  # fmt: skip
    (tmp_path / "a.ndjson").write_text("".join(json.dumps({**ENTERPRISE, **row}) + "\n" for row in changed))
    documents, drops = gather(tmp_path / "a.ndjson")
    assert [d.title for d in documents] == ["Old mill"] * 4
    assert [d.metadata for d in documents[:2]] == [
        {"revision": "", "licence": "https://cc/by-sa"},
        {"revision": "70"},
    ]
    assert len(drops) == 2 and all("surrogate" in drop.reason for drop in drops)


@pytest.mark.parametrize("cut", [40, 4])
def test_a_cut_zstd_file_gives_one_drop(tmp_path: Path, cut: int) -> None:
    data = b"".join(b'{"id":"%d","text":"%d"}\n' % (n, n * 7919) for n in range(50_000))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(data)[: -cut * 1000])
    documents, drops = gather(tmp_path / "a.jsonl.zst")
    assert 0 < len(documents) < 50_000 and len(drops) == 1


def test_a_datasets_folder_is_read_and_rows_without_id_are_numbered(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"text": ["one", "two"], "url": ["u1", "u2"], "n": [1, 2]})
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00002.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    with pa.OSFile(str(folder / "data-00001-of-00002.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    (folder / "dataset_info.json").write_text('{\n "features": {}\n}')
    (folder / "state.json").write_text("{}")
    (tmp_path / "set" / "torn.arrow").write_bytes(b"rubbish")
    documents, drops = gather(tmp_path / "set")
    assert [d.id for d in documents] == [f"set/train/data-0000{n}-of-00002.arrow/{m}" for n in (0, 1) for m in (1, 2)]
    assert documents[1].metadata == {"n": 2} and documents[1].url == "u2"
    assert [Path(drop.id).name.split(":")[0] for drop in drops] == ["torn.arrow"]


def test_articles_of_a_zim_archive(tmp_path: Path) -> None:
    writer = pytest.importorskip("libzim.writer")

    class Item(writer.Item):  # type: ignore[misc, name-defined]
        def __init__(self, path: str, media: str, data: str) -> None:
            super().__init__()
            self.values = path, media, data

        def get_path(self) -> str:
            return self.values[0]

        def get_title(self) -> str:
            return self.values[0]

        def get_mimetype(self) -> str:
            return self.values[1]

        def get_contentprovider(self) -> object:
            return writer.StringProvider(self.values[2])

        def get_hints(self) -> dict[object, bool]:
            return {writer.Hint.FRONT_ARTICLE: True}

    page = "<html><head><title>Mill</title></head><body>" + PARAGRAPHS
    with writer.Creator(tmp_path / "a.zim").config_indexing(False, "eng") as creator:
        creator.add_metadata("License", "CC0")
        creator.add_item(Item("mill", "text/html", page))
        creator.add_item(Item("style", "text/css", "p {}"))
        creator.add_redirection("alias", "Alias", "mill", {})
    (found,), drops = gather(tmp_path / "a.zim")
    assert drops == [] and (found.id, found.title, found.metadata["licence"]) == ("a.zim/mill", "Mill", "CC0")
    (tmp_path / "b.zim").write_bytes(b"rubbish" * 100)
    assert "ZIM" in gather(tmp_path / "b.zim")[1][0].reason
