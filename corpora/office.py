"""An office file is a zip of markup: DOCX of a word processor, EPUB of a book; each is one document.

Contract: nothing of the zip is ever written to disk and no name in it is followed outside; members that inflate beyond
bounds are refused before they are read, and XML entities and networks are off. DOCX goes through mammoth to HTML, EPUB
by its spine (EPUB 3.3, section 5.7); both then through `blocks`, so headings, lists and tables keep their shape.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from sleuth.corpora.blocks import written
from sleuth.corpora.decode import decode
from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import MAX_RATIO, MAX_RECORD_BYTES
from sleuth.corpora.records import Document, Scalar

MAX_MEMBERS = 10_000
_CORE = {"title": "dc:title", "author": "dc:creator", "lang": "dc:language", "date": "dcterms:created"}
_NAMES = {
    "dc": "http://purl.org/dc/elements/1.1/", "dcterms": "http://purl.org/dc/terms/",
    "opf": "http://www.idpf.org/2007/opf", "c": "urn:oasis:names:tc:opendocument:xmlns:container",
}  # fmt: skip


def docx(doc_id: str, data: bytes, source: str) -> Document:
    """Headings, paragraphs, lists and tables; title, author and date of the core properties."""
    try:
        import mammoth
    except ImportError as error:
        raise InputError("DOCX needs an extra: pip install 'sleuth[corpora]'") from error
    files = _opened(data)
    if "word/document.xml" not in files.namelist():
        raise InputError("the zip has no word/document.xml: no DOCX")
    try:
        html = mammoth.convert_to_html(io.BytesIO(data), convert_image=mammoth.images.img_element(_no_image)).value
    except Exception as error:  # mammoth raises many kinds on damaged files; each is one rejected document
        raise InputError(f"mammoth could not read the DOCX: {type(error).__name__}: {error}") from error
    core = _xml(files.read("docProps/core.xml")) if "docProps/core.xml" in files.namelist() else None
    fields = {name: _first(core, path) for name, path in _CORE.items()}
    text = written(_html(html.encode())) if html else ""
    if not text:
        raise InputError("the DOCX has no text")
    if not fields["title"] and text.startswith("# "):
        fields["title"] = text.partition("\n")[0][2:]
    return _document(doc_id, text, source, fields, {})


def epub(doc_id: str, data: bytes, source: str) -> Document:
    """The chapters in reading order; title, author, language, date and rights of the package."""
    files = _opened(data)
    try:
        container = _xml(files.read("META-INF/container.xml"))
        package = str(container.xpath("string(//c:rootfile/@full-path)", namespaces=_NAMES))
        opf = _xml(files.read(package))
    except KeyError as error:
        raise InputError(f"no EPUB: {error}") from error
    chapters = list(_spine(opf, posixpath.dirname(package)))
    texts = [_chapter(files, name) for name in chapters]
    missing = texts.count(None)
    text = "\n\n".join(part for part in texts if part)
    if not text:
        raise InputError(f"the EPUB has no text in its {len(chapters)} chapters, of which {missing} are missing")
    fields = {name: _first(opf, f"dc:{tag}") for name, tag in
              (("title", "title"), ("author", "creator"), ("lang", "language"), ("date", "date"))}  # fmt: skip
    extra: dict[str, Scalar] = {"chapters": len(chapters) - missing}
    if rights := _first(opf, "dc:rights"):
        extra["licence"] = rights[:300]
    if missing:
        extra["missing_chapters"] = missing
    return _document(doc_id, text, source, fields, extra)


def _chapter(files: zipfile.ZipFile, name: str) -> str | None:
    """The text of a chapter in the encoding that it declares; None for one that is not there, or is no text."""
    try:
        return written(_html(decode(files.read(name), html=True)[0].encode()))
    except (KeyError, InputError):
        return None


def _document(doc_id: str, text: str, source: str, fields: dict[str, str], extra: dict[str, Scalar]) -> Document:
    known = {"author": fields["author"]} if fields["author"] else {}
    return Document(
        doc_id, text, fields["title"], source=source, lang=fields["lang"][:2].lower(), date=fields["date"][:10],
        metadata={**known, **extra},
    )  # fmt: skip


def _opened(data: bytes) -> zipfile.ZipFile:
    """The zip, once its table says that it is neither a bomb nor leads outside; raises `InputError` otherwise."""
    try:
        files = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"expected a zip file, found {error}") from error
    members = files.infolist()
    if len(members) > MAX_MEMBERS:
        raise InputError(f"a zip of {len(members):,} members; at most {MAX_MEMBERS:,} are read")
    for member in members:
        if member.filename.startswith(("/", "\\")) or ".." in member.filename.replace("\\", "/").split("/"):
            raise InputError(f"a zip with a name that leads outside: {member.filename[:80]!r}")
        if member.flag_bits & 1:
            raise InputError("the file is encrypted and needs a password")
    total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if total > MAX_RECORD_BYTES * 4 or (total > MAX_RECORD_BYTES // 8 and total > MAX_RATIO * max(1, packed)):
        raise InputError(f"a zip of {packed:,} bytes that inflates to {total:,}")
    return files


def _no_image(image: Any) -> dict[str, str]:
    return {"src": ""}


def _xml(data: bytes) -> Any:
    from lxml import etree

    try:
        return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
    except etree.XMLSyntaxError as error:
        raise InputError(f"damaged XML: {error}") from error


def _html(data: bytes) -> Any:
    """The tree of UTF-8."""
    from lxml import etree

    root = etree.fromstring(data, etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True))
    if root is None:
        return etree.Element("html")
    etree.strip_elements(root, "script", "style", "head", "svg", with_tail=False)
    return root


def _first(root: Any, path: str) -> str:
    if root is None:
        return ""
    found = root.find(f".//{path}", _NAMES)
    return " ".join("".join(found.itertext()).split())[:300] if found is not None else ""


def _spine(opf: Any, folder: str) -> Iterator[str]:
    """Names of the chapters within the zip, in reading order."""
    items = {i.get("id"): i.get("href") or "" for i in opf.findall(".//opf:manifest/opf:item", _NAMES)}
    for reference in opf.findall(".//opf:spine/opf:itemref", _NAMES):
        if href := items.get(reference.get("idref")):
            yield posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))
