"""Backups put back, and a log archived, while strace looks on: ``python -m tests.powerloss.restores WHAT ROOT MARKS``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import anyio
from tests.unit.backups.state import State

from finetuned.backups import making, restoring
from finetuned.cli import offline
from finetuned.store import open_log
from finetuned.wire import VerifyReport

UPTO: Final = 8  # of the log's events that are archived


def make(root: Path) -> None:
    """A state directory, and a backup of it, both on disk."""
    state = State.made(root / "state")
    making.make(
        state.path,
        root / "backup",
        includes=("models", "datasets", "checkpoints"),
        copy_log=lambda path: anyio.run(offline.backup, state.path, path),
    )


def put_back(root: Path) -> None:
    """All of it, into a directory that is made."""
    restoring.restore(root / "backup", root / "new", verify)


def put_log_back(root: Path) -> None:
    """Only the log."""
    restoring.restore_log(root / "backup", root / "state", verify)


def archive(root: Path) -> None:
    """The beginning of the log, to a directory that is made."""

    async def archive() -> None:
        async with open_log(root / "state" / "events.sqlite") as log:
            await log.archive(UPTO, root / "kept" / "deep" / "beginning.gz")

    anyio.run(archive)


def verify(directory: Path) -> VerifyReport:
    """What the commands verify with."""
    return anyio.run(offline.verify, directory)


def run(what: str, root: Path, marks: Path) -> None:
    """Make what there is, then do it; each is marked at its end."""
    descriptor = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    make(root)
    os.write(descriptor, b"made\n")
    {"all": put_back, "log": put_log_back, "archive": archive}[what](root)
    os.write(descriptor, b"done\n")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
