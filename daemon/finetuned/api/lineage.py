"""Where a model comes from, and what makes sense next for a job."""

from __future__ import annotations

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.views import lineage as views_lineage


async def of_model(call: Call, *, name: str) -> wire.Lineage:
    """What a model was made from, and what was made from it."""
    return views_lineage.lineage(await call.queries.lineage.of_model(name))


async def next_of_job(call: Call, *, job_id: str) -> wire.Page[wire.NextStep]:
    """What makes sense next for a job."""
    steps = await call.queries.lineage.next_of_job(job_id)
    return listing([views_lineage.next_step(each) for each in steps], key="action")
