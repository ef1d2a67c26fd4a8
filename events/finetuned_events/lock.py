"""One writer a file, over processes: an advisory lock on a file beside it that dies with its holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetuned_events.errors import LogLockedError

__all__ = ("held",)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock beside `path`; raises LogLockedError, naming the holder's pid, if it is taken.

    The lock file is never removed: whoever had opened the removed one would hold a lock that excludes nobody.
    """
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogLockedError(path, os.pread(descriptor, 32, 0).decode().strip()) from error

        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
