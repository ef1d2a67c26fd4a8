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


class NoMountError(Exception):
    """No file system can be mounted by this process, and why."""


@contextlib.contextmanager
def mounted(place: Path, size: int) -> Iterator[Path]:
    """A tmpfs of ``size`` bytes over a directory. Raises ``NoMountError``."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.geteuid() != 0:
        raise NoMountError("only root can mount a file system of its own")
    command = [mount, "-t", "tmpfs", "-o", f"size={size},mode=0750", "none", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoMountError(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([unmount, "-l", place], check=True)


def is_possible() -> bool:
    """Whether this process can mount one."""
    with tempfile.TemporaryDirectory(prefix="ftd-disk-") as directory:
        try:
            with mounted(Path(directory), 1 << 20):
                return True
        except NoMountError:
            return False


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A tmpfs of ``size`` bytes. Skips the test where none can be mounted."""
    directory = Path(tempfile.mkdtemp(prefix="ftd-disk-"))
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(mounted(directory, size))
            except NoMountError as error:
                pytest.skip(str(error))
            yield directory
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
