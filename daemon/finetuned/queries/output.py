"""The way in for looks at what jobs printed: part of :mod:`finetuned.queries.door`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from finetuned.domain import dependencies
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.job import Job
from finetuned.looking import Check, always, few
from finetuned.output import search as log_search
from finetuned.output.files import JobOutput, OutputGapError, Position
from finetuned.output.search import COUNTED_BYTES, Count, Cursor, SearchPage, Wanted

POLL_S = 0.25  # how often output that is followed is looked at
KEPT_COUNTS = 256  # attempts whose counts go on where they stood


@dataclass(slots=True)
class OutputQueries:
    """What can be looked at of jobs' output, whose files are below ``jobs_dir``. ``job`` looks one up."""

    jobs_dir: Path
    job: Callable[[str], Awaitable[Job]]
    threads: CapacityLimiter = field(default_factory=few)  # that look through output
    _counts: OrderedDict[tuple[str, int], Count] = field(default_factory=OrderedDict)

    async def read(
        self,
        job_id: str,
        *,
        tail: int | None = None,
        after: Position | None = None,
        follow: bool = False,
        attempt: int | None = None,
    ) -> tuple[Position, AsyncGenerator[bytes]]:
        """What a job's processes printed, of one attempt or of all in order, and the position of its first byte.

        It begins with the last ``tail`` lines, or at a position. ``follow`` goes on until the job (or the attempt) has
        ended; while nothing comes it yields empty bytes now and then. Raises ``NotFoundError`` or
        ``InvalidRequestError``; the generator raises ``OutputGapError`` where
        output that is followed was removed before it was read.
        """
        job = await self._checked(job_id, attempt)
        newest = max((each.number for each in job.attempts), default=0)
        if after is not None and (after[0] > newest or attempt not in {None, after[0]}):
            raise InvalidRequestError(
                f"after: attempt {after[0]} is not among those that are read; give a position of this job's output.",
                param="after",
            )
        output = JobOutput(self.jobs_dir / job_id, attempt)
        if tail is None:
            await anyio.to_thread.run_sync(output.seek, job, after or (0, 0))
        else:
            await anyio.to_thread.run_sync(output.seek_tail, job, tail)
        return output.position, self._blocks(job_id, output, follow=follow)

    async def _blocks(self, job_id: str, output: JobOutput, *, follow: bool) -> AsyncGenerator[bytes]:
        with output, suppress(NotFoundError):  # deleted while it was read
            # Behind what was given out, and not where the reader stands: it may have turned to a file that is empty yet.
            expected = output.position
            while True:
                # Looked at before the files: what was written before the end is then read after it.
                job = await self.job(job_id)
                while block := await anyio.to_thread.run_sync(output.read, job):
                    attempt, offset = output.begin
                    if follow and offset != (expected[1] if attempt == expected[0] else 0):
                        raise OutputGapError
                    expected = output.position
                    yield block
                if not follow or output.is_final(job):
                    return
                yield b""
                await anyio.sleep(POLL_S)

    async def search(
        self, job_id: str, wanted: Wanted, *, after: str | None, limit: int, check: Check = always
    ) -> SearchPage:
        """The next lines that are wanted. Raises ``NotFoundError``, ``InvalidRequestError``, or what ``check`` raises."""
        job = await self._checked(job_id, wanted.attempt)
        cursor = Cursor() if after is None else Cursor.parse(after)
        directory = self.jobs_dir / job_id
        return await anyio.to_thread.run_sync(
            log_search.search, directory, job, wanted, cursor, limit, check, limiter=self.threads
        )

    async def counts(self, job_id: str, *, check: Check = always) -> dict[int, Count]:
        """Lines, errors and warnings of each attempt; what was counted before is not read again.

        It is a bounded look: an attempt that it did not come to the end of (``is_end``) is counted on by the next.
        """
        job = await self.job(job_id)
        found = {each.number: self._count(job_id, each.number) for each in job.attempts}
        left = COUNTED_BYTES
        for attempt in job.attempts:
            count, is_final = found[attempt.number], not attempt.is_live
            directory = self.jobs_dir / job_id / "attempts" / str(attempt.number)
            piece = partial(count.go_on, directory, is_final=is_final)
            async with count.lock:
                count.is_end = count.is_complete
                while left > 0 and not count.is_end:
                    check()
                    left -= await anyio.to_thread.run_sync(piece, limiter=self.threads)
        while len(self._counts) > KEPT_COUNTS:
            self._counts.popitem(last=False)
        return found

    def _count(self, job_id: str, attempt: int) -> Count:
        count = self._counts.setdefault((job_id, attempt), Count())
        self._counts.move_to_end((job_id, attempt))
        return count

    async def _checked(self, job_id: str, attempt: int | None) -> Job:
        job = await self.job(job_id)
        dependencies.require_files(job)
        numbers = [each.number for each in job.attempts]
        if attempt is not None and attempt not in numbers:
            listed = ", ".join(str(number) for number in numbers) or "none yet"
            raise NotFoundError(
                f"Job {job_id} has no attempt {attempt}; its attempts: {listed}.", param="attempt"
            )
        return job
