"""What a backup says of itself, and whether that holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from finetuned.domain.errors import Rejected
from finetuned_sdk.bundle import BundleError, read_json, sync_directory, write_json

NAME: Final = "manifest.json"
FORMAT: Final = 1
CHUNK: Final = 1 << 20  # bytes

Owner = tuple[int, int]  # user and group


@dataclass(frozen=True, slots=True)
class File:
    """A file of the backup: its path below it (with slashes), its size and its SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A model, dataset or checkpoint that the log names, or an archive of it, and whether the backup has it.

    ``sha256`` is a dataset's or archive's own, and of a model or checkpoint that of its manifest, which has size and CRC-32 of each
    of its files; ``None`` if there is none. ``reason`` says why it is not included.
    """

    what: str  # model, dataset, checkpoint or archive
    name: str
    path: str
    bytes: int
    sha256: str | None
    included: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """``made_at`` is RFC 3339; ``head`` is the log's newest position with its hash, an anchor for later checks."""

    made_at: str
    release: str
    state_dir: str
    head: Mapping[str, Any]
    includes: tuple[str, ...]
    files: tuple[File, ...]
    listed: tuple[Listed, ...]
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.bytes for file in self.files)


def damaged(message: str) -> Rejected:
    """The refusal of a backup that is not what it should be."""
    return Rejected("backup_damaged", f"{message} Take another backup; this one is left as it is.")


def write(root: Path, manifest: Manifest) -> None:
    """Write the manifest: the backup is whole from here on."""
    write_json(root / NAME, asdict(manifest))


def read(root: Path) -> Manifest:
    """The manifest of a backup. Raises ``Rejected`` if there is none that this release reads."""
    try:
        data = read_json(root / NAME)
        if data is None:
            raise damaged(f"{root} is no backup of `finetune backup`: it has no {NAME}.")
        if data["format"] != FORMAT:
            raise damaged(f"{root} has format {data['format']}, this release reads {FORMAT}.")
        listed = tuple(Listed(**each) for each in data.pop("listed"))
        files = tuple(File(**each) for each in data.pop("files"))
        return Manifest(**{**data, "includes": tuple(data["includes"])}, files=files, listed=listed)
    except (BundleError, OSError, KeyError, TypeError) as error:
        raise damaged(f"The manifest of {root} cannot be read: {error}.") from error


def check(root: Path, files: Iterable[File]) -> None:
    """Read every file through. Raises ``Rejected`` at the first that is missing or differs."""
    for file in files:
        if not (root / file.path).resolve().is_relative_to(root.resolve()):
            raise damaged(f"{file.path} is not below {root}.")
        try:
            found = measure(root / file.path)
        except OSError as error:
            raise damaged(f"{root / file.path} cannot be read: {error.strerror}.") from error
        if found != (file.bytes, file.sha256):
            raise damaged(f"{root / file.path} is not what its manifest says.")


def measure(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a regular file."""
    size, total = 0, sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            total.update(chunk)
    return size, total.hexdigest()


def copy(source: Path, root: Path, path: str, *, owner: Owner | None = None) -> File:
    """Copy a regular file to ``path`` below ``root``, synced, and say what it was. Raises ``OSError``.

    It belongs to ``owner``, or else to whom the process runs as.
    """
    target = root / path
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    size, total = 0, sha256()
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(reading, "rb") as old, target.open("xb") as new:
        target.chmod(0o640)
        while chunk := old.read(CHUNK):
            size += len(chunk)
            total.update(chunk)
            new.write(chunk)
        new.flush()
        if owner is not None:
            os.fchown(new.fileno(), *owner)
        os.fsync(new.fileno())
    return File(path, size, total.hexdigest())


def sync_tree(root: Path) -> None:
    """Put the names of all files on disk."""
    for directory, _, _ in os.walk(root, topdown=False):
        sync_directory(Path(directory))
