"""``log``: care for the event log, by the daemon or, with ``--state-dir``, while none runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import anyio
import click

from finetuned.cli import console, offline, units
from finetuned.cli.session import json_option
from finetuned.client import Client
from finetuned.wire import Archive, ArchiveReport, BackupReport, RebuildReport, VerifyReport

T = TypeVar("T")

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work on this state directory's log itself. Default: the daemon does it.",
)


@click.group
def log() -> None:
    """Verify, rebuild, archive or back up the event log."""


@log.command
@click.option(
    "--archive",
    "archived",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check this archive instead, and that it is one of this log's.",
)
@state_dir_option
@json_option(shape=VerifyReport)
def verify(*, archived: Path | None, state_dir: Path | None, as_json: bool) -> int:
    """Check the whole log: its hash chain, gaps and versions.

    The exit code is 1 if something is wrong.
    """
    if archived is None:
        report = _done(state_dir, lambda daemon: daemon.verify_log(), offline.verify)
    else:
        report = offline.verify_archive(archived, _done(state_dir, _archives, offline.archives))
    if as_json:
        console.emit(report)
    elif report["ok"]:
        head = report["head"]
        console.say(f"{report['events']} events, nothing wrong. Head: {head['seq']} {head['hash']}")
    else:
        for problem in report["problems"]:
            console.say(str(problem))
        what = "log" if archived is None else "archive"
        console.note(
            f"The {what} was changed or damaged. Keep the file, and go back to a backup that verifies."
        )
    return 0 if report["ok"] else 1


@log.command
@state_dir_option
@json_option(shape=RebuildReport)
def rebuild(*, state_dir: Path | None, as_json: bool) -> None:
    """Fold all projections anew from the log, and put right what differs."""
    report = _done(state_dir, lambda daemon: daemon.rebuild_log(), offline.rebuild)
    if as_json:
        console.emit(report)
        return
    for table in report["tables"]:
        console.say(f"{table['table']}: {table['rows']} rows, {'equal' if table['equal'] else 'put right'}")


@log.command
@click.option(
    "--upto",
    required=True,
    metavar="SEQ|TIME|AGE",
    help="The last event to archive: a position, an RFC 3339 time, or an age such as 90d, 12h, 30min or 10s.",
)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@json_option(shape=ArchiveReport)
def archive(*, upto: str, path: Path | None, as_json: bool) -> None:
    """Move the beginning of the log into a compressed, checked file; nothing of it is lost.

    PATH is a new file on the daemon's machine. Default: archives/ in the state directory. Events of jobs that have not
    ended stay, and all that follow them.
    """
    target = None if path is None else str(path.expanduser().absolute())
    moment = _moment(upto)
    report = _asked(lambda daemon: daemon.archive_log(moment, target))
    if as_json:
        console.emit(report)
        return
    console.say(
        f"{report['path']}: {units.size(report['bytes'])}, events {report['first']} to {report['last']}."
    )
    if report["held_back_by"]:
        console.note(f"No further: {report['held_back_by']}.")


@log.command
@click.argument("path", type=click.Path(path_type=Path))
@state_dir_option
@json_option(shape=BackupReport)
def backup(*, path: Path, state_dir: Path | None, as_json: bool) -> None:
    """Write a checked copy of the log to PATH, on the daemon's machine."""
    target = path.expanduser().absolute()
    report = _done(
        state_dir,
        lambda daemon: daemon.backup_log(str(target)),
        lambda directory: offline.backup(directory, target),
    )
    if as_json:
        console.emit(report)
    else:
        console.say(f"{report['path']}: {units.size(report['bytes'])}, up to event {report['head']['seq']}.")


AGE = re.compile(r"([0-9]{1,5})(d|h|min|s)")
LENGTHS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "min": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def _moment(upto: str) -> str:
    """An age as the time that it means; a position or a time goes to the daemon as it stands."""
    if age := AGE.fullmatch(upto):
        return (datetime.now(UTC) - int(age[1]) * LENGTHS[age[2]]).isoformat()
    if not re.match(r"[0-9]+$|[0-9]{4}-", upto):
        raise click.BadParameter(
            f"{upto[:40]!r} is no position, no time such as 2026-01-31T12:00:00Z, and no age such as 90d, 12h, 30min or 10s",
            param_hint="--upto",
        )
    return upto


async def _archives(daemon: Client) -> list[Archive]:
    return (await daemon.log_state())["archives"]


def _asked(online: Callable[[Client], Awaitable[T]]) -> T:
    async def work() -> T:
        async with Client() as daemon:
            return await online(daemon)

    return anyio.run(work)


def _done(
    state_dir: Path | None,
    online: Callable[[Client], Awaitable[T]],
    alone: Callable[[Path], Awaitable[T]],
) -> T:
    return _asked(online) if state_dir is None else anyio.run(alone, state_dir)
