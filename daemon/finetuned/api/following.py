"""Answers without an end of their own, written block by block as long as they may go on and are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from aiohttp import web

from finetuned.api.call import Call
from finetuned.api.doors import STOPPING


async def write(call: Call, response: web.StreamResponse, blocks: AsyncIterator[bytes]) -> None:
    """Write the blocks to a client until it goes, its token is closed or the daemon stops.

    One that takes nothing for ``sse_write_timeout_s`` is cut. It is looked at with each block: see that some come.
    """
    request = call.request
    async for block in blocks:
        transport = request.transport
        if request.app[STOPPING].is_set() or transport is None or transport.is_closing():
            return
        if not await call.queries.may_go_on(call.caller.actor):
            transport.abort()
            return
        with anyio.move_on_after(call.config.sse_write_timeout_s) as waiting:
            await response.write(block)
        if waiting.cancelled_caught:
            transport.abort()
            return
