"""The processes that work on jobs."""

from __future__ import annotations

import time

from finetuned import wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.views import system as views_system


async def listed(call: Call) -> wire.Page[wire.Worker]:
    """The live attempts and what their processes use."""
    now = time.time_ns() // 1000
    return listing([views_system.worker(each, now=now) for each in await call.queries.observation.workers()])
