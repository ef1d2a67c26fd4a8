"""Batches as OpenAI's clients ask for them: jobs of the kind batch, under OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import encode
from finetuned.api.parameters import Query, Whole
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.openai import batch_ids
from finetuned.openai.batches import BatchRequest
from finetuned.queries.door import INLINE_JOBS
from finetuned.views import batches as views

LARGEST_PAGE = 100


class BatchesQuery(Query):
    """Which batches."""

    after: str | None = Field(default=None, max_length=64, description="the last id of the page before")
    limit: Annotated[Whole, Field(ge=1, le=LARGEST_PAGE, description="how many items a page has at most")] = (
        20
    )


class NoFields(BaseModel):
    """A body that may be left out and has no fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


async def create(call: Call, body: BatchRequest) -> wire.Batch:
    """Ask a model all requests of a file. The file was sent with the purpose `batch`; the model is that of its requests."""
    job = await call.commands.batches.create(
        body, actor=call.caller.actor, may_name_paths=call.may_name_paths, once=call.once
    )
    return await _shown(call, batch_ids.of_job(job.id))


async def listed(call: Call, query: BatchesQuery) -> Encoded[wire.BatchPage]:
    """Batches, newest first, however they were submitted."""
    jobs, has_more = await call.queries.batches.listed(after=query.after, limit=query.limit)
    page = partial(_page, jobs, await call.queries.waits(), has_more=has_more)
    return Encoded(page() if len(jobs) <= INLINE_JOBS else await anyio.to_thread.run_sync(page))


async def show(call: Call, *, batch_id: str) -> wire.Batch:
    """One batch."""
    return await _shown(call, batch_id)


async def cancel(call: Call, body: NoFields, *, batch_id: str) -> wire.Batch:  # noqa: ARG001 - none, checked
    """Ask a batch to end. What it has finished is kept."""
    shown = await call.queries.batches.shown(batch_id)
    if shown.job.state is not JobState.CANCELLING:
        await call.commands.cancel(shown.job.id, actor=call.caller.actor, once=call.once)
    return await _shown(call, batch_id)


async def _shown(call: Call, batch_id: str) -> wire.Batch:
    shown = await call.queries.batches.shown(batch_id)
    return views.batch(shown.job, shown.wait)


def _page(jobs: list[Job], waits: Mapping[str, Wait], *, has_more: bool) -> bytes:
    found = [views.batch(job, waits.get(job.id)) for job in jobs]
    answer: wire.BatchPage = {
        "object": "list",
        "data": found,
        "has_more": has_more,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }
    return encode(answer)
