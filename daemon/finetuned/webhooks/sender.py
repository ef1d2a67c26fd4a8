"""One message to one address: what is sent, what came back, and nothing else of the answer."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import aiohttp
import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from finetuned import __version__
from finetuned.access.outbound import Lookup, OutboundGuard, OutboundRefusedError, OutboundSession
from finetuned.webhooks import schedule, signing
from finetuned.webhooks.payload import Message

TIMEOUT_S: Final = 15.0  # for a connection, the request and the head of its answer, together
EXCERPT_BYTES: Final = 1024  # of an answer's body that are read where somebody wants to see them
EXCERPT_S: Final = 2.0  # that they may take
GONE: Final = 410
LONGEST_REASON: Final = 300  # characters


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try: a ``status``, or the ``error`` for which there is none."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    seconds: float = 0.0
    excerpt: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """In words, what was wrong."""
        return (self.error or f"the receiver answered {self.status}")[:LONGEST_REASON]


@dataclass(frozen=True, slots=True)
class Line:
    """A way to one receiver: its connections are nobody else's, so it holds up nobody else."""

    session: OutboundSession
    url: str
    now: Callable[[], float]

    async def send(self, message: Message, keys: Sequence[str], *, excerpt: bool = False) -> Outcome:
        """Try once. What goes wrong is in the outcome."""
        headers = {
            **signing.headers(keys, message.id, int(self.now()), message.body),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"finetuned/{__version__}",
        }
        began = anyio.current_time()
        try:
            async with self.session.request("POST", self.url, data=message.body, headers=headers) as response:
                outcome = Outcome(
                    status=response.status,
                    retry_after_s=self._retry_after(response),
                    excerpt=await _excerpt(response) if excerpt else None,
                )
        except TimeoutError:
            outcome = Outcome(error=f"the receiver did not answer within {TIMEOUT_S:.0f} s")
        except OutboundRefusedError as error:
            outcome = Outcome(error=error.message)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = Outcome(error=f"{type(error).__name__}: {error}"[:LONGEST_REASON])
        took = anyio.current_time() - began
        return Outcome(outcome.status, outcome.error, outcome.retry_after_s, took, outcome.excerpt)

    def _retry_after(self, response: aiohttp.ClientResponse) -> float | None:
        if response.status not in schedule.PATIENT:
            return None
        return schedule.retry_after_s(response.headers.get("Retry-After"), now=self.now())


@dataclass(frozen=True, slots=True)
class Sender:
    """Opens lines. ``now`` is Unix time in seconds, by which receivers judge how old a message is."""

    guard: OutboundGuard
    now: Callable[[], float] = field(default=time.time)

    @asynccontextmanager
    async def line(self, url: str) -> AsyncIterator[Line]:
        """A way to one address; each connection is checked when it is made."""
        async with self.guard.session(timeout_s=TIMEOUT_S) as session:
            yield Line(session, url, self.now)


def lookup_apart(limit: int) -> Lookup:
    """The system's resolver in threads of its own, ``limit`` at a time: a name server that is silent holds up no other."""
    limiter = CapacityLimiter(limit)

    async def lookup(host: str) -> Sequence[str]:
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await anyio.to_thread.run_sync(ask, limiter=limiter, abandon_on_cancel=True)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    return lookup


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """The beginning of the answer's body, as far as it comes soon."""
    found = b""
    with anyio.move_on_after(EXCERPT_S):
        while len(found) < EXCERPT_BYTES:
            piece = await response.content.read(EXCERPT_BYTES - len(found))
            if not piece:
                break
            found += piece
    return found.decode("utf-8", "replace")
