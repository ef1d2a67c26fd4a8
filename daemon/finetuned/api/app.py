"""The HTTP application."""

from __future__ import annotations

import anyio
from aiohttp import web

from finetuned.api import browsers, errors, prometheus, request_ids
from finetuned.api.call import guarded, hosted
from finetuned.api.doors import DESCRIPTION, DOORS, FAILURES, FEED, STOPPING, USES, Doors
from finetuned.api.failures import Failures
from finetuned.api.feed import Feed
from finetuned.api.routes import OPEN_ROUTES, ROUTES
from finetuned.api.uses import TokenUses

__all__ = ("Doors", "build")


def build(doors: Doors) -> web.Application:
    """The application over ``doors``; :func:`finetuned.api.server.serve` opens its sockets and runs its feed."""
    config = doors.config
    counted = prometheus.counted(doors.queries.observation.telemetry.requests)
    pages = frozenset(config.allowed_origins)
    app = web.Application(
        middlewares=[counted, *doors.middlewares, errors.middleware, browsers.guarded(pages)],
        client_max_size=config.max_body_bytes,
    )
    app.on_response_prepare.append(browsers.announcing(pages))
    app.on_response_prepare.append(request_ids.announce)
    app[DOORS] = doors
    app[DESCRIPTION] = []
    app[STOPPING] = anyio.Event()
    app[USES] = TokenUses(doors.commands)
    app[FAILURES] = Failures(burst=config.auth_failures)
    app[FEED] = Feed(
        doors.queries,
        heartbeat_s=config.sse_heartbeat_s,
        coalesce_s=config.sse_coalesce_s,
        write_timeout_s=config.sse_write_timeout_s,
    )
    for route in ROUTES:
        handler = guarded(route)
        app.router.add_route(route.method, route.path, handler)
        if route.head:
            app.router.add_route("HEAD", route.path, handler)
    for open_route in OPEN_ROUTES:
        handler = open_route.handler if open_route.any_host else hosted(open_route.handler)
        app.router.add_route(open_route.method, open_route.path, handler)
    return app
