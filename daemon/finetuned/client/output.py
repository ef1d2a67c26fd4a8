"""Calls about what a job's processes printed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import anyio

from finetuned.client.calls import PAGE, Calls, job_path, parameters
from finetuned.client.errors import UnreachableError, wait_s
from finetuned.client.transport import FIRST_PAUSE, LONGEST_PAUSE, LOST, PATIENCE, OnConnection
from finetuned.domain.errors import FinetunedError
from finetuned.domain.states import TERMINAL, JobState
from finetuned.wire import Job, LogCounts, LogLine, Page

POSITION: Final = "Output-Position"


class OutputCalls(Calls):
    """Read, follow, search, count."""

    async def logs(
        self,
        job_id: str,
        *,
        tail: int | None = None,
        follow: bool = False,
        attempt: int | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """What the job's processes printed: its last ``tail`` lines, from a position ``after``, or all.

        With ``follow`` until the job ends. Raises ``UnreachableError`` if the connection is lost on the way;
        :meth:`follow_logs` goes on where it broke.
        """
        query = parameters(tail=tail, follow="true" if follow else None, attempt=attempt, after=after)
        path = f"{job_path(job_id)}/logs"
        async with self._transport.stream(path, query=query, headers={}, silence=None) as content:
            try:
                async for chunk in content.iter_any():
                    yield chunk
            except LOST as error:
                raise UnreachableError(f"The connection was lost: {error}. The job goes on.") from error

    async def follow_logs(
        self,
        job_id: str,
        *,
        tail: int | None = None,
        attempt: int | None = None,
        on_connection: OnConnection = lambda _trouble: None,
        on_gap: OnConnection = lambda _place: None,
    ) -> AsyncGenerator[bytes, None]:
        """What the job's processes printed and go on to print, each byte once, until the job (or attempt) has ended.

        A lost connection or a restarted daemon is waited for, and ``on_connection`` told the trouble, then ``None``.
        ``on_gap`` is told where it goes on if output was removed before it was read.
        """
        path = f"{job_path(job_id)}/logs"
        position: tuple[int, int] | None = None
        following, pause = True, FIRST_PAUSE
        while True:
            after = None if position is None else f"{position[0]}:{position[1]}"
            query = parameters(
                tail=tail if after is None else None,
                after=after,
                attempt=attempt,
                follow="true" if following else None,
            )
            trouble, asked = "the stream broke off", 0.0
            try:
                async with self._transport.opened(path, query=query, headers={}, silence=None) as answer:
                    on_connection(None)
                    begin = _position(answer.headers.get(POSITION, "0:0"))
                    if position is not None and begin[0] == position[0] and begin[1] > position[1]:
                        on_gap(f"{begin[0]}:{begin[1]}")
                    position = begin
                    async for chunk in answer.content.iter_any():
                        pause = FIRST_PAUSE
                        position = (position[0], position[1] + len(chunk))
                        yield chunk
                if not following:
                    return
                if await self._is_over(job_id, attempt):
                    following = False  # once more from here: a daemon that stopped may have held some back
                    continue
            except LOST as error:
                trouble = str(error) or trouble
            except FinetunedError as error:
                if position is None or error.status < 500:
                    raise
                trouble, asked = error.message, min(wait_s(error) or 0, PATIENCE)
            on_connection(trouble)
            await anyio.sleep(max(pause, asked))
            pause = min(LONGEST_PAUSE, pause * 2)

    async def search_logs(
        self,
        job_id: str,
        text: str = "",
        *,
        level: str | None = None,
        attempt: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[LogLine]:
        """A page of the lines that contain ``text``, whatever its case, or look like ``level``."""
        page: Page[LogLine] = await self._get(
            f"{job_path(job_id)}/logs/search",
            q=text or None,
            level=level,
            attempt=attempt,
            after=after,
            limit=limit,
        )
        return page

    async def all_log_lines(
        self, job_id: str, text: str = "", *, level: str | None = None, attempt: int | None = None
    ) -> AsyncGenerator[LogLine, None]:
        """Every line that contains ``text`` or looks like ``level``, in order."""
        after: str | None = None
        while True:
            page = await self.search_logs(job_id, text, level=level, attempt=attempt, after=after, limit=PAGE)
            for line in page["data"]:
                yield line
            if not page["has_more"]:
                return
            after = str(page["next_after"])

    async def log_counts(self, job_id: str) -> LogCounts:
        """How many lines, errors and warnings a job printed."""
        counts: LogCounts = await self._get(f"{job_path(job_id)}/logs/counts")
        return counts

    async def _is_over(self, job_id: str, attempt: int | None) -> bool:
        """Whether nothing more can come."""
        job: Job = await self._get(job_path(job_id))
        over = {each["number"] for each in job["attempts"] if each["ended_at"] is not None}
        return JobState(job["state"]) in TERMINAL or attempt in over


def _position(text: str) -> tuple[int, int]:
    attempt, _, offset = text.partition(":")
    return int(attempt), int(offset)
