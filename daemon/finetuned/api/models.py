"""The models that can be named."""

from __future__ import annotations

from aiohttp import web

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.doors import DOORS, json
from finetuned.api.paging import Parameters, listing


async def listed(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """All registered models."""
    Parameters(request)
    models = await request.app[DOORS].queries.models()
    return json(listing([views.model(model) for model in models]))


async def show(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """One model."""
    Parameters(request)
    return json(views.model(await request.app[DOORS].queries.model(request.match_info["name"])))


async def delete(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Free a model's name; its files stay."""
    Parameters(request)
    doors = request.app[DOORS]
    name = request.match_info["name"]
    await doors.commands.delete_model(name, actor=caller.actor)
    return json({"id": name, "object": "model", "deleted": True})
