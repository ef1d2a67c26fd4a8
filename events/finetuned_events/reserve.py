"""Room on the disk that is kept for what must be recorded when there is no other left."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

__all__ = ("INDEX_BYTES", "Reserve", "WalIndexRoom", "give_piece", "reserve_path")

_logger = logging.getLogger(__name__)

INDEX_BYTES = 1 << 19  # of the WAL's index: enough for a WAL of 256 MiB
_PIECE = 1 << 20  # bytes that are given up at a time
_PIECES = 16  # a reserve has at least so many, however small it is
_RETRY = 1.0  # s between two tries to make the reserve whole again where there seems to be room


def reserve_path(path: Path) -> Path:
    """Where the reserve of the log at `path` is."""
    return path.with_name(f"{path.name}-reserve")


def give_piece(path: Path) -> bool:
    """Make room out of the reserve of a log that nobody has open; False if nothing is left."""
    kept = reserve_path(path)
    try:
        size = kept.stat().st_size
        os.truncate(kept, max(0, size - _PIECE))
    except OSError:
        return False

    return size > 0


class Reserve:
    """A file that takes up room until the log needs it. Belongs to the writer's thread.

    It is given up piece by piece, and each piece at once becomes room within the WAL, so that no other program can
    take it. With a `size` of 0 there is none.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = reserve_path(path)
        self._wal = path.with_name(f"{path.name}-wal")
        self._size = size
        self._try_at = 0.0
        self.kept = 0  # bytes that are left of it
        if size:
            self._claim()
        else:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there: then room is not short."""
        return self.kept >= self._size

    def give(self) -> bool:
        """Make room for the WAL out of a piece of it; False if nothing is left."""
        if not self.kept:
            return False

        piece = min(self.kept, max(self._size // _PIECES, min(_PIECE, self._size)))
        try:
            self._resize(self.kept - piece)
        except OSError:
            _logger.exception("The log's reserve %s cannot be used", self._path)
            self.kept = 0
            return False

        _logger.warning(
            "The disk is full: %d of the %d bytes kept for it are left for the log", self.kept, self._size
        )
        with contextlib.suppress(OSError):  # somebody was faster: the next piece may do
            _allocate(self._wal, self._wal.stat().st_size + piece * 3 // 4)
        return True

    def account(self) -> str:
        """What is said to those who find no room."""
        kept = (
            f", and {self.kept} of {self._size} bytes are kept for what must be recorded"
            if self._size
            else ""
        )
        return (
            f"The disk is full, nothing was written ({self._free()} bytes are free in {self._path.parent}{kept}): "
            "free some space and try again."
        )

    def restore(self) -> None:
        """Make it whole again if there is room by now."""
        if self.is_whole or self._free() < self._size - self.kept or time.monotonic() < self._try_at:
            return

        if self._claim():
            _logger.warning("There is room on the disk again: the log's reserve is whole")
        else:  # a quota, which says nothing of what is free
            self._try_at = time.monotonic() + _RETRY

    def _free(self) -> int:
        return shutil.disk_usage(self._path.parent).free

    def _claim(self) -> bool:
        found = self._length()
        try:
            _allocate(self._path, self._size)
            os.truncate(self._path, self._size)  # the setting may have become smaller
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, min(found, self._size))
            self.kept = min(self._length(), self._size)
            _logger.debug("The log's reserve cannot be made whole: %s", error)
            return False

        self.kept = self._size
        return True

    def _resize(self, size: int) -> None:
        os.truncate(self._path, size)
        self.kept = size

    def _length(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


class WalIndexRoom:
    """The file of the WAL's index, made long enough beforehand.

    SQLite makes it longer after the commit record is written. Were the disk full at that moment, nobody could say
    whether the transaction happened. The descriptor stays open as long as the connections: closing any descriptor of
    that file would drop SQLite's locks on it (howtocorrupt.html, 2.2).
    """

    def __init__(self, path: Path) -> None:
        index = path.with_name(f"{path.name}-shm")
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(index, os.O_RDWR | os.O_CLOEXEC)
            if os.fstat(self._descriptor).st_size < INDEX_BYTES:
                os.posix_fallocate(self._descriptor, 0, INDEX_BYTES)
        except OSError as error:
            _logger.warning("%s cannot be made longer, a full disk may break the log: %s", index, error)

    def close(self) -> None:
        """Let go of it, after the connections."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _allocate(path: Path, size: int) -> None:
    """Give a file real room up to `size`. Raises OSError, with no room if there is none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
