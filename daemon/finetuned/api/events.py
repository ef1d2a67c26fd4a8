"""Events: as JSON pages, or pushed as server-sent events."""

from __future__ import annotations

import time

from aiohttp import hdrs, web

from finetuned import views
from finetuned.api import sse
from finetuned.api.auth import Caller
from finetuned.api.doors import DOORS, FEED, json
from finetuned.api.feed import Filter, Subscriber
from finetuned.api.paging import LARGEST_SEQ, Parameters, listing, whole_number
from finetuned.domain import facts
from finetuned_events import LogError

LAST_EVENT_ID = "Last-Event-ID"


async def of_job(request: web.Request, caller: Caller) -> web.StreamResponse:
    """The events of one job, from its first on."""
    job = await request.app[DOORS].queries.job(request.match_info["id"])
    return await _events(request, caller, stream=f"job/{job.id}", stream_from=0)


async def of_all(request: web.Request, caller: Caller) -> web.StreamResponse:
    """All events. A stream without a cursor begins at the head."""
    return await _events(request, caller, stream=None, stream_from=request.app[DOORS].queries.head)


async def _events(
    request: web.Request, caller: Caller, *, stream: str | None, stream_from: int
) -> web.StreamResponse:
    parameters = Parameters(request, "after", "limit", "types", "stream")
    types = parameters.choices("types", facts.SCHEMAS)
    after = parameters.integer("after", lowest=0, highest=LARGEST_SEQ)
    limit = parameters.limit(100)
    pushed = parameters.flag("stream")
    if pushed is None:
        pushed = sse.CONTENT_TYPE in request.headers.get(hdrs.ACCEPT, "")
    if pushed:
        seen = request.headers.get(LAST_EVENT_ID)
        if seen is not None:  # a client that reconnects keeps its first URL, so this one counts
            after = whole_number(LAST_EVENT_ID, seen, lowest=0, highest=LARGEST_SEQ)
        return await _push(request, caller, Filter(stream, types), stream_from if after is None else after)
    page, has_more = await request.app[DOORS].queries.events(
        after=after or 0, limit=limit, stream=stream, types=types
    )
    found = [views.event(event) for event in page.events]
    return json(listing(found, has_more=has_more, key="seq", next_after=page.scanned))


async def _push(request: web.Request, caller: Caller, wanted: Filter, after: int) -> web.StreamResponse:
    queries = request.app[DOORS].queries
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
    client = Subscriber(transport, caller.actor, wanted, chunked, after, moved_at=time.monotonic())
    try:
        await request.app[FEED].serve(response, client)
    except LogError:
        transport.abort()  # an end without the closing chunk: the client sees that more was to come
    return response
