"""Jobs as fine-tuning jobs: those of the kinds that OpenAI's methods are, by their ids there, and their events backwards."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import orjson

from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.job import Job
from finetuned.openai import fine_tuning_ids
from finetuned.openai.hyperparameters import KINDS
from finetuned.store import Log, job_from, queries
from finetuned_events import Event

Json = Any


@dataclass(frozen=True, slots=True)
class FineTuningQueries:
    """``find`` gives a job by its own id, or raises ``NotFoundError``."""

    log: Log
    find: Callable[[str], Awaitable[Job]]

    async def job(self, fine_tuning_id: str) -> Job:
        """One fine-tuning job. Raises ``NotFoundError``."""
        job_id = fine_tuning_ids.job_of(fine_tuning_id)
        if job_id is not None:
            try:
                found = await self.find(job_id)
            except NotFoundError:
                pass
            else:
                if found.kind in KINDS:
                    return found
        raise NotFoundError(
            f"There is no fine-tuning job {fine_tuning_id[:80]!r}; GET /v1/fine_tuning/jobs lists them.",
            param="fine_tuning_job_id",
        )

    async def jobs(
        self, *, after: str | None, limit: int, metadata: Mapping[str, str]
    ) -> tuple[list[Job], bool]:
        """A page of fine-tuning jobs with all of the ``metadata``, newest first, and whether there are more."""
        before = sys.maxsize if after is None else await self._place(after)
        parameters = (before, orjson.dumps(KINDS), orjson.dumps(metadata), limit + 1)
        rows = await self.log.fetch(queries()["select_jobs_of_kinds"], parameters)

        def decoded() -> list[Job]:
            return [job_from(row[0]) for row in rows[:limit]]

        return await anyio.to_thread.run_sync(decoded), len(rows) > limit

    async def events(
        self, job: Job, *, types: Collection[str], after: str | None, limit: int
    ) -> tuple[list[Event], bool]:
        """A page of a job's events of some types, newest first, and whether there are more."""
        before = None if after is None else fine_tuning_ids.position_of(after)
        if after is not None and before is None:
            raise InvalidRequestError(
                f"after: there is no event {after[:80]!r}; give the last id of the page before.",
                param="after",
            )
        found = await self.log.read(
            before=before, limit=limit + 1, stream=f"job/{job.id}", types=types, descending=True
        )
        return found[:limit], len(found) > limit

    def checkpoints(
        self, job: Job, *, after: str | None, limit: int
    ) -> tuple[list[Mapping[str, Json]], bool]:
        """A page of a job's checkpoints that are kept, newest first, and whether there are more.

        The one that ``after`` names may have been removed since. Raises ``InvalidRequestError``.
        """
        found: list[Mapping[str, Json]] = sorted(job.checkpoints, key=_saved, reverse=True)
        if after is not None:
            place = fine_tuning_ids.place_of(after, job.id)
            if place is None:
                raise InvalidRequestError(
                    f"after: {job.id} has no checkpoint {after[:80]!r}; give the last id of the page before.",
                    param="after",
                )
            found = [each for each in found if _saved(each) < place]
        return found[:limit], len(found) > limit

    async def _place(self, after: str) -> int:
        """The place among jobs of one that may have been deleted between two pages."""
        rows = await self.log.fetch(queries()["select_job"], (fine_tuning_ids.job_of(after),))
        last = job_from(rows[0][0]) if rows else None
        if last is None or last.kind not in KINDS:
            raise InvalidRequestError(
                f"after: there is no fine-tuning job {after[:80]!r}; give the last id of the page before.",
                param="after",
            )
        return last.seq


def _saved(checkpoint: Mapping[str, Json]) -> tuple[int, int]:
    """The place of a checkpoint among those of its job: attempt and step."""
    return checkpoint["attempt"], checkpoint["step"]
