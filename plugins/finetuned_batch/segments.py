"""Segments: append-only files of result lines, one an attempt, out of which the output is made in the end.

A line counts once it is whole. A killed worker may leave its last one torn, and a loss of power whatever was not
synced; what does not read as a result is as if it were not there, and its request is asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetuned_batch.answers import Tally, is_success
from finetuned_batch.requests import key_of
from finetuned_sdk.bundle import sync_directory

NAME: Final = "results.ndjson"

Json = Any


class SegmentWriter:
    """Appends result lines. They are safe from a kill at once, and from a loss of power after :meth:`sync`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._is_dirty = False
        sync_directory(path.parent)

    def append(self, line: bytes) -> None:
        """Add one line. Raises ``OSError``; nothing is to be added after that."""
        written = os.write(self._descriptor, line)
        while written < len(line):
            written += os.write(self._descriptor, line[written:])
        self._is_dirty = True

    def sync(self) -> None:
        """Make what was added last. Blocks."""
        if self._is_dirty:
            self._is_dirty = False
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result lies, in bytes, and whether it is a success."""

    segment: int
    offset: int
    length: int
    is_success: bool


class Results:
    """All results of a job so far: of each request the first that is whole."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self.places: dict[bytes, Place] = {}
        self.tally = Tally()
        for number, path in enumerate(self.paths):
            self._take(number, path)

    def _take(self, number: int, path: Path) -> None:
        for offset, raw in _whole_lines(path):
            line = _result(raw)
            key = None if line is None else key_of(line["custom_id"])
            if line is None or key is None or key in self.places:
                continue
            self.places[key] = Place(number, offset, len(raw), is_success(line))
            self.tally.add(line)


def of_attempts(attempts: Path) -> list[Path]:
    """The segments below a job's directory of attempts, oldest first."""
    found = [path for path in attempts.glob(f"*/work/{NAME}") if path.parts[-3].isdecimal()]
    return sorted(found, key=lambda path: int(path.parts[-3]))


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield offset, raw
            offset += len(raw)


def _result(raw: bytes) -> dict[str, Json] | None:
    """The result of a line; ``None`` if it is none."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str) or "response" not in line:
        return None
    return line
