"""The event log itself: figures, check, replay, copy."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from finetuned import views
from finetuned.api.auth import Caller
from finetuned.api.body import parse, read_object
from finetuned.api.doors import DOORS, json
from finetuned.api.paging import Parameters


class BackupRequest(BaseModel):
    """The body of ``POST /v1/log/backup``."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="an absolute path on the daemon's host; must not exist yet")


async def statistics(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """Figures about the log."""
    Parameters(request)
    return json(views.log_statistics(await request.app[DOORS].queries.log_statistics()))


async def verify(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """Check the whole log."""
    Parameters(request)
    return json(views.verify_report(await request.app[DOORS].queries.verify_log()))


async def rebuild(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """Replay the log and replace projections that differ."""
    Parameters(request)
    return json(views.rebuild_report(await request.app[DOORS].commands.rebuild_log()))


async def backup(request: web.Request, _caller: Caller) -> web.StreamResponse:
    """Write a checked copy of the log."""
    Parameters(request)
    wanted = parse(BackupRequest, await read_object(request))
    report = await request.app[DOORS].commands.backup_log(Path(wanted.path))
    return json(views.backup_report(report), status=201)
