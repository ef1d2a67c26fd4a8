"""A version's file, as it was when it was registered or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

from finetuned.datasets.content import open_regular
from finetuned.domain.errors import Rejected
from finetuned.domain.registers import DatasetVersion

BLOCK = 1 << 18
Roots = tuple[Path, ...]


def identity_of(found: os.stat_result) -> str:
    """What differs once a file was written, replaced or renamed: its inode and its times in nanoseconds.

    Its owner can set the time of modification back, but not that of the last change. The device is left out: its
    number may be another after the machine has been started again.
    """
    return f"{found.st_ino}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def recorded(version: DatasetVersion) -> str | None:
    """The identity that a version's file must have: of an upload none is asked, only the daemon writes there.

    A file that stayed where it was and was registered before identities were recorded fits none.
    """
    return None if version.source == "upload" else version.identity or ""


def roots_of(version: DatasetVersion, roots: Roots) -> Roots:
    """Beneath what a version's file is opened. An upload's folder may well be reached through a link."""
    return (Path(version.path).parent,) if version.source == "upload" else roots


def _compare(path: Path, file: BinaryIO, size: int | None, identity: str | None) -> None:
    found = os.fstat(file.fileno())
    changed = identity is not None and identity_of(found) != identity
    if changed or (size is not None and found.st_size != size):
        raise Rejected(
            "dataset_changed",
            f"{path} is not what was registered any more (a copy or a link in its place is not, either); register it"
            " again.",
        )


@contextmanager
def opened(
    path: Path, size: int | None, roots: Roots = (), identity: str | None = None
) -> Iterator[BufferedReader[FileIO]]:
    """The file for reading. Raises ``Rejected`` if it is gone, has not ``size`` bytes or is not that one. Blocks.

    ``identity`` is what :func:`identity_of` said of it. What is beneath one of ``roots`` must stay there, whatever
    symbolic links have become since; elsewhere no link is followed.
    """
    try:
        with BufferedReader(open_regular(path, roots)) as file:
            _compare(path, file, size, identity)
            yield file
            _compare(path, file, size, identity)  # what was written while it was read
    except OSError as error:
        raise Rejected(
            "dataset_unreadable",
            f"{path} cannot be read ({error.strerror or error}); put it back, or register it again.",
        ) from None


def check(path: Path, size: int, roots: Roots = (), identity: str | None = None) -> None:
    """Raise ``Rejected`` if the file cannot be read as it was. Blocks."""
    with opened(path, size, roots, identity):
        pass


def read(
    path: Path, size: int, start: int, stop: int, roots: Roots = (), identity: str | None = None
) -> Iterator[bytes]:
    """The bytes from ``start`` to before ``stop``, in blocks. Raises ``Rejected``. Blocks."""
    with opened(path, size, roots, identity) as file:
        file.seek(start)
        while start < stop:
            block = file.read(min(BLOCK, stop - start))
            if not block:
                raise Rejected("dataset_changed", f"{path} ended early; register it again.")
            _compare(path, file, None, identity)  # before it is sent
            start += len(block)
            yield block
