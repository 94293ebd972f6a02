"""A crawl fetches the pages of a few allowed hosts into one WARC file, politely and within bounds.

Contract: robots.txt is obeyed (RFC 9309, by protego), each host is asked at most once in its delay, only allowed hosts
at public addresses are reached (of others at most the robots.txt that an allowed one redirects to), and pages, bytes
and depth are bounded. The archive is the only state: every page that was fetched, and every address that will give
none, is a record of it, one gzip member each, so a crawl that died goes on from what it wrote; an address that could
not be reached, was busy, or whose robots.txt could not be read is none, and a later run asks it. `sleuth build` reads
the archive.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from sleuth.corpora.capture import Capture, Known
from sleuth.corpora.decode import decode
from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.limits import MAX_HTML_BYTES, inflate
from sleuth.corpora.outside import USER_AGENT, ForbiddenAddress, client
from sleuth.corpora.pages import KINDS

if TYPE_CHECKING:
    import httpx

MAX_URL_CHARS = 1000
MAX_WAIT_S = 60.0
ATTEMPTS = 3
MAX_ROBOTS_HOPS = 5
_OTHER_FILES = re.compile(
    r"\.(?:css|js|mjs|json|xml|rss|atom|png|jpe?g|gif|webp|svg|ico|bmp|tiff?|mp[34]|m4[av]|webm|ogg|wav|avi|mov|zip|gz|"
    r"bz2|xz|zst|7z|rar|tar|tgz|jar|war|exe|dmg|iso|deb|rpm|apk|woff2?|ttf|eot|otf|csv|xlsx?|pptx?)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CrawlSpec:
    """What may be fetched, and how fast."""

    start: tuple[str, ...]
    allow: tuple[str, ...] = ()
    """Hosts, with ``*.`` in front for all below one; empty: the hosts of ``start``."""
    max_pages: int = 1000
    max_bytes: int = 10 << 30
    """Of bodies as they were received."""
    max_depth: int = 50
    """Links from a start page."""
    max_page_bytes: int = MAX_HTML_BYTES
    delay_s: float = 1.0
    """Between two requests to one host; a longer Crawl-delay of its robots.txt counts instead."""
    timeout_s: float = 20.0
    allow_loopback: bool = False
    user_agent: str = USER_AGENT


@dataclass(slots=True)
class CrawlReport:
    """What came of it; ``resumed`` pages were in the archive already."""

    archive: str
    pages: int = 0
    resumed: int = 0
    body_bytes: int = 0
    seconds: float = 0.0
    stop: str = ""
    """``done``, ``max_pages`` or ``max_bytes``."""
    waiting: int = 0
    """Addresses that were found and not asked."""
    without: dict[str, int] = field(default_factory=dict)
    """Addresses that gave no page, by reason."""


def crawl(spec: CrawlSpec, archive: Path, tell: Callable[[str, int, int | None], None] | None = None) -> CrawlReport:
    """Fetches until a bound is met or nothing is left; raises `ConfigError` for a spec that cannot be followed."""
    run = _Crawl(spec, archive)
    started = time.monotonic()
    try:
        for pages in run.steps():
            if tell is not None:
                tell("pages", pages, spec.max_pages)
    finally:
        run.close()
        run.report.seconds = time.monotonic() - started
    return run.report


def canonical(url: str, base: str = "") -> str:
    """An http address without fragment, default port and upper-case host, or nothing for what is none."""
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return ""
    host = parts.hostname.lower().rstrip(".")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        netloc += f":{port}"
    found = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
    return found if len(found) <= MAX_URL_CHARS else ""


class _Crawl:
    def __init__(self, spec: CrawlSpec, archive: Path) -> None:
        starts = [canonical(url) for url in spec.start]
        if not spec.start or not all(starts):
            raise ConfigError(f"crawl: expected http or https addresses to start from, found {list(spec.start)}")
        if spec.max_pages < 1 or spec.delay_s < 0 or spec.max_bytes < 1:
            raise ConfigError(
                f"crawl: expected max_pages and max_bytes of at least 1 and no negative delay, found {spec}"
            )
        if not archive.name.endswith(".warc.gz"):
            raise ConfigError(f"crawl: expected --out FILE.warc.gz, found {archive}")
        self.spec, self.report = spec, CrawlReport(str(archive))
        self.allow = tuple(h.lower() for h in spec.allow) or tuple({str(urlsplit(url).hostname) for url in starts})
        self.queues: dict[str, deque[tuple[str, int]]] = {}
        self.ready_at: dict[str, float] = {}
        self.robots: dict[str, Any] = {}
        """By host: its rules, True where it has none, or the `InputError` that kept them from being read."""
        self.seen: set[str] = set()
        self.asked: dict[str, str | None] = {}
        self.http = client(spec.timeout_s, spec.user_agent, spec.allow_loopback)
        self.archive = Capture(archive, spec.user_agent)
        for url in starts:
            self.add(url, 0)

    def close(self) -> None:
        self.archive.close()
        self.http.close()

    def add(self, url: str, depth: int) -> None:
        if not url or url in self.seen or depth > self.spec.max_depth or _OTHER_FILES.search(urlsplit(url).path):
            return
        if self.allowed(url):
            self.seen.add(url)
            self.queues.setdefault(urlsplit(url).netloc, deque()).append((url, depth))

    def allowed(self, url: str) -> bool:
        host = urlsplit(url).hostname or ""
        return any(host == name or (name.startswith("*.") and host.endswith(name[1:])) for name in self.allow)

    def steps(self) -> Iterator[int]:
        """The number of pages so far, after each."""
        known = self.archive.found
        while (found := self.next()) is not None:
            url, depth = found
            if url in known:
                self.resume(url, depth, known[url])
            elif self.report.pages >= self.spec.max_pages:
                self.report.stop = "max_pages"
                break
            elif self.report.body_bytes >= self.spec.max_bytes:
                self.report.stop = "max_bytes"
                break
            else:
                self.visit(url, depth)
            yield self.report.pages
        self.report.stop = self.report.stop or "done"
        self.report.waiting = sum(map(len, self.queues.values())) + (self.report.stop != "done")

    def next(self) -> tuple[str, int] | None:
        """The next address of the host that may be asked first."""
        waiting = [host for host, queue in self.queues.items() if queue]
        if not waiting:
            return None
        return self.queues[min(waiting, key=lambda host: self.ready_at.get(host, 0.0))].popleft()

    def resume(self, url: str, depth: int, outcome: Known) -> None:
        """What the archive says of an address stands for asking it again."""
        if outcome.offset is None:
            self.count(outcome.reason)
            for target in outcome.targets:
                self.add(target, depth)
            return
        self.report.pages += 1
        self.report.resumed += 1
        media, charset, body = self.archive.body(outcome.offset)
        self.report.body_bytes += len(body)
        self.follow(url, depth, media, charset, body)

    def visit(self, url: str, depth: int) -> None:
        host = urlsplit(url).netloc
        try:
            if not self.may_ask(url):
                return self.without(url, "robots.txt forbids it")
            response, body = self.fetch(url, host)
        except ForbiddenAddress as error:
            return self.without(url, f"forbidden address: {error}", "forbidden address")
        except InputError as error:
            return self.count(str(error))  # not written: a later run asks again
        if response.is_redirect:
            target = canonical(response.headers.get("Location", ""), url)
            self.add(target, depth)
            return self.without(url, "redirect", targets=[target] if target else [])
        media = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if _is_passing(response.status_code):
            return self.count(f"HTTP status {response.status_code}")
        if response.status_code != 200:
            return self.without(url, f"HTTP status {response.status_code}")
        if media and media not in KINDS:
            return self.without(url, f"content type {media}", "content type that is no document")
        if len(body) > self.spec.max_page_bytes:
            return self.without(url, f"more than {self.spec.max_page_bytes:,} bytes", "too large")
        if _says(response.headers.get("X-Robots-Tag", ""), "noindex"):
            return self.without(url, "noindex")
        self.archive.page(url, response, body)
        self.report.pages += 1
        self.report.body_bytes += len(body)
        encoding = response.headers.get("Content-Encoding", "")
        self.follow(url, depth, media, response.charset_encoding or "", body, encoding)

    def without(self, url: str, reason: str, kind: str = "", targets: Iterable[str] = ()) -> None:
        """An address that gave no page: written, so that it is not asked again."""
        self.archive.note(url, {"reason": kind or reason, "detail": reason, "targets": list(targets)})
        self.count(kind or reason)

    def count(self, reason: str) -> None:
        self.report.without[reason] = self.report.without.get(reason, 0) + 1

    def follow(self, url: str, depth: int, media: str, charset: str, body: bytes, encoding: str = "") -> None:
        if media and KINDS.get(media) != ".html":
            return
        try:
            targets = list(targets_of(inflate(body, encoding) if encoding else body, url, charset))
        except InputError:
            return  # `build` names the page with the reason
        for target in targets:
            self.add(target, depth + 1)

    def may_ask(self, url: str) -> bool:
        parts = urlsplit(url)
        if parts.netloc not in self.robots:
            try:
                self.robots[parts.netloc] = self.read_robots(f"{parts.scheme}://{parts.netloc}/robots.txt")
            except InputError as error:
                self.robots[parts.netloc] = error
        rules = self.robots[parts.netloc]
        if isinstance(rules, InputError):
            raise rules
        return rules is True or bool(rules.can_fetch(url, self.spec.user_agent))

    def read_robots(self, url: str) -> Any:
        """Rules, or True where there are none (4xx); raises `InputError` where they cannot be known (RFC 9309, section
        2.3.1), and `ForbiddenAddress` where that is because of the host's own address."""
        from protego import Protego

        for hop in range(1 + MAX_ROBOTS_HOPS):
            try:
                response, body = self.fetch(url, urlsplit(url).netloc)
            except InputError as error:
                if not hop and isinstance(error, ForbiddenAddress):
                    raise
                raise InputError(f"robots.txt {error}") from error
            if not response.is_redirect:
                break
            if not (url := canonical(response.headers.get("Location", ""), url)):
                raise InputError("robots.txt redirected to no address")
        if response.is_redirect or _is_passing(response.status_code):
            raise InputError(f"robots.txt HTTP status {response.status_code}")
        if response.status_code != 200:
            return True
        text = inflate(body, response.headers.get("Content-Encoding", ""))[:500_000]
        return Protego.parse(text.decode("utf-8-sig", "replace"))

    def pause(self, host: str) -> None:
        now = time.monotonic()
        rules = self.robots.get(host)
        unknown = rules is None or rules is True or isinstance(rules, InputError)
        stated = None if unknown else self.robots[host].crawl_delay(self.spec.user_agent)
        if (wait := self.ready_at.get(host, now) - now) > 0:
            time.sleep(wait)
        self.ready_at[host] = time.monotonic() + min(max(self.spec.delay_s, float(stated or 0)), MAX_WAIT_S)

    def fetch(self, url: str, host: str) -> tuple[httpx.Response, bytes]:
        """The answer and its body as it was sent, cut above the bound; raises `InputError` after all attempts."""
        import httpx

        for attempt in range(ATTEMPTS):
            self.pause(host)
            try:
                with self.http.stream("GET", url) as response:
                    body = b"".join(_bounded(response.iter_raw(1 << 16), self.spec.max_page_bytes, self.spec.timeout_s))
                if response.status_code not in (429, 503) or attempt == ATTEMPTS - 1:
                    return response, body
                self.wait(host, response.headers.get("Retry-After", ""), attempt)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if attempt == ATTEMPTS - 1 or isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
                    raise InputError(f"not reached: {type(error).__name__}") from error
                self.wait(host, "", attempt)
        raise AssertionError("the last attempt returns or raises")

    def wait(self, host: str, stated: str, attempt: int) -> None:
        seconds = float(stated) if stated.isdigit() else self.spec.delay_s * 2**attempt
        self.ready_at[host] = time.monotonic() + min(seconds, MAX_WAIT_S)


def _bounded(chunks: Iterable[bytes], most: int, seconds: float) -> Iterator[bytes]:
    """Up to just above ``most`` bytes; raises `InputError` for an answer that drips longer than ten timeouts."""
    count, end = 0, time.monotonic() + 10 * seconds
    for chunk in chunks:
        count += len(chunk)
        if time.monotonic() > end:
            raise InputError(f"the body took longer than {10 * seconds:.0f} s")
        yield chunk
        if count > most:
            return


def _is_passing(status: int) -> bool:
    """Whether an answer tells of the server's state and not of the address: a later run asks again."""
    return status == 429 or status >= 500


def _says(directives: str, word: str) -> bool:
    """Whether directives to robots hold ``noindex`` or ``nofollow``; ``none`` is both."""
    found = directives.lower()
    return word in found or "none" in (part.strip() for part in found.split(","))


def targets_of(body: bytes, url: str, charset: str = "") -> Iterator[str]:
    """Addresses that a page links to and lets be followed, in order; ``charset`` is what the server said.

    Raises `InputError` for a page whose encoding cannot be told.
    """
    from lxml import etree

    text, _ = decode(body, html=True, charset=charset)
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, recover=True)
    try:
        root = etree.fromstring(text.encode(), parser) if text.strip() else None
    except etree.XMLSyntaxError:
        root = None
    if root is None:
        return
    base = url
    for element in root.iter("base", "meta", "a", "area", "frame", "iframe"):
        if element.tag == "base":
            base = canonical(element.get("href") or "", url) or url
        elif element.tag == "meta":
            if (element.get("name") or "").lower() == "robots" and _says(element.get("content") or "", "nofollow"):
                return
        elif "nofollow" not in (element.get("rel") or ""):
            address = element.get("href") or element.get("src") or ""
            if found := canonical(address, base):
                yield found
