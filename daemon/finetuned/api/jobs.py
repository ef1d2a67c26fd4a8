"""Jobs: submit, list, show, pause, resume, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import views, wire
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import encode
from finetuned.api.lists import listing
from finetuned.api.parameters import At, Flag, Limit, Query
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.job_request import PRIORITY_LIMIT, JobRequest
from finetuned.json_numbers import Integer
from finetuned.queries.door import INLINE_JOBS
from finetuned.views import estimates

LONGEST_WAIT_S: Final = 86_400.0  # for the checkpoint of a pause


class JobsQuery(Query):
    """Which jobs."""

    state: JobState | None = Field(default=None, description="only jobs in this state")
    kind: str | None = Field(default=None, description="only jobs of this kind")
    name: str | None = Field(default=None, description="only jobs of this name")
    after: str | None = Field(default=None, description="the last id of the page before")
    limit: Limit = 50
    at: At | None = None


class JobQuery(Query):
    """When."""

    at: At | None = None


class CancelRequest(BaseModel):
    """The optional body of a cancel."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    reason: str | None = Field(default=None, max_length=1000, description="why, for the job's timeline")


class RetryRequest(BaseModel):
    """The optional body of a retry."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    from_checkpoint: str | Integer | None = Field(
        default=None, description="`latest`, or a checkpoint by step or id; null starts from the beginning"
    )
    priority: Integer | None = Field(
        default=None, ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT, description="null keeps the old job's"
    )


class PauseRequest(BaseModel):
    """The optional body of a pause."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    reason: str | None = Field(default=None, max_length=1000, description="why, for the job's timeline")
    wait_s: float | None = Field(
        default=None,
        ge=0,
        le=LONGEST_WAIT_S,
        allow_inf_nan=False,
        description="seconds that its checkpoint is waited for before it is stopped without one; null takes the job's"
        " `timeouts.pause_s`, else 30",
    )


class ResumeRequest(BaseModel):
    """The optional body of a resume."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    from_checkpoint: str | Integer | None = Field(
        default=None, description="a checkpoint by step or id; null or `latest` takes the newest whole one"
    )


class CheckpointRequest(BaseModel):
    """The optional body of a request for a checkpoint; it has no fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class SubmitQuery(Query):
    """Whether it is meant."""

    dry_run: Flag = Field(
        default=False,
        description="only tell what would come of it: parameters worked out, estimate, checks, when it would start;"
        " answers 200 and records nothing",
    )


async def submit(call: Call, query: SubmitQuery, body: JobRequest) -> wire.Job | wire.DryRun | web.Response:
    """Accept a job, or tell what would come of it."""
    if query.dry_run:
        found = await call.commands.dry_run(body, actor=call.caller.actor, may_name_paths=call.may_name_paths)
        return web.Response(body=encode(estimates.dry_run(found)), content_type="application/json")
    job = await call.commands.submit(
        body, actor=call.caller.actor, may_name_paths=call.may_name_paths, once=call.once
    )
    return await _shown(call, job.id)


async def listed(call: Call, query: JobsQuery) -> Encoded[wire.Page[wire.Job]]:
    """Jobs, newest first."""
    wanted = query.model_dump(exclude={"at"})
    if query.at is None:
        jobs, has_more = await call.queries.jobs(**wanted)
        waits: Mapping[str, Wait] = await call.queries.waits()
    else:
        jobs, has_more = await call.queries.past.jobs(await call.queries.position(query.at), **wanted)
        waits = {}
    page = partial(_page, jobs, waits, has_more=has_more)
    return Encoded(page() if len(jobs) <= INLINE_JOBS else await anyio.to_thread.run_sync(page))


def _page(jobs: list[Job], waits: Mapping[str, Wait], *, has_more: bool) -> bytes:
    return encode(listing([views.job(job, waits.get(job.id)) for job in jobs], has_more=has_more))


async def show(call: Call, query: JobQuery, *, job_id: str) -> wire.Job:
    """One job."""
    if query.at is not None:
        return views.job(await call.queries.past.job(job_id, await call.queries.position(query.at)), None)
    return await _shown(call, job_id)


async def cancel(call: Call, body: CancelRequest, *, job_id: str) -> wire.Job:
    """Ask a job to end."""
    job = await call.commands.cancel(job_id, actor=call.caller.actor, reason=body.reason, once=call.once)
    return await _shown(call, job.id)


async def retry(call: Call, body: RetryRequest, *, job_id: str) -> wire.Job:
    """Submit an ended job again, as a new one."""
    checkpoint = None if body.from_checkpoint is None else str(body.from_checkpoint)
    job = await call.commands.retry(
        job_id,
        actor=call.caller.actor,
        from_checkpoint=checkpoint,
        priority=body.priority,
        may_name_paths=call.may_name_paths,
        once=call.once,
    )
    return await _shown(call, job.id)


async def pause(call: Call, body: PauseRequest, *, job_id: str) -> wire.Job:
    """Ask a job to save a checkpoint and leave its devices."""
    await call.commands.pauses.pause(
        job_id, actor=call.caller.actor, reason=body.reason, wait_s=body.wait_s, once=call.once
    )
    return await _shown(call, job_id)


async def resume(call: Call, body: ResumeRequest, *, job_id: str) -> wire.Job:
    """Let a paused job go on."""
    checkpoint = None if body.from_checkpoint is None else str(body.from_checkpoint)
    await call.commands.pauses.resume(
        job_id, actor=call.caller.actor, from_checkpoint=checkpoint, once=call.once
    )
    return await _shown(call, job_id)


async def checkpoint(call: Call, body: CheckpointRequest, *, job_id: str) -> wire.Job:  # noqa: ARG001 - none, checked
    """Ask a running job for a checkpoint at its next step."""
    await call.commands.pauses.checkpoint(job_id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job_id)


async def delete(call: Call, *, job_id: str) -> wire.Deleted:
    """Hide an ended job and remove its files."""
    await call.commands.delete(job_id, actor=call.caller.actor)
    return {"id": job_id, "object": "job", "deleted": True}


async def _shown(call: Call, job_id: str) -> wire.Job:
    shown = await call.queries.shown(job_id)
    return views.job(shown.job, shown.wait)
