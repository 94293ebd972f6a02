"""Boilerplate is what stands on a page around its text: comments, sharing buttons, teasers, lists of links.

Contract: it is told by the words of an element's id and class, and by the share of its text that is links; an element
that holds prose of its own is none, whatever its name, and neither is a section that is named by its heading. What is
cut leaves an empty element, so the text after it stays.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

LEAVES = frozenset(("p", "div", "li", "dd", "td", "pre", "blockquote"))
PARAGRAPH_CHARS = 40
_MIN_PROSE = 300
"""What has so many characters of paragraphs is no boilerplate, whatever its name."""
_MAX_SHARE = 0.2
"""Nor is what holds so much of the whole text."""
_LINKED, _LONG = 0.8, 200
"""What is a list of links has more than this share of its text in them, and is no paragraph of so many characters."""
_KEPT_TAGS = frozenset(("p", "a", "span", "h1", "h2", "h3", "td", "tr", "tbody", "body", "article", "main"))
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_COMMENTS = re.compile(
    r"(?:^|(?<!deprecation)[\s_-])(?:comments?|kommentare?|commentaires?|comentarios?)"
    r"(?:$|[\s_-]|list|area|s?section|(?-i:[A-Z]))|^comol|disqus|^dsq|respond",
    re.IGNORECASE,
)
_WORDS = (
    "share|sharing|social|related|newsletter|promo|sidebar|widget|breadcrumb|tag|author|byline|caption|footer|banner|"
    "advert|ad|meta|signup|subscribe|recommend|cookie|popup|modal|nav|rating|more"
)
_WORD = r"(?:^|[\W_]|(?-i:(?<=[a-z])(?=[A-Z])))(?:%s)s?(?:$|[\W_\d]|(?-i:(?<=[a-z])(?=[A-Z])))"
_BESIDE = re.compile(_WORD % _WORDS, re.IGNORECASE)
_BOILERPLATE = re.compile(_WORD % f"{_WORDS}|teaser", re.IGNORECASE)


def length(element: Any) -> int:
    """Characters of the text of an element and all below it."""
    from lxml import etree

    return len(etree.tostring(element, method="text", encoding="unicode", with_tail=False))


def linked(element: Any) -> int:
    """Characters of the links below an element."""
    return sum(length(anchor) for anchor in element.iter("a"))


def leaves(root: Any) -> Iterator[Any]:
    """Blocks without blocks within that are text more than links."""
    for block in root.iter(*LEAVES):
        if not any(child.tag in LEAVES for child in block.iterdescendants()) and 2 * linked(block) < length(block):
            yield block


def beside(block: Any) -> bool:
    """Whether a paragraph stands beside the text: a caption, a line of authors, a list of links."""
    if 2 * linked(block) > length(block):
        return True
    for element, _ in zip((block, *block.iterancestors()), range(3), strict=False):
        if element.tag in ("figure", "figcaption", "table", "ul", "ol") or _named(element, _BESIDE):
            return True
    return False


def cut_comments(root: Any) -> None:
    """What readers wrote below a page goes."""
    for element in [e for e in root.iter("div", "section", "ol", "ul", "details") if _named(e, _COMMENTS)]:
        _cut(element)


def cut_boilerplate(part: Any) -> int:
    """Cut it from the part of a page that holds the text; how many characters went."""
    most = _MAX_SHARE * (length(part) or 1)
    lost = 0
    for element in [e for e in part.iterdescendants() if e.tag not in _KEPT_TAGS and _named(e, _BOILERPLATE)]:
        if element.getparent() is None:  # within one that was cut
            continue
        if (chars := length(element)) < most and _prose(element) < _MIN_PROSE:
            lost += chars
            _cut(element)
    for element in _lists_with_links(part):
        chars = length(element)
        if linked(element) > _LINKED * chars and not (element.tag == "p" and chars > _LONG):
            lost += chars
            _cut(element)
    return lost


def _named(element: Any, pattern: re.Pattern[str]) -> bool:
    """Whether its class or id says so; an id made of the words of a heading is the name of a section."""
    id_, class_ = element.get("id"), element.get("class")
    if class_ and _says(pattern, class_):
        return True
    return bool(id_) and _says(pattern, id_) and not _heads(element, id_)


@functools.lru_cache(10_000)
def _says(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.search(name) is not None


def _heads(element: Any, id_: str) -> bool:
    heading = next((child for child in element if child.tag in _HEADINGS), None)
    if heading is None:
        return False
    return {word for word in _words(id_) if len(word) > 2} <= {*_words("".join(heading.itertext()))}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _prose(element: Any) -> int:
    """Characters of the paragraphs and the like within that are text more than links."""
    return sum(chars for block in leaves(element) if (chars := length(block)) >= PARAGRAPH_CHARS)


def _lists_with_links(part: Any) -> list[Any]:
    return _search("descendant::*[self::ul or self::ol or self::div or self::p][descendant::a]")(part)


@functools.cache
def _search(expression: str) -> Any:
    from lxml import etree

    return etree.XPath(expression)


def _cut(element: Any) -> None:
    """Empties an element; its tail stays."""
    tail = element.tail
    element.clear()
    element.tag, element.tail = "span", tail
