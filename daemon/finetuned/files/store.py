"""The content of files that were sent: ``STATE/files/<id>/data.<suffix>``, each file its own.

A file is complete and synced before any event names it. What is on its way lies in ``incoming/``, the parts of uploads
in ``uploads/<id>/``; both are swept at the daemon's start.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import anyio

from finetuned.datasets import file as datasets_file
from finetuned.domain import files
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.storage.intake import DIRECTORY_MODE, Intake, Limits, Received, free_bytes
from finetuned_sdk.bundle import sync_directory

#: readers tell by it how a file is written; a file without one of them is what its purpose says
SUFFIXES: Final = frozenset({".jsonl", ".json", ".csv", ".parquet", ".txt", ".png", ".jpg", ".jpeg", ".pdf"})
ROWS: Final = frozenset({"fine-tune", "batch", "evals"})  # purposes whose files are JSON lines
INCOMING: Final = "incoming"
PARTS: Final = "uploads"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file's bytes are."""

    sha256: str
    bytes: int
    md5: str | None = None  # where it was asked for


class Digest:
    """Hashes blocks in order; with ``md5`` by that too."""

    def __init__(self, *, md5: bool = False) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None

    def feed(self, block: bytes) -> None:
        """Hash the next block."""
        self.size += len(block)
        self._sha256.update(block)
        if self._md5 is not None:
            self._md5.update(block)

    def finish(self) -> Content:
        """What it all was. Raises ``InvalidRequestError`` for nothing."""
        if not self.size:
            raise InvalidRequestError(
                "The file is empty; send one that is not.", param="file", code="file_empty"
            )
        md5 = None if self._md5 is None else self._md5.hexdigest()
        return Content(self._sha256.hexdigest(), self.size, md5)


class FileStore:
    """Takes content in, and removes it.

    Hold :attr:`changing` from :meth:`place` until the event is on disk, and while unused content is looked for.
    """

    def __init__(self, directory: Path, limits: Limits, *, free: Callable[[Path], int] = free_bytes) -> None:
        self.directory = directory
        self.limits = limits
        self.changing = anyio.Lock()
        self.intake = Intake(directory / INCOMING, limits, free=free)

    def prepare(self) -> None:
        """Make the directories, and sweep what an earlier daemon left half-received. Blocks."""
        self.intake.prepare()
        with suppress(FileNotFoundError):
            shutil.rmtree(self.directory / PARTS)
        (self.directory / PARTS).mkdir(mode=DIRECTORY_MODE)

    def place(self, received: Received[Content], file_id: str, *, filename: str, purpose: str) -> Path:
        """Move a received file to where the file of that id lies. Blocks."""
        home = self.directory / file_id
        home.mkdir(mode=DIRECTORY_MODE)
        target = home / f"data{suffix_of(filename, purpose)}"
        try:
            received.file.rename(target)
            sync_directory(home)
            sync_directory(self.directory)
        except OSError:
            shutil.rmtree(home, ignore_errors=True)  # so that the same id can be tried again
            raise
        return target

    def remove(self, file_id: str) -> bool:
        """Remove a file's content; whether it was there. Blocks."""
        try:
            shutil.rmtree(self.directory / file_id)
        except FileNotFoundError:
            return False
        return True

    def listed(self) -> list[str]:
        """The ids of all files whose content is there. Blocks."""
        return sorted(each.name for each in self.directory.iterdir() if files.is_id(each.name))

    def parts(self, upload_id: str) -> Path:
        """Where the parts of an upload lie."""
        return self.directory / PARTS / upload_id


def suffix_of(filename: str, purpose: str) -> str:
    """How the content of a file is to be called, so that readers know how it is written."""
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    return ".jsonl" if purpose in ROWS else ""


def check(path: Path, size: int) -> None:
    """Raise ``Rejected`` if a file's content is not there as it was taken in. Blocks."""
    try:
        datasets_file.check(path, size, (path.parent,))
    except Rejected as error:
        raise files.unreadable(error) from None


def read(path: Path, size: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from ``start`` to before ``stop``, in blocks. Raises ``Rejected``. Blocks."""
    try:
        yield from datasets_file.read(path, size, start, stop, (path.parent,))
    except Rejected as error:
        raise files.unreadable(error) from None
