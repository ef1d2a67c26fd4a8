"""Sending what may be large: in blocks that are read off the event loop, in part if a part is asked for."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, ClassVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from aiohttp import hdrs, web

from finetuned.api import errors, ranges
from finetuned.api.call import Call
from finetuned.api.doors import STOPPING
from finetuned.api.ranges import Range, UnsatisfiableRangeError
from finetuned.domain.errors import FinetunedError

Blocks = Callable[[int, int], Awaitable[Iterator[bytes]]]


class RangeNotSatisfiableError(FinetunedError):
    """The range begins behind the end."""

    code: ClassVar[str] = "range_not_satisfiable"
    status: ClassVar[int] = 416
    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "invalid_request_error"


async def send(
    call: Call, blocks: Blocks, *, size: int, etag: str, name: str, media: str
) -> web.StreamResponse:
    """Answer with ``size`` bytes, or with the range that is asked for. ``blocks`` gives those from a start to a stop.

    ``etag`` is strong, with its quotes. A client that takes nothing for the stream's write time-out is cut.
    """
    request = call.request
    headers = {
        hdrs.ETAG: etag,
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: "private, no-cache",
        hdrs.CONTENT_DISPOSITION: disposition(name),
        "X-Content-Type-Options": "nosniff",
    }
    if ranges.matches(request.headers.get(hdrs.IF_NONE_MATCH), etag):
        return web.Response(status=304, headers=headers)
    try:
        part = ranges.requested(
            request.headers.get(hdrs.RANGE), request.headers.get(hdrs.IF_RANGE), etag, size
        )
    except UnsatisfiableRangeError:
        return _unsatisfiable(size)
    if part is None:
        part, status = Range(0, size, size), 200
    else:
        headers[hdrs.CONTENT_RANGE], status = part.content_range, 206
    taken = await blocks(part.start, part.stop)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = media
    response.content_length = part.length
    with closing(taken) as taken:  # type: ignore[type-var]  # generators all
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _write(call, response, taken)
    return response


async def _write(call: Call, response: web.StreamResponse, blocks: Iterator[bytes]) -> None:
    request = call.request
    while True:
        try:
            block: bytes | None = await anyio.to_thread.run_sync(next, blocks, None)
        except (FinetunedError, OSError):
            # The status is out: an end before the announced length tells the client.
            _abort(request)
            return
        if block is None:
            return
        if request.app[STOPPING].is_set() or not await call.queries.may_go_on(call.caller.actor):
            _abort(request)
            return
        with anyio.move_on_after(call.config.sse_write_timeout_s) as waiting:
            await response.write(block)
        if waiting.cancelled_caught:
            _abort(request)
            return


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _unsatisfiable(size: int) -> web.Response:
    error = RangeNotSatisfiableError(
        f"The range begins behind the end: there are {size} bytes; ask for bytes from 0 to {max(size - 1, 0)}."
    )
    answer = errors.response(error)
    answer.headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
    return answer


def disposition(name: str) -> str:
    """A Content-Disposition that saves under ``name``: in ASCII for old clients, and as it is (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    encoded: Any = quote(os.fsencode(name), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
