"""Files that outlast a loss of power: fsync of a file says nothing of the names that lead to it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ("sync", "sync_names")


def sync(path: Path) -> None:
    """Put on disk what is in a file, or which names are in a directory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_names(path: Path) -> None:
    """Put the name of `path` on disk, and those of the directories that lead to it. Raises OSError.

    Which of these are new is not asked: who made them may have been killed before it synced them.
    """
    nearest, *others = path.absolute().parents
    sync(nearest)
    for directory in others:
        with suppress(PermissionError):  # one that we may not read: somebody else made what is in it
            sync(directory)
