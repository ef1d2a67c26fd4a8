"""Time travel: jobs, devices and models as they were, by folding the log up to a position.

What is only computed when it is read (queue position, ``wait_reason``) is no part of the past.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.to_thread

from finetuned.domain import facts, job
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.registers import Model
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot, World
from finetuned.store import Log
from finetuned_events import Event

PAGE = 2_000  # events that are folded at once

#: Progress is most of a log, and only the newest counts: it is looked up beside the fold.
_FOLDED = frozenset(facts.SCHEMAS) - {facts.JobProgress.type}


@dataclass(slots=True)
class Past:
    """What the log knows of earlier moments. A replay of everything takes a while: one is made at a time."""

    log: Log
    _replaying: anyio.Lock = field(default_factory=anyio.Lock)

    async def job(self, job_id: str, at: int) -> Job:
        """The job as it was after event ``at``. Raises ``NotFoundError`` if it was not there yet."""
        stream, after = f"job/{job_id}", 0
        found: Job | None = None
        while True:
            page = await self.log.read(after=after, before=at + 1, limit=PAGE, stream=stream, types=_FOLDED)
            found = await anyio.to_thread.run_sync(partial(_folded, found, job_id, page))
            if len(page) < PAGE:
                break
            after = page[-1].seq
        if found is None or found.deleted:
            raise NotFoundError(f"There was no job {job_id!r} at event {at}; name a later one.", param="at")
        return await self._with_progress(found, at)

    async def world(self, at: int) -> World:
        """Everything as it was after event ``at``: all jobs, ended ones too, without their progress."""
        world, after = World(), 0
        async with self._replaying:
            while True:
                page = await self.log.read(after=after, before=at + 1, limit=PAGE, types=_FOLDED)
                await anyio.to_thread.run_sync(_apply, world, page)
                if len(page) < PAGE:
                    return world
                after = page[-1].seq

    async def jobs(
        self,
        at: int,
        *,
        after: str | None = None,
        limit: int = 50,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
    ) -> tuple[list[Job], bool]:
        """A page of the jobs that were there, newest first, and whether there are more."""
        world = await self.world(at)
        before = at + 1
        if after is not None:
            if after not in world.jobs:
                raise InvalidRequestError(
                    f"after: there was no job {after!r} then; give the last id of the page before.",
                    param="after",
                )
            before = world.jobs[after].seq
        asked = None if state is None else JobState(state)
        matching = sorted(
            (
                each
                for each in world.jobs.values()
                if not each.deleted
                and each.seq < before
                and asked in {None, each.state}
                and kind in {None, each.kind}
                and name in {None, each.name}
            ),
            key=lambda each: -each.seq,
        )
        page = [await self._with_progress(each, at) for each in matching[:limit]]
        return page, len(matching) > limit

    async def devices(self, at: int) -> list[Slot]:
        """The devices that were there, and who held them."""
        return sorted((await self.world(at)).slots.values(), key=lambda slot: slot.id)

    async def models(self, at: int) -> list[Model]:
        """The models that could be named."""
        return sorted((await self.world(at)).models.values(), key=lambda model: model.name)

    async def _with_progress(self, found: Job, at: int) -> Job:
        """The job with its newest progress, and with the position and time of its newest event of any type."""
        stream = f"job/{found.id}"
        (newest,) = await self.log.read(before=at + 1, limit=1, stream=stream, descending=True)
        last = await self.log.read(
            before=at + 1, limit=1, stream=stream, types={facts.JobProgress.type}, descending=True
        )
        return replace(
            found,
            version=newest.version,
            updated_seq=newest.seq,
            updated_at=newest.at,
            progress=dict(last[0].data) if last else None,
        )


def _folded(found: Job | None, job_id: str, events: list[Event]) -> Job | None:
    for event in events:
        fact = facts.decode(event.type, event.data)
        if isinstance(fact, facts.JobSubmitted):
            found = job.submitted(job_id, fact, seq=event.seq, at=event.at, actor=event.actor)
        elif found is not None:
            found = job.evolve(found, fact, at=event.at, seq=event.seq)
    return found


def _apply(world: World, events: list[Event]) -> None:
    for event in events:
        world.apply(event)
