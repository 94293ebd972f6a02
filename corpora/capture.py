"""A capture is the WARC file that a crawl writes: its pages, and the addresses that gave none.

Contract: one gzip member a record, appended in one write; opening it again reads what an earlier run got, and cuts off
what that run left half-written at its end; damage that records follow is refused, and nothing is cut. Pages are
``response`` records as they were received, without cookies and transfer coding; the other addresses are ``metadata``
records with their reason, which readers of archives pass over.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import inflate
from sleuth.corpora.members import member_at, next_member

if TYPE_CHECKING:
    import httpx

NOTE = "application/x-sleuth-crawl+json"
"""Media type of the records that say why an address gave no page."""
SYNC_S = 5.0
"""A machine that dies loses at most so many seconds of pages."""

_LEFT = "the file is left as it is; crawl into another one, and build from both"


@dataclass(frozen=True, slots=True)
class Known:
    """What the archive has of one address."""

    offset: int | None
    """Of its page; None where it gave none."""
    reason: str = ""
    targets: tuple[str, ...] = ()


class Capture:
    """The WARC file, open for appending; what a died run left half-written is cut off."""

    def __init__(self, path: Path, user_agent: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another crawl is writing to it") from error
        self.found: dict[str, Known] = dict(self.read())
        self.synced = time.monotonic()
        if self.path.stat().st_size == 0:
            lines = f"software: sleuth\r\nhttp-header-user-agent: {user_agent}\r\nrobots: obey\r\nformat: WARC/1.1\r\n"
            self.write("warcinfo", "", lines.encode(), "application/warc-fields")

    def read(self) -> Iterator[tuple[str, Known]]:
        end = 0
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            while end < size:
                file.seek(end)
                member = member_at(file, None)
                if isinstance(member, str) or member == (b"", end):  # the latter: zeros, as a machine that died leaves
                    if next_member(file, end + 4, None) is not None:
                        raise InputError(f"{self.path}: damaged at byte {end:,}, before other records; {_LEFT}")
                    break
                if member[0] is None:
                    raise InputError(f"{self.path}: the record at byte {end:,} is larger than a crawl writes; {_LEFT}")
                head, _, body = member[0].partition(b"\r\n\r\n")
                fields = dict(line.partition(": ")[::2] for line in head.decode("utf-8", "replace").split("\r\n")[1:])
                url = fields.get("WARC-Target-URI", "")
                if fields.get("WARC-Type") == "response":
                    yield url, Known(end)
                elif fields.get("Content-Type") == NOTE and url:
                    said = json.loads(body.strip() or b"{}")
                    yield url, Known(None, said.get("reason", ""), tuple(said.get("targets", ())))
                elif not head.startswith(b"WARC/"):
                    raise InputError(
                        f"{self.path}: expected a WARC archive of an earlier crawl, found another gzip file"
                    )
                end = member[1]
            if end == 0 and size:
                raise InputError(f"{self.path}: expected a WARC archive of an earlier crawl, found another file")
        if end < size:
            os.truncate(self.path, end)

    def body(self, offset: int) -> tuple[str, str, bytes]:
        """``(media type, charset, decoded body)`` of the page at ``offset``."""
        from fastwarc.warc import ArchiveIterator

        with self.path.open("rb") as file:
            file.seek(offset)
            record = next(iter(ArchiveIterator(file, parse_http=True)))
            body = record.reader.read()
            encoding = record.http_headers.get("Content-Encoding") or ""
            media, charset = (record.http_content_type or "").lower(), record.http_charset or ""
        try:
            return media, charset, inflate(body, encoding)
        except InputError:
            return media, charset, b""

    def page(self, url: str, response: httpx.Response, body: bytes) -> None:
        skipped = {b"transfer-encoding", b"content-length", b"connection", b"keep-alive", b"set-cookie"}
        lines = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}".encode()]
        lines += [name + b": " + value for name, value in response.headers.raw if name.lower() not in skipped]
        lines += [b"Content-Length: %d" % len(body), b"", b""]
        self.write("response", url, b"\r\n".join(lines) + body, "application/http; msgtype=response")

    def note(self, url: str, said: Mapping[str, Any]) -> None:
        self.write("metadata", url, json.dumps(said).encode(), NOTE)

    def write(self, kind: str, url: str, block: bytes, media: str) -> None:
        """One record as one gzip member, in one write."""
        from fastwarc.stream_io import GzipWriter
        from fastwarc.warc import WarcRecord, WarcRecordType

        record = WarcRecord()
        record.init_headers(getattr(WarcRecordType, kind))
        record.headers["Content-Type"] = media
        if url:
            record.headers["WARC-Target-URI"] = url
        record.set_bytes_content(block)
        buffer = io.BytesIO()
        with GzipWriter(buffer, compression_level=6) as packed:
            record.write(packed, checksum_data=True)
        self.file.write(buffer.getvalue())
        self.file.flush()
        if time.monotonic() - self.synced > SYNC_S:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def close(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
