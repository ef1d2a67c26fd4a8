"""The thread that owns the writing connection: it drains the queue and commits what it finds together."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from finetuned_events.committer import Committer
from finetuned_events.errors import LogClosedError
from finetuned_events.projection import S
from finetuned_events.request import Committed, Request, resolve

__all__ = ("WAL_LIMIT", "Publish", "Task", "ThreadWriter", "Writer")

_logger = logging.getLogger(__name__)

T = TypeVar("T")

WAL_LIMIT = 64 << 20  # bytes; beyond it the writer stops now and then to empty the WAL
_CHECKPOINT_EVERY = 1.0  # s between two such attempts
_CHECKPOINT_BUSY = 100  # ms an attempt waits for readers to end their pages
_BATCH = 2048  # requests a transaction at most, so that none waits for a giant one

Publish = Callable[[Committed], None]
"""Told of each commit on the event loop, before its waiters are."""


class Task(Generic[S]):
    """Something that must run on the writer's thread between two transactions."""

    __slots__ = ("future", "run")

    def __init__(self, future: asyncio.Future[object], run: Callable[[Committer[S]], object]) -> None:
        self.future = future
        self.run = run


class Writer(Protocol[S]):
    """What the log needs of a writer: one with a thread, or one that works at once."""

    committer: Committer[S]

    @property
    def queued(self) -> int: ...
    @property
    def busy_seconds(self) -> float: ...

    def submit(self, work: Request[S] | Task[S]) -> None: ...
    async def aclose(self) -> None: ...


class ThreadWriter(Generic[S]):
    """Group commit: all requests that wait when a transaction begins are decided and committed together."""

    def __init__(
        self, committer: Committer[S], path: Path, loop: asyncio.AbstractEventLoop, publish: Publish
    ) -> None:
        self.committer = committer
        self._wal = f"{path}-wal"
        self._loop = loop
        self._publish = publish
        self._queue: SimpleQueue[Request[S] | Task[S] | None] = SimpleQueue()
        self._since: float | None = None
        self._checkpoint_at = 0.0
        self._taken: list[Request[S] | Task[S]] = []  # out of the queue and not answered for sure
        self._done = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="event-log-writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        return self._queue.qsize()

    @property
    def busy_seconds(self) -> float:
        """How long the transaction in progress has taken so far, in seconds; 0 when idle."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, work: Request[S] | Task[S]) -> None:
        self._queue.put(work)

    async def aclose(self) -> None:
        """Finish what is queued, then close the connection (which empties the WAL)."""
        self._queue.put(None)
        await self._done
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._turn(self._queue.get()):
                pass
        except BaseException as error:  # whatever ends this thread, nobody may wait for it in vain
            _logger.exception("The writer's thread ends")
            self.committer.break_(error)
            self._call(self._publish, (Committed([], []),))
        finally:
            self.committer.connection.close()
            self._call(self._finish, ())

    def _turn(self, work: Request[S] | Task[S] | None) -> bool:
        """Do one thing out of the queue, a batch of requests or a task; False when the writer must end."""
        batch: list[Request[S]] = []
        self._since = time.monotonic()
        try:
            while type(work) is Request:
                batch.append(work)
                self._taken.append(work)
                if len(batch) == _BATCH:
                    break
                work = self._queue.get_nowait()
        except Empty:
            work = batch[-1]

        if batch:
            self._commit(batch)
        if isinstance(work, Task):
            self._taken.append(work)
            self._perform(work)

        self._taken.clear()
        self._since = None
        return work is not None

    def _commit(self, batch: list[Request[S]]) -> None:
        # Who gave up before the transaction began is not written at all.
        live = [request for request in batch if request.future is None or not request.future.cancelled()]
        if not live:
            return

        try:
            committed = self.committer.commit(live)
        except Exception as error:  # a bug must not leave callers waiting for ever
            _logger.exception("The writer failed")
            broken = self.committer.break_(error)
            for request in live:
                request.outcome = broken
            committed = Committed([], [])

        self._call(self._deliver, (committed, live))
        self._limit_wal()

    def _perform(self, task: Task[S]) -> None:
        try:
            outcome: object = task.run(self.committer)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._call(_reject, (task.future, error))
        else:
            self._call(_accept, (task.future, outcome))

    def _limit_wal(self) -> None:
        try:
            size = os.stat(self._wal).st_size  # noqa: PTH116 - Path costs ten times as much, every commit
        except FileNotFoundError:
            return

        now = time.monotonic()
        if size <= WAL_LIMIT or now < self._checkpoint_at:
            return

        self._checkpoint_at = now + _CHECKPOINT_EVERY
        truncate(self.committer.connection)

    def _deliver(self, committed: Committed, batch: Sequence[Request[S]]) -> None:
        self._publish(committed)
        resolve(batch)

    def _finish(self) -> None:
        """Refuse what will not be done any more: the log was closed, or the thread broke."""
        left: list[Request[S] | Task[S] | None] = [*self._taken]
        with suppress(Empty):
            while True:
                left.append(self._queue.get_nowait())

        for work in left:
            if work is not None and work.future is not None:
                _reject(work.future, self.committer.broken or LogClosedError())

        _accept(self._done, None)

    def _call(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _logger.debug("The event loop ended before the log was closed")


def truncate(connection: sqlite3.Connection) -> bool:
    """Move the WAL into the database and cut it to nothing; False if a reader was in the way."""
    connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_BUSY}")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        _logger.warning("The WAL could not be emptied: %s", error)
        return False
    finally:
        connection.execute("PRAGMA busy_timeout = 5000")

    return not busy


def _accept(future: asyncio.Future[object], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
