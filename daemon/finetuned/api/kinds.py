"""The job kinds that plugins declare."""

from __future__ import annotations

from aiohttp import web

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.doors import DOORS, json
from finetuned.api.paging import Parameters, listing
from finetuned.domain.errors import NotFoundError
from finetuned.submission import nearest


async def listed(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """All kinds, each with the JSON schema of its parameters."""
    Parameters(request)
    kinds = await request.app[DOORS].queries.kinds()
    return json(listing([views.kind(kind) for kind in kinds], key="name"))


async def show(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """One kind."""
    Parameters(request)
    name = request.match_info["name"]
    kinds = {kind.name: kind for kind in await request.app[DOORS].queries.kinds()}
    if name not in kinds:
        raise NotFoundError(
            f"There is no job kind {name!r}.{nearest(name, kinds)} `finetune kinds` lists them.", param="name"
        )
    return json(views.kind(kinds[name]))
