"""A drain that is waited for: over one connection, from before the request until the daemon closes it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from finetuned.client.events import events_path
from finetuned.client.sse import Parser
from finetuned.client.transport import LOST, SILENCE_TIMEOUT, LostError, Transport
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import Drain, Event

TAKEN_BACK: Final = "daemon.drain_taken_back"
STARTING, ENDED = "attempt.starting", "attempt.ended"


async def drained(transport: Transport, begin: Callable[[], Awaitable[Drain]]) -> AsyncGenerator[Drain, None]:
    """The drain that ``begin`` asks for, and then each change of it, until the daemon has closed its door.

    The stream is open before the request and is never opened again: a connection that comes after the daemon's end
    would have systemd's socket start another one. Raises ``LostError`` if the connection breaks while jobs still
    have processes, ``InvalidRequestError`` (``drain_taken_back``) if somebody takes the drain back.
    """
    query = {"types": f"{STARTING},{ENDED},{TAKEN_BACK}"}
    # A local daemon that dies closes the socket, so one that is only slow is waited for.
    silence = None if transport.endpoint.socket else SILENCE_TIMEOUT
    headers = {"Accept": "text/event-stream"}
    async with transport.stream(events_path(None), query=query, headers=headers, silence=silence) as content:
        state = await begin()
        yield state
        parser = Parser()
        try:
            async for chunk in content.iter_any():
                for frame in parser.feed(chunk):
                    if frame.data is not None:
                        state = _after(state, json.loads(frame.data))
                        yield state
        except LOST as error:
            if state["jobs"]:  # else it was the end, of a daemon that was cut off while it closed
                raise LostError(
                    "The connection was lost while jobs still had processes: whether the daemon drains on is not known."
                    " `finetune drain` goes on with it."
                ) from error


def _after(state: Drain, event: Event) -> Drain:
    """The drain after an event. Those from before the answer come to what the answer says already."""
    if event["type"] == TAKEN_BACK:
        raise InvalidRequestError("The drain was taken back; the daemon goes on.", code="drain_taken_back")
    job = event["stream"].removeprefix("job/")
    left = [each for each in state["jobs"] if each != job]
    return {**state, "jobs": [*left, job] if event["type"] == STARTING else left}
