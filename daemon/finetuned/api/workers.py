"""The processes that work on jobs."""

from __future__ import annotations

import time

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.views import system as views_system


async def listed(call: Call) -> wire.Page[wire.Worker]:
    """The live attempts, engines and trainers alike, and what their processes use."""
    now = time.time_ns() // 1000
    return listing([views_system.worker(each, now=now) for each in await call.queries.observation.workers()])


async def restart(call: Call, *, job_id: str) -> wire.Job:
    """Have a worker end what it does, leave, and come again.

    A trainer saves a checkpoint first and goes on from it. An engine's requests may end, and it comes again when it is
    asked.
    """
    await call.commands.workers.restart(job_id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job_id)


async def kill(call: Call, *, job_id: str) -> wire.Job:
    """Kill a worker's processes at once. Its job is tried again as after a crash, which uses up one of its tries."""
    await call.commands.workers.kill(job_id, actor=call.caller.actor, once=call.once)
    return await _shown(call, job_id)


async def clear_gpu(call: Call) -> wire.Cleared:
    """End the engines that nobody asks, and prove by the GPUs' own figures that their memory is back."""
    return views_system.cleared(await call.commands.workers.clear_gpu(actor=call.caller.actor))


async def _shown(call: Call, job_id: str) -> wire.Job:
    shown = await call.queries.shown(job_id)
    return views.job(shown.job, shown.wait)
