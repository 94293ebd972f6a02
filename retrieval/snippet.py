"""A snippet is the part of a passage where most of a query's words stand, in pieces that say which words matched."""

from __future__ import annotations

from sleuth.retrieval.tokens import WORD, Analyzer


def snippet(query: str, text: str, width: int = 240, language: str = "english") -> list[tuple[str, bool]]:
    """``(piece, matched)`` in order, about ``width`` characters; matching is by stem. Cut ends carry an ellipsis."""
    analyzer = Analyzer(language)
    terms = set(analyzer.terms(query))
    terms = terms - analyzer.stops() or terms
    words = [(m.start(), m.end(), terms.intersection(analyzer.terms(m[0]))) for m in WORD.finditer(text)]
    start, end = _window(words, len(text), width)
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    at = start
    for left, right, found in words:
        if found and left >= start and right <= end:
            pieces += [(text[at:left], False), (text[left:right], True)]
            at = right
    pieces.append((text[at:end] + ("…" if end < len(text) else ""), False))
    return [piece for piece in pieces if piece[0]]


def _window(words: list[tuple[int, int, set[str]]], length: int, width: int) -> tuple[int, int]:
    """The span of at most ``width`` characters, at word ends, with the most distinct terms; the first of equals."""
    hits = [(left, right, found) for left, right, found in words if found]
    best, best_score = (0, 0), (0, 0)
    for n, (left, _, _) in enumerate(hits):
        inside = [(right, found) for _, right, found in hits[n : n + 64] if right <= left + width]
        score = (len(set().union(*(found for _, found in inside))), len(inside))
        if score > best_score:
            best, best_score = (left, inside[-1][0]), score
    spare = max(0, width - (best[1] - best[0]))
    start = max(0, min(best[0] - spare // 2, length - width))
    start = next((left for left, _, _ in words if left >= start), start) if start else 0
    start = min(start, best[0])
    end = (
        length
        if start + width >= length
        else max((r for _, r, _ in words if r <= start + width), default=start + width)
    )
    return start, max(end, min(best[1], length))
