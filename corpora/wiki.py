"""A wiki dump is one file of articles: MediaWiki's XML export, or lines of Wikimedia Enterprise.

Contract: articles stream in the dump's order; redirects and pages outside the main namespace are passed over. Wikitext
becomes light Markdown by mwparserfromhell: headings, items and words stay; templates, references, tables, files and
categories go, so figures that a template computes are not in the text. Enterprise lines carry HTML and are pages.
"""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from sleuth.corpora.errors import InputError
from sleuth.corpora.pages import Page
from sleuth.corpora.records import Document, Drop, Scalar

MAX_ARTICLE_CHARS = 5_000_000
_DROPPED_TAGS = frozenset(("ref", "references", "gallery", "table", "timeline", "score", "imagemap", "math", "style"))
_NO_TEXT_LINK = re.compile(
    r"^\s*:?(?:[a-z-]{2,12}:)?(?:file|image|media|category|datei|bild|kategorie|fichier|catégorie|archivo|categoría|"
    r"файл|категория)\s*:",
    re.IGNORECASE,
)
_ROOT = re.compile(rb"<([A-Za-z]+)[\s>]")


def xml(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Documents of an XML dump (``.bz2``, ``.gz``) of MediaWiki or Stack Exchange, told by its first element."""
    from sleuth.corpora.exchange import posts

    readers = {b"mediawiki": articles, b"posts": posts}
    with _opened(path) as file:
        try:
            found = next((name for name in _ROOT.findall(file.read(4096))), b"")
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{type(error).__name__}: {error}") from error
    if found.lower() not in readers:
        known = ", ".join(name.decode() for name in readers)
        raise InputError(f"expected an XML dump that begins with one of {known}, found {found.decode() or 'none'}")
    with _opened(path) as file:
        yield from readers[found.lower()](file, path, source, drop)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".bz2":
        return cast(IO[bytes], bz2.open(path))
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def elements(file: IO[bytes], name: str, path: Path, drop: Callable[[Drop], None]) -> Iterator[Any]:
    """Elements of a name as they end, each emptied after its turn; damage is one drop and ends them."""
    from lxml import etree

    count = 0
    try:
        found = etree.iterparse(
            file, events=("end",), tag=f"{{*}}{name}", resolve_entities=False, no_network=True, load_dtd=False
        )
        for _, element in found:
            count += 1
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    except (etree.XMLSyntaxError, OSError, EOFError, zlib.error) as error:
        drop(Drop(f"{path}:{count + 1}", "read", f"reading stopped after {name} {count}: {error}"))
        return
    if count == 0:
        drop(Drop(str(path), "read", f"the dump holds no {name}"))


def articles(file: IO[bytes], path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Document]:
    """Articles of a MediaWiki export (schema 0.10 and later)."""
    base = lang = ""
    for page in elements(file, "page", path, drop):
        if not base:
            root = page.getroottree().getroot()
            lang = root.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
            base = (root.findtext("{*}siteinfo/{*}base") or "").rpartition("/")[0] or "-"
        if page.findtext("{*}ns") not in (None, "0") or page.find("{*}redirect") is not None:
            continue
        title = (page.findtext("{*}title") or "").strip()
        number = page.findtext("{*}id") or title
        try:
            text = plain(page.findtext("{*}revision/{*}text") or "")
            if not text:
                raise InputError("the article has no text")
        except InputError as error:
            drop(Drop(f"{path}:{title or number}", "read", str(error)))
            continue
        extra: dict[str, Scalar] = {"revision": page.findtext("{*}revision/{*}id") or ""}
        url = f"{base}/{title.replace(' ', '_')}" if base != "-" and title else ""
        stamp = page.findtext("{*}revision/{*}timestamp") or ""
        yield Document(f"{source}/{number}", text, title, url, source, lang[:2], stamp[:10], extra)


def plain(wikitext: str) -> str:
    """Wikitext as light Markdown; raises `InputError` for one that the parser does not get through."""
    import mwparserfromhell

    if len(wikitext) > MAX_ARTICLE_CHARS:
        raise InputError(f"wikitext of {len(wikitext):,} characters; at most {MAX_ARTICLE_CHARS:,} are read")
    try:
        parsed = mwparserfromhell.parse(wikitext, skip_style_tags=True)
        text = "".join(_pieces(parsed))
    except Exception as error:  # a parser's failure on one article must not end the dump
        raise InputError(f"wikitext could not be read: {type(error).__name__}: {error}") from error
    text = re.sub(r"'{2,5}", "", text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    kept = "\n".join(line for line in lines if line not in ("-", "|}"))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\n(?!\n|- )(?<!\n\n)(?=[^\n])", "\n", kept)).strip()


def _pieces(code: Any) -> Iterator[str]:
    from mwparserfromhell import nodes

    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield str(node)
        elif isinstance(node, nodes.Heading):
            yield f"\n\n{'#' * node.level} {''.join(_pieces(node.title)).strip()}\n\n"
        elif isinstance(node, nodes.Wikilink):
            if not _NO_TEXT_LINK.match(str(node.title)):
                yield "".join(_pieces(node.text)) if node.text is not None else str(node.title).lstrip(":")
        elif isinstance(node, nodes.ExternalLink):
            yield "".join(_pieces(node.title)) if node.title is not None else ""
        elif isinstance(node, nodes.HTMLEntity):
            yield node.normalize()
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if node.wiki_markup in ("*", "#", ":", ";"):
                yield "- " if node.wiki_markup in ("*", "#") else ""
            elif name == "br":
                yield "\n"
            elif name not in _DROPPED_TAGS and node.contents is not None:
                yield from _pieces(node.contents)


def enterprise(row: Mapping[str, Any], source: str) -> Page:
    """The page of one line of a Wikimedia Enterprise snapshot (schema of 2021 and later)."""
    body = row.get("article_body")
    html = body.get("html") if isinstance(body, Mapping) else None
    if not isinstance(html, str) or not html.strip():
        raise InputError("field 'article_body.html': expected the article's HTML")
    name = str(row.get("name") or "")
    lang, revision = (
        value.get("identifier") if isinstance(value := row.get(key), Mapping) else ""
        for key in ("in_language", "version")
    )
    stated = row.get("license")
    licences = [
        str(x.get("url") or x.get("name"))
        for x in (stated if isinstance(stated, list) else ())
        if isinstance(x, Mapping)
    ]
    extra: dict[str, Scalar] = {"revision": str(revision or "")}
    if licences:
        extra["licence"] = licences[0]
    page = f'<!doctype html><html lang="{_attribute(str(lang or ""))}"><head><title>{_attribute(name)}</title>'
    page += f'<meta name="date" content="{_attribute(str(row.get("date_modified") or ""))}"></head>'
    inner = re.search(r"<body.*?>(.*)</body>", html, re.DOTALL | re.IGNORECASE)
    data = f"{page}<body><h1>{_attribute(name)}</h1>{inner[1] if inner else html}</body></html>"
    try:
        written = data.encode()
    except UnicodeEncodeError as error:
        raise InputError("holds half a surrogate pair, which is no character") from error
    return Page(f"{source}/{row['identifier']}", written, ".html", source, str(row.get("url") or ""), "utf-8", extra)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
