"""An embedded, durable event log in one SQLite file: append, decide, project, read, follow, verify.

    async with EventLog.open(Path("events.db")) as log:
        await log.append([NewEvent("order/17", "order.placed", {"amount": 3})])
        async for events in log.follow(after=0):
            ...

Knows nothing of what the events mean. See docs/reference/event-log.md.
"""

from __future__ import annotations

from finetuned_events.archive import ArchiveFile
from finetuned_events.backup import BackupReport
from finetuned_events.errors import (
    ArchiveError,
    ArchiveMissingError,
    BackupError,
    InvalidEventError,
    LogBrokenError,
    LogClosedError,
    LogError,
    LogFullError,
    LogLockedError,
    LogReadError,
    LogWriteError,
    NewerSchemaError,
    NotALogError,
    ProjectionError,
    ReadOnlyError,
    StaleCursorError,
    UnknownEventError,
    WrongVersionError,
)
from finetuned_events.event import Event, NewEvent, Page
from finetuned_events.log import EventLog, LogStatistics
from finetuned_events.memory import MemoryLog
from finetuned_events.projection import Decide, Model, NoState, Projection, Replayed, State, Stateless
from finetuned_events.rebuild import RebuildReport, TableReport
from finetuned_events.seals import Seal
from finetuned_events.upcast import Upcaster, Upcasters
from finetuned_events.verify import Anchor, VerifyReport

__all__ = (
    "Anchor",
    "ArchiveError",
    "ArchiveFile",
    "ArchiveMissingError",
    "BackupError",
    "BackupReport",
    "Decide",
    "Event",
    "EventLog",
    "InvalidEventError",
    "LogBrokenError",
    "LogClosedError",
    "LogError",
    "LogFullError",
    "LogLockedError",
    "LogReadError",
    "LogStatistics",
    "LogWriteError",
    "MemoryLog",
    "Model",
    "NewEvent",
    "NewerSchemaError",
    "NoState",
    "NotALogError",
    "Page",
    "Projection",
    "ProjectionError",
    "ReadOnlyError",
    "RebuildReport",
    "Replayed",
    "Seal",
    "StaleCursorError",
    "State",
    "Stateless",
    "TableReport",
    "UnknownEventError",
    "Upcaster",
    "Upcasters",
    "VerifyReport",
    "WrongVersionError",
)
