"""The worker's output on disk: rotated without losing a line, and without the secrets that are known."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

LIMIT: Final = 10_000_000  # bytes of one file
FILES: Final = 7  # output.log, and six that are named for the position of their first byte: output.log.0, …
MASK: Final = b"***"


class OutputLog:
    """An append-only file with one writer, rotated by rename at the end of a line.

    A file that was rotated is named for where it begins in all that was ever written, so that a position means the
    same bytes whatever has been rotated or removed since. A reader that keeps its file open reads it to the end before it opens the new one. A full disk costs
    output, never the worker: what could not be written is counted, and said once there is room.
    """

    def __init__(self, path: Path, *, limit: int = LIMIT, files: int = FILES) -> None:
        self._path = path
        self._limit = limit
        self._files = files
        self._lost = 0
        self._size = 0
        self._descriptor: int | None = None
        self._start = max((start + file.stat().st_size for start, file in self._rotated()), default=0)
        with contextlib.suppress(OSError):  # tried again at each write
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
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        return descriptor

    def _append(self, data: bytes) -> None:
        if self._lost:
            notice = b"[finetuned: %d bytes of output could not be written]\n" % self._lost
            self._lost = self._lost if self._write_whole(notice) else 0
        self._lost += self._write_whole(data)

    def _write_whole(self, data: bytes) -> int:
        """Write the data; how many bytes of it found no room."""
        try:
            descriptor = self._open() if self._descriptor is None else self._descriptor
            while data:
                written = os.write(descriptor, data)
                self._size += written
                data = data[written:]
        except OSError:
            return len(data)
        return 0

    def _rotate(self) -> None:
        """Begin a new file; where that cannot be, the old one grows until it can."""
        with contextlib.suppress(OSError):
            if self._path.exists():  # not if this is the second try, after the rename
                self._path.rename(self._path.with_name(f"{self._path.name}.{self._start}"))
                self._remove_oldest()
            size = self._size
            self._open()
            self._start += size

    def _remove_oldest(self) -> None:
        rotated = sorted(self._rotated())
        for _, file in rotated[: max(0, len(rotated) - self._files + 1)]:
            file.unlink()

    def _rotated(self) -> list[tuple[int, Path]]:
        """The files that were rotated, with the positions of their first bytes."""
        prefix = f"{self._path.name}."
        found = [(each.name.removeprefix(prefix), each) for each in self._path.parent.glob(f"{prefix}*")]
        return [(int(start), file) for start, file in found if start.isascii() and start.isdigit()]


class Redactor:
    """Masks known secrets in a stream of bytes, also where a secret is cut between two reads."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first: a secret may be the beginning of another.
        self._secrets = sorted({secret.encode() for secret in secrets if secret}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(secret) for secret in self._secrets))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The data without secrets; an end that may be the beginning of one is kept for the next call."""
        if not self._secrets:
            return data
        data, self._held = self._held + data, b""
        out, position = bytearray(), 0
        tails = self._possible_beginnings(data)
        tail = next(tails)
        for found in self._pattern.finditer(data):
            if found.start() >= tail:
                break
            out += data[position : found.start()] + MASK
            position = found.end()
            while tail < position:
                tail = next(tails)
        self._held = data[tail:]
        return bytes(out + data[position:tail])

    def finish(self) -> bytes:
        """What was kept, at the end of the stream."""
        held, self._held = self._held, b""
        return self._pattern.sub(MASK, held) if self._secrets else held

    def _possible_beginnings(self, data: bytes) -> Iterator[int]:
        """Where ends of the data begin that are pieces of secrets, the longest first; at last the data's length."""
        for start in range(max(0, len(data) - len(self._secrets[0]) + 1), len(data)):
            if any(len(data) - start < len(s) and s.startswith(data[start:]) for s in self._secrets):
                yield start
        yield len(data)
