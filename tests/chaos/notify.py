"""inotify(7): be told at once of what appears in a directory, without looking again and again."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from typing import Self

CREATED = 0x100  # IN_CREATE
MOVED_TO = 0x80  # IN_MOVED_TO
_HEADER = struct.Struct("iIII")


class Arrivals:
    """Names as they appear in some directories. Use it as a context manager; ``OSError`` if one is not there."""

    def __init__(self, *directories: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watched: dict[int, Path] = {}
        for directory in directories:
            watch = library.inotify_add_watch(self._descriptor, os.fsencode(directory), CREATED | MOVED_TO)
            if watch < 0:
                os.close(self._descriptor)
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
            self._watched[watch] = directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def next(self, seconds: float) -> list[Path]:
        """What has appeared since; waits for at most so long for the first."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return []
        data, found = os.read(self._descriptor, 1 << 16), []
        while data:
            watch, _, _, length = _HEADER.unpack_from(data)
            raw, data = data[_HEADER.size : _HEADER.size + length], data[_HEADER.size + length :]
            found.append(self._watched[watch] / os.fsdecode(raw.rstrip(b"\0")))
        return found
