"""Paths on the server as a privilege: opened beneath a root that the operator allows, or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MOST_ENTRIES: Final = 100_000  # of a folder that is looked through
_SYS_OPENAT2: Final = 437  # the same number on every architecture that has it (Linux 5.6)
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
#: what a kernel without openat2, or a filter that does not know it, answers
_MISSING: Final = frozenset({errno.ENOSYS, errno.EPERM})
_FLAGS: Final = os.O_PATH | os.O_CLOEXEC


class UnsafePathError(Exception):
    """The path leaves its root, or names what is neither a file nor a folder. The message says which."""


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def root_of(path: Path, roots: tuple[Path, ...]) -> Path | None:
    """The root that an absolute path without ``..`` is written beneath (or is); ``None`` if there is none."""
    return next((root for root in roots if path.is_relative_to(root)), None)


def check_beneath(root: Path, path: Path) -> None:
    """Refuse a path that is not a file or folder beneath ``root``, whatever symbolic links say.

    A folder is looked through: a link in it that leaves ``root``, a device, a FIFO or a socket spoils it, because
    whoever reads the folder would open those. Raises ``UnsafePathError``, or ``OSError`` if it is not there.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise UnsafePathError(f"{path} is not a plain absolute path")
    directory = os.open(root, os.O_DIRECTORY | _FLAGS)
    try:
        _check(directory, path.relative_to(root))
    finally:
        os.close(directory)


def open_to_read(path: Path, roots: tuple[Path, ...] = ()) -> int:
    """A descriptor to read from. A path beneath a root is opened beneath it, any other without a symbolic link.

    Who checked the path before may have been shown something else: whoever owns one of its folders can put a link
    to what only the daemon may read in its place. Waits for nothing: a FIFO opens at once. Raises ``OSError``.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    root = root_of(path, roots)
    start = root or Path(path.anchor)
    directory = os.open(start, os.O_DIRECTORY | _FLAGS)
    try:
        with opened_beneath(directory, path.relative_to(start), links=root is not None) as found:
            return os.open(f"/proc/self/fd/{found}", flags)
    finally:
        os.close(directory)


@contextmanager
def opened_beneath(directory: int, relative: Path, *, links: bool = True) -> Iterator[int]:
    """An ``O_PATH`` descriptor of what lies at ``relative`` beneath the directory. It cannot be read from.

    Symbolic links are followed as long as they stay beneath; without openat2, or without ``links``, none is.
    Raises ``OSError``: EXDEV or ELOOP for what leaves.
    """
    try:
        descriptor = _openat2(directory, relative, links=links)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        descriptor = open_by_steps(directory, relative)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_by_steps(directory: int, relative: Path) -> int:
    """The same without openat2: component by component, and no symbolic link at all. Raises ``OSError``."""
    if relative.is_absolute() or ".." in relative.parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(relative))
    current = os.open(".", os.O_DIRECTORY | _FLAGS, dir_fd=directory)
    for part in relative.parts:
        try:
            following = os.open(part, _FLAGS | os.O_NOFOLLOW, dir_fd=current)
        finally:
            os.close(current)
        current = following
        if stat.S_ISLNK(os.fstat(current).st_mode):
            os.close(current)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(relative))
    return current


def _openat2(directory: int, relative: Path, *, links: bool) -> int:
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    how = _OpenHow(flags=_FLAGS, mode=0, resolve=resolve)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    name = os.fsencode(relative)
    descriptor = int(
        call(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(relative))
    return descriptor


def _check(directory: int, relative: Path) -> None:
    """Check what lies there, and everything in it if it is a folder."""
    seen: set[tuple[int, int]] = set()  # folders: two links may form a ring
    waiting, entries = [relative], 0
    while waiting:
        each = waiting.pop()
        with _opened(directory, each, named=each == relative) as descriptor:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                continue
            if not stat.S_ISDIR(found.st_mode):
                raise UnsafePathError(f"{each} is neither a file nor a folder")
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(f"/proc/self/fd/{descriptor}") as listed:
                names = [entry.name for entry in listed]
        entries += len(names)
        if entries > MOST_ENTRIES:
            raise UnsafePathError(f"the folder holds more than {MOST_ENTRIES} entries")
        waiting += [each / name for name in names]


@contextmanager
def _opened(directory: int, relative: Path, *, named: bool) -> Iterator[int]:
    try:
        with opened_beneath(directory, relative) as descriptor:
            yield descriptor
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.ELOOP}:
            raise UnsafePathError(f"{relative} is a symbolic link that leaves the folder") from None
        if error.errno == errno.ENOENT and not named:
            raise UnsafePathError(f"{relative} is a symbolic link to nothing") from None
        raise
