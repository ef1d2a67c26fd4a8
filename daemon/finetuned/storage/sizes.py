"""How much of a disk files take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def size_of(path: Path) -> int:
    """The bytes that a file, or all files of a directory, take; links are not followed. Blocks."""
    try:
        return sum(each.st_blocks * 512 for each in _walk(path))
    except OSError:
        return 0


def _walk(path: Path) -> Iterator[os.stat_result]:
    yield path.lstat()
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                yield Path(directory, name).lstat()
            except OSError:  # gone meanwhile
                continue
