"""The one table of routes. OpenAPI and docs/reference/api.md are held to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from finetuned.api import auth, devices, events, health, jobs, kinds, log_routes, models, tokens
from finetuned.api.auth import Caller, Scope
from finetuned.api.doors import DOORS

Handle = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: who may ask for it (``scope``), and what it is (``summary``)."""

    method: str
    path: str
    handler: Handle
    scope: Scope
    summary: str


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """An operation that needs no credentials."""

    method: str
    path: str
    handler: Handler
    summary: str


READ, OPERATE, ADMIN = Scope.READ, Scope.OPERATE, Scope.ADMIN

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/jobs", jobs.submit, OPERATE, "Submit a job"),
    Route("GET", "/v1/jobs", jobs.listed, READ, "List jobs, newest first"),
    Route("GET", "/v1/jobs/{id}", jobs.show, READ, "Show a job"),
    Route("DELETE", "/v1/jobs/{id}", jobs.delete, OPERATE, "Hide an ended job and remove its files"),
    Route("POST", "/v1/jobs/{id}/cancel", jobs.cancel, OPERATE, "Ask a job to end"),
    Route("POST", "/v1/jobs/{id}/retry", jobs.retry, OPERATE, "Submit an ended job again as a new one"),
    Route("GET", "/v1/jobs/{id}/events", events.of_job, READ, "A job's events, as a page or a stream"),
    Route("GET", "/v1/jobs/{id}/logs", jobs.output, READ, "What a job's processes printed"),
    Route("GET", "/v1/events", events.of_all, READ, "All events, as a page or a stream"),
    Route("GET", "/v1/kinds", kinds.listed, READ, "List job kinds with their parameters' schemas"),
    Route("GET", "/v1/kinds/{name}", kinds.show, READ, "Show a job kind"),
    Route("GET", "/v1/models", models.listed, READ, "List registered models"),
    Route("GET", "/v1/models/{name:.+}", models.show, READ, "Show a model"),
    Route("DELETE", "/v1/models/{name:.+}", models.delete, OPERATE, "Free a model's name; its files stay"),
    Route("GET", "/v1/devices", devices.listed, READ, "List devices and who holds them"),
    Route("GET", "/v1/tokens", tokens.listed, ADMIN, "List tokens, without their secrets"),
    Route("POST", "/v1/tokens", tokens.create, ADMIN, "Make a token; its secret is shown once"),
    Route("DELETE", "/v1/tokens/{id}", tokens.revoke, ADMIN, "Revoke a token"),
    Route("GET", "/v1/log", log_routes.statistics, READ, "Figures about the event log"),
    Route("POST", "/v1/log/verify", log_routes.verify, ADMIN, "Check the event log"),
    Route("POST", "/v1/log/rebuild", log_routes.rebuild, ADMIN, "Replay the event log, replace what differs"),
    Route("POST", "/v1/log/backup", log_routes.backup, ADMIN, "Write a checked copy of the event log"),
)

OPEN_ROUTES: tuple[OpenRoute, ...] = (
    OpenRoute("GET", "/healthz", health.alive, "Whether the process answers"),
    OpenRoute("GET", "/readyz", health.ready, "Whether the daemon has recovered and can be used"),
)


def guarded(route: Route) -> Handler:
    """The route's handler behind the door: Host header, credentials, scope."""

    async def handle(request: web.Request) -> web.StreamResponse:
        doors = request.app[DOORS]
        auth.check_host(request, doors.config)
        caller = await auth.identify(request, doors.queries)
        auth.require(caller, route.scope)
        return await route.handler(request, caller)

    return handle
