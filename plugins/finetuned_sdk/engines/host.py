"""The engine's side: a worker that serves an engine on a Unix socket until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import TaskGroup

from finetuned_sdk import phases
from finetuned_sdk.engines import messages, socket_path
from finetuned_sdk.engines.engine import Adapter, Engine, Request
from finetuned_sdk.engines.errors import EngineGoneError, RequestError

if TYPE_CHECKING:
    from finetuned_sdk.context import WorkerContext

log = logging.getLogger(__name__)

SOCKET_NAME: Final = "engine.sock"
LOOK_S: Final = 0.1  # between two looks for a stop request, and for signs of progress
DRAIN_S: Final = 5.0  # that requests under way may take once a stop was asked for

Json = Any


def serve(ctx: WorkerContext, load: Callable[[], Awaitable[Engine]], *, drain_s: float = DRAIN_S) -> None:
    """Load the engine, and serve it until the job is to stop. Requests under way then have ``drain_s`` seconds to end.

    The engine listens in the job's work directory. A hung engine shows no sign of progress, so the watchdog sees it.
    Raises what :meth:`Engine.status` raises: an engine that has failed.
    """
    anyio.run(_serve, ctx, load, drain_s)


async def _serve(ctx: WorkerContext, load: Callable[[], Awaitable[Engine]], drain_s: float) -> None:
    ctx.phase(phases.LOADING_MODEL)
    engine = await load()
    failure: Exception | None = None
    try:
        async with listening(ctx.work_dir / SOCKET_NAME, engine) as host:
            ctx.phase(phases.SERVING)
            try:
                await _until_stopped(ctx, engine)
            except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it in a group
                failure = error
            else:
                await host.drain(drain_s)
        if failure is not None:
            raise failure
    finally:
        with anyio.CancelScope(shield=True):
            await engine.close()


async def _until_stopped(ctx: WorkerContext, engine: Engine) -> None:
    seen = -1
    while ctx.stop_requested is None:
        status = engine.status()
        if status.tokens != seen or not (status.running or status.waiting):
            ctx.advancing()
        seen = status.tokens
        await anyio.sleep(LOOK_S)


@asynccontextmanager
async def listening(path: Path, engine: Engine) -> AsyncIterator[Host]:
    """Serve an engine at a path, while the context lasts."""
    async with anyio.create_task_group() as tasks:
        host = Host(engine, tasks)
        bound = await anyio.to_thread.run_sync(_bind, path)
        server = await asyncio.start_unix_server(host.connected, sock=bound, limit=messages.LONGEST)
        tasks.start_soon(host.accept)
        try:
            yield host
        finally:
            server.close()
            host.close()
            tasks.cancel_scope.cancel()


def _bind(path: Path) -> socket.socket:
    """A socket that is its owner's alone, in the place of what a killed engine has left there."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_path.short(path) as short:
            bound.bind(short)
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


@dataclass(slots=True)
class Host:
    """Answers whoever connects."""

    engine: Engine
    tasks: TaskGroup
    _connections: set[_Connection] = field(default_factory=set)
    _arrived: asyncio.Queue[_Connection] = field(default_factory=asyncio.Queue)
    _closing: bool = False

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and give those under way some time to end."""
        self._closing = True
        for each in tuple(self._connections):
            each.tell_leaving()
        with anyio.move_on_after(seconds):
            for each in tuple(self._connections):
                await each.wait_idle()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody has connected: a callback of the server."""
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        self._arrived.put_nowait(connection)  # a callback runs in no task, and may start none

    async def accept(self) -> None:
        """Answer those who connect, until cancelled."""
        while True:
            connection = await self._arrived.get()
            self.tasks.start_soon(connection.run)

    def close(self) -> None:
        """Close all connections."""
        for each in self._connections:
            each.writer.close()

    @property
    def is_closing(self) -> bool:
        """Whether no more requests are taken."""
        return self._closing

    def gone(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)


@dataclass(slots=True, eq=False)
class _Connection:
    host: Host
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: dict[int, anyio.CancelScope] = field(default_factory=dict)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_idle(self) -> None:
        """Wait until no request is under way."""
        while self.requests:
            self.idle.clear()
            await self.idle.wait()

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                while line := await self.reader.readline():
                    message = messages.decode(line)
                    if message["op"] == "abort":
                        if scope := self.requests.get(message["id"]):
                            scope.cancel()
                    else:
                        scope = self.requests[message["id"]] = anyio.CancelScope()
                        tasks.start_soon(self._request, message, scope)
                tasks.cancel_scope.cancel()  # nobody waits for an answer any more
        except* (OSError, ValueError, EngineGoneError, KeyError) as errors:
            log.warning("A connection was closed: %s", errors.exceptions[0])
        finally:
            self.host.gone(self)
            self.writer.close()

    async def _request(self, message: dict[str, Json], scope: anyio.CancelScope) -> None:
        number = message["id"]
        try:
            with scope:
                self._check_open()
                async with aclosing(self._parts(message)) as parts:
                    async for part in parts:
                        await self._send({"id": number, "part": part})
                await self._send({"id": number, "end": True})
        except RequestError as error:
            await self._send({"id": number, "error": messages.error_data(error)})
        except EngineGoneError:
            raise  # the connection is closed, and all that was asked over it is asked again
        except Exception as error:
            log.exception("A request failed")
            failure = RequestError(
                f"The engine failed at this request: {type(error).__name__}: {error}",
                status=500,
                type="server_error",
                code="engine_error",
            )
            await self._send({"id": number, "error": messages.error_data(failure)})
        finally:
            self.requests.pop(number, None)
            self.idle.set()

    def tell_leaving(self) -> None:
        """Tell who asks that the engine ends because it was told to, not of what it was asked."""
        self.writer.write(messages.encode({"id": 0, "leaving": True}))

    def _check_open(self) -> None:
        if self.host.is_closing:
            raise RequestError(
                "The engine is stopping.", status=503, type="server_error", code="engine_stopping"
            )

    async def _parts(self, message: dict[str, Json]) -> AsyncGenerator[Json, None]:
        engine = self.host.engine
        adapter = None if message.get("adapter") is None else Adapter(**message["adapter"])
        match message["op"]:
            case "answer":
                request = Request(
                    endpoint=message["endpoint"],
                    body=message["body"],
                    adapter=adapter,
                    priority=message.get("priority", 0),
                )
                async with aclosing(engine.answer(request)) as parts:
                    async for part in parts:
                        yield part
            case "score":
                yield await engine.score(message["sequences"], adapter)
            case "status":
                yield asdict(engine.status())
            case "add_adapter" if adapter is not None:
                await engine.add_adapter(adapter)
                yield None
            case "drop_adapter":
                await engine.drop_adapter(message["name"])
                yield None
            case other:
                raise RequestError(f"The engine knows no operation {other!r}.", code="unknown_operation")

    async def _send(self, message: dict[str, Json]) -> None:
        try:
            self.writer.write(messages.encode(message))
            await self.writer.drain()
        except OSError:
            return  # who asked has gone; its connection ends by itself
