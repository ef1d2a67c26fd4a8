"""Events: as JSON pages, or pushed as server-sent events."""

from __future__ import annotations

import time

from aiohttp import hdrs, web
from pydantic import Field

from finetuned import views, wire
from finetuned.api import sse
from finetuned.api.auth import Scope
from finetuned.api.call import Call
from finetuned.api.doors import FEED
from finetuned.api.feed import Filter, Subscriber
from finetuned.api.lists import listing
from finetuned.api.parameters import LARGEST_SEQ, EventTypes, Flag, Limit, Query, Whole, whole_number
from finetuned.domain.errors import ArchivedError
from finetuned_events import LogError

LAST_EVENT_ID = "Last-Event-ID"


class EventsQuery(Query):
    """Which events, and how."""

    after: Whole | None = Field(
        default=None, ge=0, le=LARGEST_SEQ, description="only events beyond this `seq`"
    )
    limit: Limit = 100
    types: EventTypes | None = Field(
        default=None, description="only these types of events, separated by commas"
    )
    stream: Flag | None = Field(
        default=None, description="pushed as they happen; also by `Accept: text/event-stream`"
    )


async def of_job(
    call: Call, query: EventsQuery, *, job_id: str
) -> wire.Page[wire.Event] | web.StreamResponse:
    """The events of one job, from its first on."""
    job = await call.queries.job(job_id)
    return await _events(call, query, stream=f"job/{job.id}", stream_from=0)


async def of_all(call: Call, query: EventsQuery) -> wire.Page[wire.Event] | web.StreamResponse:
    """All events. A stream without a cursor begins at the head.

    Those of tokens, secrets, repeated requests and webhooks (the streams `token/…`, `secret/…`, `request/…` and
    `webhook/…`) are left out below scope `admin`.
    """
    return await _events(call, query, stream=None, stream_from=call.queries.head)


async def _events(
    call: Call, query: EventsQuery, *, stream: str | None, stream_from: int
) -> wire.Page[wire.Event] | web.StreamResponse:
    after, pushed = query.after, query.stream
    guarded = call.caller.scope >= Scope.ADMIN
    if pushed is None:
        pushed = sse.CONTENT_TYPE in call.request.headers.get(hdrs.ACCEPT, "")
    if pushed:
        seen = call.request.headers.get(LAST_EVENT_ID)
        if seen is not None:  # a client that reconnects keeps its first URL, so this one counts
            after = whole_number(LAST_EVENT_ID, seen, lowest=0, highest=LARGEST_SEQ)
        return await _push(
            call, Filter(stream, query.types, guarded), stream_from if after is None else after
        )
    page, has_more = await call.queries.events(
        after=after or 0, limit=query.limit, stream=stream, types=query.types, guarded=guarded
    )
    # After the look: what was archived before it may be missing from the page.
    archived = await call.queries.archived(stream)
    if 0 < (after or 0) < archived:
        raise ArchivedError(
            f"The events that follow {after} are in an archive, up to {archived}; go on with after={archived}.",
            param="after",
        )
    found = [views.event(event) for event in page.events]
    return listing(found, has_more=has_more, key="seq", next_after=page.scanned)


async def _push(call: Call, wanted: Filter, after: int) -> web.StreamResponse:
    request, queries = call.request, call.queries
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = sse.CONTENT_TYPE
    chunked = request.version >= (1, 1)
    if chunked:
        response.enable_chunked_encoding()
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client went")
    opening = sse.opening()
    if after > queries.head:
        after = queries.head
        opening += sse.reset(after)
    await response.write(opening)
    client = Subscriber(
        transport,
        call.caller.actor,
        wanted,
        chunked,
        after,
        moved_at=time.monotonic(),
        expires_at=call.caller.expires_at,
    )
    try:
        await request.app[FEED].serve(response, client)
    except LogError:
        transport.abort()  # an end without the closing chunk: the client sees that more was to come
    return response
