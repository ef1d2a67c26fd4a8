"""Manifests: what a finished checkpoint or artifact consists of, with the size and CRC-32 of each file.

A manifest is written last. What has none, or one that does not hold, is not finished.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from finetuned_sdk.bundle import BundleError, read_json, sync_directory, write_json
from finetuned_sdk.errors import JobError

NAME: Final = "manifest.json"  # inside a directory; a single file has <name>.manifest.json beside it
CHUNK: Final = 1 << 20  # bytes read at a time


class ManifestError(JobError):
    """A manifest is missing or does not hold."""

    code = "bad_manifest"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its path below the root with slashes, its size and its CRC-32."""

    path: str
    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one checkpoint or artifact; ``about`` is what its maker says of it."""

    files: tuple[Entry, ...]
    about: Mapping[str, Any]

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(entry.bytes for entry in self.files)


def _go_on() -> None:
    """The check of a reader that is always waited for."""


def manifest_path(root: Path) -> Path:
    """Where the manifest of a file or directory lies."""
    return root / NAME if root.is_dir() else root.with_name(f"{root.name}.{NAME}")


def seal(root: Path, **about: Any) -> Manifest:
    """Make the files below ``root`` last, and write their manifest after them.

    Raises ``ManifestError`` for what is neither a regular file nor a directory: a link could change behind
    the manifest's back.
    """
    manifest = scan(root, **about)
    write(root, manifest)
    return manifest


def scan(root: Path, **about: Any) -> Manifest:
    """Read every file below ``root`` (its manifest excepted), and fsync files and directories."""
    manifest = Manifest(tuple(_measure(path, _relative(path, root)) for path in _regular_files(root)), about)
    for directory in _directories(root):
        sync_directory(directory)
    return manifest


def write(root: Path, manifest: Manifest) -> None:
    """Write the manifest: from now on ``root`` is finished."""
    files = [asdict(entry) for entry in manifest.files]
    write_json(manifest_path(root), {"files": files, "about": dict(manifest.about)})


def read(root: Path) -> Manifest:
    """The manifest of a file or directory. Raises ``ManifestError`` if there is none that can be read."""
    try:
        data = read_json(manifest_path(root))
        if data is None:
            raise ManifestError(f"{root} has no manifest: it was never finished.")
        return Manifest(tuple(Entry(**entry) for entry in data["files"]), data.get("about", {}))
    except (BundleError, OSError, KeyError, TypeError) as error:
        raise ManifestError(f"The manifest of {root} cannot be read: {error}") from error


def verify(root: Path, *, checksums: bool = True, check: Callable[[], None] = _go_on) -> Manifest:
    """Compare files with their manifest: sizes always, contents if ``checksums``.

    Raises ``ManifestError`` with the first file that is missing or differs, and what ``check`` raises, which is called
    with each piece that is read.
    """
    manifest = read(root)
    for entry in manifest.files:
        path = root / entry.path if root.is_dir() else root
        try:
            size = path.stat().st_size
            crc32 = _crc32(path, check) if checksums else entry.crc32
        except OSError as error:
            raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
        if size != entry.bytes:
            raise ManifestError(f"{path} has {size} bytes; its manifest says {entry.bytes}.")
        if crc32 != entry.crc32:
            raise ManifestError(f"{path} has changed since its manifest was written.")
    return manifest


def _relative(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _regular_files(root: Path) -> Iterator[Path]:
    if root.is_symlink() or not root.exists():
        raise ManifestError(f"{root} is not a file or directory.")
    if root.is_file():
        yield root
        return
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*files, *names]):
            path = Path(directory, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ManifestError(f"{path} is a link or no regular file; copy the file itself there.")
            if path.is_file() and path != root / NAME:
                yield path


def _directories(root: Path) -> Iterator[Path]:
    if root.is_dir():
        for directory, _, _ in os.walk(root, topdown=False):
            yield Path(directory)
    yield root.parent


def _measure(path: Path, name: str) -> Entry:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        size, checksum = 0, 0
        while chunk := os.read(descriptor, CHUNK):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
        return Entry(name, size, checksum)
    finally:
        os.close(descriptor)


def _crc32(path: Path, check: Callable[[], None] = _go_on) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check()
            checksum = zlib.crc32(chunk, checksum)
    return checksum
