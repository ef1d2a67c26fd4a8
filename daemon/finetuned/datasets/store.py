"""The content of uploaded datasets: ``STATE/datasets/<sha256>/data.<format>``, each content once.

A file is complete and synced before any event names it. What is on its way lies in ``incoming/``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import anyio

from finetuned.datasets.content import Format, Inspected, Inspection
from finetuned.storage.intake import DIRECTORY_MODE, Intake, Limits, Received, free_bytes
from finetuned_sdk.bundle import sync_directory

INSTEAD = ", or put it on the server and register it where it lies"


class DatasetStore:
    """Takes content in, and removes it.

    Hold :attr:`changing` from :meth:`place` until the event is on disk, and while unused content is looked for:
    content without a name is removed only when nobody is about to name it.
    """

    def __init__(self, directory: Path, limits: Limits, *, free: Callable[[Path], int] = free_bytes) -> None:
        self.directory = directory
        self.limits = limits
        self.changing = anyio.Lock()
        self._intake = Intake(directory / "incoming", limits, free=free, instead=INSTEAD)

    def prepare(self) -> None:
        """Make the directories, and sweep what an earlier daemon left half-received. Blocks."""
        self._intake.prepare()

    def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        declared: Format | None = None,
        announced: int | None = None,
    ) -> AbstractAsyncContextManager[Received[Inspected]]:
        """A file of the chunks for the block; what :meth:`place` has not taken by its end is removed.

        Raises ``InvalidRequestError``, ``TooLargeError``, ``StorageFullError``, ``UploadStalledError`` or
        ``TooManyUploadsError``, and whatever the chunks raise.
        """
        return self._intake.receive(chunks, Inspection(declared), announced=announced)

    def place(self, received: Received[Inspected]) -> Path:
        """Move a received file to where its content belongs, unless it is there already. Blocks."""
        content = received.content
        home = self.directory / content.sha256
        target = home / f"data.{content.format}"
        if not target.is_file() or target.stat().st_size != content.bytes:
            home.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            received.file.rename(target)
        # Also of a file that was there: who moved it may have been killed before its names were on disk.
        sync_directory(home)
        sync_directory(self.directory)
        return target

    def remove_unused(self, version: str, in_use: Collection[str]) -> list[Path]:
        """Remove what lies there of a version and is not ``in_use`` (paths); what was removed. Blocks."""
        home = self.directory / version
        removed = [file for file in _listed(home) if str(file) not in in_use]
        for file in removed:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            home.rmdir()
        return removed

    def holds(self, path: str) -> bool:
        """Whether a path is one of this store's."""
        return Path(path).is_relative_to(self.directory)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
