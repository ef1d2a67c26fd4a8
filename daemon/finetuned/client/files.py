"""Calls about files, as batches and trainings of the OpenAI API read and make them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from aiohttp import hdrs

from finetuned.client.calls import PAGE, Calls, part
from finetuned.client.datasets import sha256
from finetuned.client.download import BLOCK, OnBytes, announced, download
from finetuned.wire import File, Page

Json = Any

HASH_DIGITS: Final = 64


class FileCalls(Calls):
    """Upload, list, download, delete."""

    async def files(
        self, *, purpose: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Page[File]:
        """A page of files, the newest first."""
        page: Page[File] = await self._get("/v1/files", purpose=purpose, after=after, limit=limit)
        return page

    async def all_files(self, *, purpose: str | None = None) -> AsyncGenerator[File, None]:
        """Every file, the newest first."""
        after: str | None = None
        while True:
            page = await self.files(purpose=purpose, after=after, limit=PAGE)
            for file in page["data"]:
                yield file
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def file(self, file_id: str) -> File:
        """One file."""
        file: File = await self._get(_path(file_id))
        return file

    async def upload_file(
        self,
        file: Path,
        *,
        purpose: str,
        expires_after_s: int | None = None,
        on_bytes: OnBytes = lambda _count: None,
    ) -> File:
        """Send a file, a block at a time.

        ``expires_after_s``: seconds that it is kept; ``None`` as long as files of its purpose are. ``on_bytes`` is
        told of each block's bytes. Raises ``OSError`` if the file cannot be read.
        """
        size = (await anyio.to_thread.run_sync(file.stat)).st_size
        boundary = os.urandom(16).hex()
        fields = {"purpose": purpose}
        if expires_after_s is not None:
            fields |= {
                "expires_after[anchor]": "created_at",
                "expires_after[seconds]": str(expires_after_s),
            }
        head = "".join(_part(boundary, f'name="{name}"') + f"{value}\r\n" for name, value in fields.items())
        before = (head + _part(boundary, f'name="file"; filename="{_quoted(file.name)}"')).encode()
        after = f"\r\n--{boundary}--\r\n".encode()
        made: File = await self._transport.request(
            "POST",
            "/v1/files",
            content=_form(before, file, after, on_bytes),
            headers={
                hdrs.CONTENT_TYPE: f"multipart/form-data; boundary={boundary}",
                hdrs.CONTENT_LENGTH: str(len(before) + size + len(after)),
            },
            timeout=None,
            once=True,
        )
        return made

    async def download_file_content(
        self, file_id: str, destination: Path, *, on_bytes: OnBytes = lambda _count: None
    ) -> bool:
        """Bring a file here, resumed where it broke off; whether anything had to be brought.

        The SHA-256 of a file that was sent is compared before the file gets its name.
        """
        await self.file(file_id)  # a refusal says why, which that of HEAD could not
        path = f"{_path(file_id)}/content"
        content = await announced(self._transport, path, {}, holds=lambda _file: True)
        digest = (content.tag or "").strip('"')
        if len(digest) == HASH_DIGITS:
            content = replace(content, holds=lambda file: sha256(file) == digest)
        return await download(
            self._transport, path, query={}, content=content, destination=destination, on_bytes=on_bytes
        )

    async def delete_file(self, file_id: str) -> None:
        """Free a file's name; its content goes when no live job reads it."""
        await self._delete(_path(file_id))


def _part(boundary: str, told: str) -> str:
    return f"--{boundary}\r\nContent-Disposition: form-data; {told}\r\n\r\n"


def _quoted(name: str) -> str:
    """A file's name as forms have it (WHATWG, multipart/form-data encoding algorithm)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _form(before: bytes, file: Path, after: bytes, on_bytes: OnBytes) -> Callable[[], AsyncIterator[bytes]]:
    """The form's blocks, from the first again each time it is called."""
    sent = 0

    async def read() -> AsyncIterator[bytes]:
        nonlocal sent
        on_bytes(-sent)  # of an earlier time: it is all sent again
        sent = 0
        yield before
        with await anyio.to_thread.run_sync(file.open, "rb") as opened:
            while block := await anyio.to_thread.run_sync(opened.read, BLOCK):
                sent += len(block)
                on_bytes(len(block))
                yield block
        yield after

    return read


def _path(file_id: str) -> str:
    return f"/v1/files/{part(file_id)}"
