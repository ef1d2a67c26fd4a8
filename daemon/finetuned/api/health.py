"""Whether the daemon is there, and whether it can be used. Open to everybody."""

from __future__ import annotations

import time

from aiohttp import web

from finetuned import __version__
from finetuned.api.doors import DOORS, json
from finetuned.domain.errors import UnavailableError


async def alive(request: web.Request) -> web.StreamResponse:
    """The process answers."""
    uptime_s = time.monotonic() - request.app[DOORS].started
    return json({"status": "ok", "version": __version__, "uptime_s": round(uptime_s, 3)})


async def ready(request: web.Request) -> web.StreamResponse:
    """The log is open and what ran before has been recovered."""
    if not request.app[DOORS].ready():
        raise UnavailableError("The daemon is still recovering; ask again in a moment.")
    return json({"status": "ready"})
