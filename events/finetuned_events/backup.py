"""A copy of the log that is complete or not there at all."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from finetuned_events import durable
from finetuned_events.errors import BackupError
from finetuned_events.sql import QUERIES
from finetuned_events.verify import Anchor

__all__ = ("BackupReport", "backup")


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Where the copy is, the head it ends at (an anchor for `verify`), and its size in bytes."""

    path: Path
    head: Anchor
    bytes: int


def backup(connection: sqlite3.Connection, destination: Path) -> BackupReport:
    """Copy the log: VACUUM INTO a temporary name, fsync, check, rename, fsync the directories.

    The copy is one moment of the log while the writer goes on. Raises BackupError, leaving nothing behind, if
    `destination` exists, cannot be written, or the copy is not sound.
    """
    try:
        if destination.exists():
            raise BackupError(f"{destination} exists already: choose another destination.")
        temporary = destination.with_name(f".{destination.name}.partial")
        temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # a name that is too long, or holds what none may
        raise BackupError(f"{str(destination)[:200]!r} cannot be written: {error}.") from error
    try:
        # VACUUM counts as a write; the file itself stays open for reading only.
        connection.execute("PRAGMA query_only = OFF")
        connection.execute("VACUUM INTO ?", (str(temporary),))
        durable.sync(temporary)
        head = _check(temporary)
        temporary.rename(destination)
        durable.sync_names(destination)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{destination} was not written: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)

    return BackupReport(destination, head, destination.stat().st_size)


def _check(path: Path) -> Anchor:
    copy = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        (result,) = copy.execute("PRAGMA integrity_check").fetchone()
        if result != "ok":
            raise BackupError(f"The copy is not sound: {result}.")

        head = copy.execute(QUERIES["fetch_head"]).fetchone()
        return Anchor(head[0], head[1]) if head else Anchor(0, bytes(32))
    finally:
        copy.close()
