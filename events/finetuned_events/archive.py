"""A beginning of the log in a compressed file of its own, which can be checked without the log.

Lines of JSON under gzip: a heading, an array for each event with its data as stored and its hash, and a last line
without which the file is not whole. What `zcat` prints of it can be read by anybody.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import orjson

from finetuned_events import chain, codec, durable
from finetuned_events.errors import ArchiveError, LogFullError, is_full
from finetuned_events.event import Event
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters
from finetuned_events.verify import Anchor

__all__ = ("ArchiveFile", "check", "measure", "pages", "write")

_FORMAT = "finetuned-event-log-archive"
_VERSION = 1
_PAGE = 1000  # events a read transaction, and events that are folded at once
_CHUNK = 1 << 20  # bytes
_LEVEL = 6  # of gzip

#: what comes of bytes, JSON and rows that are not what they should be
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file that was read through and holds: the events after `previous` up to `head`, dated up to `at`.

    `bytes` and `sha256` are those of the file.
    """

    path: Path
    previous: Anchor
    head: Anchor
    at: int
    bytes: int
    sha256: str

    @property
    def events(self) -> int:
        """How many there are in it."""
        return self.head.seq - self.previous.seq


def write(connection: sqlite3.Connection, previous: Anchor, upto: int, destination: Path) -> ArchiveFile:
    """Write the events after `previous` up to `upto`: temporary name, fsync, check, link, fsync the directories.

    A file that is there already is taken for the same if it holds and is of the same events: a kill may have come
    between it and its seal. It is synced then too: the events are deleted next. Raises ArchiveError, LogFullError for
    a full disk, leaving nothing half-written behind.
    """
    try:
        temporary = destination.with_name(f".{destination.name}.partial")
        return _write(connection, previous, upto, destination, temporary)
    except (OSError, ValueError, sqlite3.Error) as error:  # ValueError: what can be no file's name
        if is_full(error):
            raise LogFullError(
                f"{destination} was not written, its disk is full: free some space and try again."
            ) from error
        raise ArchiveError(f"{destination} was not written: {error}.") from error


def _write(
    connection: sqlite3.Connection, previous: Anchor, upto: int, destination: Path, temporary: Path
) -> ArchiveFile:
    try:
        if os.path.lexists(destination):
            found = _same(connection, previous, upto, destination)
            durable.sync(destination)
            durable.sync_names(destination)
            return found
        destination.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        _export(connection, previous, upto, temporary)
        found = check(temporary)
        _compare(connection, found, previous, upto)
        os.link(temporary, destination)  # unlike a rename, it replaces nothing
        durable.sync_names(destination)
    finally:
        temporary.unlink(missing_ok=True)
    return ArchiveFile(destination, found.previous, found.head, found.at, found.bytes, found.sha256)


def _same(connection: sqlite3.Connection, previous: Anchor, upto: int, path: Path) -> ArchiveFile:
    try:
        found = check(path)
        _compare(connection, found, previous, upto)
    except ArchiveError as error:
        raise ArchiveError(f"{path} exists already and is not this archive: choose another name.") from error
    return found


def _compare(connection: sqlite3.Connection, found: ArchiveFile, previous: Anchor, upto: int) -> None:
    row = connection.execute(QUERIES["fetch_hash"], (upto,)).fetchone()
    if found.previous != previous or row is None or found.head != Anchor(upto, row[0]):
        raise ArchiveError(f"{found.path} does not hold the events {previous.seq + 1} to {upto} of this log.")


def _export(connection: sqlite3.Connection, previous: Anchor, upto: int, path: Path) -> None:
    head = previous
    with path.open("xb") as raw:
        os.fchmod(raw.fileno(), 0o640)
        with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
            heading = {
                "format": _FORMAT,
                "version": _VERSION,
                "after": previous.seq,
                "hash": previous.hash.hex(),
            }
            packed.write(orjson.dumps(heading) + b"\n")
            while head.seq < upto:
                limit = min(_PAGE, upto - head.seq)
                rows = connection.execute(QUERIES["select_raw_events"], (head.seq, limit)).fetchall()
                if not rows:
                    raise ArchiveError(f"Event {head.seq + 1} is missing: `verify` the log.")
                packed.writelines(orjson.dumps([*row[:-1], row[-1].hex()]) + b"\n" for row in rows)
                head = Anchor(rows[-1][0], rows[-1][-1])
            packed.write(orjson.dumps({"seq": head.seq, "hash": head.hash.hex()}) + b"\n")
        raw.flush()
        os.fsync(raw.fileno())


def check(path: Path) -> ArchiveFile:
    """Read the file through: its structure, every hash, positions and times. Raises ArchiveError."""
    reading = _Reading(path)
    for _ in reading.rows():
        pass
    return reading.found()


def measure(path: Path) -> tuple[int, str]:
    """Return the file's size in bytes and its SHA-256. Raises ArchiveError."""
    total = sha256()
    try:
        with _opened(path) as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
            return file.tell(), total.hexdigest()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def pages(path: Path, upcasters: Upcasters) -> Iterator[list[Event]]:
    """Yield the events in pages, each checked against the chain. Raises ArchiveError."""
    page: list[Event] = []
    for row in _Reading(path).rows():
        page.append(codec.decode(row, upcasters))
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


def _opened(path: Path) -> IO[bytes]:
    """Open a regular file. Raises OSError, ValueError for another kind, which might never end or never begin."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("it is no regular file")


def _unreadable(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{path} cannot be read: {error!r}. Take another copy of it.")


class _Reading:
    """One pass over a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._previous = self._head = Anchor(0, chain.GENESIS)
        self._at = 0
        self._whole = False

    def rows(self) -> Iterator[list[Any]]:
        try:
            with _opened(self._path) as file, gzip.open(file, "rb") as lines:
                self._begin(orjson.loads(next(lines, b"")))
                for line in lines:
                    row = orjson.loads(line)
                    if isinstance(row, dict):
                        self._end(row)
                    else:
                        yield self._event(row)
        except _UNREADABLE as error:
            raise _unreadable(self._path, error) from error
        if not self._whole:
            raise ArchiveError(f"{self._path} ends early: take another copy of it.")

    def found(self) -> ArchiveFile:
        return ArchiveFile(self._path, self._previous, self._head, self._at, *measure(self._path))

    def _begin(self, heading: dict[str, Any]) -> None:
        if heading["format"] != _FORMAT or heading["version"] != _VERSION:
            raise ValueError("it is no archive of an event log that this version reads")
        self._previous = self._head = Anchor(heading["after"], bytes.fromhex(heading["hash"]))

    def _event(self, row: list[Any]) -> list[Any]:
        *fields, data, stored = row
        seq, at = fields[0], fields[5]
        stream, version, kind, schema, _, actor, cause = fields[1:]
        linked = chain.link(
            self._head.hash, seq, stream, version, kind, schema, at, actor, cause, data.encode()
        )
        if self._whole or seq != self._head.seq + 1 or at < self._at or linked.hex() != stored:
            raise ValueError(f"event {seq} or its place was changed after it was written")
        self._head, self._at = Anchor(seq, linked), at
        return [*fields, data]

    def _end(self, last: dict[str, Any]) -> None:
        if (last["seq"], last["hash"]) != (self._head.seq, self._head.hash.hex()):
            raise ValueError("its last line does not belong to it")
        self._whole = True
