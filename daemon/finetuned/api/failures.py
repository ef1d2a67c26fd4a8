"""Wrong secrets, counted by who sends them: after some in a row an address has to slow down.

Nobody guesses 256 random bits, however fast. What this bounds is what a broken or hostile client costs: each wrong
secret beyond the limit is answered with 429 and its connection closed. A right secret is never refused for the
failures of others at the same address, so that nobody behind one NAT or proxy can lock out the rest.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

BURST = 10  # wrong secrets that an address may send at once, unless the configuration says otherwise
PER_S = 1.0  # and how many a second from then on
REMEMBERED = 4096  # addresses; the one that failed longest ago is forgotten first
IPV6_NETWORK = 64  # bits: a host has all addresses of such a network


@dataclass(slots=True)
class _Bucket:
    """What an address has left: ``level`` failures at the monotonic time ``at``."""

    level: float
    at: float


@dataclass(slots=True)
class Failures:
    """A token bucket for each address that sent a wrong secret."""

    clock: Callable[[], float] = time.monotonic
    burst: int = BURST
    _buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict)

    def record(self, address: str) -> float | None:
        """Count a failure. ``None`` if it is within the limit, else the seconds until the next one is."""
        now, key = self.clock(), network(address)
        bucket = self._buckets.pop(key, None) or _Bucket(self.burst, now)
        bucket.level = min(self.burst, bucket.level + (now - bucket.at) * PER_S)
        bucket.at = now
        self._buckets[key] = bucket
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.level < 1:
            return (1 - bucket.level) / PER_S
        bucket.level -= 1
        return None

    def __len__(self) -> int:
        return len(self._buckets)


def network(address: str) -> str:
    """Whom an address stands for: itself, or for IPv6 the network that one host has to itself."""
    try:
        read = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(read, IPv6Address):
        return str(read)
    if read.ipv4_mapped is not None:
        return str(read.ipv4_mapped)
    return str(ip_network((read, IPV6_NETWORK), strict=False))
