"""The machine: its processors, memory, disk and GPUs, and the daemon's own process."""

from __future__ import annotations

import time

import anyio.to_thread
from pydantic import Field

from finetuned import __version__, wire
from finetuned.api.call import Call, Encoded
from finetuned.api.doors import FEED, encode
from finetuned.api.parameters import Query, Whole
from finetuned.views import system as views_system

DAY_S = 86_400
MOST_POINTS = 1440


class HistoryQuery(Query):
    """How far back, and how finely."""

    seconds: Whole = Field(default=3600, ge=10, le=DAY_S, description="how far back to look")
    points: Whole = Field(
        default=120, ge=1, le=MOST_POINTS, description="how many stretches that time is divided into at most"
    )


async def show(call: Call) -> wire.System:
    """The machine and the daemon now, and who holds each GPU."""
    snapshot = await call.queries.observation.system()
    return views_system.system(
        snapshot,
        version=__version__,
        uptime_s=time.monotonic() - call.doors.started,
        log_head=call.queries.head,
        event_streams=call.request.app[FEED].clients,
        taken=call.queries.observation.taken(),
    )


async def history(call: Call, query: HistoryQuery) -> Encoded[wire.SystemHistory]:
    """The machine over time: least, mean and greatest of each stretch, so that no spike is lost."""
    trend = await call.queries.observation.trend(seconds=query.seconds, points=query.points)
    return Encoded(await anyio.to_thread.run_sync(lambda: encode(views_system.history(trend))))
