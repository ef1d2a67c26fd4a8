"""What one transaction will write: events at their places in the log, new streams and types, moved cursors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from finetuned_events import chain, codec
from finetuned_events.errors import (
    InvalidEventError,
    StaleCursorError,
    UnknownEventError,
    WrongVersionError,
)
from finetuned_events.event import Event, NewEvent, make
from finetuned_events.request import Committed
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters

__all__ = ("Batch", "Mark")

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


class Mark(NamedTuple):
    """How far the batch was before a request added to it."""

    events: int
    streams: int
    kinds: int
    head: int
    hash: bytes
    at: int
    last_stream: int


class Batch:
    """The heads of the log and of its streams, and the events staged beyond them.

    `load` begins; then requests add, each undone alone with the `mark` from before it, until `write` puts all of
    them into a transaction and `take` gives them away.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        upcasters: Upcasters,
        known: Mapping[str, int] | None,
        clock: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._upcasters = upcasters
        self._known = known
        self._clock = clock

    def load(self) -> None:
        """Read the heads from the file, in the transaction that the caller began, and stage nothing."""
        execute = self._connection.execute
        head = execute(QUERIES["fetch_head"]).fetchone()
        self.head: int
        self._hash: bytes
        self._at: int
        self.head, self._hash, self._at = head or (0, chain.GENESIS, 0)
        (self._last_stream,) = execute(QUERIES["fetch_last_stream"]).fetchone()
        self._kinds: set[tuple[str, int]] = set(execute(QUERIES["fetch_kinds"]))
        self._streams: dict[str, _Stream] = {}
        self._cursors: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._rows: list[object] = []
        self.events: list[Event] = []
        self._sizes: list[int] = []
        self._touched: list[_Stream] = []
        self._new_streams: list[tuple[int, str]] = []
        self._new_kinds: list[tuple[str, int]] = []
        self._moved: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.events and not self._moved

    def mark(self) -> Mark:
        """Where the batch is now, to be undone to."""
        return Mark(
            len(self.events),
            len(self._new_streams),
            len(self._new_kinds),
            self.head,
            self._hash,
            self._at,
            self._last_stream,
        )

    def undo(self, mark: Mark) -> None:
        """Drop what was added since the mark."""
        self.head, self._hash, self._at, self._last_stream = mark[3:]
        for stream in self._touched[mark.events :]:
            stream.version -= 1
        del self.events[mark.events :], self._sizes[mark.events :], self._touched[mark.events :]
        del self._rows[mark.events * _COLUMNS :]
        for _, name in self._new_streams[mark.streams :]:
            del self._streams[name]
        self._kinds.difference_update(self._new_kinds[mark.kinds :])
        del self._new_streams[mark.streams :], self._new_kinds[mark.kinds :]

    def add(self, new: Sequence[NewEvent]) -> None:
        """Give each event its place, time and hash, and stage its row. The hot loop: mind the lookups.

        Raises InvalidEventError and UnknownEventError; the caller then undoes.
        """
        self._at = max(self._at, self._clock())
        streams, kinds, upcasters = self._streams, self._kinds, self._upcasters
        rows, events, sizes, touched = self._rows, self.events, self._sizes, self._touched
        at, head, previous = self._at, self.head, self._hash
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

        self.head, self._hash = head, previous

    def _find_stream(self, name: str) -> _Stream:
        _check_name("stream", name)
        row = self._connection.execute(QUERIES["fetch_stream"], (name,)).fetchone()
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

    def check_versions(self, expected: Mapping[str, int]) -> None:
        """Raise WrongVersionError unless each stream is at the version that is expected of it."""
        for name, version in expected.items():
            actual = self._version(name)
            if actual != version:
                raise WrongVersionError(name, version, actual)

    def _version(self, name: str) -> int:
        stream = self._streams.get(name)
        if stream is not None:
            return stream.version

        _check_name("stream", name)
        row = self._connection.execute(QUERIES["fetch_stream"], (name,)).fetchone()
        return 0 if row is None else int(row[1])

    def check_cursor(self, follower: str, position: int) -> None:
        """Raise StaleCursorError for a position before the stored one."""
        actual = self._cursors.get(follower)
        if actual is None:
            _check_name("follower", follower)
            row = self._connection.execute(QUERIES["fetch_cursor"], (follower,)).fetchone()
            actual = self._cursors[follower] = 0 if row is None else int(row[0])

        if position < actual:
            raise StaleCursorError(follower, position, actual)

    def move_cursor(self, follower: str, position: int) -> None:
        """Stage the position that a follower has processed."""
        self._cursors[follower] = self._moved[follower] = position

    def write(self) -> None:
        """Put what is staged into the transaction in progress."""
        execute = self._connection.execute
        if self._new_streams:
            self._connection.executemany(QUERIES["insert_stream"], self._new_streams)
        if self._new_kinds:
            self._connection.executemany(QUERIES["insert_kind"], self._new_kinds)

        rows, start, left = self._rows, 0, len(self.events)
        for chunk in _CHUNKS:
            while left >= chunk:
                end = start + chunk * _COLUMNS
                execute(_INSERT[chunk], rows[start:end])
                start, left = end, left - chunk

        if self._moved:
            self._connection.executemany(QUERIES["move_cursor"], self._moved.items())

    def take(self) -> Committed:
        """Give the events away, once they are committed, and stage nothing."""
        committed = Committed(self.events, self._sizes)
        self._clear()
        _shorten(self._streams, _CACHED_STREAMS)
        _shorten(self._cursors, _CACHED_CURSORS)
        return committed


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
