"""The event log itself."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Anchor(TypedDict):
    """A position and its hash, which pins everything before it."""

    seq: int
    hash: str


class Archive(TypedDict):
    """Events ``first`` to ``last`` in a file of ``bytes`` with that SHA-256. ``hash`` is that of the last,
    ``previous_hash`` that of the event before the first.
    """

    path: str
    first: int
    last: int
    hash: str
    previous_hash: str
    bytes: int
    sha256: str


class ArchiveReport(Archive):
    """What was archived. ``held_back_by`` says why it was not as much as was asked for; null if it was."""

    held_back_by: str | None


class LogStatistics(TypedDict):
    """Figures about the log, since it was opened. ``busy_seconds``: how long the transaction in progress has taken;
    ``archives``: where its beginning is, the oldest first.
    """

    object: Literal["log"]
    head: int
    queued: int
    busy_seconds: float
    commits: int
    failed_commits: int
    wal_bytes: int
    database_bytes: int
    archives: list[Archive]
    read_only: str | None


class VerifyReport(TypedDict):
    """What a check of the log found. The head's hash is the anchor to keep."""

    ok: bool
    events: int
    head: Anchor
    problems: list[Json]


class TableReport(TypedDict):
    """One table of a projection: its rows, and whether the live table held the same."""

    projection: str
    table: str
    rows: int
    equal: bool


class RebuildReport(TypedDict):
    """What a replay found: whether every live table was as the log says, and which were replaced."""

    equal: bool
    head: int
    tables: list[TableReport]
    swapped: list[str]


class BackupReport(TypedDict):
    """Where a copy of the log is and where it ends."""

    path: str
    head: Anchor
    bytes: int
