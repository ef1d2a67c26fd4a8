"""Following the event stream across lost connections and restarts of the daemon."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import aiohttp
import anyio

from finetuned.client.errors import wait_s
from finetuned.client.sse import Frame, Parser
from finetuned.client.transport import LOST, PATIENCE, SILENCE_TIMEOUT, OnConnection, Transport
from finetuned.domain.errors import FinetunedError
from finetuned.wire import Event

FIRST_BACKOFF: Final = 0.1  # seconds
LONGEST_BACKOFF: Final = 5.0  # seconds


class ResetError(FinetunedError):
    """The log ends before the cursor (an older backup was restored), or no longer keeps what follows it."""

    code = "cursor_reset"
    status = 410
    exit_code = 6


async def follow(
    transport: Transport, path: str, *, query: Mapping[str, str], after: int, on_connection: OnConnection
) -> AsyncGenerator[Event, None]:
    """Events after ``after``, for ever, each once and in order; see ``Client.follow``."""
    cursor, backoff = after, FIRST_BACKOFF
    while True:
        trouble, asked = "the daemon closed the stream", 0.0
        try:
            async with aclosing(_frames(transport, path, query, cursor, on_connection)) as frames:
                async for frame in frames:
                    backoff = FIRST_BACKOFF
                    if frame.event == "reset":
                        raise ResetError(
                            f"The log has changed under event {cursor}: it no longer goes on from there. "
                            "Start again without --after."
                        )
                    if not (frame.id or "").isdecimal() or int(frame.id or 0) <= cursor:
                        continue
                    cursor = int(frame.id or 0)
                    if frame.data is not None:
                        event: Event = json.loads(frame.data)
                        yield event
        except LOST as error:
            trouble = _trouble(error)
        except FinetunedError as error:
            if error.status < 500:
                raise
            trouble, asked = error.message, min(wait_s(error) or 0, PATIENCE)
        on_connection(trouble)
        await anyio.sleep(asked + backoff * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, not a secret
        backoff = min(LONGEST_BACKOFF, backoff * 2)


def _trouble(error: Exception) -> str:
    """What broke the stream, in words that need no knowledge of HTTP."""
    if isinstance(error, TimeoutError):
        return f"no sign of life for {SILENCE_TIMEOUT:.0f} s"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "the stream broke off"
    return str(error) or type(error).__name__


async def _frames(
    transport: Transport, path: str, query: Mapping[str, str], cursor: int, on_connection: OnConnection
) -> AsyncGenerator[Frame, None]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(cursor)}
    async with transport.stream(path, query=query, headers=headers, silence=SILENCE_TIMEOUT) as content:
        on_connection(None)
        parser = Parser()
        async for chunk in content.iter_any():
            for frame in parser.feed(chunk):
                yield frame
