"""Extraction finds the main text of an HTML page and what the page declares about itself.

Contract: ``extract(html)`` parses once and answers in light Markdown (`blocks`), with the way that was taken, or raises
`InputError`. Of the three ways of ``method="auto"`` the cheapest that fits is taken: the page is narrowed to the part
that holds its paragraphs (after Kohlschütter et al., 2010: text length and link density say most); a part that is
nearly all text is written out as it is; another goes through trafilatura's fast mode (Barbaresi, 2021); and where
that finds too little, the whole page does. Very large pages go through resiliparse. Measured in bench/corpora.py.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sleuth.corpora.blocks import written
from sleuth.corpora.boilerplate import (
    LEAVES,
    PARAGRAPH_CHARS,
    beside,
    cut_boilerplate,
    cut_comments,
    leaves,
    length,
    linked,
)
from sleuth.corpora.declared import Declared, declared, links
from sleuth.corpora.errors import ConfigError, InputError

Method = Literal["auto", "trafilatura", "resiliparse"]
METHODS = ("auto", "trafilatura", "resiliparse")
MAX_ELEMENTS = 60_000
"""A larger tree goes through resiliparse: trafilatura's time grows faster than the page."""
_MIN_PARAGRAPHS = 500
"""Characters of paragraphs without which a page is not narrowed."""
_MIN_CLEAN = 1000
_SHARE = 0.8
"""The part that is kept holds this share of the paragraphs."""
_MAX_LINKS, _MAX_CUT, _MIN_BLOCKS = 0.15, 0.15, 0.9
"""A part is clean up to this share of linked text and of cut boilerplate, from this share of text in blocks on."""
_COVERED, _MIN_CHARS = 0.5, 300
"""With less than this share of the paragraphs, or fewer characters, the whole page is tried."""
_WIDER = 1.5
"""How much longer the text of leaf blocks must be than trafilatura's, where that covers little of them."""
_NO_TEXT = (
    "applet area aside audio blink button canvas datalist dialog embed fencedframe fieldset footer frame frameset head "
    "iframe input label legend link map marquee menu menuitem nav noindex noscript object optgroup option output param "
    "picture progress rp rt rtc script select source style svg textarea time track use video"
).split()
_INLINE = (
    "abbr acronym b big cite del dfn em font i ins kbd mark q s samp small strike strong sub sup tt u var wbr"
).split()
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "pre", "td", "th", "blockquote", "dt", "dd")
_LEAD = ("p", "div", "h2")
_MAX_LEAD = 4
"""A text begins within so many paragraphs after its heading, or what stands there is not its lead."""
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002]\W{0,2}$")
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])


@dataclass(frozen=True, slots=True)
class Extracted:
    """The main text of a page."""

    text: str
    declared: Declared
    way: str
    """``clean``, ``narrowed``, ``whole`` or ``leaves`` under ``auto``; otherwise the library."""
    links: tuple[str, ...] = ()
    """Absolute addresses that the main part links to; only where they were asked for."""


def extract(html: str, url: str = "", method: Method = "auto", keep_links: bool = False) -> Extracted:
    """Main text, declared fields and, on request, links of a page.

    Raises `InputError` for a page without main text or with more than 256 levels, `ConfigError` for another method.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown extraction method {method!r}; known: {', '.join(METHODS)}")
    root = _parsed(html)
    try:
        known = declared(root, url)
        found, way, part, opening = _ways(html, root, method, known.title)
    except InputError:
        raise
    except Exception as error:  # a parser's own failure on a hostile page must not end the build
        raise InputError(f"the page could not be read: {type(error).__name__}: {error}") from error
    text = _with_lead(_without_title(_tidied(found), known.title), opening)
    if not text:
        raise InputError("no main text found in the page")
    return Extracted(text, known, way, links(part, known.url or url) if keep_links else ())


def _ways(html: str, root: Any, method: Method, title: str) -> tuple[str, str, Any, list[str]]:
    """``(text, way, the element that holds it, the paragraphs after the heading)``."""
    if method == "trafilatura":
        return _by_trafilatura(copy.deepcopy(root), fast=False), method, root, []
    if method == "resiliparse" or (html.count("<") > MAX_ELEMENTS and root.xpath("count(//*)") > MAX_ELEMENTS):
        return _by_resiliparse(html), "resiliparse", root, []
    from lxml import etree

    etree.strip_elements(root, *_NO_TEXT, with_tail=False)
    etree.strip_tags(root, *_INLINE)
    cut_comments(root)
    opening = _after_heading(root, title)
    return *_auto(html, root), opening


def _auto(html: str, root: Any) -> tuple[str, str, Any]:
    weights, total = _weights(root.iter("p"))
    if total >= _MIN_PARAGRAPHS:
        part = _narrowed(root, weights, total)
        part.tail = None
        if _is_clean(part) and total >= _MIN_CLEAN:
            return written(part), "clean", part
        text = _by_trafilatura(_alone(part), fast=True)
        if len(text) >= max(_COVERED * total, _MIN_CHARS):
            return text, "narrowed", part
    whole = _parsed(html)
    text = _by_trafilatura(whole, fast=True)
    if total >= _MIN_PARAGRAPHS:
        return text, "whole", whole
    weights, total = _weights(leaves(root))
    if total < _MIN_PARAGRAPHS or len(text) >= _COVERED * total:
        return text, "whole", whole
    part = _narrowed(root, weights, total)  # documentation and the like: paragraphs are divisions, items or code
    part.tail = None
    _is_clean(part)
    wider = written(part)
    return (wider, "leaves", part) if len(wider) > _WIDER * len(text) else (text, "whole", whole)


def _parsed(html: str) -> Any:
    """The tree of a page; raises `InputError` where there is none, or where it is nested too deeply to be whole."""
    from lxml import etree

    parser = _parser()
    data = html.encode("utf-8", "replace").translate(None, _CONTROLS)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise InputError(f"no HTML: {error}") from error
    if root is None:
        raise InputError("no HTML elements found")
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise InputError("nested more than 256 levels deep")
    return root


def _parser() -> Any:
    """trafilatura's own parser settings; the element class is given once instead of looked up for each element."""
    from lxml import etree
    from lxml.html import HtmlElement

    parser = etree.HTMLParser(
        collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True, remove_pis=True
    )
    parser.set_element_class_lookup(etree.ElementDefaultClassLookup(element=HtmlElement))
    return parser


@functools.cache
def _options(fast: bool) -> Any:
    """Read once: building them reads a configuration file's sections every time."""
    from trafilatura.settings import Extractor

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return Extractor(output_format="python", fast=fast, comments=False, tables=True, formatting=True)


def _by_trafilatura(tree: Any, fast: bool) -> str:
    """Without bold and the like, whose marks would stand in quotes."""
    import trafilatura
    from lxml import etree

    etree.strip_tags(tree, *_INLINE)
    found = trafilatura.bare_extraction(tree, options=_options(fast))
    return (found.text or "") if found is not None else ""


def _by_resiliparse(html: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(html, main_content=True, alt_texts=False, comments=False, post_meta=False)


def _alone(part: Any) -> Any:
    """The part as the one article of a page of its own."""
    if part.tag in ("html", "body"):
        return part.getroottree().getroot()
    page = part.makeelement("html")
    article = page.makeelement("article")
    body = page.makeelement("body")
    page.append(body)
    body.append(article)
    article.append(part)
    return page


def _weights(paragraphs: Iterable[Any]) -> tuple[dict[Any, int], int]:
    """Characters of paragraphs below each element, and their sum."""
    weights: dict[Any, int] = defaultdict(int)
    total = 0
    for paragraph in paragraphs:
        if (chars := length(paragraph)) >= PARAGRAPH_CHARS:
            total += chars
            for ancestor in paragraph.iterancestors():
                weights[ancestor] += chars
    return weights, total


def _narrowed(root: Any, weights: dict[Any, int], total: int) -> Any:
    """The deepest element that holds `_SHARE` of the paragraphs."""
    part = root
    while True:
        heaviest = max((child for child in part if child in weights), key=weights.__getitem__, default=None)
        if heaviest is None or weights[heaviest] < _SHARE * total:
            return part
        part = heaviest


def _after_heading(root: Any, title: str) -> list[str]:
    """Paragraphs that follow the page's heading, whatever holds them; none where no heading is the title."""
    found: list[str] = []
    begun = False
    for block in root.iter("h1", *_LEAD):
        if block.tag == "h1":
            begun = " ".join("".join(block.itertext()).split()) == title
            found = []
            continue
        if not begun or any(True for _ in block.iterdescendants(*LEAVES)):
            continue
        text = " ".join("".join(block.itertext()).split())
        if len(text) < PARAGRAPH_CHARS or not _SENTENCE_END.search(text) or beside(block):
            continue
        found.append(text)
        if len(found) == _MAX_LEAD:
            break
    return found


def _with_lead(text: str, opening: Sequence[str]) -> str:
    """The text, after the paragraphs between heading and text that it does not have: its lead."""
    plain = " ".join(text.split())
    for n, paragraph in enumerate(opening):
        if paragraph[:PARAGRAPH_CHARS] in plain:
            return "\n\n".join([*opening[:n], text])
    return text


def _is_clean(part: Any) -> bool:
    """Whether a part is text nearly all through; boilerplate is cut from it in any case."""
    before = length(part) or 1
    lost = cut_boilerplate(part)
    after = length(part) or 1
    in_blocks = sum(length(block) for block in part.iter(*_BLOCKS))
    return lost < _MAX_CUT * before and linked(part) < _MAX_LINKS * after and in_blocks > _MIN_BLOCKS * after


def _tidied(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _without_title(text: str, title: str) -> str:
    """A page's heading that repeats its title is not repeated in its text."""
    first, _, rest = text.partition("\n")
    return rest.strip() if rest.strip() and title and first.strip("# \t") == title else text
