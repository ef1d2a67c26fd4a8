"""A request on its way to a handler: who asks is found out, what is asked is read and checked, the answer is encoded.

Handlers are plain typed functions ``async def show(call: Call, *, job_id: str) -> wire.Job``. What a handler takes
is in its signature: ``query`` and ``body`` are models, other keywords are the path's parameters; what it returns is
its return annotation. OpenAPI is generated from the same signatures.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_type_hints

import anyio.to_thread
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from finetuned.api import auth, parameters
from finetuned.api.auth import Caller, Scope
from finetuned.api.body import parse, read_object
from finetuned.api.doors import DOORS, Doors, encode
from finetuned.api.parameters import Query
from finetuned.commands.door import Commands
from finetuned.config import Config
from finetuned.domain import idempotency
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.idempotency import Once
from finetuned.looking import AbandonedError
from finetuned.queries.door import Queries

IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENCY_REPLAYED = "Idempotency-Replayed"
LONGEST_KEY = 255
INLINE_BYTES = 64 << 10  # of an answer that is hashed on the event loop; a larger one in a thread

T = TypeVar("T")
Handle = Callable[..., Awaitable[Any]]


class Encoded(Generic[T]):
    """An answer ``T`` that is JSON already: long lists are encoded off the event loop."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: who may ask for it (``scope``), what it is (``summary``), and its status on success.

    ``media`` is what a handler that answers with a ``web.StreamResponse`` sends.
    """

    method: str
    path: str
    handler: Handle
    scope: Scope
    summary: str
    status: int = 200
    also: tuple[int, ...] = ()  # other statuses of success
    media: str | None = None
    raw: str | type[BaseModel] | None = (
        None  # of a body that the handler reads as a stream: media type, or form
    )
    head: bool = False  # HEAD is answered too
    keyed: bool = True  # a POST with an Idempotency-Key is carried out once


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes and gives, read off its annotations."""

    query: type[Query] | None
    body: type[BaseModel] | None
    path: dict[str, Any]  # annotations by name
    answer: Any

    @property
    def body_is_optional(self) -> bool:
        """Whether an absent body means one without any field."""
        return self.body is not None and not any(f.is_required() for f in self.body.model_fields.values())


@dataclass(slots=True)
class Call:
    """A request that may be made, as a handler gets it."""

    request: web.Request
    caller: Caller
    doors: Doors
    once: Once | None = None

    @property
    def commands(self) -> Commands:
        """The way in for what changes something."""
        return self.doors.commands

    @property
    def queries(self) -> Queries:
        """The way in for what only looks."""
        return self.doors.queries

    @property
    def may_name_paths(self) -> bool:
        """Whether the caller may name any path on the server: an administrator, or the daemon's own user."""
        return self.caller.scope >= Scope.ADMIN

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.doors.config

    def check_wanted(self) -> None:
        """Raise ``AbandonedError`` if the client has gone. Threads may call it: it only looks."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise AbandonedError


def signature(handler: Handle) -> Signature:
    """Read what a handler takes and gives."""
    hints = get_type_hints(handler, include_extras=True)
    names = list(inspect.signature(handler).parameters)[1:]
    path = {name: hints[name] for name in names if name not in {"query", "body"}}
    return Signature(hints.get("query"), hints.get("body"), path, hints["return"])


def guarded(route: Route) -> Handler:
    """The route's handler behind the door: Host header, credentials, scope; then its arguments, then its answer."""
    shape = signature(route.handler)

    async def handle(request: web.Request) -> web.StreamResponse:
        doors = request.app[DOORS]
        auth.check_host(request, doors.config)
        caller = await auth.identify(request)
        auth.require(caller, route.scope)
        call = Call(request, caller, doors)
        arguments: dict[str, Any] = dict(request.match_info)
        if shape.query is None:
            parameters.check_names(request.query, [])
        else:
            arguments["query"] = parameters.read(shape.query, request.query)
        if shape.body is not None:
            document = await read_object(request, optional=shape.body_is_optional)
            arguments["body"] = parse(shape.body, document)
        if request.method == hdrs.METH_POST and route.keyed:
            call.once = await _once(request, caller, reads_body=shape.body is not None)
        answer = await route.handler(call, **arguments)
        if isinstance(answer, web.StreamResponse):
            return answer
        body = answer.body if isinstance(answer, Encoded) else encode(answer)
        return await _respond(call, body, route.status)

    return handle


def hosted(handler: Handler) -> Handler:
    """An open handler behind the check of the Host header."""

    async def handle(request: web.Request) -> web.StreamResponse:
        auth.check_host(request, request.app[DOORS].config)
        return await handler(request)

    return handle


async def _once(request: web.Request, caller: Caller, *, reads_body: bool) -> Once | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise InvalidRequestError(
            f"{IDEMPOTENCY_KEY} must be 1 to {LONGEST_KEY} printable ASCII characters; a UUID will do.",
            param=IDEMPOTENCY_KEY,
        )
    body = await request.read() if reads_body else b""
    return idempotency.once(caller.actor, key, request.method.encode(), request.path_qs.encode(), body)


async def _respond(call: Call, body: bytes, status: int) -> web.Response:
    headers: dict[str, str] = {}
    if call.request.method in {hdrs.METH_GET, hdrs.METH_HEAD}:
        tag = await _tag(body)
        headers = {hdrs.ETAG: f'"{tag}"', hdrs.CACHE_CONTROL: "private, no-cache"}
        if _is_known(call.request, tag):
            return web.Response(status=304, headers=headers)
    elif call.once is not None and call.once.replayed:
        headers = {IDEMPOTENCY_REPLAYED: "true"}
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _tag(body: bytes) -> str:
    def digest() -> str:
        return hashlib.blake2b(body, digest_size=12).hexdigest()

    return digest() if len(body) <= INLINE_BYTES else await anyio.to_thread.run_sync(digest)


def _is_known(request: web.Request, tag: str) -> bool:
    """Whether the client has this very answer (RFC 9110, 13.1.2: a weak comparison)."""
    known = request.if_none_match
    return known is not None and any(each.value in {tag, "*"} for each in known)
