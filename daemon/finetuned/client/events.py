"""Calls about events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from finetuned.client.calls import PAGE, Calls, job_path, parameters
from finetuned.client.follow import follow
from finetuned.client.transport import OnConnection
from finetuned.wire import Event, Page


class EventCalls(Calls):
    """Look back and follow."""

    async def events(
        self, *, job: str | None = None, after: int = 0, limit: int = 100, types: Collection[str] = ()
    ) -> Page[Event]:
        """A page of events in order: of one job, or of everything.

        With ``types`` it may be short, even empty, and yet have more after it: go on from ``next_after``.
        """
        page: Page[Event] = await self._get(
            events_path(job), after=after, limit=limit, types=",".join(types) or None
        )
        return page

    async def all_events(
        self, *, job: str | None = None, after: int = 0, types: Collection[str] = ()
    ) -> AsyncGenerator[Event, None]:
        """Every event after ``after`` that is there now."""
        while True:
            page = await self.events(job=job, after=after, limit=PAGE, types=types)
            for event in page["data"]:
                yield event
            if not page["has_more"]:
                return
            after = int(page["next_after"] or 0)

    async def follow(
        self,
        *,
        job: str | None = None,
        after: int = 0,
        types: Collection[str] = (),
        on_connection: OnConnection = lambda _trouble: None,
    ) -> AsyncGenerator[Event, None]:
        """Events after ``after`` as they happen, for ever, each once and in order.

        A lost connection or a restarted daemon is waited for: ``on_connection`` is told the trouble, and
        ``None`` once the stream is there. Only a refusal raises, and ``ResetError`` when the log itself was
        put back. Close the generator (``contextlib.aclosing``) to close the connection.
        """
        found = follow(
            self._transport,
            events_path(job),
            query=parameters(types=",".join(types) or None),
            after=after,
            on_connection=on_connection,
        )
        async with aclosing(found) as events:
            async for event in events:
                yield event


def events_path(job_id: str | None) -> str:
    """The path of one job's events, or of all."""
    return "/v1/events" if job_id is None else f"{job_path(job_id)}/events"
