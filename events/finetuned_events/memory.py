"""The same log without a file, for tests and for programs that need no durability."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar, cast

from finetuned_events import connection, rebuild
from finetuned_events.committer import Committer
from finetuned_events.log import EventLog, now
from finetuned_events.projection import Model, Projection, S, Stateless
from finetuned_events.reader import InlineReader, failure
from finetuned_events.request import Request, resolve
from finetuned_events.upcast import Upcasters
from finetuned_events.writer import Publish, Task

__all__ = ("MemoryLog",)

T = TypeVar("T")


class InlineWriter(Generic[S]):
    """Commits each request at once, on the event loop."""

    queued = 0
    busy_seconds = 0.0

    def __init__(self, committer: Committer[S], publish: Publish) -> None:
        self.committer = committer
        self._publish = publish

    def submit(self, work: Request[S] | Task[S]) -> None:
        """Do it now; what it raises goes to the waiter."""
        if isinstance(work, Task):
            try:
                work.future.set_result(work.run(self.committer))
            except Exception as error:  # noqa: BLE001 - it is the caller's
                work.future.set_exception(error)
        else:
            self._publish(self.committer.commit([work]))
            resolve([work])

    async def aclose(self) -> None:
        """Forget everything."""
        self.committer.connection.close()


class MemoryLog(EventLog[S]):
    """An EventLog that lives as long as its block; it passes the same contract tests."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path = Path(":memory:"),
        *,
        model: Model[S] | None = None,
        projections: Sequence[Projection[S]] = (),
        upcasters: Upcasters | None = None,
        known: Mapping[str, int] | None = None,
        readers: int = 1,  # noqa: ARG003 - the interface's
        clock: Callable[[], int] = now,
        read_only: bool = False,  # noqa: ARG003 - an empty log that cannot be written is of no use
        factory: type[sqlite3.Connection] = sqlite3.Connection,
        reserve: int = 0,  # noqa: ARG003 - there is no disk
    ) -> AsyncIterator[EventLog[S]]:
        """Open an empty log; the arguments are those of EventLog.open, `path` is only a name."""
        model = model or cast("Model[S]", Stateless())
        upcasters = upcasters or Upcasters()
        shared = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=factory)
        connection.create(shared)
        with closing(rebuild.Scratch(model, projections, upcasters)) as scratch:
            scratch.swap(shared)

        committer = Committer(
            shared, model=model, projections=projections, upcasters=upcasters, known=known, clock=clock
        )
        log = cls(
            path=path,
            reader=InlineReader(shared),
            head=0,
            model=model,
            projections=projections,
            upcasters=upcasters,
            start=partial(InlineWriter, committer),
        )
        try:
            yield log
        finally:
            await log._close()

    async def _aside(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """There is only the one connection, and it is quick."""
        self._check()
        assert self._writer is not None
        try:
            return run(self._writer.committer.connection)
        except sqlite3.Error as error:
            raise failure(error) from error
