"""Where the log's beginning was archived: from a seal on it goes by the rest and a copy of the projections there.

A seal is one transaction. The events before it are garbage from then on and are swept in small pieces, so that no
kill can leave anything between an archive and a log that is whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from finetuned_events import archive
from finetuned_events import connection as connections
from finetuned_events.archive import ArchiveFile
from finetuned_events.errors import ArchiveError, ArchiveMissingError
from finetuned_events.sql import QUERIES
from finetuned_events.verify import Anchor

__all__ = (
    "ARCHIVES",
    "Seal",
    "all_of",
    "copy_of",
    "files",
    "insert",
    "newest",
    "place",
    "snapshot",
    "sweep",
    "write_snapshot",
)

ARCHIVES = "archives"
"""The directory beside the log where archives lie unless somebody says otherwise."""

_SWEPT = 2000  # events a transaction
_ROWS = 1000  # rows a step when a table is copied


@dataclass(frozen=True, slots=True)
class Seal:
    """Events after `previous` up to `head`, the newest of which is dated `at`, are in `file`."""

    head: Anchor
    at: int
    previous: Anchor
    file: Path
    bytes: int
    sha256: str

    @classmethod
    def at_end_of(cls, file: ArchiveFile) -> Self:
        """The seal behind the events in a file."""
        return cls(file.head, file.at, file.previous, file.path, file.bytes, file.sha256)


def all_of(connection: sqlite3.Connection) -> list[Seal]:
    """Return the seals, the oldest first; none for a file that is whole."""
    if not connection.execute(QUERIES["has_seals"]).fetchone():
        return []
    return [
        Seal(Anchor(seq, hash_), at, Anchor(previous, previous_hash), Path(file), size, sha256)
        for seq, hash_, at, previous, previous_hash, file, size, sha256 in connection.execute(
            QUERIES["select_seals"]
        )
    ]


def newest(connection: sqlite3.Connection) -> Seal | None:
    """Return the seal that the log begins with; None for a file that is whole."""
    return next(reversed(all_of(connection)), None)


def files(connection: sqlite3.Connection, beside: Path) -> list[Path]:
    """Return the archives in order, where they were written or in `beside`, each with the events of its seal.

    Raises ArchiveMissingError.
    """
    return [_file(seal, beside) for seal in all_of(connection)]


def place(seal: Seal, beside: Path) -> Path | None:
    """Return where the archive lies by its name and size, else by its name; None if it is not there.

    It may have been moved into `beside`, where another log's archive may have the same name, too.
    """
    there = _places(seal, beside)
    return next((path for path in there if path.stat().st_size == seal.bytes), next(iter(there), None))


def _places(seal: Seal, beside: Path) -> list[Path]:
    return [path for path in dict.fromkeys((seal.file, beside / seal.file.name)) if _is_file(path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # below a directory that we may not enter
        return False


def _file(seal: Seal, beside: Path) -> Path:
    there = _places(seal, beside)
    for path in there:
        if _holds(path, seal):
            return path
    others = f" {' and '.join(map(str, there))} holds other events, or is damaged." if there else ""
    raise ArchiveMissingError(
        f"The events {seal.previous.seq + 1} to {seal.head.seq} are needed for a replay and were archived: put"
        f" {seal.file.name} (SHA-256 {seal.sha256}) back to {seal.file} or into {beside}.{others}"
    )


def _holds(path: Path, seal: Seal) -> bool:
    """Whether the file has exactly the events of the seal: by its checksum, or (packed anew) by their hashes."""
    try:
        if archive.measure(path) == (seal.bytes, seal.sha256):
            return True
        found = archive.check(path)
    except ArchiveError:
        return False
    return (found.previous, found.head) == (seal.previous, seal.head)


def insert(connection: sqlite3.Connection, file: ArchiveFile) -> None:
    """Seal the log at the archive's head, within a transaction: from now on older releases only read the file."""
    previous, head = file.previous, file.head
    row = (head.seq, head.hash, file.at, previous.seq, previous.hash, str(file.path), file.bytes, file.sha256)
    connection.execute(QUERIES["insert_seal"], row)
    connection.execute(QUERIES["seal_streams"], (previous.seq, head.seq))
    connection.execute(QUERIES["allow_sealed_deletes_1"])
    connection.execute(QUERIES["allow_sealed_deletes_2"])
    connection.execute(f"PRAGMA user_version = {connections.FORMAT}")


def sweep(connection: sqlite3.Connection, upto: int) -> int:
    """Delete some of the events up to a seal's position; return how many."""
    return connection.execute(QUERIES["sweep_sealed"], (upto, _SWEPT)).rowcount


def copy_of(table: str) -> str:
    """Return the name of the copy of a projection's table at the newest seal."""
    return f"sealed:{table}"


def snapshot(connection: sqlite3.Connection) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return the version and the tables of each projection that there is a copy of."""
    return {
        name: (version, tuple(orjson.loads(tables)))
        for name, version, tables in connection.execute(QUERIES["select_sealed_projections"])
    }


def write_snapshot(
    connection: sqlite3.Connection,
    source: sqlite3.Connection,
    projections: Iterable[tuple[str, int, Sequence[str]]],
) -> None:
    """Replace the copies by those in `source`, within a transaction; `projections` are names, versions, tables."""
    for _, former in snapshot(connection).values():
        for table in former:
            connection.execute(f'DROP TABLE IF EXISTS "{copy_of(table)}"')
    connection.execute(QUERIES["clear_sealed_projections"])
    for name, version, tables in projections:
        for table in tables:
            first = copy(source, copy_of(table), connection, copy_of(table))
            connection.execute(f'CREATE INDEX "{copy_of(table)}:key" ON "{copy_of(table)}" ({first})')
        row = (name, version, orjson.dumps(tables).decode())
        connection.execute(QUERIES["insert_sealed_projection"], row)


def copy(source: sqlite3.Connection, table: str, target: sqlite3.Connection, name: str) -> str:
    """Copy a table's rows to a new table of plain columns, value for value; return its first column."""
    rows = source.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - declared by the projection
    columns = [f'"{column[0]}"' for column in rows.description]
    target.execute(f'CREATE TABLE "{name}" ({", ".join(columns)})')
    places = ", ".join("?" * len(columns))
    page: list[Any]
    while page := rows.fetchmany(_ROWS):
        target.executemany(f'INSERT INTO "{name}" VALUES ({places})', page)  # noqa: S608
    return columns[0]
