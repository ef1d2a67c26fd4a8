"""What the handlers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from finetuned.api.failures import Failures
from finetuned.api.feed import Feed
from finetuned.api.uses import TokenUses
from finetuned.commands.door import Commands
from finetuned.config import Config
from finetuned.engines.gate import EngineGate
from finetuned.queries.door import Queries


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways in, and what a door must know of the daemon.

    ``engines`` is the way to models that answer at once; ``started`` is the monotonic time of the daemon's start in seconds; ``ready`` says whether it has recovered.
    ``middlewares`` see each request and the answer that it gets.
    """

    commands: Commands
    queries: Queries
    engines: EngineGate
    config: Config
    started: float
    ready: Callable[[], bool]
    middlewares: Sequence[Middleware] = ()


DOORS = web.AppKey("doors", Doors)
FEED = web.AppKey("feed", Feed)
USES = web.AppKey("uses", TokenUses)
FAILURES = web.AppKey("failures", Failures)
DESCRIPTION = web.AppKey("description", list[bytes])  # the OpenAPI document, once somebody asked for it
STOPPING = web.AppKey("stopping", anyio.Event)  # set when the server is about to close


def json(document: Any, *, status: int = 200) -> web.Response:
    """A JSON response."""
    return encoded(encode(document), status=status)


def encode(document: Any) -> bytes:
    """The document as JSON in UTF-8."""
    return orjson.dumps(document)


def encoded(body: bytes, *, status: int = 200) -> web.Response:
    """A response whose body is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json")
