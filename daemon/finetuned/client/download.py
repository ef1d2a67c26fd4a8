"""Downloads: resumed where they broke off, checked before they get their name, a block at a time in memory."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import anyio.to_thread
from aiohttp import hdrs

from finetuned.client.errors import UnreachableError
from finetuned.client.transport import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LOST,
    PATIENCE,
    SILENCE_TIMEOUT,
    LostError,
    Transport,
)
from finetuned.domain.errors import FinetunedError

BLOCK: Final = 1 << 20  # bytes

OnBytes = Callable[[int], None]


class DownloadError(FinetunedError):
    """What arrived is not what was announced, twice; or the daemon stayed away."""

    code = "download_failed"
    status = 502
    exit_code = 6


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be there in the end: its size, what tells it from other contents, and whether a file holds it.

    ``tag`` is its ETag, where that is known beforehand.
    """

    bytes: int
    mark: str
    holds: Callable[[Path], bool]
    tag: str | None = None


def file_content(size: int, crc: int) -> Content:
    """The content of a file whose CRC-32 is known."""
    return Content(size, f"{crc:08x}", lambda path: crc32(path) == crc)


async def announced(
    transport: Transport, path: str, query: Mapping[str, str], *, holds: Callable[[Path], bool]
) -> Content:
    """What lies at ``path``, by its size and ETag. A later content has another ETag."""
    async with transport.opened(
        path, query=query, headers={}, silence=SILENCE_TIMEOUT, method=hdrs.METH_HEAD
    ) as answer:
        tag = answer.headers[hdrs.ETAG]
        mark = f"{zlib.crc32(tag.encode()):08x}"
        return Content(int(answer.headers[hdrs.CONTENT_LENGTH]), mark, holds, tag)


async def download(
    transport: Transport,
    path: str,
    *,
    query: Mapping[str, str],
    content: Content,
    destination: Path,
    on_bytes: OnBytes,
) -> bool:
    """Bring what lies at ``path`` to ``destination``; whether anything had to be brought.

    The bytes go to a hidden file beside it that a later call goes on with. ``on_bytes`` is told how many more are
    there. Raises the server's refusal, ``DownloadError`` or ``OSError``.
    """
    if await anyio.to_thread.run_sync(_is_there, destination, content):
        on_bytes(content.bytes)
        return False
    part = _part(destination, content)
    await anyio.to_thread.run_sync(lambda: destination.parent.mkdir(parents=True, exist_ok=True))
    for last in (False, True):
        await _complete(transport, path, query, content, part, on_bytes)
        if await anyio.to_thread.run_sync(_holds, part, content):
            await anyio.to_thread.run_sync(_name, part, destination)
            return True
        on_bytes(-content.bytes)
        await anyio.to_thread.run_sync(part.unlink)
        if last:
            break
    raise DownloadError(
        f"{destination.name} arrived damaged twice: its checksum is not the one that the daemon keeps. "
        "Look at the daemon's disk, then try again."
    )


async def _complete(
    transport: Transport,
    path: str,
    query: Mapping[str, str],
    content: Content,
    part: Path,
    on_bytes: OnBytes,
) -> None:
    """Append to ``part`` until it is long enough, over as many connections as that takes."""
    there = await anyio.to_thread.run_sync(_length, part)
    if there > content.bytes:
        await anyio.to_thread.run_sync(part.unlink)
        there = 0
    on_bytes(there)
    pause, patience = FIRST_PAUSE, anyio.current_time() + PATIENCE
    if content.bytes == 0:
        await anyio.to_thread.run_sync(part.touch)
    while there < content.bytes:
        before = there
        try:
            there = await _append(transport, path, query, content, part, there, on_bytes)
        except UnreachableError as error:
            there = await anyio.to_thread.run_sync(_length, part)
            if there > before:
                pause, patience = FIRST_PAUSE, anyio.current_time() + PATIENCE
            elif anyio.current_time() + pause > patience:
                raise DownloadError(
                    f"The connection was lost at byte {there} of {content.bytes} and the daemon stays away. "
                    "Run the same command again: it goes on from there."
                ) from error
            await anyio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


async def _append(
    transport: Transport,
    path: str,
    query: Mapping[str, str],
    content: Content,
    part: Path,
    there: int,
    on_bytes: OnBytes,
) -> int:
    headers: dict[str, str] = {}
    if there:
        headers[hdrs.RANGE] = f"bytes={there}-"
        if content.tag is not None:
            headers[hdrs.IF_RANGE] = content.tag
    async with transport.opened(path, query=query, headers=headers, silence=SILENCE_TIMEOUT) as answer:
        if there and answer.status != 206:  # it is sent whole: what is here is of something else
            on_bytes(-there)
            there = 0
        with await anyio.to_thread.run_sync(lambda: part.open("ab" if there else "wb")) as file:
            while block := await _read(answer.content):
                await anyio.to_thread.run_sync(file.write, block)
                there += len(block)
                on_bytes(len(block))
    return there


async def _read(stream: aiohttp.StreamReader) -> bytes:
    try:
        return await stream.read(BLOCK)
    except LOST as error:
        raise LostError(f"The download broke off: {error}.") from error


def _part(destination: Path, content: Content) -> Path:
    """The hidden file of an unfinished download: another content is another file."""
    return destination.with_name(f".{destination.name}.{content.mark}.part")


def _name(part: Path, destination: Path) -> None:
    """Give what is whole its name, once its bytes are on disk: a power failure leaves no empty model."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(destination)


def _is_there(destination: Path, content: Content) -> bool:
    return destination.is_file() and _holds(destination, content)


def _holds(path: Path, content: Content) -> bool:
    return path.stat().st_size == content.bytes and content.holds(path)


def is_archive(path: Path) -> bool:
    """Whether each member of a zip archive has its sum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def crc32(path: Path) -> int:
    """The CRC-32 of a file."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total = zlib.crc32(block, total)
    return total
