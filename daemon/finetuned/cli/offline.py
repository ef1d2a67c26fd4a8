"""The log's care without a daemon: straight on the file of a state directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from finetuned import store, views, wire
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned_events import ArchiveError, EventLog, LogError, LogLockedError, NoState, archive

LOG_FILE = "events.sqlite"


async def verify(state_dir: Path) -> wire.VerifyReport:
    """Check the log; as ``POST /v1/log/verify`` answers."""
    async with _reading(state_dir) as log:
        report = await log.verify()
    return views.verify_report(report)


async def archives(state_dir: Path) -> list[wire.Archive]:
    """The archives that hold the beginning of the log; as ``GET /v1/log`` lists them."""
    async with _reading(state_dir) as log:
        return [views.archive(seal) for seal in log.seals]


def verify_archive(path: Path, known: list[wire.Archive]) -> wire.VerifyReport:
    """Read an archive through, and look for its place among those that a log ``known`` to have been archived has."""
    try:
        file = archive.check(path)
    except ArchiveError as error:
        nothing: wire.Anchor = {"seq": 0, "hash": bytes(32).hex()}
        return {"ok": False, "events": 0, "head": nothing, "problems": [str(error)]}
    found = views.archive(file)
    place = ("first", "last", "hash", "previous_hash")
    joins = any(all(found[key] == each[key] for key in place) for each in known)  # type: ignore[literal-required]
    problems = (
        []
        if joins
        else [
            f"The file holds, and no archive of this log has its events {found['first']} to {found['last']}."
        ]
    )
    return {"ok": joins, "events": file.events, "head": views.anchor(file.head), "problems": list(problems)}


async def differing(state_dir: Path) -> list[str]:
    """The projected tables that are not what a replay of the log gives. Changes nothing; a daemon may run."""
    async with _refusing(state_dir) as path, store.open_log(path, read_only=True) as log:
        return await log.differing()


async def rebuild(state_dir: Path) -> wire.RebuildReport:
    """Fold the projections anew; as ``POST /v1/log/rebuild`` answers. Refused while a daemon runs."""
    async with _refusing(state_dir) as path, store.open_log(path) as log:
        report = await log.rebuild()
    return views.rebuild_report(report)


async def backup(state_dir: Path, destination: Path) -> wire.BackupReport:
    """Copy the log; as ``POST /v1/log/backup`` answers."""
    async with _reading(state_dir) as log:
        report = await log.backup(destination)
    return views.backup_report(report)


@asynccontextmanager
async def _reading(state_dir: Path) -> AsyncIterator[EventLog[NoState]]:
    async with _refusing(state_dir) as path:
        log: EventLog[NoState]
        async with EventLog.open(path, read_only=True) as log:
            yield log


@asynccontextmanager
async def _refusing(state_dir: Path) -> AsyncIterator[Path]:
    path = state_dir / LOG_FILE
    if not path.exists():
        raise NotFoundError(f"There is no log in {state_dir}; --state-dir names a daemon's state directory.")
    try:
        yield path
    except LogLockedError:
        raise Rejected(
            "daemon_running", f"A daemon runs on {state_dir}; leave --state-dir out, and it does the work."
        ) from None
    except LogError as error:
        raise Rejected(error.code, str(error)) from error
