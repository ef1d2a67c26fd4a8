"""The synchronous core: decides a batch of requests against one state and writes it as one transaction.

Nothing here knows threads or an event loop; the writer's thread (or a MemoryLog) calls `commit`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from finetuned_events.batch import Batch
from finetuned_events.errors import (
    LogBrokenError,
    LogError,
    LogFullError,
    LogWriteError,
    ProjectionError,
    is_full,
)
from finetuned_events.event import NewEvent
from finetuned_events.projection import Model, Projection, S
from finetuned_events.request import Committed, Request, outcome_of
from finetuned_events.reserve import Reserve
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters

__all__ = ("Committer",)

_logger = logging.getLogger(__name__)


class _FoldError(Exception):
    """Marks an exception out of a state's or projection's code, which one event of the batch may have caused."""


class Committer(Generic[S]):
    """Owns the writing connection and the state, and gives every request its outcome."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        model: Model[S],
        projections: Sequence[Projection[S]],
        upcasters: Upcasters,
        known: Mapping[str, int] | None,
        clock: Callable[[], int],
        reserve: Reserve | None = None,
    ) -> None:
        self.reserve = reserve
        self.connection = connection
        self.model = model
        self.projections = projections
        self.broken: LogBrokenError | None = None
        self.commits = 0
        self.failures = 0
        self._batch = Batch(connection, upcasters=upcasters, known=known, clock=clock)
        self.reload()

    def reload(self) -> None:
        """Throw away everything in memory and read it from the file again."""
        self.connection.execute("BEGIN")
        try:
            self._batch.load()
            self.state = self.model.load(self.connection)
        finally:
            self.connection.execute("ROLLBACK")

    def commit(self, requests: Sequence[Request[S]]) -> Committed:
        """Decide, fold, write and commit the requests as one batch; each gets its outcome.

        A request that is refused leaves no trace and disturbs no other.
        """
        if self.reserve is not None:
            self.reserve.restore()

        committed = self._attempt(requests)
        while again := self._with_the_reserve(requests):
            more = self._attempt(again)
            committed.events += more.events
            committed.sizes += more.sizes

        return committed

    @property
    def is_short(self) -> bool:
        """Whether room is left for necessary requests only."""
        return self.reserve is not None and not self.reserve.is_whole

    def _with_the_reserve(self, requests: Sequence[Request[S]]) -> list[Request[S]]:
        """The necessary requests that found no room, once a piece of the reserve has made some."""
        refused = [each for each in requests if each.necessary and isinstance(each.outcome, LogFullError)]
        if not refused or self.reserve is None or not self.reserve.give():
            return []

        for request in refused:
            request.outcome = ()
        return refused

    def _attempt(self, requests: Sequence[Request[S]]) -> Committed:
        if self.broken is not None:
            return self._fail(requests, self.broken)

        try:
            accepted = [request for request in requests if self._stage(request)]
            if self._batch.is_empty:
                return Committed([], [])

            self._write()
        except _FoldError as error:
            return self._isolate(requests, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters must hear of it
            return self._fail(requests, self._rolled_back(error))

        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._fail(accepted, self._commit_failed(error))

        return self._committed()

    def _stage(self, request: Request[S]) -> bool:
        """Decide one request and add its events to the batch and the state; False if it was refused."""
        batch = self._batch
        mark = batch.mark()
        try:
            if request.expected:
                batch.check_versions(request.expected)
            if request.cursor is not None:
                batch.check_cursor(*request.cursor)

            new = request.new if request.decide is None else request.decide(self.state)
            self._check_room(request, new)
            batch.add(new)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and only the caller's
            batch.undo(mark)
            request.outcome = outcome_of(error)
            return False

        events = tuple(batch.events[mark.events :])
        try:
            for applied in events:
                self.state.apply(applied)
        except Exception as error:
            raise _FoldError from error

        if request.cursor is not None:
            batch.move_cursor(*request.cursor)

        request.outcome = events
        return True

    def _check_room(self, request: Request[S], new: Sequence[NewEvent]) -> None:
        if self.is_short and not request.necessary and (new or request.cursor is not None):
            raise self.full()

    def full(self) -> LogFullError:
        """What those are told who find no room."""
        return LogFullError(None if self.reserve is None else self.reserve.account())

    def _write(self) -> None:
        """Write the batch in one transaction, all but its COMMIT."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._batch.write()
        if self._batch.events and self.projections:
            self._project()

    def _project(self) -> None:
        for projection in self.projections:
            try:
                projection.write(self.connection, self.state, self._batch.events)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and _code(error) in _DISK:
                    raise

                raise _FoldError from error

        self.connection.executemany(
            QUERIES["move_projection"],
            [(self._batch.head, projection.name) for projection in self.projections],
        )

    def _committed(self) -> Committed:
        committed = self._batch.take()
        self.commits += 1
        try:
            self.state.committed()
        except Exception:
            _logger.exception("The state could not forget after a commit; it is loaded again")
            self.recover()

        return committed

    def _isolate(self, requests: Sequence[Request[S]], failure: _FoldError) -> Committed:
        """One event of the batch broke the state or a projection: do the requests again, each by itself."""
        self._rolled_back(failure)
        if len(requests) == 1:
            cause = failure.__cause__
            error = ProjectionError(
                f"The event was not appended, the state or a projection refused it: {cause!r}."
            )
            error.__cause__ = cause
            return self._fail(requests, self.broken or error)

        committed = Committed([], [])
        for request in requests:
            one = self.commit([request])
            committed.events += one.events
            committed.sizes += one.sizes

        return committed

    def _fail(self, requests: Sequence[Request[S]], error: LogError) -> Committed:
        for request in requests:
            if not isinstance(request.outcome, BaseException):
                request.outcome = error

        return Committed([], [])

    def _rolled_back(self, error: Exception) -> LogError:
        """Undo the transaction and the state; return what the waiters are told."""
        self.failures += 1
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as failure:
            return self.break_(failure)

        self.recover()
        return self.broken or self.failure(error)

    def failure(self, error: Exception) -> LogError:
        """What those are told whose transaction was rolled back for this."""
        failed: LogError
        if isinstance(error, sqlite3.Error) and is_full(error):
            failed = self.full()
        else:
            failed = LogWriteError(f"The transaction was rolled back, nothing was written: {error}.")
        failed.__cause__ = error
        return failed

    def _commit_failed(self, error: sqlite3.Error) -> LogError:
        """Tell a COMMIT that cannot have happened from one of which nobody knows.

        SQLITE_FULL and SQLITE_BUSY come before the commit record is whole, so it is not there; a failed write
        or fsync may have left it on disk or not.
        """
        if _code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
            return self._rolled_back(error)

        self.failures += 1
        return self.break_(error)

    def break_(self, error: BaseException) -> LogBrokenError:
        """Refuse everything from now on."""
        self.broken = LogBrokenError()
        self.broken.__cause__ = error
        _logger.critical("The event log is broken and refuses everything from now on: %s", error)
        return self.broken

    def recover(self) -> None:
        """Load everything again; without it, refuse everything from now on."""
        try:
            self.reload()
        except Exception as error:  # noqa: BLE001 - without a state there is nothing to decide on
            self.break_(error)


_DISK = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code (the extended one says where it happened)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
