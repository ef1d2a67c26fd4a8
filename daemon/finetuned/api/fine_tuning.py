"""Fine-tuning as OpenAI's clients ask for it: the same jobs as ``/v1/jobs``, under OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar

import anyio.to_thread
from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api import fine_tuning_stream, sse
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import encode
from finetuned.api.parameters import Limit, Query
from finetuned.domain.job import Job
from finetuned.domain.waits import Wait
from finetuned.openai.fine_tuning_request import FineTuningRequest
from finetuned.queries.door import INLINE_JOBS
from finetuned.views import fine_tuning, fine_tuning_events


class FineTuningJobsQuery(Query):
    """Which fine-tuning jobs."""

    maps: ClassVar[frozenset[str]] = frozenset({"metadata"})

    after: str | None = Field(default=None, description="the last id of the page before")
    limit: Limit = 20
    metadata: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(
        default=None,
        description="only jobs whose metadata have this value under this key: `metadata[KEY]=VALUE`",
    )


class FineTuningEventsQuery(Query):
    """Which events."""

    after: str | None = Field(
        default=None,
        description="the last id of the page before: older ones follow; of a stream the last event seen: newer ones do",
    )
    limit: Limit = 20


class FineTuningCheckpointsQuery(Query):
    """Which checkpoints."""

    after: str | None = Field(default=None, description="the last id of the page before")
    limit: Limit = 10


class NothingMore(BaseModel):
    """A body that may be left out and has no fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


async def create(call: Call, body: FineTuningRequest) -> wire.FineTuningJob:
    """Accept a fine-tuning job."""
    job = await call.commands.fine_tuning.create(
        body, actor=call.caller.actor, may_name_paths=call.may_name_paths, once=call.once
    )
    return await _shown(call, job.id)


async def listed(call: Call, query: FineTuningJobsQuery) -> Encoded[wire.FineTuningPage[wire.FineTuningJob]]:
    """Fine-tuning jobs, newest first, however they were submitted."""
    jobs, has_more = await call.queries.fine_tuning.jobs(
        after=query.after, limit=query.limit, metadata=query.metadata or {}
    )
    page = partial(_page, jobs, await call.queries.waits(), has_more=has_more)
    return Encoded(page() if len(jobs) <= INLINE_JOBS else await anyio.to_thread.run_sync(page))


def _page(jobs: list[Job], waits: Mapping[str, Wait], *, has_more: bool) -> bytes:
    answer: wire.FineTuningPage[wire.FineTuningJob] = {
        "object": "list",
        "data": [fine_tuning.job(job, waits.get(job.id)) for job in jobs],
        "has_more": has_more,
    }
    return encode(answer)


async def show(call: Call, *, fine_tuning_job_id: str) -> wire.FineTuningJob:
    """One fine-tuning job."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    return await _shown(call, job.id)


async def cancel(call: Call, body: NothingMore, *, fine_tuning_job_id: str) -> wire.FineTuningJob:  # noqa: ARG001 - none, checked
    """Ask a fine-tuning job to end."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    await call.commands.cancel(job.id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job.id)


async def pause(call: Call, body: NothingMore, *, fine_tuning_job_id: str) -> wire.FineTuningJob:  # noqa: ARG001 - none, checked
    """Ask a fine-tuning job to save a checkpoint and leave its devices."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    await call.commands.pauses.pause(job.id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job.id)


async def resume(call: Call, body: NothingMore, *, fine_tuning_job_id: str) -> wire.FineTuningJob:  # noqa: ARG001 - none, checked
    """Let a paused fine-tuning job go on from its newest whole checkpoint."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    await call.commands.pauses.resume(job.id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job.id)


async def events(
    call: Call, query: FineTuningEventsQuery, *, fine_tuning_job_id: str
) -> wire.FineTuningPage[wire.FineTuningEvent] | web.StreamResponse:
    """What happened to a fine-tuning job, newest first; with `Accept: text/event-stream` as it happens, oldest first."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    if sse.CONTENT_TYPE in call.request.headers.get(hdrs.ACCEPT, ""):
        return await fine_tuning_stream.pushed(call, job, query.after)
    found, has_more = await call.queries.fine_tuning.events(
        job, types=fine_tuning_events.TYPES, after=query.after, limit=query.limit
    )
    told = [fine_tuning_events.event(job, each) for each in found]
    return {"object": "list", "data": told, "has_more": has_more}


async def checkpoints(
    call: Call, query: FineTuningCheckpointsQuery, *, fine_tuning_job_id: str
) -> wire.FineTuningCheckpointPage:
    """The checkpoints of a fine-tuning job that are kept, newest first."""
    job = await call.queries.fine_tuning.job(fine_tuning_job_id)
    kept, has_more = call.queries.fine_tuning.checkpoints(job, after=query.after, limit=query.limit)
    found = [fine_tuning.checkpoint(job, each) for each in kept]
    return {
        "object": "list",
        "data": found,
        "has_more": has_more,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }


async def _shown(call: Call, job_id: str) -> wire.FineTuningJob:
    shown = await call.queries.shown(job_id)
    return fine_tuning.job(shown.job, shown.wait)
