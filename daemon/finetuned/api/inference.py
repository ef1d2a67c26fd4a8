"""Requests that a model answers at once: OpenAI's bodies, passed to an engine and back as they are."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import anyio
import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from finetuned import wire
from finetuned.api import errors, sse
from finetuned.api.call import Call
from finetuned.api.doors import encode, encoded
from finetuned.api.presence import while_there
from finetuned.domain.errors import FinetunedError
from finetuned.looking import AbandonedError

log = logging.getLogger(__name__)

DONE: Final = b"data: [DONE]\n\n"

Json = Any


class InferenceRequest(BaseModel):
    """What is looked at here; the engine looks at the rest, and names what it does not know."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    model: str = Field(
        min_length=1,
        max_length=4096,
        description="a registered model, an `ft:` name, an alias, or a hub id; with scope `admin` a directory, too",
    )

    @property
    def streams(self) -> bool:
        """Whether the answer is to come in chunks."""
        return False

    def body(self) -> dict[str, Json]:
        """What was sent, as it was."""
        given = {
            name: getattr(self, name) for name in self.model_fields_set if name in type(self).model_fields
        }
        return {**given, **(self.model_extra or {})}


class CompletionRequest(InferenceRequest):
    """The body of ``POST /v1/chat/completions`` and ``POST /v1/completions``."""

    stream: StrictBool | None = Field(default=None, description="whether the answer comes in chunks")

    @property
    def streams(self) -> bool:
        """Whether the answer is to come in chunks."""
        return bool(self.stream)


async def chat(call: Call, body: CompletionRequest) -> wire.Completion | web.StreamResponse:
    """The model's next message. With `"stream": true` in chunks, as server-sent events."""
    return await _answered(call, "/v1/chat/completions", body)


async def complete(call: Call, body: CompletionRequest) -> wire.Completion | web.StreamResponse:
    """What the model goes on with after a prompt. With `"stream": true` in chunks, as server-sent events."""
    return await _answered(call, "/v1/completions", body)


async def embed(call: Call, body: InferenceRequest) -> wire.Embeddings | web.StreamResponse:
    """Vectors of texts, from an engine that makes them."""
    return await _answered(call, "/v1/embeddings", body)


async def _answered(call: Call, endpoint: str, body: InferenceRequest) -> web.StreamResponse:
    chunks = _Chunks(call)
    try:
        return await while_there(call.request, partial(_ask, call, endpoint, body, chunks))
    except FinetunedError as error:
        if not chunks.begun:
            raise
        await chunks.fail(error)
    except (AbandonedError, ConnectionError):
        raise  # there is nobody to answer
    except Exception as error:
        if not chunks.begun:
            raise
        await chunks.fail(errors.unforeseen(call.request, error))
    return chunks.response


async def _ask(call: Call, endpoint: str, body: InferenceRequest, chunks: _Chunks) -> web.StreamResponse:
    engines = call.doors.engines
    async with (
        engines.ask(body.model, endpoint=endpoint, may_name_paths=call.may_name_paths) as asked,
        asked.parts(endpoint, body.body()) as parts,
    ):
        answer: Json = None
        async for part in parts:
            if body.streams:
                await chunks.write(part)
            answer = part
        if body.streams:
            await chunks.end()
            return chunks.response
        return encoded(_as_bytes(answer))


def _as_bytes(answer: Json) -> bytes:
    try:
        return encode(answer)
    except TypeError as error:  # a plugin may answer anything
        raise FinetunedError(
            f"The engine's answer is no JSON ({error}); report it to the engine's author."
        ) from None


class _Chunks:
    """An answer on its way as server-sent events. Its status is out with the first chunk, so errors before it have theirs."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.response = web.StreamResponse(
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self.response.content_type = sse.CONTENT_TYPE
        self.response.charset = "utf-8"

    @property
    def begun(self) -> bool:
        """Whether the status is out."""
        return self.response.prepared

    async def write(self, part: Json) -> None:
        """Send a chunk; a client that takes nothing for too long, or may not any more, is cut."""
        if not await self._call.queries.may_go_on(self._call.caller.actor):
            self._abort()
        await self._send(b"data: %b\n\n" % _as_bytes(part))

    async def end(self) -> None:
        """The answer is whole."""
        await self._send(DONE)

    async def fail(self, error: FinetunedError) -> None:
        """Tell a client that has a part of its answer that no more comes: as OpenAI does, without the last line."""
        told = errors.document(error.stable_code, error.message, kind=error.kind, param=error.param)
        with anyio.CancelScope(shield=True):
            await self._send(b"data: %b\n\n" % orjson.dumps(told))

    async def _send(self, data: bytes) -> None:
        request = self._call.request
        if not self.begun:
            if request.version >= (1, 1):
                self.response.enable_chunked_encoding()
            await self.response.prepare(request)
        with anyio.move_on_after(self._call.config.sse_write_timeout_s) as waiting:
            await self.response.write(data)
        if waiting.cancelled_caught:
            self._abort()

    def _abort(self) -> None:
        if self._call.request.transport is not None:
            self._call.request.transport.abort()
        raise AbandonedError
