"""A member is one compressed part of a file of many, gzip or zstd: what a web archive keeps each of its records in.

Contract: a member is inflated in small steps and within bounds, or named as cut, damaged or exploding; after a bad one,
`next_member` finds where the next record begins.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, BinaryIO

from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import MAX_RECORD_BYTES, check_ratio

GZIP, ZSTD, DICTIONARY = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x5d\x2a\x4d\x18"
_STEP_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r?\nContent-Length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)


def dictionary_of(file: BinaryIO) -> bytes | None:
    """The dictionary that a ``.warc.zst`` may begin with in a skippable frame, plain or compressed itself.

    Raises `InputError` for one that is damaged: no record can be read without it.
    """
    magic, size = file.read(4), int.from_bytes(file.read(4), "little")
    if magic != DICTIONARY or size > MAX_RECORD_BYTES:
        file.seek(0)
        return None
    import zstandard

    data = file.read(size)
    try:
        return zstandard.ZstdDecompressor().decompress(data, MAX_RECORD_BYTES) if data[:4] == ZSTD else data
    except (zstandard.ZstdError, MemoryError) as error:
        raise InputError(f"the archive's dictionary is damaged: {error}") from error


def _inflater(magic: bytes, dictionary: bytes | None) -> Any:
    if magic[:3] == GZIP:
        return zlib.decompressobj(31)
    import zstandard

    known = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=known).decompressobj()


def member_at(file: BinaryIO, dictionary: bytes | None) -> tuple[bytes | None, int] | str:
    """``(data, offset of the next member)``; None for data beyond memory's bound; or what is wrong with the member."""
    start = file.tell()
    first = file.read(_STEP_BYTES)
    if not first.strip(b"\0"):
        return b"", start
    if not first.startswith((GZIP, ZSTD)):
        return f"expected a compressed record, found {first[:8]!r}"
    parts: list[bytes] = []
    before = after = 0
    piece = first
    try:
        inflater = _inflater(first[:4], dictionary)
        while piece:
            for at in range(0, len(piece), 4096):
                step = piece[at : at + 4096]
                out = inflater.decompress(step)
                before, after = before + len(step), after + len(out)
                parts.append(out)
                if inflater.eof:
                    return b"".join(parts), start + before - len(inflater.unused_data)
                if after > MAX_RECORD_BYTES and not _one_large_record(parts[0] or parts[1]):
                    return None, start
                check_ratio(before, after)
            piece = file.read(_STEP_BYTES)
    except InputError as error:
        return str(error)
    except Exception as error:  # zlib.error and zstandard.ZstdError have no common base
        return f"the compressed record is damaged: {error}"
    return f"the compressed record is cut off after {before:,} bytes"


def _one_large_record(start: bytes) -> bool:
    """Whether a member's first record says of itself that it is larger than any record may be."""
    stated = _LENGTH.search(start[:8192])
    return start.startswith(b"WARC/") and stated is not None and int(stated[1]) > MAX_RECORD_BYTES // 2


def next_member(file: BinaryIO, offset: int, dictionary: bytes | None) -> int | None:
    """Offset of the next member that begins with a record, or None at the end of the file."""
    file.seek(offset)
    window = b""
    while more := file.read(_STEP_BYTES):
        window += more
        for match in re.finditer(rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd", window):
            try:
                begin = _inflater(match[0], dictionary).decompress(window[match.start() : match.start() + 512])
            except Exception:  # these bytes only look like the start of a member
                continue
            if begin.startswith(b"WARC/"):
                return offset + match.start()
        offset += max(0, len(window) - 512)
        window = window[-512:]
    return None
