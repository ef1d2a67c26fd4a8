"""URLs that the daemon calls for somebody: checked, resolved once, and called at the checked address only.

Whoever may name a URL could otherwise make the daemon ask what only this machine can reach: loopback services,
the local network, a cloud's metadata. The operator lists what of it is meant in ``outbound_allow``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from finetuned.domain.errors import InvalidRequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: from a host name to its addresses
Lookup = Callable[[str], Awaitable[Sequence[str]]]

LONGEST_URL: Final = 2048  # bytes
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
#: not public, though ``ipaddress`` says so in some Python release
_REFUSED_NETWORKS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host agent
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata is there
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 of the local network
        "100::/64",
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "5f00::/16",
        "fec0::/10",  # site-local
    )
)
# WHATWG URL: a host whose last label looks like a number is an IPv4 address, in spellings that libraries
# read differently (0177.0.0.1, 2130706433, 0x7f.1).
_NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9a-fA-F]*)\.?")


class OutboundRefusedError(InvalidRequestError):
    """A URL that the daemon will not call."""

    status: ClassVar[int] = 400

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="outbound_refused")


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet, also where an IPv6 address carries an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    if any(address.version == network.version and address in network for network in _REFUSED_NETWORKS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def system_lookup(host: str) -> Sequence[str]:
    """The addresses of a name, as the system resolves it. Raises ``OSError``."""
    import asyncio  # noqa: PLC0415 - aiohttp's loop is asyncio's, which the rest of the module need not know

    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class OutboundGuard:
    """Which hosts the daemon may call.

    ``allow`` lists host names, addresses and networks (CIDR) that are meant although they are not public; plain
    http is for those only. Raises ``ValueError`` for an entry that is none of these.
    """

    def __init__(self, allow: Iterable[str] = (), *, lookup: Lookup = system_lookup) -> None:
        self._names: set[str] = set()
        self._networks: list[Network] = []
        self._lookup = lookup
        for entry in allow:
            self._allow(entry)

    def check(self, url: str, *, param: str | None = None) -> URL:
        """The URL, if it may be kept as one to call: everything that can be said without resolving its name.

        Raises ``OutboundRefusedError`` with the remedy.
        """
        parsed = _parsed(url, param)
        host = (parsed.host or "").lower().removesuffix(".")
        literal = _literal(host)
        if literal is None and _NUMERIC_HOST.fullmatch(host):
            raise OutboundRefusedError(
                f"The host {host!r} is a number that is read in more than one way; write the address as four"
                " decimal numbers, or a name.",
                param=param,
            )
        # Connecting code takes it for an address, and asks no guarded resolver.
        if literal is None and ":" in host:
            raise OutboundRefusedError(
                f"The host {host!r} is neither a name nor an address of version 4 or 6; write one.",
                param=param,
            )
        named = host in self._names or (literal is not None and self._is_listed(literal))
        if parsed.scheme != "https" and not named:
            raise OutboundRefusedError(
                f"{parsed.scheme}:// is not encrypted; use https://, or have the operator add {host!r} to"
                " outbound_allow in the configuration.",
                param=param,
            )
        if literal is not None:
            self._require(host, [literal], param)
        return parsed

    async def addresses(self, host: str) -> list[Address]:
        """Resolve a name once: its addresses, every one of them allowed.

        Raises ``OutboundRefusedError`` if any is not (a name with a public and a private address is no
        mistake), ``OSError`` if there are none.
        """
        host = host.lower().removesuffix(".")
        literal = _literal(host)
        try:
            texts = [host] if literal is not None else await self._lookup(host)
        except UnicodeError as error:  # a label is empty, or longer than 63 characters
            raise OSError(f"{host} is no name") from error
        found = [ipaddress.ip_address(text) for text in texts]
        if not found:
            raise OSError(f"{host} has no address")
        self._require(host, found, None)
        return found

    @asynccontextmanager
    async def session(self, *, timeout_s: float = 30.0) -> AsyncIterator[OutboundSession]:
        """A session whose every connection goes to an address that this guard has just checked."""
        connector = aiohttp.TCPConnector(resolver=_GuardedResolver(self), use_dns_cache=False)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=10),
            trust_env=False,  # a proxy would resolve the name again
        ) as session:
            yield OutboundSession(self, session)

    def _allow(self, entry: str) -> None:
        text = entry.strip().lower().removesuffix(".")
        try:
            self._networks.append(ipaddress.ip_network(text.strip("[]"), strict=False))
        except ValueError:
            if not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", text) or _NUMERIC_HOST.fullmatch(text):
                raise ValueError(
                    f"{entry!r} is neither a host name nor an address nor a network such as 10.0.0.0/8"
                ) from None
            self._names.add(text)

    def _is_listed(self, address: Address) -> bool:
        plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any(
            each in network
            for each in (address, plain)
            if each is not None
            for network in self._networks
            if each.version == network.version
        )

    def _require(self, host: str, addresses: Sequence[Address], param: str | None) -> None:
        if host in self._names:
            return
        for address in addresses:
            if not is_public(address) and not self._is_listed(address):
                where = host if str(address) == host else f"{host} ({address})"
                raise OutboundRefusedError(
                    f"{where} is not on the public internet and this daemon does not call it; have the operator"
                    f" add {host!r} to outbound_allow in the configuration.",
                    param=param,
                )


class OutboundSession:
    """Requests to checked addresses. A redirect is an answer like any other: it is not followed."""

    def __init__(self, guard: OutboundGuard, session: aiohttp.ClientSession) -> None:
        self._guard = guard
        self._session = session

    @asynccontextmanager
    async def request(self, method: str, url: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; ``options`` are those of ``aiohttp.ClientSession.request``.

        Raises ``OutboundRefusedError`` before anything is sent, or what aiohttp raises.
        """
        checked = self._guard.check(url)
        options |= {"allow_redirects": False}
        async with self._session.request(method, checked, **options) as response:
            yield response


class _GuardedResolver(AbstractResolver):
    """What the connector asks for addresses: it connects to what it is told here and to nothing else."""

    def __init__(self, guard: OutboundGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._guard.addresses(host)
        results = [_result(host, port, address) for address in found]
        return [each for each in results if family in {socket.AF_UNSPEC, each["family"]}]

    async def close(self) -> None:
        pass


def _result(host: str, port: int, address: Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )


def _parsed(url: str, param: str | None) -> URL:
    if (
        len(url.encode("utf-8", "replace")) > LONGEST_URL
        or not url.isprintable()
        or "\\" in url
        or " " in url
    ):
        raise OutboundRefusedError(
            f"A URL has at most {LONGEST_URL} bytes, and no space, backslash or control character; correct it.",
            param=param,
        )
    try:
        parsed = URL(url)
        host = parsed.host
    except ValueError:
        parsed, host = URL(), None
    if parsed.scheme not in {"https", "http"} or not host:
        raise OutboundRefusedError(
            "This is no https:// URL with a host; write it as https://host/path.", param=param
        )
    if parsed.user is not None or parsed.password is not None:
        raise OutboundRefusedError(
            "A URL must not carry a user or a password: it is shown and recorded. Leave them out and name a"
            " secret where one is asked for.",
            param=param,
        )
    return parsed


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
