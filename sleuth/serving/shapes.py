"""A shape is one way to ask for passages over HTTP: ours, that of Search-R1's retrieval server, and that of SearXNG.

Each has a reader, which raises `InputError` with what was expected and what was found, and a writer of plain JSON
values. Search-R1: github.com/PeterGriffinJin/Search-R1, its server's request and reply; SearXNG: its search API.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote

from sleuth.corpora.errors import InputError
from sleuth.retrieval.records import Hit
from sleuth.retrieval.remote import MAX_HITS, MAX_IDS
from sleuth.retrieval.static import QUERY_CHARS
from sleuth.retrieval.store import Mode
from sleuth.serving.live import Answer, Ask

MAX_K = 1000
ID_CHARS = 10_000
PAGE = 10
"""Results of one page in the SearXNG shape."""
FIELDS = ("queries", "k", "where", "mode")


@dataclass(frozen=True, slots=True)
class Request:
    queries: tuple[str, ...]
    ask: Ask


def read_search(data: Any, mode: Mode) -> Request:
    """``{"queries": [..], "k": 5, "where": {..}, "mode": ".."}``; all but the queries may be left out."""
    given = _object(data)
    if unknown := sorted(set(given) - set(FIELDS)):
        raise InputError(f"unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    asked = given.get("mode", mode)
    if asked not in get_args(Mode):
        raise InputError(f"mode: expected one of {', '.join(get_args(Mode))}, found {asked!r}")
    where = given.get("where")
    if where is not None and not isinstance(where, dict):
        raise InputError(f"where: expected an object of fields and conditions, found {type(where).__name__}")
    key = json.dumps(where, sort_keys=True) if where else ""
    return _request(given.get("queries"), Ask(_k(given.get("k", 5), "k"), asked, key), "k")


def write_search(answer: Answer) -> dict[str, Any]:
    """``{"fingerprint", "hits": [[{"passage": {..}, "score", "rank", ..}]], "missing": [[shard, reason]]}``; the hits
    are records still, which orjson writes as objects."""
    return {"fingerprint": answer.fingerprint, "hits": answer.hits, "missing": answer.missing}


def read_retrieve(data: Any, mode: Mode) -> tuple[Request, bool]:
    """Search-R1: ``{"queries": [..], "topk": 3, "return_scores": true}``, and whether scores are wanted. Fields that
    its server does not know it ignores, and so do we."""
    given = _object(data)
    k = given.get("topk")
    asked = _request(given.get("queries"), Ask(_k(3 if k is None else k, "topk"), mode), "topk")
    return asked, bool(given.get("return_scores", False))


def write_retrieve(answer: Answer, scores: bool) -> dict[str, Any]:
    """``contents`` is the title in quotes on the first line and the text after it, as in the corpus that the published
    policies were trained with; without scores a result is the document itself."""
    rows = [[{"document": _document(hit), "score": hit.score} for hit in found] for found in answer.hits]
    return {"result": rows if scores else [[row["document"] for row in found] for found in rows]}


def _document(hit: Hit) -> dict[str, str]:
    title = " ".join(hit.passage.title.split())
    return {"id": hit.passage.id, "contents": f'"{title}"\n{hit.passage.text}'}


def read_searxng(query: Mapping[str, str], mode: Mode) -> tuple[Request, int]:
    """SearXNG: ``q``, ``format=json`` and ``pageno``, and the number of results to pass over; its engines, categories,
    languages and time ranges have no counterpart here and are ignored."""
    if (form := query.get("format", "json")) != "json":
        raise InputError(f"format: expected json, found {form!r}")
    page = query.get("pageno", "1")
    number = int(page) if page.isdecimal() and len(page) < 10 else 0
    if not 1 <= number <= MAX_K // PAGE:
        raise InputError(f"pageno: expected a number from 1 to {MAX_K // PAGE}, found {page[:40]!r}")
    return _request([query.get("q", "")], Ask(number * PAGE, mode), "pageno"), (number - 1) * PAGE


def write_searxng(answer: Answer, query: str, skipped: int, base: str) -> dict[str, Any]:
    """A passage without an address of its own gets the one it has on this server."""
    results = [
        {
            "url": hit.url or f"{base}passages/{quote(hit.passage.id, safe='')}",
            "title": hit.passage.title or hit.passage.doc_id,
            "content": hit.passage.text,
            "publishedDate": hit.date or None,
            "engine": hit.retriever,
            "engines": [hit.retriever],
            "positions": [hit.rank],
            "category": "general",
            "score": hit.score,
        }
        for hit in answer.hits[0][skipped:]
    ]
    empty: dict[str, list[str]] = {name: [] for name in ("answers", "corrections", "infoboxes", "suggestions")}
    return {"query": query, "number_of_results": len(results), "results": results, **empty,
            "unresponsive_engines": answer.missing}  # fmt: skip


def read_ids(data: Any) -> tuple[str, ...]:
    """``{"ids": [..]}``."""
    ids = _texts(_object(data).get("ids"), "ids", ID_CHARS)
    if len(ids) > MAX_IDS:
        raise InputError(f"ids: expected at most {MAX_IDS:,} in a request, found {len(ids):,}")
    return ids


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"expected a JSON object, found {type(data).__name__}")
    return data


def _k(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_K:
        raise InputError(f"{name}: expected an integer from 1 to {MAX_K}, found {_short(value)}")
    return value


def _request(queries: Any, ask: Ask, name: str) -> Request:
    """``name`` is what the shape calls k."""
    texts = _texts(queries, "queries", QUERY_CHARS)
    if len(texts) * ask.k > MAX_HITS:
        most = f"expected queries times {name} of at most {MAX_HITS:,}"
        raise InputError(f"queries: {most}, found {len(texts):,} times {ask.k:,}")
    return Request(texts, ask)


def _texts(value: Any, name: str, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{name}: expected a list of at least one string, found {_short(value)}")
    for place, text in enumerate(value):
        if not isinstance(text, str):
            raise InputError(f"{name}[{place}]: expected a string, found {_short(text)}")
        if len(text) > most:
            raise InputError(f"{name}[{place}]: expected at most {most:,} characters, found {len(text):,}")
    return tuple(value)


def _short(value: Any, show: Callable[[Any], str] = repr) -> str:
    """A value as an error shows it; whatever its size."""
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        return f"{type(value).__name__} of {len(value)}"
    return show(value)[:60]
