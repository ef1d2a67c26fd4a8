"""Time travel: jobs, devices and models as they were, by folding the log up to a position.

What is only computed when it is read (queue position, ``wait_reason``) is no part of the past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.to_thread
import orjson

from finetuned.domain import facts, job
from finetuned.domain.errors import ArchivedError, InvalidRequestError, NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.registers import Alias, Model
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot, World
from finetuned.store import Log, fill, job_from, queries
from finetuned_events import Event

PAGE = 2_000  # events that are folded at once

#: Progress is most of a log, and only the newest counts: it is looked up beside the fold.
_FOLDED = frozenset(facts.SCHEMAS) - {facts.JobProgress.type}
_OF_MODELS = frozenset(each for each in facts.SCHEMAS if each.startswith(("model.", "alias.")))

Read = Callable[..., Awaitable[list[Event]]]  # of the log, with a filter


KEPT_S = 60.0  # how long a world of the past waits for the next look, before it is forgotten


@dataclass(frozen=True, slots=True)
class Kept:
    """The world of the last look: the next page is made from it, a later moment goes on from it."""

    position: int
    world: World


@dataclass(slots=True)
class Past:
    """What the log knows of earlier moments. A replay of everything takes a while: one is made at a time."""

    log: Log
    _replaying: anyio.Lock = field(default_factory=anyio.Lock)
    _kept: Kept | None = None
    _forgetting: asyncio.TimerHandle | None = None

    async def job(self, job_id: str, at: int) -> Job:
        """The job as it was after event ``at``. Raises ``NotFoundError`` if it was not there yet."""
        stream, after = f"job/{job_id}", 0
        sealed = self.log.sealed
        found = await self._sealed_job(job_id, sealed)
        while True:
            page = await self.log.read(after=after, before=at + 1, limit=PAGE, stream=stream, types=_FOLDED)
            found = await anyio.to_thread.run_sync(partial(_folded, found, job_id, page))
            if len(page) < PAGE:
                break
            after = page[-1].seq
        self._still(sealed)
        if found is None or found.deleted:
            raise NotFoundError(f"There was no job {job_id!r} at event {at}; name a later one.", param="at")
        (shown,) = await self._with_progress([found], at)
        return shown

    async def _world(self, at: int) -> World:
        """Everything as it was after event ``at``: all jobs, ended ones too, without their progress.

        Hold ``_replaying`` while you look at it: the next caller's fold goes on from it.
        """
        position = min(at, self.log.head)
        kept = self._taken_out()
        if kept is None or not self.log.sealed <= kept.position <= position:
            kept = await self._beginning()
        await self._fold(kept.world, partial(self.log.read, types=_FOLDED), kept.position, position)
        self._keep(Kept(position, kept.world))
        return kept.world

    def _still(self, sealed: int) -> None:
        """Raise ``ArchivedError`` if events were archived while they were folded: some of them may be missing."""
        if self.log.sealed != sealed:
            raise _archived_meanwhile(self.log.sealed)

    async def _sealed_job(self, job_id: str, sealed: int) -> Job | None:
        """The job as it was where the beginning of the log was archived."""
        if not sealed:
            return None
        ((document, position),) = await self.log.fetch(queries()["select_sealed_job"], (job_id,))
        if position != sealed:
            raise _archived_meanwhile(position)
        return None if document is None else job_from(document)

    async def _beginning(self) -> Kept:
        """The world at the newest seal; an empty one for a log that is whole."""
        kept = Kept(self.log.sealed, World())
        if kept.position:
            rows = await self.log.fetch(queries()["select_sealed_world"])
            position = await anyio.to_thread.run_sync(fill, kept.world, rows)
            if position != kept.position:
                raise _archived_meanwhile(position)
        return kept

    def _keep(self, kept: Kept) -> None:
        self._kept = kept
        # All jobs there ever were: too much to hold on to until somebody looks again, who may never come.
        self._forgetting = asyncio.get_running_loop().call_later(KEPT_S, self._taken_out)

    def _taken_out(self) -> Kept | None:
        """The world of the last look; it is not kept any more, so that a fold which breaks off leaves nothing half done."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        kept, self._kept, self._forgetting = self._kept, None, None
        return kept

    async def _fold(self, world: World, read: Read, after: int, position: int) -> None:
        sealed = self.log.sealed
        while after < position:
            page = await read(after=after, before=position + 1, limit=PAGE)
            self._still(sealed)
            await anyio.to_thread.run_sync(_apply, world, page)
            if len(page) < PAGE:
                return
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
        asked = None if state is None else JobState(state)
        async with self._replaying:
            world = await self._world(at)
            before = at + 1
            if after is not None:
                if after not in world.jobs:
                    raise InvalidRequestError(
                        f"after: there was no job {after!r} then; give the last id of the page before.",
                        param="after",
                    )
                before = world.jobs[after].seq
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
        return await self._with_progress(matching[:limit], at), len(matching) > limit

    async def devices(self, at: int) -> list[Slot]:
        """The devices that were there, and who held them."""
        begun = await self._beginning()
        world = begun.world
        await self._fold(world, partial(self.log.read, stream="devices"), begun.position, at)
        return sorted(world.slots.values(), key=lambda slot: slot.id)

    async def models(self, at: int) -> tuple[list[Model], list[Alias]]:
        """The models that could be named, and the aliases that stood for some."""
        begun = await self._beginning()
        world = begun.world
        await self._fold(world, partial(self.log.read, types=_OF_MODELS), begun.position, at)
        return (
            sorted(world.models.values(), key=lambda model: model.name),
            sorted(world.aliases.values(), key=lambda alias: alias.alias),
        )

    async def _with_progress(self, found: list[Job], at: int) -> list[Job]:
        """The jobs with their newest progress, and with the position and time of their newest event of any type."""
        streams = orjson.dumps([f"job/{each.id}" for each in found]).decode()
        rows = await self.log.fetch(queries()["select_newest"], (streams, at))
        newest = {stream.removeprefix("job/"): rest for stream, *rest in rows}
        # One that is not there is as it was: all its events are in archives.
        return [_updated(each, *newest[each.id]) if each.id in newest else each for each in found]


def _archived_meanwhile(position: int) -> ArchivedError:
    return ArchivedError(f"Events up to {position} were archived just now; ask again.", param="at")


def _updated(found: Job, version: int, seq: int, at: int, progress: bytes | None) -> Job:
    told = found.progress if progress is None else orjson.loads(progress)
    return replace(found, version=version, updated_seq=seq, updated_at=at, progress=told)


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
