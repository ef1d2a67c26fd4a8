"""Takes files in from a network: streamed to disk in constant memory, whole and synced before anybody gets them.

What is on its way lies in a directory of its own, which is swept at the daemon's start.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.to_thread

from finetuned.domain.errors import (
    InvalidRequestError,
    StorageFullError,
    TooLargeError,
    TooManyUploadsError,
    UploadStalledError,
)
from finetuned_sdk.bundle import sync_directory

log = logging.getLogger(__name__)

BATCH = 1 << 20  # bytes that are gathered before a thread writes and looks at them
MOST_UPLOADS = 32  # at a time; each may hold two batches in memory
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DIRECTORY_MODE = 0o750
FILE_MODE = 0o440  # what was taken in never changes

Content_co = TypeVar("Content_co", covariant=True)


class Inspecting(Protocol[Content_co]):
    """Looks at blocks in order as they pass, and says at the end what it all was."""

    @property
    def size(self) -> int:
        """How many bytes there were so far."""

    def feed(self, block: bytes) -> None:
        """Look at the next block. Raises ``InvalidRequestError`` for what is not taken."""

    def finish(self) -> Content_co:
        """What it all was. Raises ``InvalidRequestError``."""


@dataclass(frozen=True, slots=True)
class Received(Generic[Content_co]):
    """A file on its way, whole and synced."""

    file: Path
    content: Content_co


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``stall_s``: seconds without a byte after which an upload is cut; the others are bytes."""

    max_bytes: int
    min_free_bytes: int
    stall_s: float


def free_bytes(directory: Path) -> int:
    """How much room there is where ``directory`` lies, in bytes."""
    return shutil.disk_usage(directory).free


class Intake:
    """Takes files in. ``instead`` ends its refusals: what else the caller could do."""

    def __init__(
        self, directory: Path, limits: Limits, *, free: Callable[[Path], int] = free_bytes, instead: str = ""
    ) -> None:
        self.limits = limits
        self._directory = directory
        self._receiving = 0
        self._free = free
        self._instead = instead

    def prepare(self) -> None:
        """Make the directory, and sweep what an earlier daemon left half-received. Blocks."""
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        sync_directory(self._directory.parent.parent)
        for left in self._directory.iterdir():
            with suppress(OSError):
                left.unlink()

    @asynccontextmanager
    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        inspection: Inspecting[Content_co],
        *,
        announced: int | None = None,
        foreseen: int = 0,
        max_bytes: int | None = None,
    ) -> AsyncIterator[Received[Content_co]]:
        """A file of the chunks for the block; what nobody has moved elsewhere by its end is removed.

        ``announced`` is how many bytes there must be, ``foreseen`` how many there will be about, ``max_bytes`` how
        many there may be if that is less than the limit. Raises
        ``InvalidRequestError``, ``TooLargeError``, ``StorageFullError``, ``UploadStalledError`` or
        ``TooManyUploadsError``, and whatever the chunks raise.
        """
        foreseen = foreseen if announced is None else announced
        self.check_size(foreseen, max_bytes)
        if self._receiving >= MOST_UPLOADS:
            raise TooManyUploadsError(
                f"{MOST_UPLOADS} uploads are on their way in, and no more are taken at a time; send the file again"
                f" when one has ended{self._instead}."
            )
        self._receiving += 1
        try:
            async with self._received(chunks, inspection, announced, foreseen, max_bytes) as received:
                yield received
        finally:
            self._receiving -= 1

    @asynccontextmanager
    async def _received(
        self,
        chunks: AsyncIterator[bytes],
        inspection: Inspecting[Content_co],
        announced: int | None,
        foreseen: int,
        max_bytes: int | None,
    ) -> AsyncIterator[Received[Content_co]]:
        await anyio.to_thread.run_sync(self.check_room, foreseen)
        file = self._directory / f"{os.urandom(12).hex()}.part"
        try:
            yield Received(file, await self._write(file, chunks, inspection, announced, max_bytes))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, file)

    async def _write(
        self,
        file: Path,
        chunks: AsyncIterator[bytes],
        inspection: Inspecting[Content_co],
        announced: int | None,
        max_bytes: int | None,
    ) -> Content_co:
        output = await anyio.to_thread.run_sync(_create, file)
        try:
            while batch := await self._batch(chunks):
                self.check_size(inspection.size + len(batch), max_bytes)
                await anyio.to_thread.run_sync(self._write_batch, output, inspection, batch)
            if announced is not None and inspection.size != announced:
                raise InvalidRequestError(
                    f"{inspection.size} bytes came and {announced} were announced; send the file again.",
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
            raise stalled(self.limits.stall_s) from None

    def _write_batch(self, output: FileIO, inspection: Inspecting[Content_co], batch: bytes) -> None:
        self.check_room(len(batch))
        with self._room_reported():
            left = memoryview(batch)
            while left:
                left = left[output.write(left) :]
        inspection.feed(batch)

    def _finish(self, output: FileIO, inspection: Inspecting[Content_co]) -> Content_co:
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

    def check_size(self, size: int, max_bytes: int | None = None) -> None:
        """Raise ``TooLargeError`` for more bytes than are taken."""
        if max_bytes is not None and size > max_bytes:
            raise TooLargeError(f"A part is larger than {max_bytes} bytes; send smaller ones.")
        if size > self.limits.max_bytes:
            raise TooLargeError(
                f"The file is larger than {self.limits.max_bytes} bytes; raise max_upload_bytes in the"
                f" configuration{self._instead}."
            )

    def check_room(self, size: int) -> None:
        """Raise ``StorageFullError`` if so many bytes have no room. Blocks."""
        free = self._free(self._directory)
        if free - size < self.limits.min_free_bytes:
            raise self._full(f"{free / 1e9:.2f} GB are free")

    def _full(self, why: str) -> StorageFullError:
        return StorageFullError(
            f"There is no room for the file under {self._directory.parent} ({why}, and min_free_disk_bytes keeps"
            f" {self.limits.min_free_bytes / 1e9:.2f} GB); free some space{self._instead}."
        )


def stalled(stall_s: float) -> UploadStalledError:
    """The refusal of a body of which nothing came for so long."""
    return UploadStalledError(
        f"No byte came for {stall_s:g} s, nothing was kept; send the file again"
        " (upload_stall_s in the configuration is how long the daemon waits)."
    )


def _create(file: Path) -> FileIO:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    return FileIO(descriptor, "wb")


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s could not be removed; the next start will try again: %s", file, error)
