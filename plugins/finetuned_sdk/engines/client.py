"""Asking an engine: one connection, many requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import anyio

from finetuned_sdk.engines import messages, socket_path
from finetuned_sdk.engines.engine import Adapter, EngineStatus, Request
from finetuned_sdk.engines.errors import EngineGoneError

Json = Any


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[EngineClient]:
    """A client of the engine that listens there. Raises ``EngineGoneError`` if none does.

    What still runs at the end of the context is aborted.
    """
    try:
        with socket_path.short(path) as short:
            reader, writer = await asyncio.open_unix_connection(short, limit=messages.LONGEST)
    except OSError as error:
        raise EngineGoneError(f"the engine does not listen: {error.strerror or error}") from None
    client = EngineClient(reader, writer)
    raised: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.receive)
            try:
                yield client
            except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it in a group
                raised = error
            tasks.cancel_scope.cancel()
    finally:
        writer.close()
    if raised is not None:
        raise raised


class EngineClient:
    """See :func:`connect`, which makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = count(1)
        self._answers: dict[int, asyncio.Queue[dict[str, Json]]] = {}
        self._gone: str | None = None
        self.is_leaving = False  # whether the engine said that it was told to stop
        self._ended = asyncio.Event()

    async def wait_gone(self) -> None:
        """Wait until the engine has ended or closed the connection."""
        await self._ended.wait()

    @property
    def is_gone(self) -> bool:
        """Whether the engine has ended or closed the connection."""
        return self._gone is not None

    @asynccontextmanager
    async def ask(self, request: Request) -> AsyncIterator[AsyncIterator[Json]]:
        """The parts of an answer as they come: chunks if the request streams, else its body alone.

        Left before the last of them, the request is aborted. Raises ``RequestError`` if the engine refuses it and
        ``EngineGoneError`` if the engine ends; iterating does.
        """
        message = {
            "op": "answer",
            "endpoint": request.endpoint,
            "body": request.body,
            "adapter": None if request.adapter is None else asdict(request.adapter),
            "priority": request.priority,
        }
        async with self._sent(message) as (number, queue):
            yield self._parts(number, queue)

    async def answer(self, request: Request) -> Json:
        """The whole answer to a request that does not stream. Raises as :meth:`ask`."""
        async with self.ask(request) as parts:
            return [part async for part in parts][-1]

    async def score(
        self, sequences: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> list[list[float]]:
        """As :meth:`finetuned_sdk.engines.Engine.score`."""
        found: list[list[float]] = await self._single(
            {
                "op": "score",
                "sequences": sequences,
                "adapter": None if adapter is None else asdict(adapter),
            }
        )
        return found

    async def status(self) -> EngineStatus:
        """How busy the engine is."""
        data = await self._single({"op": "status"})
        return EngineStatus(**{**data, "adapters": tuple(data["adapters"])})

    async def add_adapter(self, adapter: Adapter) -> None:
        """Have an adapter loaded; requests that name it would load it too."""
        await self._single({"op": "add_adapter", "adapter": asdict(adapter)})

    async def drop_adapter(self, name: str) -> None:
        """Have an adapter's memory freed."""
        await self._single({"op": "drop_adapter", "name": name})

    async def receive(self) -> None:
        """Hand on what the engine sends, until it goes."""
        why = "the engine has ended"
        try:
            while line := await self._reader.readline():
                message = messages.decode(line)
                if message.get("leaving"):
                    self.is_leaving = True
                queue = self._answers.get(message["id"])
                if queue is not None:
                    queue.put_nowait(message)
        except (OSError, ValueError, EngineGoneError) as error:  # ValueError: a line that is too long
            why = str(error) or why
        finally:
            self._gone = why
            self._ended.set()
            for number, queue in self._answers.items():
                queue.put_nowait({"id": number, "gone": why})

    async def _single(self, message: dict[str, Json]) -> Json:
        async with self._sent(message) as (number, queue):
            return [part async for part in self._parts(number, queue)][-1]

    @asynccontextmanager
    async def _sent(
        self, message: dict[str, Json]
    ) -> AsyncIterator[tuple[int, asyncio.Queue[dict[str, Json]]]]:
        if self._gone is not None:
            raise EngineGoneError(self._gone)
        number = next(self._ids)
        line = messages.encode({"id": number, **message})
        queue: asyncio.Queue[dict[str, Json]] = asyncio.Queue()
        self._answers[number] = queue
        try:
            await self._write(line)
            yield number, queue
        finally:
            if self._answers.pop(number, None) is not None and self._gone is None:
                with suppress(OSError):
                    self._writer.write(messages.encode({"id": number, "op": "abort"}))

    async def _write(self, line: bytes) -> None:
        try:
            self._writer.write(line)
            await self._writer.drain()
        except OSError as error:
            raise EngineGoneError(f"the engine has ended: {error}") from None

    async def _parts(self, number: int, queue: asyncio.Queue[dict[str, Json]]) -> AsyncIterator[Json]:
        while True:
            message = await queue.get()
            if "gone" in message:
                raise EngineGoneError(message["gone"])
            if "error" in message:
                self._answers.pop(number, None)
                raise messages.error_from(message["error"])
            if "part" in message:
                yield message["part"]
            if message.get("end"):
                self._answers.pop(number, None)
                return
