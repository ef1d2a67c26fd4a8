"""The devices that this host schedules."""

from __future__ import annotations

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.lists import listing
from finetuned.api.parameters import At, Query


class DevicesQuery(Query):
    """When."""

    at: At | None = None


async def listed(call: Call, query: DevicesQuery) -> wire.Page[wire.Device]:
    """All devices and the attempts that hold them."""
    if query.at is None:
        slots = await call.queries.devices()
    else:
        slots = await call.queries.past.devices(await call.queries.position(query.at))
    return listing([views.device(slot) for slot in slots])
