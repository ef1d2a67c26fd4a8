"""A span for each HTTP request, as a child of the caller's where it says so (W3C ``traceparent``)."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

#: asked again and again by machines: their traces would bury the others
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})


def traced_requests(tracer: Tracer) -> Middleware:
    """A middleware that traces. Put it before the one that turns errors into answers."""
    propagator = TraceContextTextMapPropagator()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        if route in UNTRACED:
            return await handler(request)
        with tracer.start_as_current_span(
            f"{request.method} {route}" if route else request.method,
            context=propagator.extract(request.headers),
            kind=SpanKind.SERVER,
            attributes=_attributes(request, route),
            record_exception=False,  # a client that went is no error of ours
            set_status_on_exception=False,
        ) as span:
            response = await handler(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            return response

    return middleware


def _attributes(request: web.Request, route: str | None) -> dict[str, str]:
    found = {"http.request.method": request.method, "url.path": request.path, "url.scheme": request.scheme}
    if route is not None:
        found["http.route"] = route
    if "job_id" in request.match_info:
        found["finetuned.job.id"] = request.match_info["job_id"]
    return found
