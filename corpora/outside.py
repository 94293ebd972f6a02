"""Outside is every machine but this one; here is the way to it, an HTTP client that reaches public addresses only.

Contract: the address is checked where the connection is made, on every hop and retry, and the connection goes to the
very address that was checked: neither redirects, nor names that resolve anew, nor numbers in disguise lead elsewhere.
No proxies and no credentials of the environment are used.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sleuth.corpora.errors import InputError

if TYPE_CHECKING:
    import httpx

USER_AGENT = "sleuth-crawl/0.1 (obeys robots.txt)"


class ForbiddenAddress(InputError):
    """A name that resolves to an address which must not be reached."""


def addresses(host: str, port: int, allow_loopback: bool = False) -> list[str]:
    """The addresses of ``host`` that may be reached; raises `ForbiddenAddress` where one of them may not.

    One forbidden address refuses the name as a whole: a name with a public and a private one is an attack.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}: cannot be resolved: {error}") from error
    names = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for name in names:
        if not may_reach(name, allow_loopback):
            hint = "; --allow-loopback permits this machine" if ipaddress.ip_address(name).is_loopback else ""
            raise ForbiddenAddress(f"{host} is {name}, which is no public address{hint}")
    return names


def may_reach(address: str, allow_loopback: bool = False) -> bool:
    """Whether an IP address is public; IPv6 forms that carry an IPv4 address are judged by that one."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    if ip.is_loopback:
        return allow_loopback
    site_local = ip.version == 6 and ip.is_site_local
    return bool(ip.is_global) and not (ip.is_multicast or ip.is_reserved or site_local)


def client(timeout_s: float, user_agent: str = USER_AGENT, allow_loopback: bool = False) -> httpx.Client:
    """A client that follows no redirects by itself and connects only where `addresses` allows."""
    import httpcore
    import httpx

    class Checked(httpcore.NetworkBackend):
        """Connects to the address that was checked instead of resolving the name a second time."""

        def __init__(self) -> None:
            self.plain = httpcore.SyncBackend()

        def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.NetworkStream:  # fmt: skip
            failure: Exception | None = None
            for address in addresses(host, port, allow_loopback):
                try:
                    return self.plain.connect_tcp(address, port, timeout, local_address, socket_options)
                except httpcore.ConnectError as error:
                    failure = error
            raise failure or httpcore.ConnectError(f"{host} has no address")

        def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
            raise ForbiddenAddress("unix sockets are not reached")

    transport = httpx.HTTPTransport(trust_env=False, retries=0)
    # httpx has no public place for a network backend; httpcore, which it stands on, has.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=httpx.create_ssl_context(trust_env=False), network_backend=Checked(), max_connections=8, retries=0
    )
    return httpx.Client(
        transport=transport,
        timeout=timeout_s,
        headers={"User-Agent": user_agent},
        follow_redirects=False,
        trust_env=False,
    )
