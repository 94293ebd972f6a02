"""What a page declares about itself: title, author, date, language, site, address and licence.

Contract: only what its markup states (JSON-LD, Open Graph and other ``meta``, ``time``, ``link rel``, ``html lang``),
in that order of trust, and elements whose class says that they hold a date; never what merely looks like a date or a
name in the text. Empty where nothing is stated.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

MAX_JSON_BYTES = 200_000
_TITLES = ("og:title", "twitter:title", "dc.title", "citation_title", "title")
_AUTHORS = ("author", "article:author", "dc.creator", "citation_author", "sailthru.author", "parsely-author", "byl")
_DATES = (
    "article:published_time", "og:published_time", "datepublished", "date", "pubdate", "publishdate", "dc.date",
    "dc.date.issued", "dcterms.created", "dcterms.date", "citation_publication_date", "citation_date", "sailthru.date",
    "parsely-pub-date", "article.published", "publish-date", "originalpublicationdate", "last-modified",
)  # fmt: skip
_ISO = re.compile(r"((?:19|20)\d\d)[-/.](\d{1,2})[-/.](\d{1,2})")
_DAY_FIRST = re.compile(r"\b(\d{1,2})\.\s?(\d{1,2})\.\s?((?:19|20)\d\d)\b")
_IN_ADDRESS = re.compile(r"/((?:19|20)\d\d)[/-](\d{1,2})[/-](\d{1,2})(?:/|-|$)")
_DATED = re.compile(r"(?:^|[\s_-])(?:date|datum|published|posted|post-?date|timestamp)", re.IGNORECASE)
_SITE_NAME = re.compile(r"\s+(?:[|\u2013\u2014»·•]|::|-)\s+")
_NO_AUTHOR = re.compile(r"https?://|@|^\W*$|^(?:admin|redaktion|editor|unknown|null|none)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Declared:
    """Empty strings where the page says nothing."""

    title: str = ""
    author: str = ""
    """Names joined by ``; ``."""
    date: str = ""
    """ISO 8601 date of first publication where told apart, else of the last change."""
    lang: str = ""
    """ISO 639-1."""
    sitename: str = ""
    url: str = ""
    """The canonical address, absolute."""
    licence: str = ""
    """Address or name of the licence."""


def declared(root: Any, url: str = "") -> Declared:
    """What the lxml tree of a page says of itself; ``url`` makes relative addresses absolute."""
    metas = _metas(root)
    linked = list(_linked_data(root))
    canonical = _first_link(root, "canonical") or metas.get("og:url", "")
    return Declared(
        title=_title(root, metas, linked),
        author=_author(root, metas, linked),
        date=_date(root, metas, linked, url),
        lang=_language(root, metas, linked),
        sitename=metas.get("og:site_name") or metas.get("application-name") or "",
        url=_absolute(url, canonical),
        licence=_licence(root, metas, linked, url),
    )


def links(root: Any, url: str, most: int = 200) -> tuple[str, ...]:
    """Absolute http addresses that an element links to, in order, once each, without fragments."""
    found: dict[str, None] = {}
    for anchor in root.iter("a"):
        target = _absolute(url, (anchor.get("href") or "").partition("#")[0])
        if target:
            found[target] = None
            if len(found) == most:
                break
    return tuple(found)


def _metas(root: Any) -> dict[str, str]:
    """Content of each meta element by its name or property in lower case; the first of a name counts."""
    found: dict[str, str] = {}
    for meta in root.iter("meta"):
        name = meta.get("property") or meta.get("name") or meta.get("itemprop") or meta.get("http-equiv")
        content = " ".join((meta.get("content") or "").split())
        if name and content:
            found.setdefault(name.strip().lower(), content[:1000])
    return found


def _linked_data(root: Any) -> Iterator[Mapping[str, Any]]:
    """Objects of the page's JSON-LD, those of ``@graph`` included; what does not parse is passed over."""
    for script in root.iter("script"):
        if (script.get("type") or "").strip().lower() != "application/ld+json":
            continue
        text = script.text or ""
        if len(text) > MAX_JSON_BYTES:
            continue
        try:
            value = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                graph = item.get("@graph")
                yield from (part for part in graph if isinstance(part, dict)) if isinstance(graph, list) else [item]


def _title(root: Any, metas: Mapping[str, str], linked: list[Mapping[str, Any]]) -> str:
    headings = [text for h in root.iter("h1") if (text := " ".join("".join(h.itertext()).split()))]
    stated = next((" ".join("".join(t.itertext()).split()) for t in root.iter("title")), "")
    site = metas.get("og:site_name", "").casefold()
    if len(headings) == 1 and 2 < len(headings[0]) <= 300 and headings[0].casefold() != site:
        return headings[0]
    for item in linked:
        if isinstance(item.get("headline"), str) and item["headline"].strip():
            return " ".join(item["headline"].split())[:300]
    found = next((metas[name] for name in _TITLES if metas.get(name)), "") or stated
    return _without_site(found)[:300] or (headings[0][:300] if headings else "")


def _without_site(title: str) -> str:
    """A title without the site's name at its end: the longest of the parts that a bar or dash separates."""
    parts = _SITE_NAME.split(title)
    return max(parts[:2], key=len).strip() if len(parts) > 1 else title.strip()


def _author(root: Any, metas: Mapping[str, str], linked: list[Mapping[str, Any]]) -> str:
    for item in linked:
        given = item.get("author")
        names = [_name(one) for one in (given if isinstance(given, list) else [given])]
        if kept := [name for name in names if name]:
            return "; ".join(dict.fromkeys(kept))[:300]
    for key in _AUTHORS:
        if (value := metas.get(key)) and not _NO_AUTHOR.search(value):
            return re.sub(r"^(?:by|von|par)\s+", "", value, flags=re.IGNORECASE)[:300]
    body = root.find("body")
    for element in () if body is None else body.iter("a", "span", "div", "p", "li", "address"):
        if element.get("rel") != "author" and element.get("itemprop") != "author":
            continue
        name = " ".join("".join(element.itertext()).split())
        if 2 < len(name) <= 80 and not _NO_AUTHOR.search(name):
            return name
    return ""


def _name(given: Any) -> str:
    value = given.get("name") if isinstance(given, dict) else given
    return " ".join(value.split()) if isinstance(value, str) and not _NO_AUTHOR.search(value) else ""


def _date(root: Any, metas: Mapping[str, str], linked: list[Mapping[str, Any]], url: str) -> str:
    stated = [item.get(key) for key in ("datePublished", "dateCreated", "uploadDate") for item in linked]
    stated += [metas.get(key) for key in _DATES]
    stated += [e.get("datetime") or e.get("content") for e in root.iter("time")][:1]
    for value in stated:
        if isinstance(value, str) and (found := _iso(value)):
            return found
    for element in root.iter("span", "div", "p", "li", "td"):
        name = element.get("class") or element.get("itemprop")
        if name and _DATED.search(name):
            text = element.get("content") or element.get("title") or "".join(element.itertext()).strip()
            if len(text) <= 60 and (found := _iso(text)):
                return found
    in_address = _IN_ADDRESS.search(urlsplit(url).path) if url else None
    return _calendar(*in_address.groups()) if in_address else ""


def _iso(value: str) -> str:
    if match := _ISO.search(value):
        return _calendar(*match.groups())
    if match := _DAY_FIRST.search(value):
        return _calendar(match[3], match[2], match[1])
    return ""


def _calendar(year: str, month: str, day: str) -> str:
    """An ISO date, or nothing for a day that no calendar has or that lies beyond tomorrow."""
    try:
        found = datetime.date(int(year), int(month), int(day))
    except ValueError:
        return ""
    return found.isoformat() if found <= datetime.date.today() + datetime.timedelta(days=1) else ""


def _language(root: Any, metas: Mapping[str, str], linked: list[Mapping[str, Any]]) -> str:
    html = root if root.tag == "html" else root.find(".//html")
    stated = [
        (html.get("lang") or html.get("{http://www.w3.org/XML/1998/namespace}lang")) if html is not None else None,
        metas.get("og:locale"), metas.get("content-language"), metas.get("dc.language"),
        *(item.get("inLanguage") for item in linked),
    ]  # fmt: skip
    for value in stated:
        if isinstance(value, str) and (match := re.match(r"\s*([A-Za-z]{2})(?![A-Za-z])", value)):
            return match[1].lower()
    return ""


def _licence(root: Any, metas: Mapping[str, str], linked: list[Mapping[str, Any]], url: str) -> str:
    found = next((e.get("href") or "" for e in root.iter("link", "a") if e.get("rel") == "license"), "")
    stated = found or next((i["license"] for i in linked if isinstance(i.get("license"), str)), "")
    stated = stated or metas.get("dc.rights") or metas.get("dcterms.license") or metas.get("license") or ""
    return (_absolute(url, stated) if "/" in stated and " " not in stated else stated)[:300]


def _first_link(root: Any, relation: str) -> str:
    return next((link.get("href") or "" for link in root.iter("link") if link.get("rel") == relation), "")


def _absolute(base: str, target: str) -> str:
    """An absolute http address, or nothing."""
    try:
        joined = urljoin(base, target.strip()) if target else ""
        return joined if urlsplit(joined).scheme in ("http", "https") else ""
    except ValueError:
        return ""
