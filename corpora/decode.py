"""Bytes become text here, or an `InputError` says why not: wrong letters are never let through in silence.

Order: byte order mark, the charset that an HTML or XML page declares, UTF-8, and last a statistical guess. The name of
the encoding is returned, so that a text which was guessed carries that in its metadata.
"""

from __future__ import annotations

import codecs
import re

from sleuth.corpora.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})|<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""",
    re.IGNORECASE,
)
_WEB_NAMES = {
    **dict.fromkeys(("iso-8859-1", "latin1", "us-ascii", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    "iso-8859-9": "cp1254",
    "ks_c_5601-1987": "cp949",
    "shift_jis": "cp932",
}
_GUESS_BYTES = 200_000


def decode(data: bytes, html: bool = False) -> tuple[str, str]:
    """``(text, encoding)``; newlines become ``\\n`` and a byte order mark goes.

    Raises `InputError` for bytes that are no text, or whose encoding cannot be told.
    """
    text, encoding = _decode(data, html)
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff"), encoding


def _decode(data: bytes, html: bool) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding), encoding
    if b"\0" in data:
        raise InputError(f"expected text, found a NUL byte at {data.index(0)}: a binary file")
    declared = _DECLARED.search(data[:4096]) if html else None
    name = (declared[1] or declared[2]).decode("ascii", "replace").lower() if declared else "utf-8"
    for encoding in dict.fromkeys((_web_name(name), "utf-8")):
        try:
            return data.decode(encoding), encoding
        except (UnicodeDecodeError, LookupError):
            continue
    return _guess(data)


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"byte order mark says {encoding}, but byte {error.start} does not decode") from error


def _web_name(name: str) -> str:
    """What browsers take a declared charset for (WHATWG Encoding Standard, section 4.2)."""
    return _WEB_NAMES.get(name, name)


def _guess(data: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_GUESS_BYTES]).best()
    if best is not None:
        try:
            text = data.decode(best.encoding)
        except (UnicodeDecodeError, LookupError):
            best = None
        else:
            if not re.search(r"[\x00-\x08\x0e-\x1f]", text):
                return text, f"{best.encoding} (guessed)"
    raise InputError("expected text in UTF-8 or a declared encoding, found bytes of no encoding that could be told")
