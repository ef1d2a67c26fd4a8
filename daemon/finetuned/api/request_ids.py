"""A name for each request, as OpenAI's clients show it (``_request_id``) when somebody asks for help."""

from __future__ import annotations

import secrets
from typing import Final

from aiohttp import web

HEADER: Final = "X-Request-Id"
KEY: Final = web.RequestKey("request_id", str)


def of(request: web.BaseRequest) -> str:
    """The request's name, the same each time."""
    if KEY not in request:
        request[KEY] = f"req_{secrets.token_hex(8)}"
    return request[KEY]


async def announce(request: web.Request, response: web.StreamResponse) -> None:
    """Tell it with the answer: a signal handler."""
    response.headers[HEADER] = of(request)
