"""Calls about what a job reports and leaves: curves, checkpoints, artifacts and their files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from pathlib import Path

from finetuned.client.calls import PAGE, Calls, job_path, parameters, part
from finetuned.client.download import OnBytes, announced, download, file_content, is_archive
from finetuned.wire import Artifact, ArtifactContents, ArtifactFile, CheckedCheckpoint, Metrics


class ResultCalls(Calls):
    """Curves, checkpoints, artifacts."""

    async def metrics(
        self,
        job_id: str,
        *,
        names: Collection[str] = (),
        points: int | None = None,
        attempts: str | None = None,
        at: int | str | None = None,
    ) -> Metrics:
        """A job's curves, each thinned out to about ``points`` points without hiding a spike.

        ``attempts="all"`` gives a curve for each attempt; ``at`` is a position of the log or an RFC 3339 time.
        """
        found: Metrics = await self._get(
            f"{job_path(job_id)}/metrics",
            names=",".join(names) or None,
            points=points,
            attempts=attempts,
            at=at,
        )
        return found

    async def checkpoints(self, job_id: str, *, verify: bool = False) -> list[CheckedCheckpoint]:
        """The checkpoints of a job that are kept, oldest first; with ``verify`` they are read through, as long as that takes."""
        path = f"{job_path(job_id)}/checkpoints"
        return await (self._listed(path, verify="true", timeout=None) if verify else self._listed(path))

    async def artifacts(self, job_id: str) -> list[Artifact]:
        """The artifacts of a job."""
        return await self._listed(f"{job_path(job_id)}/artifacts")

    async def artifact(
        self,
        job_id: str,
        name: str,
        *,
        attempt: int | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> ArtifactContents:
        """An artifact with a page of its files."""
        found: ArtifactContents = await self._get(
            _artifact_path(job_id, name), attempt=attempt, after=after, limit=limit
        )
        return found

    async def artifact_files(
        self, job_id: str, name: str, *, attempt: int | None = None
    ) -> AsyncGenerator[ArtifactFile, None]:
        """Every file of an artifact."""
        after: str | None = None
        while True:
            page = await self.artifact(job_id, name, attempt=attempt, after=after)
            for file in page["files"]:
                yield file
            if not page["has_more"]:
                return
            after = page["next_after"]

    async def download_file(
        self,
        job_id: str,
        name: str,
        file: ArtifactFile,
        destination: Path,
        *,
        attempt: int | None = None,
        on_bytes: OnBytes = lambda _count: None,
    ) -> bool:
        """Bring a file of an artifact here, resumed where it broke off; whether anything had to be brought.

        Its CRC-32 is compared before the file gets its name. ``on_bytes`` is told of each block's bytes.
        """
        return await download(
            self._transport,
            f"{_artifact_path(job_id, name)}/files/{part(file['path'])}",
            query=parameters(attempt=attempt),
            content=file_content(file["bytes"], file["crc32"]),
            destination=destination,
            on_bytes=on_bytes,
        )

    async def download_archive(
        self,
        job_id: str,
        name: str,
        destination: Path,
        *,
        attempt: int | None = None,
        on_bytes: OnBytes = lambda _count: None,
    ) -> bool:
        """Bring an artifact here as one zip archive; as :meth:`download_file`."""
        path = f"{_artifact_path(job_id, name)}/archive"
        query = parameters(attempt=attempt)
        return await download(
            self._transport,
            path,
            query=query,
            content=await announced(self._transport, path, query, holds=is_archive),
            destination=destination,
            on_bytes=on_bytes,
        )


def _artifact_path(job_id: str, name: str) -> str:
    return f"{job_path(job_id)}/artifacts/{part(name)}"
