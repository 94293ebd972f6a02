"""A host list says which sites a corpus takes pages from or leaves out, and under which licences.

Contract: a line names a host; ``example.org`` stands for itself and every host below it, ``=www.example.org`` for
itself alone; ``#`` begins a comment, and the first word of a line may be an address, as published block lists have it.
Documents without an address pass a block list and fail an allow list.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sleuth.corpora.errors import ConfigError, InputError
from sleuth.corpora.records import Document, Drop

MAX_LIST_BYTES = 512 << 20


def matching(host: str, listed: frozenset[str]) -> str:
    """The entry that covers a host, or an empty string; as many look-ups as the name has parts."""
    host = host.lower().rstrip(".")
    if f"={host}" in listed:
        return f"={host}"
    parts = host.split(".")
    return next((name for n in range(len(parts)) if (name := ".".join(parts[n:])) in listed), "")


def host_of(url: str) -> str:
    """The host of an address; empty where it has none, or is no address."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def load(given: str | Sequence[str]) -> frozenset[str]:
    """Entries of a file, or the given ones; raises `InputError` naming the file and the line that is no host."""
    if not isinstance(given, str):
        return frozenset(_entry(line, f"entry {n}") for n, line in enumerate(given, 1))
    path = Path(given)
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: larger than {MAX_LIST_BYTES:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"host list {path}: {error}") from error
    stated = ((n, line.partition("#")[0].split()) for n, line in enumerate(lines, 1))
    return frozenset(_entry(words[-1], f"{path}:{n}") for n, words in stated if words)


def _entry(text: str, where: str) -> str:
    name = text.strip().lower().removeprefix("*.").rstrip(".")
    if not name.strip("=") or any(c in name for c in "/: @"):
        raise InputError(f"{where}: expected a host such as example.org, found {text!r}")
    return name


def hosts(allow: str | Sequence[str] = (), block: str | Sequence[str] = ()) -> Callable[..., Iterator[Document]]:
    """Stage: keeps documents of allowed hosts (without ``allow``: all) that are not blocked; a file or a list each."""
    if not allow and not block:
        raise ConfigError("hosts: expected allow, block or both")
    allowed, blocked = load(allow), load(block)

    def run(documents: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for document in documents:
            host = host_of(document.url)
            if host and (entry := matching(host, blocked)):
                drop(Drop(document.id, "hosts", f"{host} is blocked by {entry}"))
            elif allowed and not (host and matching(host, allowed)):
                drop(Drop(document.id, "hosts", f"{host or 'no address'}, expected a host of the allow list"))
            else:
                yield document

    return run


def licences(keep: Sequence[str], field: str = "licence") -> Callable[..., Iterator[Document]]:
    """Stage: keeps documents whose licence contains one of ``keep``, such as ``creativecommons.org/licenses/by``."""
    if not keep:
        raise ConfigError("licences: expected at least one part of a licence to keep")
    wanted = tuple(part.lower() for part in ([keep] if isinstance(keep, str) else keep))

    def run(documents: Iterable[Document], drop: Callable[[Drop], None]) -> Iterator[Document]:
        for document in documents:
            stated = str(document.metadata.get(field) or "")
            if any(part in stated.lower() for part in wanted):
                yield document
            else:
                drop(Drop(document.id, "licences", f"licence {stated or 'not stated'}, expected {' or '.join(wanted)}"))

    return run


def is_local(url: str) -> bool:
    """Whether an address is this machine's, which no proxy of the environment stands before."""
    host = host_of(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
