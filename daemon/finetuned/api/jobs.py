"""Jobs: submit, list, show, cancel, retry, delete, and what their processes printed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import anyio
import anyio.to_thread
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.body import parse, read_object
from finetuned.api.doors import DOORS, STOPPING, Doors, encode, encoded, json
from finetuned.api.paging import Parameters, listing
from finetuned.domain.job import Job
from finetuned.domain.queue import Wait
from finetuned.domain.states import JobState
from finetuned.queries import INLINE_JOBS
from finetuned.submission import PRIORITY_LIMIT, parse_request

LONGEST_TAIL = 1_000_000  # lines
LARGEST_ATTEMPT = 1_000_000


class CancelRequest(BaseModel):
    """The optional body of a cancel."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=1000, description="why, for the job's timeline")


class RetryRequest(BaseModel):
    """The optional body of a retry."""

    model_config = ConfigDict(extra="forbid")

    from_checkpoint: str | int | None = Field(
        default=None, description="`latest`, or the step of a checkpoint; null starts from the beginning"
    )
    priority: int | None = Field(
        default=None, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT, description="null keeps the old job's"
    )


async def submit(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Accept a job."""
    doors = request.app[DOORS]
    Parameters(request)
    body = {"max_attempts": doors.config.max_attempts} | await read_object(request)
    job = await doors.commands.submit(parse_request(body), actor=caller.actor)
    return await _shown(doors, job.id, status=201)


async def listed(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """Jobs, newest first."""
    doors = request.app[DOORS]
    parameters = Parameters(request, "state", "kind", "name", "after", "limit")
    seq = doors.queries.head
    jobs, has_more = await doors.queries.jobs(
        after=parameters.text("after"),
        limit=parameters.limit(50),
        state=parameters.choice("state", [state.value for state in JobState]),
        kind=parameters.text("kind"),
        name=parameters.text("name"),
    )
    waits = await doors.queries.waits()
    page = partial(_page, jobs, waits, seq, has_more=has_more)
    return encoded(page() if len(jobs) <= INLINE_JOBS else await anyio.to_thread.run_sync(page))


def _page(jobs: list[Job], waits: dict[str, Wait], seq: int, *, has_more: bool) -> bytes:
    return encode(listing([views.job(job, waits.get(job.id), seq) for job in jobs], has_more=has_more))


async def show(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """One job."""
    doors = request.app[DOORS]
    Parameters(request)
    return await _shown(doors, request.match_info["id"])


async def cancel(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Ask a job to end."""
    doors = request.app[DOORS]
    Parameters(request)
    wanted = parse(CancelRequest, await read_object(request, optional=True))
    job = await doors.commands.cancel(request.match_info["id"], actor=caller.actor, reason=wanted.reason)
    return await _shown(doors, job.id)


async def retry(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Submit an ended job again, as a new one."""
    doors = request.app[DOORS]
    Parameters(request)
    wanted = parse(RetryRequest, await read_object(request, optional=True))
    checkpoint = None if wanted.from_checkpoint is None else str(wanted.from_checkpoint)
    job = await doors.commands.retry(
        request.match_info["id"], actor=caller.actor, from_checkpoint=checkpoint, priority=wanted.priority
    )
    return await _shown(doors, job.id, status=201)


async def delete(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Hide an ended job and remove its files."""
    Parameters(request)
    job_id = request.match_info["id"]
    await request.app[DOORS].commands.delete(job_id, actor=caller.actor)
    return json({"id": job_id, "object": "job", "deleted": True})


async def output(request: web.Request, caller: Caller) -> web.StreamResponse:
    """What a job's processes printed, as text."""
    doors = request.app[DOORS]
    parameters = Parameters(request, "tail", "follow", "attempt")
    blocks = await doors.queries.output(
        request.match_info["id"],
        tail=parameters.integer("tail", lowest=0, highest=LONGEST_TAIL),
        follow=parameters.flag("follow") or False,
        attempt=parameters.integer("attempt", lowest=0, highest=LARGEST_ATTEMPT),
    )
    response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    response.content_type = "text/plain"
    response.charset = "utf-8"
    await response.prepare(request)
    async with aclosing(blocks):
        await _write(request, response, blocks, caller)
    return response


async def _write(
    request: web.Request, response: web.StreamResponse, blocks: AsyncIterator[bytes], caller: Caller
) -> None:
    doors = request.app[DOORS]
    async for block in blocks:
        transport = request.transport
        if request.app[STOPPING].is_set() or transport is None or transport.is_closing():
            return
        if not await doors.queries.may_go_on(caller.actor):
            transport.abort()
            return
        with anyio.move_on_after(doors.config.sse_write_timeout_s) as waiting:
            await response.write(block)
        if waiting.cancelled_caught:
            transport.abort()
            return


async def _shown(doors: Doors, job_id: str, *, status: int = 200) -> web.Response:
    shown = await doors.queries.shown(job_id)
    return json(views.job(shown.job, shown.wait, shown.seq), status=status)
