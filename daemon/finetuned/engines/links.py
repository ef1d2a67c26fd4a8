"""One connection to each engine, shared by all who ask it: connecting anew for each request would cost more than asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from finetuned_sdk.engines import EngineClient, EngineGoneError, connect


@dataclass(slots=True, eq=False)
class _Link:
    """``known`` is set once there is a client, or it is known ``why`` there is none."""

    known: anyio.Event = field(default_factory=anyio.Event)
    client: EngineClient | None = None
    why: str = "the daemon stops"


@dataclass(slots=True, eq=False)
class Links:
    """The open connections, by the engine's socket: an engine that comes again has another. :meth:`run` them first."""

    _open: dict[Path, _Link] = field(default_factory=dict)
    _tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the connections until cancelled; each ends with its engine."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    async def client(self, path: Path) -> EngineClient:
        """The client of the engine that listens there. Raises ``EngineGoneError`` if none does."""
        link = self._open.get(path)
        if link is None:
            if self._tasks is None:
                raise EngineGoneError("the daemon has not started yet, or stops")
            link = self._open[path] = _Link()
            self._tasks.start_soon(self._hold, path, link)
        await link.known.wait()
        if link.client is None:
            raise EngineGoneError(link.why)
        return link.client

    async def _hold(self, path: Path, link: _Link) -> None:
        try:
            async with connect(path) as client:
                link.client = client
                link.known.set()
                await client.wait_gone()
        except EngineGoneError as error:
            link.why = str(error)
        finally:
            self._open.pop(path, None)
            link.known.set()
