"""Draining: begin, look, take back."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from finetuned import wire
from finetuned.api.call import Call


class DrainRequest(BaseModel):
    """The optional body of a drain."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    mode: Literal["pause", "finish"] = Field(
        default="pause",
        description="`pause`: what runs saves a checkpoint, leaves, and goes on after the next start; `finish`: it runs"
        " to its end",
    )
    wait_s: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="how long a checkpoint is waited for; null takes each job's own",
    )
    reason: str | None = Field(default=None, max_length=1000, description="why, for the jobs' timelines")


async def begin(call: Call, body: DrainRequest) -> wire.Drain:
    """Start nothing new, and end the daemon when nothing runs any more."""
    await call.commands.begin_drain(
        body.mode, actor=call.caller.actor, reason=body.reason, wait_s=body.wait_s, once=call.once
    )
    return await show(call)


async def show(call: Call) -> wire.Drain:
    """Whether the daemon drains."""
    drain = call.commands.drain
    return {"object": "drain", "mode": drain.mode, "jobs": [job.id for job in await drain.live()]}


async def take_back(call: Call) -> wire.Drain:
    """Go on as before."""
    await call.commands.take_drain_back(actor=call.caller.actor)
    return await show(call)
