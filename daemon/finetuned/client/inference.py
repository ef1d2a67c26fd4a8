"""Calls that a model answers at once: OpenAI's bodies and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from finetuned.client.calls import Calls
from finetuned.client.errors import UnreachableError, error_from
from finetuned.client.sse import Parser
from finetuned.client.transport import LOST, Transport

Json = Any

CHAT: Final = "/v1/chat/completions"
DONE: Final = "[DONE]"
LONGEST_SILENCE: Final = 600.0  # seconds: an engine may load first, and a long prompt takes its time


class InferenceCalls(Calls):
    """Ask a model."""

    async def chat(self, body: Mapping[str, Json]) -> dict[str, Json]:
        """The whole answer to a body of ``POST /v1/chat/completions``."""
        answer: dict[str, Json] = await self._transport.request(
            "POST", CHAT, body={**body, "stream": False}, timeout=LONGEST_SILENCE
        )
        return answer

    async def chat_chunks(self, body: Mapping[str, Json]) -> AsyncGenerator[dict[str, Json], None]:
        """The answer's chunks as they come. Closed before the last of them, the model stops."""
        async with aclosing(_chunks(self._transport, {**body, "stream": True})) as chunks:
            async for chunk in chunks:
                yield chunk


async def _chunks(transport: Transport, body: Json) -> AsyncGenerator[dict[str, Json], None]:
    opened = transport.opened(CHAT, query={}, headers={}, silence=LONGEST_SILENCE, method="POST", body=body)
    async with opened as answer:
        parser = Parser()
        try:
            async for piece in answer.content.iter_any():
                for frame in parser.feed(piece):
                    if frame.data == DONE:
                        return
                    yield _chunk(frame.data or "null")
        except LOST as error:
            raise UnreachableError(_CUT) from error
    raise UnreachableError(_CUT)


_CUT: Final = "The connection was lost in the middle of the answer; ask again."


def _chunk(text: str) -> dict[str, Json]:
    chunk: dict[str, Json] = json.loads(text)
    if "error" in chunk:
        raise error_from(500, chunk)
    return chunk
