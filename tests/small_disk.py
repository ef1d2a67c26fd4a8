"""A small file system of its own for tests that fill it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BALLAST = "ballast"


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A tmpfs of ``size`` bytes. Skips the test where none can be mounted."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file system of its own")
    directory = Path(tempfile.mkdtemp(prefix="ftd-disk-"))
    try:
        done = subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size},mode=0750", "none", directory],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        try:
            yield directory
        finally:
            subprocess.run([unmount, "-l", directory], check=True)
    finally:
        directory.rmdir()


def fill(directory: Path, *, leave: int = 0) -> int:
    """Take all room of the file system but ``leave`` bytes; what is left."""
    with (directory / BALLAST).open("ab") as file:
        for block in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while free(directory) >= block + leave:
                    os.write(file.fileno(), bytes(block))
    return free(directory)


def relieve(directory: Path) -> None:
    """Give the room back."""
    (directory / BALLAST).unlink()


def free(directory: Path) -> int:
    """Bytes that can still be written there."""
    return shutil.disk_usage(directory).free


def no_room(*_arguments: object, **_named: object) -> None:
    """What a full disk says to anything."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
