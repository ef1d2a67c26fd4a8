"""The event log itself: figures, check, replay, copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from finetuned import views, wire
from finetuned.api.call import Call
from finetuned.api.parameters import AbsolutePath
from finetuned.json_numbers import Integer


class BackupRequest(BaseModel):
    """The body of ``POST /v1/log/backup``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    path: AbsolutePath = Field(description="an absolute path on the daemon's host; must not exist yet")


class ArchiveRequest(BaseModel):
    """The body of ``POST /v1/log/archive``."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    upto: Annotated[str, Field(max_length=64)] | Integer = Field(
        description="the last to archive: a position of the log, or an RFC 3339 time"
    )
    path: AbsolutePath | None = Field(
        default=None,
        description="an absolute path on the daemon's host; must not exist yet. Default: in the state directory",
    )


async def statistics(call: Call) -> wire.LogStatistics:
    """Figures about the log."""
    return views.log_statistics(await call.queries.log_statistics())


async def verify(call: Call) -> wire.VerifyReport:
    """Check the whole log."""
    return views.verify_report(await call.queries.verify_log())


async def rebuild(call: Call) -> wire.RebuildReport:
    """Replay the log and replace projections that differ."""
    return views.rebuild_report(await call.commands.rebuild_log())


async def backup(call: Call, body: BackupRequest) -> wire.BackupReport:
    """Write a checked copy of the log."""
    return views.backup_report(await call.commands.backup_log(Path(body.path)))


async def archive(call: Call, body: ArchiveRequest) -> wire.ArchiveReport:
    """Move the beginning of the log, up to what live jobs need, into a compressed file."""
    upto = await call.queries.position(str(body.upto), param="upto")
    path = None if body.path is None else Path(body.path)
    done = await call.commands.archives.archive(upto, path, actor=call.caller.actor)
    return {**views.archive(done.file), "held_back_by": done.held_back_by}
