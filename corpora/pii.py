"""Personal data are e-mail addresses, telephone numbers and IP addresses in a text; here they are masked.

Contract: a stage that changes texts, so it runs before passages are cut and every later span holds. What is masked
becomes a word in angle brackets, and the numbers of each are metadata. E-mail and IP patterns after Dolma's (Soldaini
et al., 2024, section 3.1.3), telephone numbers in the written forms that hardly anything else has. Masking misses
some and is no anonymisation.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from sleuth.corpora.errors import ConfigError
from sleuth.corpora.records import Document, Drop, Scalar

_LETTER = "A-Za-z\u00c0-\u0dff"
"""Of scripts with spaces. Chinese, Japanese and Thai put none beside an address, and ``\\b`` and ``\\w`` would take it
for a part of their words; the underscores of Markdown's emphasis are no part of it either."""
_EMAIL = re.compile(
    rf"(?<![{_LETTER}\d])[{_LETTER}\d][{_LETTER}\d_.+%-]{{0,63}}"
    rf"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.){{1,8}}[A-Za-z]{{2,24}}(?![{_LETTER}\d])"
)
_IP = re.compile(
    r"(?<![A-Za-z\d_.])(?:(?<!::)(?<!\d:)(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{1,4})(?!:)"
    r"|\d{1,3}(?:\.\d{1,3}){3})(?![A-Za-z\d_]|\.\d)"
)
_HINTS = {
    "email": re.compile("@"),
    "ip": re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"),
    "phone": re.compile(r"\d{2}"),
}
"""Without its hint a text cannot hold the kind; most texts have none, and hints are found far faster."""
_BETWEEN = r" /.\u2010-\u2013-"
_PHONE = re.compile(
    rf"""(?<![A-Za-z\d_.,/-])(?:
        (?P<world>\+[1-9]\d{{0,14}}(?:[ .-]?\(\d{{1,5}}\))?[\d{_BETWEEN}]{{4,20}}\d)
      | (?P<america>(?:1[ .-])?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{{4}}
          | (?<!\d[ ])(?:1[ ])?[2-9]\d\d[ ][2-9]\d\d[ ](?!1[5-9]|20)\d{{4}}(?![ ]\d))
      | (?P<area>(?<!\d[ ])\((?!(?:1[5-9]|20)\d\d\))\d{{2,5}}\)[ ]?\d[\d{_BETWEEN}]{{4,14}}\d)
      | (?P<trunk>(?<!\d[ ])0[\d{_BETWEEN}]{{7,20}}\d)
    )(?![A-Za-z\d_/-]|[.,]\d)""",
    re.VERBOSE,
)
"""The country's code after a plus; the North American plan; an area in brackets; a trunk 0. Digits in any other shape
are far more often years, lists, versions or names of records, so they are left alone."""
_YEAR = r"(?:1[5-9]|20)\d\d"
_NO_PHONE = re.compile(
    rf"""(?<!\d)(?:{_YEAR}[./-]\d\d?[./-]\d\d?|\d\d?[./-]\d\d?[./-]{_YEAR})(?!\d)  # a date
      | (?<!\S)[+(]?\d*\.\d+(?!\S)  # a decimal
      | ^\D*\d+(?:\D+{_YEAR})+$  # years""",
    re.VERBOSE,
)
KINDS = ("email", "phone", "ip")


def masked(text: str, kinds: Sequence[str] = KINDS) -> tuple[str, dict[str, int]]:
    """The text with each find replaced by ``<email>``, ``<phone>`` or ``<ip>``, and how many there were of each."""
    counts: dict[str, int] = {}
    for kind in (kind for kind in ("email", "ip", "phone") if kind in kinds):
        pattern, is_one = _FINDERS[kind]
        if not _HINTS[kind].search(text):
            continue

        def replace(match: re.Match[str], kind: str = kind, is_one: Callable[[re.Match[str]], bool] = is_one) -> str:
            if not is_one(match):
                return match[0]
            counts[kind] = counts.get(kind, 0) + 1
            return f"<{kind}>"

        text = pattern.sub(replace, text)
    return text, counts


def _is_ip(match: re.Match[str]) -> bool:
    """Public and private addresses; not the unspecified one, no version number such as 1.2.3.4 before 4.0.0.0, and no
    name of a program, of which ``::add`` and ``abc::def`` are in hexadecimal digits too."""
    found = match[0]
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    first = found.partition(":")[0]
    if address.version == 6 and "." not in found:
        return len(first) >= 3 and any(c.isdigit() for c in found)
    return not address.is_unspecified and (address.version == 6 or int(found.partition(".")[0]) >= 4)


def _is_phone(match: re.Match[str]) -> bool:
    """Up to fifteen digits (ITU-T E.164) in groups as their form has them; no date, no years and no number."""
    found, form = match[0], match.lastgroup
    if form == "america":
        return True
    groups = re.findall(r"\d+", found)
    count = sum(map(len, groups))
    if count > 15 or _NO_PHONE.search(found):
        return False
    if form == "world":
        thousands = re.fullmatch(r"\+\d{1,3}(?:[ .]\d{3})+", found)
        return count >= (10 if thousands else 7)
    if form == "area":
        return count - len(groups[0]) >= (5 if groups[0][0] == "0" else 7)
    if len(groups) == 5 and set(map(len, groups)) == {2}:
        return groups[0] != "00" and max(map(int, groups)) > 49  # as France writes them; lower ones are drawn
    if len(groups) == 1 or groups[1][0] == "0" or not 2 <= len(groups[0]) <= 6:
        return False
    if groups[0].startswith("00"):  # the country's code as it is dialled
        return count >= 11
    return count >= 9 and (len(groups[0]) > 2 or len(groups[1]) > 2)


_FINDERS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
    "email": (_EMAIL, lambda match: True),
    "ip": (_IP, _is_ip),
    "phone": (_PHONE, _is_phone),
}


def pii(kinds: Sequence[str] = KINDS) -> Callable[..., Iterator[Document]]:
    """Stage: masks the given kinds; metadata ``masked_email`` and so on say how many."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ConfigError(f"pii: unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")

    def run(documents: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for document in documents:
            text, counts = masked(document.text, kinds)
            title, more = masked(document.title, kinds)
            if not counts and not more:
                yield document
                continue
            found: dict[str, Scalar] = {
                f"masked_{kind}": counts.get(kind, 0) + more.get(kind, 0) for kind in (*counts, *more)
            }
            yield dataclasses.replace(document, text=text, title=title, metadata={**document.metadata, **found})

    return run
