"""The synchronous core: decides a batch of requests against one state and writes it as one transaction.

Nothing here knows threads or an event loop; the writer's thread (or a MemoryLog) calls `commit`.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Generic

import orjson

from finetuned_events import chain, codec
from finetuned_events.errors import (
    InvalidEventError,
    LogBrokenError,
    LogError,
    LogFullError,
    LogWriteError,
    ProjectionError,
    StaleCursorError,
    UnknownEventError,
    WrongVersionError,
)
from finetuned_events.event import Event, NewEvent, make
from finetuned_events.projection import Model, Projection, S
from finetuned_events.request import Committed, Request, outcome_of
from finetuned_events.reserve import Reserve
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters

__all__ = ("Committer",)

_logger = logging.getLogger(__name__)

_COLUMNS = 10
_CHUNKS = (256, 64, 16, 8, 4, 2, 1)  # rows an INSERT; few distinct statements, so that each stays prepared
_INSERT = {
    rows: f"{QUERIES['insert_events']} {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'] * rows)}"
    for rows in _CHUNKS
}
_CACHED_STREAMS = 16_384
_CACHED_CURSORS = 4_096
_MAX_SCHEMA = 1 << 31
_MAX_NAME = 512  # characters of a stream, type, actor or cause


class _Stream:
    __slots__ = ("id", "version")

    def __init__(self, id: int, version: int) -> None:  # noqa: A002 - the column's name
        self.id = id
        self.version = version


class _FoldError(Exception):
    """Marks an exception out of a state's or projection's code, which one event of the batch may have caused."""


class Committer(Generic[S]):
    """Owns the writing connection, the state, and the heads of the log and its streams."""

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
        self.upcasters = upcasters
        self.broken: LogBrokenError | None = None
        self.commits = 0
        self.failures = 0
        self._known = known
        self._clock = clock
        self.reload()

    def reload(self) -> None:
        """Throw away everything in memory and read it from the file again."""
        self.connection.execute("BEGIN")
        try:
            head = self.connection.execute(QUERIES["fetch_head"]).fetchone()
            self.head: int
            self.hash: bytes
            self._at: int
            self.head, self.hash, self._at = head or (0, chain.GENESIS, 0)
            (self._last_stream,) = self.connection.execute(QUERIES["fetch_last_stream"]).fetchone()
            self._kinds: set[tuple[str, int]] = set(self.connection.execute(QUERIES["fetch_kinds"]))
            self._streams: dict[str, _Stream] = {}
            self._cursors: dict[str, int] = {}
            self.state = self.model.load(self.connection)
        finally:
            self.connection.execute("ROLLBACK")

        self._clear_batch()

    def _clear_batch(self) -> None:
        self._rows: list[object] = []
        self._events: list[Event] = []
        self._sizes: list[int] = []
        self._new_streams: list[tuple[int, str]] = []
        self._new_kinds: list[tuple[str, int]] = []
        self._moved: dict[str, int] = {}

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
            if not self._events and not self._moved:
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
        mark = len(self._events)
        streams, kinds = len(self._new_streams), len(self._new_kinds)
        heads = self.head, self.hash, self._at, self._last_stream
        touched: list[_Stream] = []
        try:
            if request.expected:
                self._check_versions(request.expected)
            if request.cursor is not None:
                self._check_cursor(*request.cursor)

            new = request.new if request.decide is None else request.decide(self.state)
            self._check_room(request, new)
            now = self._clock()
            self._at = max(self._at, now)
            self._extend(new, touched)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, and only the caller's
            self.head, self.hash, self._at, self._last_stream = heads
            del self._events[mark:], self._sizes[mark:], self._rows[mark * _COLUMNS :]
            for stream in touched:
                stream.version -= 1
            for _, name in self._new_streams[streams:]:
                del self._streams[name]
            self._kinds.difference_update(self._new_kinds[kinds:])
            del self._new_streams[streams:], self._new_kinds[kinds:]
            request.outcome = outcome_of(error)
            return False

        events = tuple(self._events[mark:])
        try:
            for applied in events:
                self.state.apply(applied)
        except Exception as error:
            raise _FoldError from error

        if request.cursor is not None:
            follower, position = request.cursor
            self._cursors[follower] = self._moved[follower] = position

        request.outcome = events
        return True

    def _check_room(self, request: Request[S], new: Sequence[NewEvent]) -> None:
        if self.is_short and not request.necessary and (new or request.cursor is not None):
            raise self._full()

    def _full(self) -> LogFullError:
        return LogFullError(None if self.reserve is None else self.reserve.account())

    def _extend(self, new: Sequence[NewEvent], touched: list[_Stream]) -> None:
        """Give each event its place and hash, and add its row to the batch. The hot loop: mind the lookups."""
        streams, kinds, upcasters = self._streams, self._kinds, self.upcasters
        rows, events, sizes = self._rows, self._events, self._sizes
        at, head, previous = self._at, self.head, self.hash
        for event in new:
            name, kind, schema = event.stream, event.type, event.schema
            actor, cause = event.actor, event.cause
            stream = streams.get(name) or self._find_stream(name)
            if (kind, schema) not in kinds:
                self._admit_kind(kind, schema)
            if not isinstance(actor, str) or not (cause is None or isinstance(cause, str)):
                raise InvalidEventError("An event's actor must be text, and its cause text or None.")

            data = codec.encode(event.data)
            head += 1
            version = stream.version + 1
            try:
                previous = chain.link(previous, head, name, version, kind, schema, at, actor, cause, data)
            except TypeError as error:
                raise InvalidEventError(f"An event's actor and cause must be valid text: {error}.") from error

            rows += (head, stream.id, version, kind, schema, at, actor, cause, data.decode(), previous)
            # Decoded again, so that the state sees what a replay would see.
            content = orjson.loads(data)
            if upcasters:
                schema, content = upcasters.upcast(kind, schema, content)

            events.append(make(head, name, version, kind, schema, at, actor, cause, content))
            sizes.append(len(data))
            stream.version = version
            touched.append(stream)

        self.head, self.hash = head, previous

    def _find_stream(self, name: str) -> _Stream:
        _check_name("stream", name)
        row = self.connection.execute(QUERIES["fetch_stream"], (name,)).fetchone()
        if row is None:
            self._last_stream += 1
            self._new_streams.append((self._last_stream, name))
            row = (self._last_stream, 0)

        stream = self._streams[name] = _Stream(*row)
        return stream

    def _admit_kind(self, type: str, schema: int) -> None:  # noqa: A002 - the event's field
        _check_name("type", type)
        if not isinstance(schema, int) or not 1 <= schema < _MAX_SCHEMA:
            raise InvalidEventError(f"An event's schema version must be a number from 1 on, not {schema!r}.")

        if self._known is not None and schema > self._known.get(type, 0):
            raise UnknownEventError(
                f"Events of type {type!r}, schema version {schema}, are not among the known ones: declare them first."
            )

        self._kinds.add((type, schema))
        self._new_kinds.append((type, schema))

    def _check_versions(self, expected: Mapping[str, int]) -> None:
        for name, version in expected.items():
            actual = self._version(name)
            if actual != version:
                raise WrongVersionError(name, version, actual)

    def _version(self, name: str) -> int:
        stream = self._streams.get(name)
        if stream is not None:
            return stream.version

        _check_name("stream", name)
        row = self.connection.execute(QUERIES["fetch_stream"], (name,)).fetchone()
        return 0 if row is None else int(row[1])

    def _check_cursor(self, follower: str, position: int) -> None:
        actual = self._cursors.get(follower)
        if actual is None:
            _check_name("follower", follower)
            row = self.connection.execute(QUERIES["fetch_cursor"], (follower,)).fetchone()
            actual = self._cursors[follower] = 0 if row is None else int(row[0])

        if position < actual:
            raise StaleCursorError(follower, position, actual)

    def _write(self) -> None:
        """Write the batch in one transaction, all but its COMMIT."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        if self._new_streams:
            self.connection.executemany(QUERIES["insert_stream"], self._new_streams)
        if self._new_kinds:
            self.connection.executemany(QUERIES["insert_kind"], self._new_kinds)

        rows, start, left = self._rows, 0, len(self._events)
        for chunk in _CHUNKS:
            while left >= chunk:
                end = start + chunk * _COLUMNS
                execute(_INSERT[chunk], rows[start:end])
                start, left = end, left - chunk

        if self._events and self.projections:
            self._project()
        if self._moved:
            self.connection.executemany(QUERIES["move_cursor"], self._moved.items())

    def _project(self) -> None:
        for projection in self.projections:
            try:
                projection.write(self.connection, self.state, self._events)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and _code(error) in _DISK:
                    raise

                raise _FoldError from error

        self.connection.executemany(
            QUERIES["move_projection"], [(self.head, projection.name) for projection in self.projections]
        )

    def _committed(self) -> Committed:
        committed = Committed(self._events, self._sizes)
        self.commits += 1
        self._clear_batch()
        _shorten(self._streams, _CACHED_STREAMS)
        _shorten(self._cursors, _CACHED_CURSORS)
        try:
            self.state.committed()
        except Exception:
            _logger.exception("The state could not forget after a commit; it is loaded again")
            self._recover()

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

        self._recover()
        if self.broken is not None:
            return self.broken

        failed: LogError
        if isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL:
            failed = self._full()
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

    def _recover(self) -> None:
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


def _check_name(field: str, name: str) -> None:
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or "\0" in name:
        raise InvalidEventError(f"A {field} must be text of 1 to {_MAX_NAME} characters, not {name!r}.")

    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"A {field} must be valid text: {error}.") from error


def _shorten(cache: dict[str, _Stream] | dict[str, int], limit: int) -> None:
    """Drop the oldest entries; only between batches, for the file knows nothing of a batch in progress."""
    excess = len(cache) - limit
    if excess > 0:
        for key in list(islice(cache, excess)):
            del cache[key]
