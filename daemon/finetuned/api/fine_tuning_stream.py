"""The events of a fine-tuning job, pushed as they happen, in the words of its pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

import anyio
from aiohttp import web

from finetuned.api import following, sse
from finetuned.api.call import Call
from finetuned.api.doors import encode
from finetuned.api.events import LAST_EVENT_ID
from finetuned.api.parameters import LARGEST_SEQ, whole_number
from finetuned.api.presence import while_there
from finetuned.domain import facts
from finetuned.domain.errors import FinetunedError, InvalidRequestError
from finetuned.domain.job import Job
from finetuned.looking import AbandonedError
from finetuned.openai import fine_tuning_ids
from finetuned.views import fine_tuning_events
from finetuned_events import Event, Page

AT_ONCE: Final = 100  # events that are read and written in one go
ENDS: Final = frozenset({facts.JobSucceeded.type, facts.JobFailed.type, facts.JobCancelled.type})


async def pushed(call: Call, job: Job, after: str | None) -> web.StreamResponse:
    """The job's events beyond one of them, from the first on if none is named; it ends when the job has.

    Who comes back and has seen the end is told not to do so again (204).
    """
    begin = _begin(call, after)
    if not job.is_live and not (await _page(call, job, begin)).events:
        return web.Response(status=204)
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = sse.CONTENT_TYPE
    await response.prepare(call.request)

    async def write() -> None:
        async with aclosing(_told(call, job, begin)) as blocks:
            await following.write(call, response, blocks)

    # The client went, the daemon stops, or the job was deleted: who comes back names the last event that it has seen.
    with suppress(AbandonedError, ConnectionError, FinetunedError):
        await while_there(call.request, write)
    return response


def _begin(call: Call, after: str | None) -> int:
    seen = call.request.headers.get(LAST_EVENT_ID)
    if seen is not None:  # a client that reconnects keeps its first URL, so this one counts
        return whole_number(LAST_EVENT_ID, seen, lowest=0, highest=LARGEST_SEQ)
    position = 0 if after is None else fine_tuning_ids.position_of(after)
    if position is None:
        raise InvalidRequestError(f"after: there is no event {str(after)[:80]!r}.", param="after")
    return position


async def _told(call: Call, job: Job, after: int) -> AsyncGenerator[bytes, None]:
    yield sse.opening()
    if after > call.queries.head:
        after = call.queries.head
        yield sse.reset(after)
    while True:
        head = call.queries.head  # before the look: what comes during it is looked for again
        page = await _page(call, job, after)
        after = max(after, page.scanned)
        if page.events:
            job = await call.queries.job(job.id)
            yield b"".join(map(partial(_frame, job), page.events))
            if page.events[-1].type in ENDS:
                return
            continue
        with anyio.move_on_after(call.config.sse_heartbeat_s) as waiting:
            await call.queries.wait(head)
        if waiting.cancelled_caught:
            yield sse.heartbeat(after)


async def _page(call: Call, job: Job, after: int) -> Page:
    return await call.queries.scan(
        after=after, limit=AT_ONCE, stream=f"job/{job.id}", types=fine_tuning_events.TYPES
    )


def _frame(job: Job, each: Event) -> bytes:
    told = fine_tuning_events.event(job, each)
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (each.seq, told["type"].encode(), encode(told))
