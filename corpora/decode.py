"""Bytes become text here, or an `InputError` says why not: wrong letters are never let through in silence.

Order: byte order mark, UTF-8 where the bytes are valid as such, the charset that the server or the page declares, UTF-8
with a few damaged bytes, and last a statistical guess. Bytes that are UTF-8 throughout are hardly ever anything else,
while declarations are often wrong. The name of the encoding is returned with how it came about, so that a text which
was guessed or repaired carries that in its metadata.
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
_WEB_CODECS = {
    **dict.fromkeys(("iso8859-1", "ascii", "iso88591"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "gb_2312-80"), "gb18030"),
    **dict.fromkeys(("iso8859-11", "tis-620", "windows-874"), "cp874"),
    **dict.fromkeys(("euc_kr", "ks_c_5601-1989", "windows-949"), "cp949"),
    **dict.fromkeys(("shift_jis", "windows-31j"), "cp932"),
    "iso8859-9": "cp1254",
}
"""By Python's name of a codec, so that each of its labels counts, and labels that Python does not know."""
_GUESS_BYTES = 200_000
_DAMAGED = 500
"""One damaged byte in so many is repaired; more of them say that the encoding is another."""


def decode(data: bytes, html: bool = False, charset: str = "") -> tuple[str, str]:
    """``(text, encoding)``; newlines become ``\\n`` and a byte order mark goes. ``charset`` is what the server said.

    Raises `InputError` for bytes that are no text, or whose encoding cannot be told.
    """
    text, encoding = _decode(data, html, charset)
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff"), encoding


def _decode(data: bytes, html: bool, charset: str) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding), encoding
    if b"\0" in data:
        if not html or data.count(b"\0") > len(data) // _DAMAGED:
            raise InputError(f"expected text, found a NUL byte at {data.index(0)}: a binary file")
        data = data.replace(b"\0", b"")  # browsers pass over it
    names = [_web_name(name, html) for name in (charset, _declared(data) if html else "") if name]
    escapes = b"\x1b" in data and any(name.startswith(("iso-2022", "iso2022")) for name in names)
    order = [*names, "utf-8"] if escapes else ["utf-8", *names]
    for encoding in dict.fromkeys(order):
        try:
            return data.decode(encoding), encoding
        except (ValueError, LookupError):  # does not decode; is no name of an encoding
            continue
    repaired = data.decode("utf-8", "replace")
    if (lost := repaired.count("\ufffd")) <= sum(c > "\x7f" for c in repaired[:_GUESS_BYTES]) // 4 and (
        lost <= len(repaired) // _DAMAGED
    ):
        return repaired, f"utf-8 ({lost} damaged)"
    return _guess(data)


def _declared(data: bytes) -> str:
    match = _DECLARED.search(data[:4096])
    return (match[1] or match[2]).decode("ascii", "replace").lower() if match else ""


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"byte order mark says {encoding}, but byte {error.start} does not decode") from error


def _web_name(name: str, html: bool) -> str:
    """What browsers take a declared charset for (WHATWG Encoding Standard, section 4.2).

    A page whose declaration of UTF-16 can be read is UTF-8: each ``<`` of UTF-16 has a NUL byte, and none is here.
    """
    label = name.lower().removeprefix("x-")
    try:
        codec = codecs.lookup(label).name
    except (LookupError, ValueError):
        codec = label
    if html and codec.startswith(("utf-16", "utf-32")):
        return "utf-8"
    return _WEB_CODECS.get(codec, label)


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
