"""What can go wrong, under one root. The docstring is the default message; `code` never changes."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import ClassVar

__all__ = (
    "ArchiveError",
    "ArchiveMissingError",
    "BackupError",
    "InvalidEventError",
    "LogBrokenError",
    "LogClosedError",
    "LogError",
    "LogFullError",
    "LogLockedError",
    "LogReadError",
    "LogWriteError",
    "NewerSchemaError",
    "NotALogError",
    "ProjectionError",
    "ReadOnlyError",
    "StaleCursorError",
    "UnknownEventError",
    "WrongVersionError",
    "is_full",
)


class LogError(Exception):
    """The event log could not do what was asked."""

    code: ClassVar[str] = "log_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class WrongVersionError(LogError):
    """The stream is at another version than expected: read it again and decide anew."""

    code = "wrong_version"

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"Stream {stream!r} is at version {actual}, not {expected}: read it again and decide anew."
        )


class StaleCursorError(LogError):
    """The follower has already processed a later position: another copy of it is at work."""

    code = "stale_cursor"

    def __init__(self, follower: str, position: int, actual: int) -> None:
        self.follower = follower
        self.position = position
        self.actual = actual
        super().__init__(
            f"Follower {follower!r} is already at position {actual}, past {position}: go on from there."
        )


class InvalidEventError(LogError):
    """An event cannot be stored: its data must be JSON and its names non-empty text."""

    code = "invalid_event"


class UnknownEventError(LogError):
    """The event's type or schema version is not among those this log was opened with."""

    code = "unknown_event"


class LogClosedError(LogError):
    """The log is closed: use it inside `async with EventLog.open(...)`."""

    code = "log_closed"


class LogFullError(LogError):
    """The disk is full, nothing was written: free some space and try again."""

    code = "log_full"


class LogReadError(LogError):
    """The query failed: see the reason, and check the disk if it is not the query."""

    code = "log_read_failed"


class LogWriteError(LogError):
    """The transaction failed and was rolled back, nothing was written: try again."""

    code = "log_write_failed"


class LogBrokenError(LogError):
    """A commit failed with an I/O error and its outcome is unknown: check the disk, restart and read the log."""

    code = "log_broken"


class ReadOnlyError(LogError):
    """The log was opened read-only: close it and open it for writing."""

    code = "log_read_only"


class NewerSchemaError(ReadOnlyError):
    """The file holds what only a newer version understands, so it is open read-only: upgrade this program."""

    code = "newer_schema"


class LogLockedError(LogError):
    """Another process has the log open for writing: stop it, or open the log with read_only=True."""

    code = "log_locked"

    def __init__(self, path: Path, holder: str) -> None:
        self.path = path
        self.holder = holder
        super().__init__(
            f"{path} is open for writing by process {holder or 'unknown'}: stop it, or open the log read-only."
        )


class NotALogError(LogError):
    """The file is not an event log: name another path."""

    code = "not_a_log"


class ProjectionError(LogError):
    """A projection or the state could not take the event, so it was not appended: this is a bug in their code."""

    code = "projection_failed"


class BackupError(LogError):
    """The backup was not made: see the reason and choose another destination."""

    code = "backup_failed"


class ArchiveError(LogError):
    """The archive was not made, or does not hold: see the reason. The log is as it was."""

    code = "archive_failed"


class ArchiveMissingError(LogError):
    """Events that were archived are needed for a replay: put the archive back where it was."""

    code = "archive_missing"


def is_full(error: Exception) -> bool:
    """Whether the system or SQLite says by this that there is no room on a disk."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
