"""Archives: records become pages and texts; cut, exploding, lying and alien ones cost themselves alone."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from sleuth.corpora.errors import InputError
from sleuth.corpora.limits import check_html, inflate
from sleuth.corpora.read import items, read
from sleuth.corpora.records import Document, Drop

BODY = "<html><head><title>Mill {n}</title></head><body><article><p>{text}</p></article></body></html>"
TEXT = "The old mill number {n} at the river ground corn for the whole village for three hundred years and more. " * 4


def record(url: str, body: bytes, kind: str = "response", length: int | None = None, media: str = "") -> bytes:
    media = media or ("application/http; msgtype=response" if kind == "response" else "text/plain")
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{abs(hash(url)):032x}>\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def http(body: bytes, media: str = "text/html", status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n{more}\r\n".encode() + body


def page(n: int, **options: object) -> bytes:
    html = BODY.format(n=n, text=TEXT.format(n=n)).encode()
    return record(f"http://m.example/{n}", http(html), **options)  # type: ignore[arg-type]


def gather(path: Path, data: bytes) -> tuple[list[Document], list[Drop]]:
    path.write_bytes(data)
    drops: list[Drop] = []
    return list(read([path], drops.append)), drops


def numbers(documents: Sequence[Document]) -> list[int]:
    return [int(document.id.rsplit("/", 1)[1]) for document in documents]


def zipped(records: Sequence[bytes]) -> bytes:
    return b"".join(gzip.compress(r) for r in records)


PACKED = {
    "a.warc": lambda records: b"".join(records),
    "a.warc.gz": zipped,
    "one.warc.gz": lambda records: gzip.compress(b"".join(records)),
    "a.warc.zst": lambda records: b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(r) for r in records),
    "split.warc.gz": lambda records: b"".join(gzip.compress(r[:200]) + gzip.compress(r[200:]) for r in records),
}


@pytest.mark.parametrize("name", PACKED)
def test_pages_of_a_crawl_are_read_however_it_is_packed(tmp_path: Path, name: str) -> None:
    info = record("", b"software: x\r\n", "warcinfo", media="application/warc-fields")
    request = record(
        "http://m.example/0", b"GET / HTTP/1.1\r\n\r\n", "request", media="application/http; msgtype=request"
    )
    documents, drops = gather(tmp_path / name, PACKED[name]([info, request, *(page(n) for n in range(3))]))
    assert drops == [] and numbers(documents) == [0, 1, 2]
    assert documents[1].title == "Mill 1" and documents[1].url == "http://m.example/1"
    assert documents[1].metadata["warc_date"] == "2024-05-18T01:58:10Z" and "mill number 1" in documents[1].text


@pytest.mark.parametrize("zeros", [100, 300_000])
def test_zeros_between_records_are_one_drop_and_at_the_end_none(tmp_path: Path, zeros: int) -> None:
    head = zipped([page(0), page(1)])
    documents, drops = gather(tmp_path / "a.warc.gz", head + bytes(zeros) + zipped([page(2)]) + bytes(zeros))
    assert numbers(documents) == [0, 1, 2]
    assert [drop.id for drop in drops] == [f"{tmp_path / 'a.warc.gz'}@{len(head)}"]


def test_wet_and_wat_give_texts_and_descriptions(tmp_path: Path) -> None:
    texts, none = gather(tmp_path / "a.warc.wet.gz", zipped([record("http://x/1", b"Title\nText here", "conversion")]))
    assert none == [] and (texts[0].title, texts[0].text) == ("Title", "Title\nText here")
    html = {"Head": {"Title": "T", "Metas": [{"name": "Description", "content": "About mills"}]}, "Links": [{}, {}]}
    payloads = [("request", {}), ("response", {"HTTP-Response-Metadata": {"HTML-Metadata": html}}), ("response", 3)]
    rows = [
        {"Envelope": {"WARC-Header-Metadata": {"WARC-Type": kind}, "Payload-Metadata": payload}}
        for kind, payload in payloads
    ]
    wat = [record("http://x/1", json.dumps(row).encode(), "metadata", media="application/json") for row in rows]
    found, drops = gather(tmp_path / "a.warc.wat.gz", zipped(wat))
    assert [(d.title, d.text, d.metadata["links"]) for d in found] == [("T", "About mills", 2)]
    assert len(drops) == 1 and "WAT" in drops[0].reason


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
@pytest.mark.parametrize("length", [5, 40, 10**6, 10**15])
def test_a_wrong_content_length_costs_its_own_record_alone(tmp_path: Path, name: str, length: int) -> None:
    records = [page(0), page(1, length=length), page(2)]
    documents, drops = gather(tmp_path / name, PACKED[name](records))
    assert numbers(documents) == [0, 2]
    assert len(drops) == 1 and f"{length:,}" in drops[0].reason


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x37\xa4\x30\xec"], ids=["compressed", "plain"])
def test_a_damaged_dictionary_is_one_drop(tmp_path: Path, magic: bytes) -> None:
    frame = b"\x5d\x2a\x4d\x18" + (64).to_bytes(4, "little") + magic + b"\xff" * 60
    documents, drops = gather(tmp_path / "a.warc.zst", frame + zstandard.compress(page(1)))
    assert documents == [] and len(drops) == 1 and "damaged" in drops[0].reason


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "one.warc.gz", "a.warc.zst"])
def test_a_cut_archive_gives_what_it_holds_and_one_drop(tmp_path: Path, name: str) -> None:
    data = PACKED[name]([page(n) for n in range(3)])
    documents, drops = gather(tmp_path / name, data[:-120])
    assert numbers(documents) == ([] if name == "one.warc.gz" else [0, 1])
    assert len(drops) == 1


@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc.zst"])
def test_damage_within_a_member_costs_that_member_alone(tmp_path: Path, name: str) -> None:
    pieces = [PACKED[name]([page(n)]) for n in range(3)]
    broken = bytearray(pieces[1])
    broken[60:80] = bytes(20)
    documents, drops = gather(tmp_path / name, pieces[0] + bytes(broken) + pieces[2])
    assert numbers(documents) == [0, 2] and len(drops) == 1


@pytest.mark.parametrize("where", ["member", "body"])
def test_what_inflates_a_thousandfold_is_one_drop(tmp_path: Path, where: str) -> None:
    zeros = bytes(20 << 20)
    packed = gzip.compress(zeros)
    bomb = record(
        "http://m.example/1", http(packed, more="Content-Encoding: gzip\r\n") if where == "body" else http(zeros)
    )
    documents, drops = gather(tmp_path / "a.warc.gz", zipped([page(0), bomb, page(2)]))
    assert numbers(documents) == [0, 2]
    assert len(drops) == 1 and "inflates" in drops[0].reason


def test_states_types_and_empty_bodies_are_named(tmp_path: Path) -> None:
    records = [
        record("http://x/gone", http(b"no", status="404 Not Found")),
        record("http://x/image", http(b"\x89PNG", media="image/png")),
        record("http://x/empty", http(b"")),
        record("http://x/sniffed", http(BODY.format(n=1, text=TEXT).encode(), media="application/octet-stream")),
    ]
    documents, drops = gather(tmp_path / "a.warc", b"".join(records))
    assert [d.id for d in documents] == ["http://x/sniffed"]
    assert [word in drop.reason for word, drop in zip(("404", "image/png", "empty"), drops, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"filedesc://x 0.0.0.0 1 text/plain 1\n", "ARC"),
        (b"%PDF-1.4", "WARC"),
        (b"WARC/1.0\r\nrubbish", "WARC"),
    ],
)
def test_what_is_no_archive_is_one_drop(tmp_path: Path, data: bytes, word: str) -> None:
    documents, drops = gather(tmp_path / "a.warc", data)
    assert documents == [] and len(drops) == 1 and word in drops[0].reason


def test_a_charset_that_lies_is_found_out(tmp_path: Path) -> None:
    html = BODY.format(n=1, text=TEXT.format(n="Grüße"))
    records = [
        record("http://x/0", http(html.encode(), media="text/html; charset=iso-8859-1")),
        record("http://x/1", http(html.encode("cp1252"), media="text/html; charset=windows-1252")),
        record(
            "http://x/2", http(html.encode()[:-20] + b"\xff" + html.encode()[-20:], media="text/html; charset=utf-8")
        ),
        record("http://x/3", http(html.encode(), media="text/html; charset=no-such-charset")),
    ]
    documents, drops = gather(tmp_path / "a.warc", b"".join(records))
    assert drops == [] and all("Grüße" in d.text for d in documents)
    assert [d.metadata.get("encoding", "") for d in documents] == ["", "windows-1252", "utf-8 (1 damaged)", ""]


def test_items_are_pages_that_can_be_parsed_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(page(7))
    (item,) = items([tmp_path / "a.warc"], lambda drop: None)
    assert item.id == "http://m.example/7" and getattr(item, "kind", "") == ".html"


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_no_page_is_lost_in_silence_whatever_is_done_to_the_bytes(tmp_path: Path, name: str) -> None:
    whole = PACKED[name]([page(n) for n in range(4)])
    chooser = random.Random(name)
    for _ in range(60):
        data = bytearray(whole)
        at = chooser.randrange(len(data))
        if chooser.random() < 0.5:
            data[at : at + chooser.randrange(1, 200)] = chooser.randbytes(chooser.randrange(60))
        else:
            data[at] ^= 1 << chooser.randrange(8)
        (tmp_path / name).write_bytes(data)
        drops: list[Drop] = []
        assert len(list(items([tmp_path / name], drops.append))) >= 4 or drops


def test_limits_refuse_bombs_and_giant_tags_and_pass_the_rest() -> None:
    with pytest.raises(InputError, match="inflates"):
        inflate(gzip.compress(bytes(12 << 20)), "gzip")
    with pytest.raises(InputError, match="attributes"):
        check_html(b"<p " + b"a=1 " * 5000 + b">")
    check_html(b"<img src='data:" + b"A" * 20_000 + b"'>")
    assert inflate(b"plain", "gzip") == b"plain" and inflate(gzip.compress(b"x"), "GZIP") == b"x"
