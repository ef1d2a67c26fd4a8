"""The way in for everything that only looks. Every door maps onto these methods."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from finetuned.board import Board
from finetuned.domain import queue
from finetuned.domain.errors import NotFoundError
from finetuned.domain.job import Job
from finetuned.domain.world import Model, Slot, Token
from finetuned.store import Log, job_from, queries
from finetuned_events import Event
from finetuned_sdk import JobKind, Registry


def _nobody() -> AbstractSet[str]:
    return frozenset()


@dataclass(slots=True)
class Queries:
    """What can be looked at. ``in_backoff`` names the jobs that the scheduler holds back at the moment."""

    log: Log
    board: Board
    registry: Registry
    in_backoff: Callable[[], AbstractSet[str]] = field(default=_nobody)
    _waits: tuple[int, AbstractSet[str], dict[str, queue.Wait]] | None = None

    async def job(self, job_id: str) -> Job:
        """One job, live or ended. Raises ``NotFoundError``."""
        world = await self.board.world()
        if job_id in world.jobs:
            return world.jobs[job_id]
        rows = await self.log.fetch(queries()["select_job"], (job_id,))
        job = job_from(rows[0][0]) if rows else None
        if job is None or job.deleted:
            raise NotFoundError(f"There is no job {job_id!r}. `finetune ls` lists the jobs.", param="id")
        return job

    async def jobs(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
    ) -> tuple[list[Job], bool]:
        """A page of jobs, newest first, and whether there are more. ``after`` is the last page's last id."""
        before = (await self.job(after)).seq if after else sys.maxsize
        rows = await self.log.fetch(queries()["select_jobs"], (before, state, kind, name, limit + 1))
        return [job_from(row[0]) for row in rows[:limit]], len(rows) > limit

    async def waits(self) -> dict[str, queue.Wait]:
        """Why each live job waits, by id; computed when asked for, once for each generation of the world."""
        world = await self.board.world()
        held = self.in_backoff()
        if self._waits is None or self._waits[:2] != (world.generation, held):
            waits = queue.waits(world.live_jobs(), world.slots.values(), in_backoff=held)
            self._waits = (world.generation, held, waits)
        return self._waits[2]

    async def events(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        stream: str | None = None,
        types: Collection[str] | None = None,
    ) -> tuple[list[Event], bool]:
        """A page of events in order, and whether there are more before the head."""
        page = await self.log.read(after=after, limit=limit + 1, stream=stream, types=types)
        return page[:limit], len(page) > limit

    async def follow(
        self, *, after: int, stream: str | None = None, types: Collection[str] | None = None
    ) -> AsyncIterator[list[Event]]:
        """Pages of events from ``after`` on, for ever."""
        async for page in self.log.follow(after=after, stream=stream, types=types):
            yield page

    async def kinds(self) -> list[JobKind]:
        """The job kinds that plugins declare, by name."""
        return sorted(self.registry.job_kinds.values(), key=lambda kind: kind.name)

    async def models(self) -> list[Model]:
        """The registered models, by name."""
        world = await self.board.world()
        return sorted(world.models.values(), key=lambda model: model.name)

    async def model(self, name: str) -> Model:
        """One registered model. Raises ``NotFoundError``."""
        world = await self.board.world()
        if name not in world.models:
            raise NotFoundError(f"There is no model {name!r}; `finetune models` lists them.", param="name")
        return world.models[name]

    async def tokens(self) -> list[Token]:
        """All tokens, revoked ones too; never a secret."""
        world = await self.board.world()
        return sorted(world.tokens.values(), key=lambda token: token.created_at)

    async def token_by_hash(self, sha256: str) -> Token | None:
        """The open token whose secret has this hash."""
        world = await self.board.world()
        return next((t for t in world.tokens.values() if t.sha256 == sha256 and t.revoked_at is None), None)

    async def devices(self) -> list[Slot]:
        """The devices that this host schedules and who holds them."""
        world = await self.board.world()
        return sorted(world.slots.values(), key=lambda slot: slot.id)
