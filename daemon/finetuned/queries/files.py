"""The way in for who looks at files: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread

from finetuned.board import Board
from finetuned.domain import facts, files
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.files import Known
from finetuned.domain.job import Job
from finetuned.domain.registers import File
from finetuned.files import store
from finetuned.queries.results import Reading
from finetuned.results import artifacts
from finetuned.store import Log, file_from, queries

Order = Literal["asc", "desc"]
Blocks = Callable[[int, int], Awaitable[Iterator[bytes]]]


@dataclass(frozen=True, slots=True)
class Readable:
    """A file's content: ``etag`` is strong, ``blocks`` gives the bytes from a start to a stop."""

    file: File
    etag: str
    blocks: Blocks


@dataclass(frozen=True, slots=True)
class FileQueries:
    """What can be looked at of files. Unknown and expired ones raise ``NotFoundError``. ``now`` is in microseconds."""

    log: Log
    board: Board
    reading: Reading
    job: Callable[[str], Awaitable[Job]]
    now: Callable[[], int]

    async def listed(
        self, *, purpose: str | None, order: Order, after: str | None, limit: int
    ) -> tuple[list[File], bool]:
        """A page of files by the time of their creation, and whether there are more.

        ``after`` is the last page's last id, of a file that may have been deleted since. Raises ``InvalidRequestError``.
        """
        known = await self._known()
        found = [
            each
            for each in known.files.values()
            if (purpose is None or each.purpose == purpose) and not files.has_expired(each, now=known.now)
        ]
        found.sort(key=lambda each: each.seq, reverse=order == "desc")
        if after is not None:
            place = await self._place(after, known)
            found = [each for each in found if (each.seq < place if order == "desc" else each.seq > place)]
        return found[:limit], len(found) > limit

    async def _place(self, file_id: str, known: Known) -> int:
        """The place among files of one that may have been deleted between two pages."""
        if file_id in known.files:
            return known.files[file_id].seq
        created = await self.log.read(
            stream=f"file/{file_id}", types={facts.FileCreated.type}, limit=1, descending=True
        )
        if created:
            return created[0].seq
        if self.log.sealed:
            rows = await self.log.fetch(queries()["select_sealed_entry"], ("files", file_id))
            if rows:
                return file_from(rows[0][0]).seq
        raise InvalidRequestError(
            f"after: there is no file {file_id[:80]!r}; give the last id of the page before, or begin again without it.",
            param="after",
        )

    async def file(self, file_id: str) -> File:
        """One file."""
        return (await self._known()).find(file_id)

    async def content(self, file_id: str) -> Readable:
        """A file's content. Raises ``Rejected`` if it is not as it was taken in or made."""
        file = await self.file(file_id)
        if file.job is not None:
            return await self._made(file, file.job)
        path = Path(file.path)

        async def blocks(start: int, stop: int) -> Iterator[bytes]:
            await anyio.to_thread.run_sync(store.check, path, file.bytes)
            return store.read(path, file.bytes, start, stop)

        return Readable(file, f'"{file.sha256}"', blocks)

    async def _made(self, file: File, job_id: str) -> Readable:
        """The content of a file that a job made: an artifact of it."""
        _, contents = await self.reading.artifact(await self.job(job_id), file.filename, None)
        [entry] = contents.files
        contents = await self.reading.looked_at(contents, [entry])
        etag = f'"{artifacts.tag(contents, [entry])}"'
        return Readable(file, etag, partial(self.reading.file, contents, entry))

    async def _known(self) -> Known:
        return Known((await self.board.world()).files, self.now())
