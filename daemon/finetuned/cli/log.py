"""``log``: care for the event log, by the daemon or, with ``--state-dir``, while none runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import click

from finetuned.cli import console, offline, units
from finetuned.cli.session import json_option
from finetuned.client import Client
from finetuned.wire import BackupReport, RebuildReport, VerifyReport

T = TypeVar("T")

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work on this state directory's log itself. Default: the daemon does it.",
)


@click.group
def log() -> None:
    """Verify, rebuild or back up the event log."""


@log.command
@state_dir_option
@json_option(shape=VerifyReport)
def verify(*, state_dir: Path | None, as_json: bool) -> int:
    """Check the whole log: its hash chain, gaps and versions.

    The exit code is 1 if something is wrong.
    """
    report = _done(state_dir, lambda daemon: daemon.verify_log(), offline.verify)
    if as_json:
        console.emit(report)
    elif report["ok"]:
        head = report["head"]
        console.say(f"{report['events']} events, nothing wrong. Head: {head['seq']} {head['hash']}")
    else:
        for problem in report["problems"]:
            console.say(str(problem))
        console.note("The log was changed or damaged. Keep the file, and go back to a backup that verifies.")
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


def _done(
    state_dir: Path | None,
    online: Callable[[Client], Awaitable[T]],
    alone: Callable[[Path], Awaitable[T]],
) -> T:
    async def work() -> T:
        if state_dir is not None:
            return await alone(state_dir)
        async with Client() as daemon:
            return await online(daemon)

    return anyio.run(work)
