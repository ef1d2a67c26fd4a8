"""What Prometheus scrapes, and the counting of requests."""

from __future__ import annotations

import time
from functools import partial

import anyio.to_thread
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from finetuned.api.call import Call
from finetuned.api.doors import FEED
from finetuned.telemetry.requests import CLIENT_WENT, METHODS, OTHER, UNMATCHED, RequestRecorder


async def metrics(call: Call) -> web.StreamResponse:
    """All metrics, in Prometheus' text format, or OpenMetrics for who asks for that."""
    from finetuned.telemetry import exposition  # noqa: PLC0415 - 25 ms of the daemon's start

    census = await call.queries.observation.census()
    accept = call.request.headers.get(hdrs.ACCEPT, "")
    streams = call.request.app[FEED].clients
    body, content_type = await anyio.to_thread.run_sync(
        partial(exposition.expose, census, event_streams=streams, accept=accept)
    )
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"})


def counted(recorder: RequestRecorder) -> Middleware:
    """A middleware that counts and times every request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        status, timed = CLIENT_WENT, False
        recorder.in_progress += 1
        try:
            response = await handler(request)
            # A stream takes as long as its client likes: that says nothing about the daemon.
            status, timed = response.status, isinstance(response, web.Response)
            return response
        finally:
            recorder.in_progress -= 1
            took = time.perf_counter() - began if timed else None
            recorder.record(route_of(request), method_of(request), status, took)

    return middleware


def route_of(request: web.Request) -> str:
    """The template of the route that took the request: never a client's own words."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


def method_of(request: web.Request) -> str:
    """The request's method if HTTP knows it."""
    return request.method if request.method in METHODS else OTHER
