"""Calls about events, and about what a job's processes printed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from finetuned.client.calls import PAGE, Calls, job_path, parameters
from finetuned.client.errors import UnreachableError
from finetuned.client.follow import follow
from finetuned.client.transport import LOST, OnConnection
from finetuned.wire import Event, Page


class EventCalls(Calls):
    """Look back, follow, read what was printed."""

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

    async def logs(
        self, job_id: str, *, tail: int | None = None, follow: bool = False, attempt: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What the job's processes printed: its last ``tail`` lines, or all; with ``follow`` until it ends.

        Raises ``UnreachableError`` if the connection is lost on the way.
        """
        query = parameters(tail=tail, follow="true" if follow else None, attempt=attempt)
        path = f"{job_path(job_id)}/logs"
        async with self._transport.stream(path, query=query, headers={}, silence=None) as content:
            try:
                async for chunk in content.iter_any():
                    yield chunk
            except LOST as error:
                raise UnreachableError(f"The connection was lost: {error}. The job goes on.") from error


def events_path(job_id: str | None) -> str:
    """The path of one job's events, or of all."""
    return "/v1/events" if job_id is None else f"{job_path(job_id)}/events"
