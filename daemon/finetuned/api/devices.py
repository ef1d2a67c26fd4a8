"""The devices that this host schedules."""

from __future__ import annotations

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing


async def listed(call: Call) -> wire.Page[wire.Device]:
    """All devices and the attempts that hold them."""
    return listing([views.device(slot) for slot in await call.queries.devices()])
