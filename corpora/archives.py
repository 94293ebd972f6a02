"""An archive is a WARC file of a crawl: pages (WARC), texts extracted by others (WET) or descriptions of pages (WAT).

Contract: records that are documents become `Page` or `Document`; the rest of them (other types, other states, damage)
is one `Drop` each with the offset of its record; requests, revisits and the archive's own notes are no documents and
are passed over. Compressed archives are read member by member, one record each (WARC 1.1, annex D), so that a
damaged, cut or exploding member costs itself alone. Parsing by FastWARC (Bevendorff et al., 2021).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import MAX_RECORD_BYTES, inflate
from sleuth.corpora.members import DICTIONARY, GZIP, ZSTD, dictionary_of, member_at, next_member
from sleuth.corpora.pages import KINDS, Page
from sleuth.corpora.records import Document, Drop, Scalar

_WINDOW_BYTES = 4 << 20
_LENGTH = re.compile(rb"\r?\nContent-Length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)
_BEGIN = re.compile(rb"(?:\A|\n)(?=WARC/1\.[01]\r?\n)")
_NO_DOCUMENTS = ("warcinfo", "request", "metadata", "revisit", "continuation")
_OLDER, _ARC = b"filedesc:", "ARC, the format before WARC: convert it, for instance with `warcio recompress`"


def warc(path: Path, source: str, drop: Callable[[Drop], None]) -> Iterator[Page | Document]:
    """Pages and texts of a ``.warc``, ``.wet`` or ``.wat`` file, or its ``.gz`` or ``.zst``, in order."""
    reader = _Reader(path, source, drop)
    with path.open("rb") as file:
        magic = file.read(9)
        file.seek(0)
        if not magic:
            reader.drop_at(0, "the archive is empty")
        elif magic.startswith((GZIP, ZSTD, DICTIONARY)):
            yield from reader.members(file)
        elif magic.startswith(b"WARC/"):
            yield from reader.plain(file)
        else:
            reader.drop_at(0, f"expected a WARC archive, found {_ARC if magic == _OLDER else repr(magic)}")


class _Reader:
    """One archive being read; keeps what every drop names."""

    def __init__(self, path: Path, source: str, drop: Callable[[Drop], None]) -> None:
        self.path, self.source, self.drop = path, source, drop

    def drop_at(self, offset: int, reason: str) -> None:
        self.drop(Drop(f"{self.path}@{offset}", "read", reason))

    def members(self, file: BinaryIO) -> Iterator[Page | Document]:
        """Members of a compressed archive; after a bad one, reading goes on at the next that begins a record."""
        dictionary = dictionary_of(file)
        offset: int | None = file.tell()
        held, begun = b"", 0
        while offset is not None:
            file.seek(offset)
            member = member_at(file, dictionary)
            if isinstance(member, str):
                self.drop_at(offset, member)
                offset = next_member(file, offset + 4, dictionary)
                continue
            data, end = member
            if data is None:  # one member for the whole archive: no record can be skipped, but memory stays bounded
                yield from self.stream(file, offset)
                return
            if data.startswith(_OLDER):
                self.drop_at(offset, f"expected a WARC archive, found {_ARC}")
                return
            if held and not data.startswith(b"WARC/") and len(held) + len(data) <= MAX_RECORD_BYTES:
                held += data  # a writer that began a new member within a record
            else:
                yield from self.records(held, begun)
                held, begun = data, offset
            following = end if end > offset else next_member(file, offset + 4, dictionary)
            if end == offset and following is not None:  # otherwise they end the file, as padding does
                self.drop_at(offset, "expected a compressed record, found zeros")
            offset = following
        yield from self.records(held, begun)

    def stream(self, file: BinaryIO, offset: int) -> Iterator[Page | Document]:
        """An archive that is one long member; its first damage ends it."""
        from fastwarc.warc import ArchiveIterator

        file.seek(offset)
        count = 0
        try:
            for record in ArchiveIterator(file, parse_http=True, auto_decode="transfer"):
                count += 1
                body = record.reader.read(MAX_RECORD_BYTES + 1)
                if len(body) > MAX_RECORD_BYTES:
                    self.drop_at(offset, f"record {count} has more than {MAX_RECORD_BYTES:,} bytes: reading stopped")
                    return
                yield from self._found(record, body, offset)
        except Exception as error:  # FastWARC raises OSError and ValueError; a cut file must not end the build
            self.drop_at(offset, f"reading stopped after record {count}: {error}")

    def plain(self, file: BinaryIO) -> Iterator[Page | Document]:
        """An uncompressed archive, in windows of whole records."""
        window, start = b"", 0
        while more := file.read(_WINDOW_BYTES):
            window += more
            cut = _last_begin(window)
            if cut > 0:
                yield from self.records(window[:cut], start)
                window, start = window[cut:], start + cut
            elif len(window) > 2 * MAX_RECORD_BYTES:
                self.drop_at(start, f"no record begins within {len(window):,} bytes: reading stopped")
                return
        if window:
            yield from self.records(window, start)

    def records(self, data: bytes, offset: int) -> Iterator[Page | Document]:
        """The records of ``data``, each ending where the next one begins whatever its Content-Length says."""
        at = 0
        while at < len(data):
            end, fault = _extent(data, at)
            if fault:
                self.drop_at(offset + at, fault)
            else:
                yield from self._record(data[at:end], offset + at)
            at = end

    def _record(self, data: bytes, offset: int) -> Iterator[Page | Document]:
        from fastwarc.warc import ArchiveIterator

        try:
            record = next(iter(ArchiveIterator(io.BytesIO(data), parse_http=True, auto_decode="transfer")), None)
            if record is None:
                return
            body = record.reader.read()
        except Exception as error:  # see `stream`
            self.drop_at(offset, f"not a WARC record: {error}")
            return
        yield from self._found(record, body, offset)

    def _found(self, record: Any, body: bytes, offset: int) -> Iterator[Page | Document]:
        """What one record holds: a page, a text, or a drop; nothing for what is no document."""
        head = {name.lower(): value for name, value in record.headers.to_tuples()}
        url = head.get("warc-target-uri", "").strip("<>")
        kind = head.get("warc-type", "")
        try:
            if kind in ("response", "resource"):
                found: Page | Document | None = self._page(record, url, head, body, offset)
            elif kind == "conversion":
                found = self._text(url, head, body, offset)
            elif kind == "metadata" and head.get("content-type", "").startswith("application/json"):
                found = self._description(url, body, offset)
            elif kind in _NO_DOCUMENTS:
                return
            else:
                raise InputError(f"record type {kind or 'missing'}, expected one of WARC 1.1")
        except InputError as error:
            self.drop_at(offset, f"{url or kind or 'record'}: {error}")
            return
        if found is not None:
            yield found

    def _page(self, record: Any, url: str, head: dict[str, str], body: bytes, offset: int) -> Page:
        media, charset = head.get("content-type", "").partition(";")[0].strip().lower(), ""
        if record.is_http:
            media, charset = (record.http_content_type or "").lower(), record.http_charset or ""
            if (status := record.http_headers.status_code) != 200:
                raise InputError(f"HTTP status {status}")
            for encoding in reversed((record.http_headers.get("Content-Encoding") or "").split(",")):
                body = inflate(body, encoding)
        if not body.strip():
            raise InputError("the body is empty")
        extension = KINDS.get(media) or _sniffed(body)
        if extension is None:
            raise InputError(f"content type {media or 'unknown'} is no document")
        stamp = {"warc_date": head["warc-date"]} if head.get("warc-date") else {}
        return Page(url or f"{self.source}@{offset}", body, extension, self.source, url, charset, stamp)

    def _text(self, url: str, head: dict[str, str], body: bytes, offset: int) -> Document:
        text = body.decode("utf-8", "replace").strip()
        if not text:
            raise InputError("the text is empty")
        title, _, _ = text.partition("\n")  # WET keeps the page's title as its first line
        lang = head.get("warc-identified-content-language", "").partition(",")[0]
        fields: dict[str, Scalar] = {"warc_date": head["warc-date"]} if head.get("warc-date") else {}
        if lang:
            fields["lang_iso3"] = lang
        return Document(url or f"{self.source}@{offset}", text, title.strip()[:300], url, self.source, metadata=fields)

    def _description(self, url: str, body: bytes, offset: int) -> Document | None:
        """A WAT record describes a page: its title, its description, and how many links it has; None for a request."""
        try:
            envelope = json.loads(body)["Envelope"]
            if envelope["WARC-Header-Metadata"]["WARC-Type"] != "response":
                return None
            page = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]
            top, links = page.get("Head", {}), page.get("Links", ())
            metas = {str(m.get("name") or m.get("property")).lower(): m.get("content") for m in top.get("Metas", ())}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"expected the WAT metadata of an HTML page: {type(error).__name__}: {error}") from error
        title = str(top.get("Title") or metas.get("og:title") or "").strip()
        text = str(metas.get("description") or metas.get("og:description") or title).strip()
        if not text:
            raise InputError("the WAT record has neither a title nor a description")
        fields: dict[str, Scalar] = {"links": len(links), "described_only": True}
        return Document(url or f"{self.source}@{offset}", text, title, url, self.source, metadata=fields)


def _sniffed(body: bytes) -> str | None:
    """The extension of what the first bytes say (WHATWG MIME Sniffing, in small)."""
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"%pdf-"):
        return ".pdf"
    return ".html" if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) else None


def _extent(data: bytes, at: int) -> tuple[int, str]:
    """``(end, fault)`` of the record at ``at``: fault names a Content-Length that is not true."""
    blank = re.compile(rb"\r?\n\r?\n").search(data, at)
    if not data.startswith(b"WARC/1.", at) or blank is None:
        following = _BEGIN.search(data, at + 1)
        return (following.end() if following else len(data)), f"expected a WARC record, found {data[at : at + 20]!r}"
    stated = _LENGTH.search(data, at, blank.end())
    if stated is None:
        following = _BEGIN.search(data, blank.end())
        return (following.end() if following else len(data)), "the record has no Content-Length"
    end = blank.end() + int(stated[1])
    rest = re.compile(rb"[\r\n]*").match(data, min(end, len(data)))
    after = rest.end() if rest else end
    if end <= len(data) and (after == len(data) or data.startswith(b"WARC/1.", after)):
        return after, ""
    following = _BEGIN.search(data, blank.end())
    found = len(data[blank.end() : following.start() if following else len(data)].rstrip(b"\r\n"))
    reason = f"Content-Length is {int(stated[1]):,}, but the record has about {found:,} bytes"
    return (following.end() if following else len(data)), reason


def _last_begin(window: bytes) -> int:
    """Where the last whole record of a window ends: the last place, past its start, where a record begins."""
    at = max(window.rfind(b"\nWARC/1.0\r\n"), window.rfind(b"\nWARC/1.1\r\n"))
    return at + 1 if at > 0 else 0
