"""The worker's output on disk: rotated without losing a line, and without the secrets that are known."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LIMIT: Final = 10_000_000  # bytes of one file
FILES: Final = 7  # output.log and output.log.1 (newer) to output.log.6 (oldest)
MASK: Final = b"***"


class OutputLog:
    """An append-only file with one writer, rotated by rename at the end of a line.

    A reader that keeps its file open reads it to the end before it opens the new one. A full disk costs
    output, never the worker: what could not be written is counted, and said once there is room.
    """

    def __init__(self, path: Path, *, limit: int = LIMIT, files: int = FILES) -> None:
        self._path = path
        self._limit = limit
        self._files = files
        self._lost = 0
        self._open()

    def write(self, data: bytes) -> None:
        """Append output."""
        if self._size >= self._limit:
            end = data.find(b"\n") + 1
            if end or self._size >= 2 * self._limit:  # twice the limit without a newline is no log
                self._append(data[:end])
                self._rotate()
                data = data[end:]
        self._append(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size

    def _append(self, data: bytes) -> None:
        if self._lost and data:
            data = b"[finetuned: %d bytes of output could not be written]\n" % self._lost + data
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                self._lost = 0
                data = data[written:]
        except OSError:
            self._lost += len(data)

    def _rotate(self) -> None:
        os.close(self._descriptor)
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class Redactor:
    """Masks known secrets in a stream of bytes, also where a secret is cut between two reads."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first: a secret may be the beginning of another.
        self._secrets = sorted((secret.encode() for secret in secrets if secret), key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The data without secrets; an end that may be the beginning of one is kept for the next call."""
        data = self._mask(self._held + data)
        keep = self._possible_beginning(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def finish(self) -> bytes:
        """What was kept, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _mask(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, MASK)
        return data

    def _possible_beginning(self, data: bytes) -> int:
        longest = max((len(secret) for secret in self._secrets), default=0)
        for length in range(min(longest - 1, len(data)), 0, -1):
            tail = data[len(data) - length :]
            if any(secret.startswith(tail) for secret in self._secrets):
                return length
        return 0
