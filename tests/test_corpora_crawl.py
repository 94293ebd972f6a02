"""The crawl: bounds, robots.txt, addresses that must not be reached, and going on after a death; all on loopback."""

import gzip
import http.server
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from sleuth.cli import app
from sleuth.corpora.capture import Capture
from sleuth.corpora.crawl import CrawlSpec, canonical, crawl, targets_of
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.outside import ForbiddenAddress, addresses, client, may_reach
from sleuth.corpora.read import read

TEXT = "The old mill at the river ground corn for the whole village and for the farms around it. " * 4
PAGES: dict[str, str] = {
    "/": '<a href="/a">a</a> <a href="b#top">b</a><a href="/secret/x">s</a><a href="/p.png">p</a> <a href="/data">',
    "/a": '<a href="/c">c</a> <a href="/moved">m</a> <a href="http://other.example/">o</a> <a href="/gone">g</a>',
    "/b": '<meta name="robots" content="nofollow"><a href="/hidden">h</a>',
    "/c": '<a href="/">home</a> <a href="/d">d</a> <a rel="nofollow" href="/n">n</a>',
    "/d": "",
    "/target": "",
}


class Site:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.busy: set[str] = set()
        self.robots: tuple[int, str, bytes] = (200, "", b"User-agent: *\nDisallow: /secret/\n")
        """Status, where it redirects to, and body."""
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # headers and body in one packet

            def do_GET(self) -> None:
                site.asked[self.path] += 1
                site.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path, status, headers, body = handler.path, 200, {"Content-Type": "text/html"}, b""
        if path == "/robots.txt":
            status, target, body = self.robots
            headers = {"Location": target} if target else headers
        elif path.startswith("/hop"):
            left = int(path[4:])
            status, headers = (301, {"Location": f"/hop{left - 1}"}) if left else (200, {"Content-Type": "text/plain"})
            body = b"" if left else b"User-agent: *\nDisallow: /\n"
        elif path == "/moved":
            status, headers = 302, {"Location": "/target"}
        elif path == "/data":
            headers = {"Content-Type": "application/octet-stream"}
        elif path in self.busy:
            self.busy.discard(path)
            status, headers = 503, {"Retry-After": "0"}
        elif path in PAGES:
            head = f"<html><head><title>{path}</title></head>"
            body = f"{head}<body><p>{path} {TEXT}</p>{PAGES[path]}</body></html>".encode()
        else:
            status = 404
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Set-Cookie": "id=1"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def spec(site: Site, **options: object) -> CrawlSpec:
    return CrawlSpec((site.url + "/",), **{"delay_s": 0.0, "allow_loopback": True, **options})  # type: ignore[arg-type]


def names(archive: Path, site: Site) -> list[str]:
    drops: list[object] = []
    found = [document.id.removeprefix(site.url) for document in read([archive], drops.append)]
    assert drops == []
    return found


def test_a_site_is_fetched_in_order_and_what_must_not_be_is_not(site: Site, tmp_path: Path) -> None:
    report = crawl(spec(site), tmp_path / "a.warc.gz")
    assert names(tmp_path / "a.warc.gz", site) == ["/", "/a", "/b", "/c", "/d", "/target"]
    assert (report.pages, report.resumed, report.stop, report.waiting) == (6, 0, "done", 0)
    assert report.without == {
        "robots.txt forbids it": 1, "redirect": 1, "HTTP status 404": 1, "content type that is no document": 1,
    }  # fmt: skip
    assert not {"/secret/x", "/hidden", "/n", "/p.png"} & set(site.asked)
    assert max(site.asked.values()) == 1
    assert b"Set-Cookie" not in (tmp_path / "a.warc.gz").read_bytes()


def test_a_bounded_crawl_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "a.warc.gz"
    first = crawl(spec(site, max_pages=2), archive)
    assert (first.pages, first.stop) == (2, "max_pages") and first.waiting > 0
    second = crawl(spec(site), archive)
    assert (second.pages, second.resumed) == (6, 2)
    assert names(archive, site) == ["/", "/a", "/b", "/c", "/d", "/target"]
    assert all(count == 1 for path, count in site.asked.items() if path != "/robots.txt")


@pytest.mark.parametrize("cut", [1, 40, 300, 900])
def test_a_crawl_that_died_within_a_write_loses_that_page_alone(site: Site, tmp_path: Path, cut: int) -> None:
    archive = tmp_path / "a.warc.gz"
    crawl(spec(site), archive)
    whole = names(archive, site)
    archive.write_bytes(archive.read_bytes()[:-cut])
    crawl(spec(site), archive)
    assert sorted(names(archive, site)) == sorted(whole)


def test_an_end_of_zeros_is_cut_off_and_the_crawl_goes_on(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "a.warc.gz"
    crawl(spec(site), archive)
    whole = names(archive, site)
    for zeros in (1, 4096, 200_000):
        with archive.open("ab") as file:
            file.write(bytes(zeros))
        report = crawl(spec(site), archive)
        assert (report.pages, report.resumed) == (6, 6) and names(archive, site) == whole
        assert not archive.read_bytes().endswith(bytes(9))


def test_damage_that_records_follow_is_refused_and_nothing_is_cut(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.warc.gz"
    crawl(spec(site), archive)
    data = archive.read_bytes()
    starts = [match.start() for match in re.finditer(b"\x1f\x8b\x08", data)]
    middle = starts[len(starts) // 2]
    hole = data[:middle] + bytes(300_000) + data[middle:]
    flipped = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in (0, middle, middle + 30)]
    for damaged, at in zip([*flipped, hole], (0, middle, middle, middle), strict=True):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"a\.warc\.gz: damaged at byte {at:,}, before other records"):
            crawl(spec(site), archive)
        assert archive.read_bytes() == damaged
    large = data + gzip.compress(b"WARC/1.1\r\n" + os.urandom(20_000))
    archive.write_bytes(large)
    monkeypatch.setattr("sleuth.corpora.members.MAX_RECORD_BYTES", 10_000)
    with pytest.raises(InputError, match=rf"a\.warc\.gz: the record at byte {len(data):,} is larger"):
        crawl(spec(site), archive)
    assert archive.read_bytes() == large


def test_notes_of_other_crawlers_are_passed_over(tmp_path: Path) -> None:
    held = Capture(tmp_path / "a.warc.gz", "tests")
    held.write("metadata", "http://x.example/", b"via: http://y.example/", "application/warc-fields")
    held.note("http://x.example/gone", {"reason": "HTTP status 404"})
    held.close()
    again = Capture(tmp_path / "a.warc.gz", "tests")
    again.close()
    assert list(again.found) == ["http://x.example/gone"]


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.busy = {"/a", "/c"}
    assert crawl(spec(site), tmp_path / "a.warc.gz").pages == 6
    assert site.asked["/a"] == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_busy_is_asked_by_a_later_run(site: Site, tmp_path: Path, status: int) -> None:
    archive, answer = tmp_path / "a.warc.gz", site.answer

    def busy(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path != "/a":
            return answer(handler)
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.answer = busy  # type: ignore[method-assign]
    assert crawl(spec(site), archive).without[f"HTTP status {status}"] == 1
    site.answer = answer  # type: ignore[method-assign]
    assert crawl(spec(site), archive).pages == 6


def test_without_its_robots_txt_a_host_is_left_to_a_later_run(site: Site, tmp_path: Path) -> None:
    archive, rules = tmp_path / "a.warc.gz", site.robots
    starts = (f"{site.url}/", f"{site.url}/a")
    site.robots = (500, "", b"")
    first = crawl(CrawlSpec(starts, delay_s=0.0, allow_loopback=True), archive)
    assert (first.pages, first.without, site.asked["/robots.txt"]) == (0, {"robots.txt HTTP status 500": 2}, 1)
    site.robots = rules
    assert crawl(spec(site), archive).pages == 6


def test_a_host_that_was_down_is_asked_by_a_later_run(tmp_path: Path) -> None:
    site = Site()
    site.server.server_close()  # nothing listens there any more
    report = crawl(spec(site), tmp_path / "a.warc.gz")
    assert report.without == {"robots.txt not reached: ConnectError": 1}
    assert not Capture(tmp_path / "a.warc.gz", "tests").found


def test_robots_txt_counts_with_a_mark_and_over_redirects(site: Site, tmp_path: Path) -> None:
    def found(status: int, target: str, body: bytes = b"") -> dict[str, int]:
        site.robots = (status, target, body)
        (tmp_path / "a.warc.gz").unlink(missing_ok=True)
        report = crawl(spec(site, max_pages=1), tmp_path / "a.warc.gz")
        return {"pages": 1} if report.pages else report.without

    forbidden = {"robots.txt forbids it": 1}
    assert found(200, "", b"\xef\xbb\xbfUser-agent: *\nDisallow: /\n") == forbidden
    elsewhere = site.url.replace("127.0.0.1", "localhost")  # another authority, of which no page is allowed
    assert found(301, f"{elsewhere}/hop0") == forbidden
    assert found(301, "/hop4") == forbidden  # five hops in all
    assert found(301, "/hop5") == {"robots.txt HTTP status 301": 1}
    assert found(301, "http://10.0.0.1/") == {"robots.txt 10.0.0.1 is 10.0.0.1, which is no public address": 1}
    assert found(301, "ftp://x.example/") == {"robots.txt redirected to no address": 1}
    assert found(301, "/gone") == {"pages": 1}


@pytest.mark.parametrize(("charset", "said"), [("utf-8", ""), ("iso-8859-1", "; charset=iso-8859-1")])
def test_links_are_read_in_the_encoding_of_their_page(site: Site, tmp_path: Path, charset: str, said: str) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = '<p>é</p><a href="/straße">s</a>'.encode(charset) if handler.path == "/" else b"<p>text</p>"
        handler.send_response(404 if handler.path == "/robots.txt" else 200)
        for name, value in (("Content-Type", "text/html" + said), ("Content-Length", str(len(body)))):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    site.answer = answer  # type: ignore[method-assign]
    archive = tmp_path / "a.warc.gz"
    assert crawl(spec(site, max_pages=1), archive).pages == 1  # the second run reads the links from the archive
    for resumed in (1, 2):
        report = crawl(spec(site), archive)
        assert (report.pages, report.resumed) == (2, resumed) and site.asked["/stra%C3%9Fe"] == 1


def test_depth_and_host_are_bounds(site: Site, tmp_path: Path) -> None:
    assert crawl(spec(site, max_depth=1), tmp_path / "a.warc.gz").pages == 3
    report = crawl(spec(site, allow=("other.example",)), tmp_path / "b.warc.gz")
    assert report.pages == 0 and report.stop == "done"


def test_this_machine_is_reached_only_on_request(site: Site, tmp_path: Path) -> None:
    report = crawl(spec(site, allow_loopback=False), tmp_path / "a.warc.gz")
    assert report.pages == 0 and report.without == {"forbidden address": 1} and not site.asked


@pytest.mark.parametrize(
    "address",
    (
        "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 "
        "fe80::1%eth0 fc00::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: fec0::1 ::127.0.0.1 "
        "::10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b:1::7f00:1"
    ).split(),
)
def test_no_private_address_in_any_disguise(address: str) -> None:
    assert not may_reach(address)


def test_public_addresses_and_loopback_on_request() -> None:
    assert may_reach("93.184.216.34") and may_reach("2606:2800:220:1::1")
    assert may_reach("127.0.0.1", allow_loopback=True) and not may_reach("10.0.0.1", allow_loopback=True)
    for host in ("2130706433", "0x7f.1", "localhost"):
        with pytest.raises(ForbiddenAddress):
            addresses(host, 80)


def test_a_name_that_resolves_anew_leads_to_no_other_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, answers = socket.getaddrinfo, iter(["93.184.216.34", "127.0.0.1"])

    def rebound(host: Any, *args: Any, **options: Any) -> Any:
        return resolve(next(answers) if host == "rebind.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = site.url.replace("127.0.0.1", "rebind.example")
    with client(5.0) as outside:
        with pytest.raises(httpx.ConnectError, match=r"this one tried \('93\.184\.216\.34'"):
            outside.get(url)
        with pytest.raises(ForbiddenAddress, match=r"rebind\.example is 127\.0\.0\.1"):
            outside.get(url)
    assert not site.asked


def test_addresses_have_one_form() -> None:
    assert canonical("HTTP://Ex.AMPLE:80#x") == "http://ex.ample/"
    assert canonical("../b?q=1#f", "https://x.example:8443/a/c/") == "https://x.example:8443/a/b?q=1"
    for none in (
        "mailto:a@b",
        "javascript:x",
        "http://",
        "http://u:p@x/",
        "ftp://x/",
        "http://[::1",
        "http://x/" + "a" * 2000,
    ):
        assert canonical(none) == ""
    for bad in (b"http://[", b"javascript:x", b""):
        page = b'<base href="%s"><a href="e">e</a>' % bad
        assert list(targets_of(page, "http://x.example/")) == ["http://x.example/e"]
    for content, count in (("none", 0), ("noindex, none", 0), ("max-image-preview: none", 1), ("index", 1)):
        page = f'<meta name="robots" content="{content}"><a href="e">e</a>'.encode()
        assert len(list(targets_of(page, "http://x.example/"))) == count
    page = b'<base href="http://x.example/d/"><a href="e">e</a><frame src="f"><a href=":::">bad</a>'
    assert list(targets_of(page, "http://x.example/")) == [
        "http://x.example/d/e",
        "http://x.example/d/f",
        "http://x.example/d/:::",
    ]


def test_specs_and_archives_that_cannot_be_followed_are_refused(site: Site, tmp_path: Path) -> None:
    for bad in (CrawlSpec(()), CrawlSpec(("file:///etc/passwd",)), spec(site, max_pages=0), spec(site, delay_s=-1)):
        with pytest.raises(ConfigError):
            crawl(bad, tmp_path / "a.warc.gz")
    with pytest.raises(ConfigError, match=r"warc\.gz"):
        crawl(spec(site), tmp_path / "a.txt")
    held = Capture(tmp_path / "held.warc.gz", "tests")
    with pytest.raises(InputError, match="another crawl"):
        crawl(spec(site), tmp_path / "held.warc.gz")
    held.close()
    (tmp_path / "mine.warc.gz").write_bytes(b"precious")
    with pytest.raises(InputError, match="another file"):
        crawl(spec(site), tmp_path / "mine.warc.gz")
    assert (tmp_path / "mine.warc.gz").read_bytes() == b"precious"


def test_the_command_reports_and_names_the_next_step(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "a.warc.gz"
    done = CliRunner().invoke(app, ["crawl", site.url, "--out", str(out), "--delay", "0", "--allow-loopback", "--json"])
    assert done.exit_code == 0, done.output
    assert '"pages": 6' in done.stdout and len(names(out, site)) == 6
