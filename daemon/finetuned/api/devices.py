"""The devices that this host schedules."""

from __future__ import annotations

from aiohttp import web

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.doors import DOORS, json
from finetuned.api.paging import Parameters, listing


async def listed(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """All devices and the attempts that hold them."""
    Parameters(request)
    slots = await request.app[DOORS].queries.devices()
    return json(listing([views.device(slot) for slot in slots]))
