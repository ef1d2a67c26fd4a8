"""The content of uploaded datasets: ``STATE/datasets/<sha256>/data.<format>``, each content once.

A file is complete and synced before any event names it. What is on its way lies in ``incoming/``, which is swept
at the daemon's start.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import anyio
import anyio.to_thread

from finetuned.datasets.content import Format, Inspected, Inspection
from finetuned.domain.errors import (
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    TooManyUploadsError,
    UploadStalledError,
)
from finetuned_sdk.bundle import sync_directory

log = logging.getLogger(__name__)

BATCH = 1 << 20  # bytes that are gathered before a thread writes and hashes them
MOST_UPLOADS = 32  # at a time; each may hold two batches in memory
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DIRECTORY_MODE = 0o750
FILE_MODE = 0o440  # a version never changes


def free_bytes(directory: Path) -> int:
    """How much room there is where ``directory`` lies, in bytes."""
    return shutil.disk_usage(directory).free


@dataclass(frozen=True, slots=True)
class Received:
    """A file in ``incoming/``, whole and synced."""

    file: Path
    content: Inspected


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``stall_s``: seconds without a byte after which an upload is cut; the others are bytes."""

    max_bytes: int
    min_free_bytes: int
    stall_s: float


class DatasetStore:
    """Takes content in, and removes it.

    Hold :attr:`changing` from :meth:`place` until the event is on disk, and while unused content is looked for:
    content without a name is removed only when nobody is about to name it.
    """

    def __init__(self, directory: Path, limits: Limits, *, free: Callable[[Path], int] = free_bytes) -> None:
        self.directory = directory
        self.limits = limits
        self.changing = anyio.Lock()
        self._incoming = directory / "incoming"
        self._receiving = 0
        self._free = free

    def prepare(self) -> None:
        """Make the directories, and sweep what an earlier daemon left half-received. Blocks."""
        self._incoming.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        sync_directory(self.directory.parent)
        for left in self._incoming.iterdir():
            with suppress(OSError):
                left.unlink()

    @asynccontextmanager
    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        declared: Format | None = None,
        announced: int | None = None,
    ) -> AsyncIterator[Received]:
        """A file of the chunks for the block; what :meth:`place` has not taken by its end is removed.

        Raises ``InvalidRequestError``, ``TooLargeError``, ``StorageFullError``, ``UploadStalledError`` or
        ``TooManyUploadsError``, and whatever the chunks raise.
        """
        self._check_size(announced or 0)
        if self._receiving >= MOST_UPLOADS:
            raise TooManyUploadsError(
                f"{MOST_UPLOADS} uploads are on their way in, and no more are taken at a time; send the file again"
                " when one has ended, or register it where it lies."
            )
        self._receiving += 1
        try:
            async with self._received(chunks, declared, announced) as received:
                yield received
        finally:
            self._receiving -= 1

    @asynccontextmanager
    async def _received(
        self, chunks: AsyncIterator[bytes], declared: Format | None, announced: int | None
    ) -> AsyncIterator[Received]:
        await anyio.to_thread.run_sync(self._check_room, announced or 0)
        file = self._incoming / f"{os.urandom(12).hex()}.part"
        try:
            yield Received(file, await self._write(file, chunks, Inspection(declared), announced))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, file)

    def place(self, received: Received) -> Path:
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

    async def _write(
        self, file: Path, chunks: AsyncIterator[bytes], inspection: Inspection, announced: int | None
    ) -> Inspected:
        output = await anyio.to_thread.run_sync(_create, file)
        try:
            while batch := await self._batch(chunks):
                self._check_size(inspection.size + len(batch))
                await anyio.to_thread.run_sync(self._write_batch, output, inspection, batch)
            if announced is not None and inspection.size != announced:
                raise InvalidRequestError(
                    f"{inspection.size} bytes came and Content-Length said {announced}; send the file again.",
                    code="upload_incomplete",
                )
            return await anyio.to_thread.run_sync(self._finish, output, inspection)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(output.close)

    async def _batch(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next mebibyte or so; empty at the end."""
        gathered: list[bytes] = []
        size = 0
        while size < BATCH and (chunk := await self._next(chunks)) is not None:
            gathered.append(chunk)
            size += len(chunk)
        return b"".join(gathered)

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        try:
            with anyio.fail_after(self.limits.stall_s):
                return await anext(chunks, None)
        except TimeoutError:
            raise UploadStalledError(
                f"No byte came for {self.limits.stall_s:g} s, nothing was kept; send the file again"
                " (upload_stall_s in the configuration is how long the daemon waits)."
            ) from None

    def _write_batch(self, output: FileIO, inspection: Inspection, batch: bytes) -> None:
        self._check_room(len(batch))
        with self._room_reported():
            left = memoryview(batch)
            while left:
                left = left[output.write(left) :]
        inspection.feed(batch)

    def _finish(self, output: FileIO, inspection: Inspection) -> Inspected:
        found = inspection.finish()
        with self._room_reported():
            os.fsync(output.fileno())
        return found

    @contextmanager
    def _room_reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._full(os.strerror(error.errno)) from None

    def _check_size(self, size: int) -> None:
        if size > self.limits.max_bytes:
            raise TooLargeError(
                f"The file is larger than {self.limits.max_bytes} bytes; raise max_upload_bytes in the"
                " configuration, or put the file on the server and register its path."
            )

    def _check_room(self, size: int) -> None:
        free = self._free(self.directory)
        if free - size < self.limits.min_free_bytes:
            raise self._full(f"{free / 1e9:.2f} GB are free")

    def _full(self, why: str) -> StorageFullError:
        return StorageFullError(
            f"There is no room for the file under {self.directory} ({why}, and min_free_disk_bytes keeps"
            f" {self.limits.min_free_bytes / 1e9:.2f} GB); free some space, or register a file where it lies."
        )


def _create(file: Path) -> FileIO:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    return FileIO(descriptor, "wb")


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s could not be removed; the next start will try again: %s", file, error)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
