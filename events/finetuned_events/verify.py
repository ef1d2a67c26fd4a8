"""Checks that the file still says what was once committed to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetuned_events import chain
from finetuned_events.sql import QUERIES

__all__ = ("Anchor", "VerifyReport", "verify")

_PAGE = 1000  # events a read transaction
_MOST = 20  # problems after which looking on tells nobody more


@dataclass(frozen=True, slots=True)
class Anchor:
    """A position and the hash there. Kept elsewhere, it shows whether anything up to it was changed since."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The head that was reached and what is wrong, in sentences (at most the first twenty)."""

    head: Anchor
    events: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(connection: sqlite3.Connection, anchors: Mapping[int, bytes]) -> VerifyReport:
    """Recompute the hash chain and check positions, versions, times, the kinds and SQLite's own structure.

    The log may go on meanwhile: it is read in pages, and its end is looked at as it is at one moment.

    Where the beginning of the log was archived, the chain is followed from the newest seal on, and anchors before it
    are passed over: those are for the archives.
    Without an anchor from elsewhere, a chain that somebody computed anew from an edited row onwards is sound.
    """
    scan = None
    while scan is None:  # an archive that is made meanwhile takes the beginning away: start anew behind it
        scan = _scanned(connection, anchors)
    if not scan.is_enough:
        checked = [str(line) for (line,) in connection.execute("PRAGMA integrity_check")]
        scan.problems += [f"SQLite: {line}." for line in checked if line != "ok"]

    return VerifyReport(Anchor(scan.seq, scan.hash), scan.events, tuple(scan.problems[:_MOST]))


def _scanned(connection: sqlite3.Connection, anchors: Mapping[int, bytes]) -> _Scan | None:
    """Look through what is behind the newest seal; None if there is a newer one by now."""
    seal = _seal(connection)
    scan = _Scan(anchors, seal)
    scan.read(connection)
    connection.execute("BEGIN")  # or what is appended between two looks seems to be cut off
    try:
        if _seal(connection) != seal:
            return None
        scan.read(connection)
        if not scan.is_enough:
            scan.finish()
            scan.problems += _structure(connection, scan.seq, seal[0])
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return scan


def _seal(connection: sqlite3.Connection) -> tuple[int, bytes, int]:
    """Position, hash and time that the events in the file follow on."""
    if not connection.execute(QUERIES["has_seals"]).fetchone():
        return 0, chain.GENESIS, 0
    sealed = [(0, chain.GENESIS, 0), *connection.execute(QUERIES["select_seals"])]
    seq, hash_, at = sealed[-1][:3]
    return seq, hash_, at


class _Scan:
    def __init__(self, anchors: Mapping[int, bytes], seal: tuple[int, bytes, int]) -> None:
        self.seq, self.hash, self._at = seal
        self.events = 0
        self.problems: list[str] = []
        self._anchors = {seq: anchored for seq, anchored in anchors.items() if seq > self.seq}
        if anchors.get(self.seq, self.hash) != self.hash:
            self.problems.append(f"The seal at event {self.seq} does not have the hash that was anchored.")

    @property
    def is_enough(self) -> bool:
        """Whether there are so many problems that the rest is not looked at."""
        return len(self.problems) >= _MOST

    def read(self, connection: sqlite3.Connection) -> None:
        """Check all pages up to the end."""
        while not self.is_enough and (
            rows := connection.execute(QUERIES["select_raw_events"], (self.seq, _PAGE)).fetchall()
        ):
            for row in rows:
                self.check(row)

    def check(self, row: tuple[Any, ...]) -> None:
        *fields, data, stored = row
        seq, at = row[0], row[5]
        if seq != self.seq + 1:
            self.problems.append(f"Events {self.seq + 1} to {seq - 1} are missing.")
        if at < self._at:
            self.problems.append(f"Event {seq} is dated before the one before it.")
        if _link(self.hash, fields, data) != stored:
            self.problems.append(f"Event {seq} or its place was changed after it was written.")
        if self._anchors.pop(seq, stored) != stored:
            self.problems.append(f"Event {seq} does not have the hash that was anchored.")

        # Go on from the stored hash: one edit is one problem, not one for every event behind it.
        self.seq, self.hash, self._at = seq, stored, at
        self.events += 1

    def finish(self) -> None:
        self.problems += [f"Event {seq}, which was anchored, is missing." for seq in sorted(self._anchors)]


def _link(previous: bytes, fields: list[Any], data: object) -> bytes:
    if not isinstance(data, str) or not isinstance(previous, bytes):
        return b""

    seq, stream, version, kind, schema, at, actor, cause = fields
    return chain.link(previous, seq, stream, version, kind, schema, at, actor, cause, data.encode())


def _structure(connection: sqlite3.Connection, head: int, seal: int) -> list[str]:
    """Check what follows from all rows together."""
    broken = (
        connection.execute(QUERIES["select_broken_streams_of_sealed"], (seal,))
        if seal
        else connection.execute(QUERIES["select_broken_streams"])
    )
    problems = [
        f"Stream {name!r} has {count} events with versions {first} to {last}."
        for name, count, first, last in broken
    ]
    problems += [
        f"Event type {kind!r}, schema version {schema}, is not listed among the kinds."
        for kind, schema in connection.execute(QUERIES["select_undeclared_kinds"])
    ]
    (used,) = connection.execute(QUERIES["fetch_sequence"]).fetchone()
    if used > head:
        problems.append(f"Events {head + 1} to {used} were cut off the end.")

    return problems + [
        f"Projection {name!r} is folded up to {position}, beyond the head."
        for name, _, position, _ in connection.execute(QUERIES["select_projections"])
        if position > head
    ]
