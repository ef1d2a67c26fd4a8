"""Backups put back while strace looks on, for ``test_restores.py``: ``python -m tests.powerloss.restores WHAT ROOT MARKS``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
from tests.unit.backups.state import State

from finetuned.backups import making, restoring
from finetuned.cli import offline
from finetuned.wire import VerifyReport


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


def verify(directory: Path) -> VerifyReport:
    """What the commands verify with."""
    return anyio.run(offline.verify, directory)


def run(what: str, root: Path, marks: Path) -> None:
    """Make what there is, then do it; each is marked at its end."""
    descriptor = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    make(root)
    os.write(descriptor, b"made\n")
    {"all": put_back, "log": put_log_back}[what](root)
    os.write(descriptor, b"done\n")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
