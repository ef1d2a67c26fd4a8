"""Pages in a browser: which of them may ask this daemon, and what each answer tells the browser.

A page of any site can send requests to a daemon on the same machine, or on a network that the browser reaches. It has
no token, so it is refused anyway; here it is refused before anything is done. Nothing of this matters on the Unix
socket, which no page can reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from finetuned.api.auth import asked_as, over_tcp
from finetuned.domain.errors import PermissionDeniedError

FETCH_SITE: Final = "Sec-Fetch-Site"  # Fetch Metadata: sent by browsers, and no page can forge it
FETCH_MODE: Final = "Sec-Fetch-Mode"
METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Range"
)
ANSWER_HEADERS: Final = (
    "Content-Disposition, Content-Range, ETag, Idempotency-Replayed, Link, Retry-After, X-Request-Id"
)
PREFLIGHT_S: Final = "600"  # how long a browser need not ask again

#: on every answer. Nothing that the daemon sends may be run, framed, or read by pages of other origins.
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "finetuned",
}
#: on every answer that brings no policy of its own
POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


Announce = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


class OriginRefusedError(PermissionDeniedError):
    """A page of another origin asks."""

    code: ClassVar[str] = "origin_not_allowed"


def guarded(allowed: frozenset[str]) -> Middleware:
    """A middleware that refuses pages of origins that are neither the daemon's own nor among ``allowed``."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if over_tcp(request):
            check(request, allowed)
            if _is_preflight(request) and _origin(request) in allowed:
                return _preflight()
        return await handler(request)

    return middleware


def check(request: web.Request, allowed: frozenset[str]) -> None:
    """Raise ``OriginRefusedError`` for a page that may not ask."""
    origin = _origin(request)
    if origin is None:
        if _is_sent_by_another_site(request):
            raise OriginRefusedError(
                "A page of another site asks for this; open it in a tab of its own, or let the page's server ask."
            )
        return
    own = f"{request.scheme}://{asked_as(request)}".lower()
    if origin not in allowed and origin != own:
        raise OriginRefusedError(
            f"Pages of {origin[:200]!r} may not use this daemon, which was asked as {own[:200]!r}; if they should,"
            " add that origin to allowed_origins in its configuration."
        )


def announcing(allowed: frozenset[str]) -> Announce:
    """A signal handler that adds to each answer what browsers should know of it."""

    async def announce(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        if not allowed:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = _origin(request)
        if origin is not None and origin in allowed and over_tcp(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS

    return announce


def _origin(request: web.Request) -> str | None:
    """The origin of the page that asks; more than one header is nobody's."""
    given = request.headers.getall(hdrs.ORIGIN, ())
    return ", ".join(given).lower() if given else None


def _is_preflight(request: web.Request) -> bool:
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _preflight() -> web.Response:
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: PREFLIGHT_S,
    }
    return web.Response(status=204, headers=headers)


def _is_sent_by_another_site(request: web.Request) -> bool:
    """Whether a page of another site loads this as an image, a script and the like: those send no Origin."""
    site = request.headers.get(FETCH_SITE, "none")
    is_link = request.headers.get(FETCH_MODE) == "navigate" and request.method in {"GET", "HEAD"}
    return site in {"cross-site", "same-site"} and not is_link
