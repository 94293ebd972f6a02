"""A sentence is a run of text that stands for itself; here they are found as character spans.

Contract: spans are trimmed of white space, in order, disjoint, and every character that is not white space belongs to
exactly one of them, so quotes, passages and citations can be cut at sentences without losing a character. Rules and no
model: a full stop ends a sentence unless it belongs to an abbreviation, an initial, a decimal, a list number or is
followed by a lower-case letter; a blank line, a heading line or a list item always does.
"""

from __future__ import annotations

import re

_CLOSERS = r"""(?:["'”’»›)\]}]|\[\d{1,3}\])*+"""
_STOP = "[.!?…‽؟۔।॥።։។]"
_BOUNDARY = re.compile(
    rf"""
    (?P<wide>[。！？｡．]++[」』】》”’）]*+)                  # scripts that put no space after the sentence
  | (?P<stop>(?<!{_STOP}){_STOP}++{_CLOSERS}(?=\s))        # the rest need white space after it
  | (?P<line>\n(?=[^\S\n]*+(?:\n|\f|\#{{1,6}}\s|[-*+•‣◦|]\s|\d{{1,3}}[.)]\s)) | \f
           | (?:(?<=\n)|\A)[^\S\n]*+\#{{1,6}}\s[^\n]*+\n)
    """,
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*\Z")
_LIST_NUMBER = re.compile(r"(?:\A|\n)[^\S\n]*\(?(?:\d{1,3}|[A-Za-z])\Z")
_ORDINAL = re.compile(r"\b(?:am|vom|der|den|dem|des|im|das|die|bis|zum|seit|und)\s+\d{1,2}\Z", re.IGNORECASE)
_NEXT_WORD = re.compile(r"[\s\"'“‘«‹(\[¿¡]*([^\W_]+)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words("""
    adm al approx assn assoc asst ave bd bldg blvd brig bros ca capt cf cie cmdr co col corp cpl dept dist dr ed eds eq
    eqs esp esq est etc excl ext feat ft gen gov hon hr hrsg inc incl intl jr lt ltd maj messrs mgr misc mlle mm mme mr
    mrs ms msgr mt mts mx nr op prof pseud pty pvt rep repr rev sen sgt sr sra srta st ste supt tel transl univ usw vs
    bspw bzw dipl evtl geb gest ggf inkl jh jhd kap mio mrd phil sog tsd ugs urspr vgl núm pág págs sres ud uds av fasc
""")
"""Words followed by a full stop inside a sentence, lower case; they end one only where a usual first word follows."""
_BEFORE_NUMBER = _words(
    "no nos p pp fig figs vol vols ch sec art pt ver min max jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""Abbreviations only where a number follows: ``No. 5`` against ``I said no. Five of them ...``."""
_FIRST_WORDS = _words("""
    after all although an and as at because both but by during each for from he her his however if in it its many most
    on one our she since so some that the their then there these they this those though to under until we what when
    where while who with you der die das ein eine er es sie im ist il elle une
""")


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans ``(start, end)`` of the sentences of ``text``, in order; empty for a text of white space alone."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if match["stop"] is not None and not _ends_sentence(text, start, match):
            continue
        if match["line"] is not None and match.end() - match.start() > 1:  # a heading line: text before it ends too
            _append(spans, text, start, match.start())
            start = match.start()
        _append(spans, text, start, match.end())
        start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        first = start + len(piece) - len(piece.lstrip())
        spans.append((first, first + len(stripped)))


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the stop mark of ``match``, in the sentence that began at ``start``, closes it."""
    following = _NEXT_WORD.match(text, match.end(), match.end() + 80)
    next_word = following[1] if following else ""
    if next_word[:1].islower():
        return False
    if match["stop"] != ".":
        return True
    before = text[max(start, match.start() - 40) : match.start()]
    if _LIST_NUMBER.search(before) if start < match.start() - 40 else _LIST_NUMBER.match(before.lstrip()):
        return False
    if _ORDINAL.search(before):
        return False
    found = _WORD_BEFORE.search(before)
    if found is None:
        return True
    word = found[0].lower()
    if len(word.rsplit(".", 1)[-1]) == 1 and not word[-1].isdigit():
        # An initial, "J. Smith", "U.S. Army"; one letter beyond Latin may be a whole word.
        return word[-1] > "ɏ" or (next_word.lower() in _FIRST_WORDS and word not in {"e.g", "i.e", "z.b"})
    if word in _BEFORE_NUMBER and next_word[:1].isdigit():
        return False
    return word not in _ABBREVIATIONS or next_word.lower() in _FIRST_WORDS
