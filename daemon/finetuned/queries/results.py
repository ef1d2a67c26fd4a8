"""What can be read of one job beside its state: its curves, its checkpoints, and the files of its artifacts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from finetuned.domain.job import Job
from finetuned.looking import Check, few
from finetuned.results import artifacts, checkpoints
from finetuned.results.archive import Layout, Piece
from finetuned.results.artifacts import Contents
from finetuned.results.checkpoints import Looked
from finetuned.results.curves import CurveReader, Found
from finetuned.store import Log
from finetuned_sdk.manifest import Entry


class Reading:
    """Reads of jobs whose files are below ``jobs_dir``."""

    def __init__(self, log: Log, jobs_dir: Path) -> None:
        self._jobs_dir = jobs_dir
        self._curves = CurveReader(log)
        self._threads = few()  # that read checkpoints through

    async def curves(
        self, job: Job, *, points: int, names: Collection[str] | None, each_attempt: bool, until: int | None
    ) -> Found:
        """The curves of a job up to a position, each of about ``points`` points."""
        return await self._curves.read(
            job, points=points, names=names, each_attempt=each_attempt, until=until
        )

    async def checkpoints(self, job: Job, *, verify: bool, check: Check) -> list[Looked]:
        """A job's checkpoints as their files are now; with ``verify`` read through. Raises what ``check`` raises."""
        return await anyio.to_thread.run_sync(
            lambda: checkpoints.look(job, verify=verify, check=check),
            limiter=self._threads if verify else None,  # a plain list waits for nobody who reads gigabytes
        )

    async def artifact(self, job: Job, name: str, attempt: int | None) -> tuple[dict[str, Any], Contents]:
        """An artifact and its files. Raises ``NotFoundError``, or ``Rejected`` if it is not as it was published."""
        found = artifacts.find(job, name, attempt)
        location = artifacts.locate(self._jobs_dir, job.id, found)
        return found, await anyio.to_thread.run_sync(artifacts.contents, location, name)

    async def looked_at(self, contents: Contents, entries: Sequence[Entry]) -> Contents:
        """An artifact with what these files of it are now. Raises ``Rejected`` if one is not as it was published."""
        return await anyio.to_thread.run_sync(artifacts.look, contents, entries)

    async def file(self, contents: Contents, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        """Blocks of a file, to be taken in a thread. Raises ``Rejected`` if it is not as it was published."""
        await anyio.to_thread.run_sync(artifacts.check, contents, [entry])
        return artifacts.read_file(contents, entry, start, stop)

    async def layout(self, contents: Contents) -> Layout:
        """The archive of an artifact."""
        return await anyio.to_thread.run_sync(contents.layout)

    async def archive(self, contents: Contents, layout: Layout, start: int, stop: int) -> Iterator[bytes]:
        """Blocks of an archive, to be taken in a thread. Raises ``Rejected`` if a file of them has changed."""

        def check() -> None:
            members = {piece.member for piece in layout.pieces(start, stop) if isinstance(piece, Piece)}
            artifacts.check(contents, [contents.files[member] for member in sorted(members)])

        await anyio.to_thread.run_sync(check)
        return artifacts.read_archive(contents, layout, start, stop)
