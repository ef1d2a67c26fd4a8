"""Work that is for one client alone: it ends when nobody is there any more to take it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import anyio
from aiohttp import web
from anyio import CancelScope

from finetuned.api.connections import Connection
from finetuned.api.doors import STOPPING
from finetuned.domain.errors import UnavailableError
from finetuned.looking import AbandonedError

T = TypeVar("T")


async def while_there(request: web.Request, work: Callable[[], Awaitable[T]]) -> T:
    """What ``work`` returns, unless the client goes before: then it is cancelled.

    Raises what ``work`` raises, ``AbandonedError`` if the client went, and ``UnavailableError`` if the daemon stops.
    """
    stopping = request.app[STOPPING]
    gone = cast("Connection", request.protocol).gone
    found: list[T] = []
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on, gone, tasks.cancel_scope)
        tasks.start_soon(_cancel_on, stopping, tasks.cancel_scope)
        try:
            found.append(await work())
        except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it in a group
            raised = error
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
    if found:
        return found[0]
    if gone.is_set():
        raise AbandonedError
    raise UnavailableError("The daemon stops; send the request again when it is back.")


async def _cancel_on(event: anyio.Event, scope: CancelScope) -> None:
    await event.wait()
    scope.cancel()
