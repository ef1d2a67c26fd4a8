"""Connections whose clients are slow, silent, deaf or too many: each costs the others nothing.

aiohttp's server waits for the headers of a request, and for a client to take its answer, as long as the client likes.
Here one task looks at all connections about once a second, by the monotonic clock, and ends those that take too
long. What cannot be parsed is answered in the one shape of errors, and noted without a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT
from typing import Any, Final, cast

import anyio
from aiohttp import web

from finetuned.api import errors
from finetuned.api.admission import Admission, Client, affordable, client_of
from finetuned.api.browsers import HEADERS
from finetuned.config import Config
from finetuned.domain.errors import FinetunedError, InvalidRequestError, UnavailableError

log = logging.getLogger(__name__)

SWEEP_S: Final = 1.0  # at most this long between two looks at the connections
MOST_TURNED_AWAY: Final = (
    256  # connections that are told that they are too many; more are closed without a word
)
# Without a bound the kernel takes megabytes in advance, and a slow client looks for minutes as if it took nothing.
KERNEL_BYTES: Final = 64 << 10
TOLD_IN_S: Final = 1.0  # how long such a connection is kept open for its client to read why


class RequestTimeoutError(InvalidRequestError):
    """The headers of a request did not come in time."""

    status = 408
    exit_code = 6


class TooManyConnectionsError(UnavailableError):
    """More connections than there may be."""

    code = "too_many_connections"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for clients, in seconds."""

    header_s: float
    write_s: float

    @property
    def sweep_s(self) -> float:
        """How often connections are looked at."""
        return min(SWEEP_S, self.header_s / 4, self.write_s / 4)


@dataclass(slots=True)
class Guard:
    """Who may connect, and for how long a client may hold things up. :meth:`run` it beside the server."""

    admission: Admission
    patience: Patience
    clock: Callable[[], float] = time.monotonic
    _open: set[Connection] = field(default_factory=set)
    _turned_away: dict[asyncio.Transport, float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Guard:
        """The guard that the configuration asks for."""
        most = affordable(config.max_connections)
        return cls(
            Admission(most, min(most, config.max_connections_per_client)),
            Patience(config.header_timeout_s, config.sse_write_timeout_s),
        )

    def enter(self, connection: Connection, client: Client) -> str | None:
        """Take a connection in; what to tell the client if there are too many."""
        refusal = self.admission.enter(client)
        if refusal is None:
            self._open.add(connection)
        return refusal

    def leave(self, connection: Connection, client: Client) -> None:
        """A connection that was taken in is gone."""
        self._open.discard(connection)
        self.admission.leave(client)

    def turn_away(self, transport: asyncio.Transport, why: str) -> None:
        """Tell a client that it cannot be served, before it has asked for anything, and close."""
        if len(self._turned_away) >= MOST_TURNED_AWAY:
            transport.abort()
            return
        # Closed at once, with a request unread, the kernel would reset the connection and the answer be lost.
        transport.set_protocol(_TurnedAway(lambda: self._turned_away.pop(transport, None)))
        self._turned_away[transport] = self.clock() + TOLD_IN_S
        transport.write(errors.raw(TooManyConnectionsError(why)))
        transport.write_eof()

    async def run(self) -> None:
        """Look after the connections until cancelled."""
        while True:
            await anyio.sleep(self.patience.sweep_s)
            now = self.clock()
            for connection in list(self._open):
                connection.look_after(now)
            for transport, until in list(self._turned_away.items()):
                if now >= until:
                    transport.abort()


class _TurnedAway(asyncio.Protocol):
    """A client that is one too many: what it sends is thrown away."""

    def __init__(self, gone: Callable[[], object]) -> None:
        self._gone = gone

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has read it, or its time is over."""
        del exc
        self._gone()


class Connection(web.RequestHandler):
    """aiohttp's side of a connection, with an eye on the clock."""

    __slots__ = ("_client", "_guard", "_head_since", "_moved_at", "_opened_at", "_unsent", "gone")

    def __init__(self, manager: web.Server, guard: Guard, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._guard = guard
        self.gone = anyio.Event()  # set when the client, or we, have closed
        self._client: Client | None = None
        self._opened_at = self._moved_at = guard.clock()
        self._head_since: float | None = (
            None  # when the first bytes of a request came whose headers are not whole
        )
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        stream = cast("asyncio.Transport", transport)
        client = client_of(stream.get_extra_info("socket"), stream.get_extra_info("peername"))
        refusal = self._guard.enter(self, client)
        if refusal is not None:
            self._guard.turn_away(stream, refusal)
            return
        self._client = client
        if client.door == "tcp":
            stream.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client, or we, have closed."""
        super().connection_lost(exc)
        self.gone.set()
        if self._client is not None:
            self._guard.leave(self, self._client)
            self._client = None

    def data_received(self, data: bytes) -> None:
        """Bytes have come: of a request's headers, or of a body."""
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._head_since = None
            self._break_off()
        elif self._head_since is None and (self._is_waiting or not count) and data.strip(b"\r\n"):
            self._head_since = self._guard.clock()

    def resume_writing(self) -> None:
        """The client has taken what was held up: it reads, however slowly, and may be given more at once."""
        super().resume_writing()
        self._moved_at = self._guard.clock()

    def _break_off(self) -> None:
        """If the body that a handler waits for turned out malformed, tell it: the parser does not."""
        request = self._current_request
        problem = getattr(self._messages[-1][0], "exc", None) if self._messages else None
        if request is not None and problem is not None and not request.content.is_eof():
            request.content.set_exception(problem)

    @property
    def _is_waiting(self) -> bool:
        """Whether the next request is waited for, and nothing is being answered."""
        return self._waiter is not None and not self._waiter.done()

    def look_after(self, now: float) -> None:
        """End the connection if its client holds it up."""
        transport = self.transport
        if transport is None:
            return
        patience = self._guard.patience
        unsent = transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._moved_at = now
        elif now - self._moved_at > patience.write_s:
            transport.abort()
            return
        self._unsent = unsent
        if not self._is_waiting:
            self._head_since = None
            return
        begun = self._opened_at if self._request_count == 0 else self._head_since
        if begun is not None and now - begun > patience.header_s:
            if self._head_since is not None:  # who has said nothing gets no answer
                transport.write(errors.raw(_late(patience.header_s)))
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed, or to what went wrong outside of all handlers."""
        del status, message
        if isinstance(exc, ConnectionError):
            raise exc  # the client went; there is nobody to answer
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        answer = errors.response(errors.of_parser(exc) or errors.unforeseen(request, exc))
        answer.headers.update(HEADERS)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **settings: Any) -> None:
        """Note what went wrong outside of all handlers; what clients send is none of the log's business."""
        if errors.of_parser(settings.get("exc_info")) is None:
            super().log_exception(*args, **settings)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer. aiohttp's own refusals outside of all handlers get the one shape too."""
        if isinstance(resp, web.HTTPException):
            resp = errors.of_router(request, resp)
        return await super().finish_response(request, resp, start_time)


def _late(header_s: float) -> FinetunedError:
    return RequestTimeoutError(
        f"The headers of the request did not come within {header_s:g} s; send them at once, or raise"
        " header_timeout_s in the configuration.",
        code="request_timeout",
    )


class GuardedServer(web.Server):
    """aiohttp's server, with guarded connections."""

    guard: Guard

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        return Connection(self, self.guard, loop=self._loop, **self._kwargs)


class GuardedRunner(web.AppRunner):
    """aiohttp's runner, with a guarded server."""

    def __init__(self, app: web.Application, guard: Guard, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._guard = guard

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        settings = made._kwargs  # noqa: SLF001 - aiohttp offers no other way to a protocol of one's own
        server = GuardedServer(made.request_handler, request_factory=made.request_factory, **settings)
        server.guard = self._guard
        return server
