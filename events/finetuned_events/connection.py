"""How connections to the file are set up. Every pragma that a promise rests on is set and read back here."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from finetuned_events import durable
from finetuned_events.errors import LogError, LogWriteError, NotALogError
from finetuned_events.sql import QUERIES, SCHEMA, SEALS, statements

__all__ = (
    "APPLICATION_ID",
    "FORMAT",
    "JOURNAL_SIZE_LIMIT",
    "UNSEALED",
    "WAL_AUTOCHECKPOINT",
    "connect_reader",
    "connect_writer",
    "create",
    "prepare_reader",
    "reader_uri",
    "stored_format",
)

APPLICATION_ID = 0x46544556
"""`FTEV` in the file's header: what `file` and `open` know an event log by."""

FORMAT = 2
"""Newest version of the log's own tables that is understood; a file's own is in the header's user_version."""

UNSEALED = 1
"""Format of a file that is whole. One whose beginning was archived has format 2: older releases would replay the rest."""

WAL_AUTOCHECKPOINT = 4000  # pages; the default of 1000 costs p99 (measured)
JOURNAL_SIZE_LIMIT = 16 << 20  # bytes the WAL file is cut back to when it is reset
_WRITER_BUSY = 5000  # ms; only another program (a shell, a backup) can hold the lock
_READER_BUSY = 5000  # ms
_FULL = 2
_SQLITE = (3, 37, 0)


def connect_writer(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Open the one connection that writes, creating the tables in a new file.

    Raises NotALogError for a file of another kind.
    """
    if sqlite3.sqlite_version_info < _SQLITE:
        raise LogError(f"SQLite 3.37 or newer is needed (strict tables), this is {sqlite3.sqlite_version}.")

    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, factory=factory, timeout=_WRITER_BUSY / 1000
    )
    try:
        _prepare_writer(connection, path)
    except BaseException:
        connection.close()
        raise

    return connection


def _prepare_writer(connection: sqlite3.Connection, path: Path) -> None:
    new = _is_new(connection, path)
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT}")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT}")
    # REPLACE would delete a row without asking the trigger otherwise.
    connection.execute("PRAGMA recursive_triggers = ON")
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if journal != "wal" or synchronous != _FULL:
        raise LogWriteError(
            f"{path} cannot be made durable (journal {journal}, synchronous {synchronous}): "
            "put it on a local file system."
        )

    if new:
        create(connection)
        durable.sync_names(path)
    elif not connection.execute(QUERIES["has_seals"]).fetchone():
        _create_seals(connection)  # an older release made the file


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell an empty file from a log; raise for anything else."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise

        raise NotALogError(f"{path} is not a database: name another path.") from error

    if application == APPLICATION_ID:
        return False

    if tables or application:
        raise NotALogError(f"{path} is a database, but not an event log: name another path.")

    return True


def create(connection: sqlite3.Connection) -> None:
    """Make the log's own tables in an empty database."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements(SCHEMA):
        connection.execute(statement)

    for statement in statements(SEALS):
        connection.execute(statement)

    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {UNSEALED}")
    connection.execute("COMMIT")


def _create_seals(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(SEALS):
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write, for long scans in a thread of their own."""
    connection = sqlite3.connect(
        reader_uri(path), uri=True, isolation_level=None, check_same_thread=False, timeout=_READER_BUSY / 1000
    )
    prepare_reader(connection)
    return connection


def reader_uri(path: Path) -> str:
    """Return the address that opens the file for reading only (and never creates it)."""
    return f"{path.absolute().as_uri()}?mode=ro"


def prepare_reader(connection: sqlite3.Connection) -> None:
    """Refuse writes on this connection."""
    connection.execute("PRAGMA query_only = ON")


def stored_format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the file's format version, 0 for an empty database; raises NotALogError for another kind of file."""
    _is_new(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
