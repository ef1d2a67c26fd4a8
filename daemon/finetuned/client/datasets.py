"""Calls about datasets."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
from aiohttp import hdrs

from finetuned.client.calls import PAGE, Calls, given, parameters, part
from finetuned.client.download import BLOCK, OnBytes, announced, download
from finetuned.wire import Dataset, DatasetAudit, DatasetPreview, Job, Page

Json = Any


class DatasetCalls(Calls):
    """Upload, register, look into, audit, remove."""

    async def datasets(self, *, after: str | None = None, limit: int = 50) -> Page[Dataset]:
        """A page of datasets, by name."""
        page: Page[Dataset] = await self._get("/v1/datasets", after=after, limit=limit)
        return page

    async def all_datasets(self) -> AsyncGenerator[Dataset, None]:
        """Every dataset, by name."""
        after: str | None = None
        while True:
            page = await self.datasets(after=after, limit=PAGE)
            for dataset in page["data"]:
                yield dataset
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def dataset(self, name: str) -> Dataset:
        """One dataset with its versions."""
        dataset: Dataset = await self._get(_path(name))
        return dataset

    async def upload_dataset(
        self,
        name: str,
        file: Path,
        *,
        format: str | None = None,  # noqa: A002 - the API's name
        sha256: str | None = None,
        on_bytes: OnBytes = lambda _count: None,
    ) -> Dataset:
        """Send a file as the newest version of a dataset, a block at a time.

        ``sha256`` is the file's, in hexadecimal: what arrives otherwise is refused. ``on_bytes`` is told of each
        block's bytes. Raises ``OSError`` if the file cannot be read.
        """
        size = (await anyio.to_thread.run_sync(file.stat)).st_size
        dataset: Dataset = await self._transport.request(
            "POST",
            "/v1/datasets",
            query=parameters(name=name, format=format, sha256=sha256),
            content=_blocks(file, on_bytes),
            headers={hdrs.CONTENT_TYPE: "application/octet-stream", hdrs.CONTENT_LENGTH: str(size)},
            timeout=None,
            once=True,
        )
        return dataset

    async def register_dataset(
        self,
        name: str,
        path: str,
        *,
        format: str | None = None,  # noqa: A002 - the API's name
        sha256: str | None = None,
    ) -> Dataset:
        """Name a file on the daemon's machine, which stays where it is, as the newest version of a dataset."""
        body = given(name=name, path=path, format=format, sha256=sha256)
        dataset: Dataset = await self._transport.request(
            "POST", "/v1/datasets/register", body=body, timeout=None, once=True
        )
        return dataset

    async def preview_dataset(
        self, name: str, *, version: str | None = None, rows: int | None = None, after: str | None = None
    ) -> DatasetPreview:
        """Some rows of a dataset."""
        found: DatasetPreview = await self._get(
            f"{_path(name)}/preview", version=version, rows=rows, after=after
        )
        return found

    async def dataset_audits(self, name: str, *, version: str | None = None) -> list[DatasetAudit]:
        """What jobs found in a dataset's content, the newest first."""
        return await self._listed(f"{_path(name)}/audits", version=version)

    async def audit_dataset(
        self,
        name: str,
        *,
        model: str,
        version: str | None = None,
        params: Mapping[str, Json] | None = None,
        kind: str | None = None,
    ) -> Job:
        """Submit a job that reads a dataset through as a training with ``model`` would."""
        job: Job = await self._post(
            f"{_path(name)}/audit", given(model=model, version=version, params=params, kind=kind)
        )
        return job

    async def download_dataset(
        self,
        name: str,
        destination: Path,
        *,
        version: str | None = None,
        on_bytes: OnBytes = lambda _count: None,
    ) -> bool:
        """Bring a dataset's file here, resumed where it broke off; whether anything had to be brought.

        Its SHA-256 is compared before the file gets its name.
        """
        found = await self.dataset(name)
        wanted = version or found["version"]
        full = next((each for each in found["versions"] if each["version"].startswith(wanted)), None)
        path, query = f"{_path(name)}/content", parameters(version=full["version"] if full else wanted)
        return await download(
            self._transport,
            path,
            query=query,
            content=await announced(
                self._transport,
                path,
                query,
                holds=lambda file: full is None or sha256(file) == full["version"],
            ),
            destination=destination,
            on_bytes=on_bytes,
        )

    async def delete_dataset(self, name: str, *, version: str | None = None) -> None:
        """Free a dataset's name, or one version of it."""
        await self._transport.request("DELETE", _path(name), query=parameters(version=version))


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _blocks(file: Path, on_bytes: OnBytes) -> Callable[[], AsyncIterator[bytes]]:
    """The file's blocks, from the first again each time it is called."""
    sent = 0

    async def read() -> AsyncIterator[bytes]:
        nonlocal sent
        on_bytes(-sent)  # of an earlier time: it is all sent again
        sent = 0
        with await anyio.to_thread.run_sync(file.open, "rb") as opened:
            while block := await anyio.to_thread.run_sync(opened.read, BLOCK):
                sent += len(block)
                on_bytes(len(block))
                yield block

    return read


def _path(name: str) -> str:
    return f"/v1/datasets/{part(name)}"
