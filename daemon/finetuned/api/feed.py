"""The live end of the log, pushed to any number of clients.

A client is a cursor, never a queue. At the head all clients of one filter share the bytes of each event: one loop
gathers what was committed within a short window, frames it once and writes it to every transport. A client whose
transport is full is *behind*: its own handler replays from the log, at the pace at which the client reads, and
joins again at the head. Between the two there is no gap and no overlap: a client joins only when its cursor has
reached the feed's position, without an ``await`` in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import anyio
from aiohttp import web

from finetuned.api import sse
from finetuned.domain import facts
from finetuned.patience import patiently
from finetuned.queries.door import Queries, is_guarded
from finetuned_events import Event

BEHIND_BYTES = 16 * 1024  # unsent bytes at which a client counts as behind
REPLAY_EVENTS = 100  # events in a page of a replay
GATHER_EVENTS = 1000  # events in a page when the log outran its memory
KEPT_FRAMES = 1024  # newest frames kept, for clients that replay the same end of the log
SWEEP_S = 1.0  # how often clients are looked after


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a client wants: of one stream, of some types, or all; ``guarded`` ones only if it may see them."""

    stream: str | None = None
    types: frozenset[str] | None = None
    guarded: bool = True

    def wants(self, event: Event) -> bool:
        """Whether the event passes."""
        return (
            (self.stream is None or event.stream == self.stream)
            and (self.types is None or event.type in self.types)
            and (self.guarded or not is_guarded(event))
        )


@dataclass(slots=True, eq=False)
class Subscriber:
    """One client. ``cursor`` is the position up to which everything it wants was written to its transport.

    ``actor`` is who it is, as the log records it: a stream ends when its token is revoked, or expires at
    ``expires_at`` (microseconds since the epoch). ``unsent`` and ``moved_at`` are what the last sweep saw: bytes in
    the transport, and when they last shrank.
    """

    transport: asyncio.Transport
    actor: str
    filter: Filter
    chunked: bool
    cursor: int
    moved_at: float
    expires_at: int | None = None
    unsent: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def group(self) -> tuple[Filter, bool]:
        """Clients of one group get the same bytes."""
        return self.filter, self.chunked


class Feed:
    """All event streams of one server. :meth:`run` it beside the server, :meth:`close` it before the server."""

    def __init__(
        self, queries: Queries, *, heartbeat_s: float, coalesce_s: float, write_timeout_s: float
    ) -> None:
        self._queries = queries
        self._heartbeat_s = heartbeat_s
        self._coalesce_s = coalesce_s
        self._write_timeout_s = write_timeout_s
        self._position = queries.head  # everything up to here was written to all who are at the head
        self._open: set[Subscriber] = set()
        self._at_head: dict[str | None, dict[tuple[Filter, bool], set[Subscriber]]] = {}
        self._frames: dict[int, bytes] = {}
        self._closed = False

    @property
    def clients(self) -> int:
        """How many streams are open."""
        return len(self._open)

    async def run(self) -> None:
        """Push until cancelled."""
        async with anyio.create_task_group() as tasks:
            # What was not written yet is read again: the position moves with each write.
            tasks.start_soon(patiently, "The feed of events", self._push)
            tasks.start_soon(self._look_after)

    def close(self) -> None:
        """End all streams, and cut those whose clients do not read."""
        self._closed = True
        for client in self._open:
            if client.transport.get_write_buffer_size():
                client.transport.abort()
            client.wake.set()

    async def serve(self, response: web.StreamResponse, client: Subscriber) -> None:
        """Write events to a client until it goes, or the feed is closed. The response must be prepared."""
        client.transport.set_write_buffer_limits(high=BEHIND_BYTES)
        self._open.add(client)
        try:
            if not await self._queries.may_go_on(client.actor):  # revoked before it was among the open ones
                client.transport.abort()
            while not (self._closed or client.transport.is_closing()):
                await self._catch_up(response, client)
                self._join(client)
                await client.wake.wait()
                client.wake.clear()
        except ConnectionError:
            pass  # the client went; it comes back with its cursor or not at all
        finally:
            self._leave(client)
            self._open.discard(client)

    # ---- behind the head ---------------------------------------------------------------------------------

    async def _catch_up(self, response: web.StreamResponse, client: Subscriber) -> None:
        while client.cursor < self._position and not self._closed:
            page = await self._queries.scan(
                after=client.cursor,
                limit=REPLAY_EVENTS,
                stream=client.filter.stream,
                types=client.filter.types,
            )
            # After the look: what was archived before it may be missing from the page.
            archived = await self._queries.archived(client.filter.stream)
            if 0 < client.cursor < archived:
                await response.write(sse.archived(archived, self._queries.head))
                client.cursor = archived
                continue
            wanted = [event for event in page.events if client.filter.wants(event)]
            if wanted:
                await response.write(b"".join(self._framed(wanted)))
            client.cursor = page.scanned

    def _join(self, client: Subscriber) -> None:
        groups = self._at_head.setdefault(client.filter.stream, {})
        groups.setdefault(client.group, set()).add(client)

    def _leave(self, client: Subscriber) -> None:
        groups = self._at_head.get(client.filter.stream, {})
        group = groups.get(client.group, set())
        group.discard(client)
        if not group:
            groups.pop(client.group, None)
        if not groups:
            self._at_head.pop(client.filter.stream, None)

    # ---- at the head -------------------------------------------------------------------------------------

    async def _push(self) -> None:
        while True:
            await self._queries.wait(self._position)
            await anyio.sleep(self._coalesce_s)
            async for events in self._committed():
                self._write(events)

    async def _committed(self) -> AsyncIterator[tuple[Event, ...]]:
        """What was committed beyond the feed's position, read once for all clients."""
        while self._position < self._queries.head:
            events = self._queries.recent(self._position)
            if events is None:
                page = await self._queries.scan(after=self._position, limit=GATHER_EVENTS)
                events = tuple(page.events)
            yield events

    def _write(self, events: tuple[Event, ...]) -> None:
        start = self._position
        by_stream: dict[str | None, list[Event]] = {None: list(events)}
        for event in events:
            if event.stream in self._at_head:
                by_stream.setdefault(event.stream, []).append(event)
        for stream, of_stream in by_stream.items():
            for (wanted, chunked), group in list(self._at_head.get(stream, {}).items()):
                matching = [event for event in of_stream if wanted.wants(event)]
                if matching:
                    self._write_to_group(group, matching, chunked=chunked, start=start)
        self._cut_revoked(events)
        self._position = events[-1].seq

    def _cut_revoked(self, events: Iterable[Event]) -> None:
        revoked = {f"token:{event.data['id']}" for event in events if event.type == facts.TokenRevoked.type}
        if revoked:
            for client in self._open:
                if client.actor in revoked:
                    client.transport.abort()
                    client.wake.set()

    def _write_to_group(
        self, group: set[Subscriber], events: list[Event], *, chunked: bool, start: int
    ) -> None:
        shared = self._payload(events, chunked=chunked)
        for client in list(group):
            transport = client.transport
            if transport.is_closing():
                client.wake.set()
            elif transport.get_write_buffer_size() > BEHIND_BYTES:
                client.cursor = max(client.cursor, start)
                self._leave(client)
                client.wake.set()
            elif client.cursor > start:  # it joined from further on than the feed was
                own = [event for event in events if event.seq > client.cursor]
                if own:
                    transport.write(self._payload(own, chunked=chunked))
            else:
                transport.write(shared)

    def _payload(self, events: Iterable[Event], *, chunked: bool) -> bytes:
        payload = b"".join(self._framed(events))
        return sse.chunk(payload) if chunked else payload

    def _framed(self, events: Iterable[Event]) -> list[bytes]:
        return [self._frames.get(event.seq) or self._frame(event) for event in events]

    def _frame(self, event: Event) -> bytes:
        made = sse.frame(event)
        if event.seq > self._position - KEPT_FRAMES:
            self._frames[event.seq] = made
            if len(self._frames) > 2 * KEPT_FRAMES:
                newest = sorted(self._frames)[-KEPT_FRAMES:]
                self._frames = {seq: self._frames[seq] for seq in newest}
        return made

    # ---- now and then ------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        beat_at = time.monotonic() + self._heartbeat_s
        while True:
            await anyio.sleep(min(SWEEP_S, self._heartbeat_s, self._write_timeout_s / 4))
            now, wall = time.monotonic(), self._queries.now()
            for client in self._open:
                if client.expires_at is not None and wall >= client.expires_at:
                    client.transport.abort()
                self._sweep(client, now)
            if now >= beat_at:
                self._beat()
                beat_at = now + self._heartbeat_s

    def _sweep(self, client: Subscriber, now: float) -> None:
        """Notice clients that went, and cut those that take nothing off their stream."""
        unsent = client.transport.get_write_buffer_size()
        if unsent == 0 or unsent < client.unsent:
            client.moved_at = now
        elif now - client.moved_at > self._write_timeout_s:
            client.transport.abort()
        client.unsent = unsent
        if client.transport.is_closing():
            client.wake.set()

    def _beat(self) -> None:
        payload = sse.heartbeat(self._position)
        shared = {True: sse.chunk(payload), False: payload}
        for groups in self._at_head.values():
            for (_, chunked), group in groups.items():
                for client in group:
                    idle = not (client.transport.is_closing() or client.transport.get_write_buffer_size())
                    # One that is further on than the feed must not be sent back.
                    if idle and client.cursor <= self._position:
                        client.transport.write(shared[chunked])
