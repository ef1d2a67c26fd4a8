"""Projections made anew from the log in a scratch database, compared with the live tables, and swapped in.

The scratch database is where the projections' own unqualified SQL runs unchanged. It is folded by pages while
the writer goes on; only the rest, the comparison and the swap need the writer's thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic

import orjson

from finetuned_events import archive, codec, connection, seals
from finetuned_events.errors import ArchiveError, ProjectionError
from finetuned_events.event import Event
from finetuned_events.projection import Model, Projection, S
from finetuned_events.sql import QUERIES, statements
from finetuned_events.upcast import Upcasters

__all__ = ("RebuildReport", "Scratch", "TableReport", "digest", "outdated")

_ROWS = 1000  # rows a step when a table is copied


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: how many rows the replay gave, and whether the live table held the same, byte for byte."""

    projection: str
    table: str
    rows: int
    equal: bool


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found: the position it was made at, its tables, and the projections it put in place."""

    head: int
    tables: tuple[TableReport, ...]
    swapped: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every live table was as the log says."""
        return all(table.equal for table in self.tables)


class Scratch(Generic[S]):
    """A replay of the log into a temporary database that vanishes when it is closed.

    Making one and closing it touches no disk; everything else blocks. A log whose beginning was archived is replayed
    from the copies at its newest seal; where these are of another version of the projections, from the archives, which
    are also looked for in the directory `archives`.
    """

    def __init__(
        self,
        model: Model[S],
        projections: Sequence[Projection[S]],
        upcasters: Upcasters,
        archives: Path | None = None,
    ) -> None:
        self._model = model
        self._projections = projections
        self._upcasters = upcasters
        self._archives = archives
        self._position = 0
        self._copies = False  # whether copies at the newest seal were made here
        self._made: S | None = None
        # The empty name: a private file that SQLite keeps in memory while it is small and deletes itself.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._busy = threading.Lock()
        self._closing = False

    def close(self) -> None:
        """Delete the scratch database; if a thread is still at it (its caller was cancelled), when that ends."""
        self._closing = True
        if self._busy.acquire(blocking=False):
            self._connection.close()
            self._busy.release()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._busy:
            try:
                yield
            finally:
                if self._closing:
                    self._connection.close()

    def catch_up(self, source: sqlite3.Connection, upto: int = codec.END) -> int:
        """Fold everything that `source` holds beyond what was folded, up to `upto`; return the position reached."""
        with self._at_work():
            return self._fold(source, upto)

    def _state(self, source: sqlite3.Connection) -> S:
        """The state as far as it was folded; the tables are made with it."""
        if self._made is None:
            # A log without events: what loads a state from the tables of a live log finds them here too.
            connection.create(self._connection)
            for projection in self._projections:
                create(self._connection, projection)
            self._made = self._beginning(source)
        return self._made

    def _beginning(self, source: sqlite3.Connection) -> S:
        state = self._model.initial(self._connection)
        seal = seals.newest(source)
        if seal is None:
            return state
        kept = seals.snapshot(source)
        if all(kept.get(each.name) == (each.version, tuple(each.tables)) for each in self._projections):
            return self._from_copies(source, seal.head.seq)
        for file in seals.files(source, self._archives or Path()):
            for events in archive.pages(file, self._upcasters):
                self._apply(state, events)
        self._copy()
        return state

    def _from_copies(self, source: sqlite3.Connection, position: int) -> S:
        for projection in self._projections:
            for table in projection.tables:
                _fill(source, seals.copy_of(table), self._connection, table)
        self._position = position
        return self._model.load(self._connection)

    def begin_with(self, source: sqlite3.Connection, position: int) -> None:
        """Begin with the copies in `source`, which were made at a position."""
        with self._at_work():
            connection.create(self._connection)
            for projection in self._projections:
                create(self._connection, projection)
            self._made = self._from_copies(source, position)

    def _fold(self, source: sqlite3.Connection, upto: int = codec.END) -> int:
        state = self._state(source)
        for events in codec.pages(source, self._upcasters, after=self._position, upto=upto):
            self._apply(state, events)

        return self._position

    def _apply(self, state: S, events: Sequence[Event]) -> None:
        for event in events:
            state.apply(event)

        self._connection.execute("BEGIN")
        for projection in self._projections:
            projection.write(self._connection, state, events)
        self._connection.execute("COMMIT")
        state.committed()
        self._position = events[-1].seq

    def copy(self, again: Scratch[S]) -> None:
        """Copy the tables as they are now: what a seal at this position, and `again`, will begin with."""
        with self._at_work():
            self._copy()
            again.begin_with(self._connection, self._position)

    def _copy(self) -> None:
        for projection in self._projections:
            for table in projection.tables:
                self._connection.execute(f'DROP TABLE IF EXISTS "{seals.copy_of(table)}"')
                seals.copy(self._connection, table, self._connection, seals.copy_of(table))
        self._copies = True

    def seal(self, live: sqlite3.Connection, file: archive.ArchiveFile, again: Scratch[S]) -> None:
        """Seal `live` at the archive's head with the copies made here, in one transaction.

        Before it is committed, `again`, which began with the copies, must give the live tables, and the archive must
        follow on the newest seal: else ArchiveError.
        """
        with self._at_work():
            live.execute("BEGIN IMMEDIATE")
            try:
                _require_following(live, file)
                self._write_copies(live)
                seals.insert(live, file)
                again.confirm(live)
                live.execute("COMMIT")
            except BaseException:
                if live.in_transaction:
                    live.execute("ROLLBACK")
                raise

    def confirm(self, live: sqlite3.Connection) -> None:
        """Fold the rest and compare; raises ArchiveError if the live tables are not what the replay gives."""
        if differing := self.differing(live):
            raise ArchiveError(
                f"Nothing was archived: a replay gives other rows than {', '.join(differing)}."
                " `rebuild` the log first, and archive then."
            )

    def differing(self, live: sqlite3.Connection) -> list[str]:
        """Fold the rest and compare; return the tables of `live` that are not what the replay gives.

        `live` must stand still meanwhile: be in a transaction.
        """
        with self._at_work():
            head = self._fold(live)
            stale = {each.name for each in outdated(live, self._projections, head)}
            return [
                table
                for projection in self._projections
                for table in projection.tables
                if projection.name in stale or not self._compare(live, projection, table).equal
            ]

    def _write_copies(self, live: sqlite3.Connection) -> None:
        described = [(each.name, each.version, each.tables) for each in self._projections]
        seals.write_snapshot(live, self._connection, described)

    def swap(self, live: sqlite3.Connection) -> RebuildReport:
        """Fold the rest, compare, and replace what differs or is outdated, in one transaction on `live`.

        Nothing else may write to `live` meanwhile.
        """
        with self._at_work():
            return self._swap(live)

    def _swap(self, live: sqlite3.Connection) -> RebuildReport:
        head = self._fold(live)
        stale = {projection.name for projection in outdated(live, self._projections, head)}
        live.execute("BEGIN IMMEDIATE")
        try:
            reports: list[TableReport] = []
            swapped: list[str] = []
            for projection in self._projections:
                tables = [self._compare(live, projection, table) for table in projection.tables]
                if projection.name in stale or not all(table.equal for table in tables):
                    self._replace(live, projection, head)
                    swapped.append(projection.name)
                reports += tables
            if self._copies:
                self._write_copies(live)
            live.execute("COMMIT")
        except BaseException:
            if live.in_transaction:
                live.execute("ROLLBACK")
            raise

        return RebuildReport(head, tuple(reports), tuple(swapped))

    def _compare(self, live: sqlite3.Connection, projection: Projection[S], table: str) -> TableReport:
        rows, expected = digest(self._connection, table)
        equal = _exists(live, table) and digest(live, table)[1] == expected
        return TableReport(projection.name, table, rows, equal)

    def _replace(self, live: sqlite3.Connection, projection: Projection[S], head: int) -> None:
        former = _stored(live).get(projection.name)
        for table in {*(former[2] if former else ()), *projection.tables}:
            live.execute(f'DROP TABLE IF EXISTS "{table}"')

        create(live, projection)
        for table in projection.tables:
            live.execute(f'DELETE FROM "{table}"')  # noqa: S608 - what the script itself put in is in the replay too
            _insert(self._connection, table, live, table)

        tables = orjson.dumps(projection.tables).decode()
        live.execute(QUERIES["replace_projection"], (projection.name, projection.version, head, tables))


def _require_following(live: sqlite3.Connection, file: archive.ArchiveFile) -> None:
    newest = seals.newest(live)
    sealed = newest.head.seq if newest else 0
    if sealed != file.previous.seq:
        raise ArchiveError(
            f"Nothing was archived: the log was sealed at event {sealed} meanwhile, {file.path} follows on"
            f" {file.previous.seq}. Give the command again."
        )


def _fill(source: sqlite3.Connection, table: str, target: sqlite3.Connection, name: str) -> None:
    """Replace the rows of a table, whatever the script itself put in."""
    target.execute("BEGIN")
    target.execute(f'DELETE FROM "{name}"')  # noqa: S608 - declared by the projection
    _insert(source, table, target, name)
    target.execute("COMMIT")


def _insert(source: sqlite3.Connection, table: str, target: sqlite3.Connection, name: str) -> None:
    rows = source.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - declared by the projection
    places = ", ".join("?" * len(rows.description))
    while page := rows.fetchmany(_ROWS):
        target.executemany(f'INSERT INTO "{name}" VALUES ({places})', page)  # noqa: S608


def create(connection: sqlite3.Connection, projection: Projection[S]) -> None:
    """Make the projection's tables; raises ProjectionError if its script does not make those it declares."""
    for statement in statements(projection.schema):
        connection.execute(statement)

    for table in projection.tables:
        if not _exists(connection, table):
            raise ProjectionError(
                f"Projection {projection.name!r} declares table {table!r}, its schema lacks it."
            )


def outdated(
    connection: sqlite3.Connection, projections: Sequence[Projection[S]], head: int
) -> list[Projection[S]]:
    """Return the projections whose tables are missing, of another version, or not folded up to `head`."""
    stored = _stored(connection)
    return [
        projection
        for projection in projections
        if stored.get(projection.name, (None, None, ()))[:2] != (projection.version, head)
    ]


def digest(connection: sqlite3.Connection, table: str) -> tuple[int, str]:
    """Return the number of rows and a SHA-256 over all values and their types, in an order of their own."""
    cursor = connection.execute(f'SELECT * FROM "{table}" LIMIT 0')  # noqa: S608 - declared by the projection
    order = ", ".join(str(number + 1) for number in range(len(cursor.description)))
    rows, total = 0, sha256(repr([column[0] for column in cursor.description]).encode())
    for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY {order}'):  # noqa: S608
        # repr tells 1 from 1.0 from '1' and ends every value unmistakably.
        total.update(repr(row).encode("utf-8", "surrogatepass"))
        rows += 1

    return rows, total.hexdigest()


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None


def _stored(connection: sqlite3.Connection) -> dict[str, tuple[int, int, tuple[str, ...]]]:
    return {
        name: (version, position, tuple(orjson.loads(tables)))
        for name, version, position, tables in connection.execute(QUERIES["select_projections"])
    }
