"""The scheduler: starts what may start, whenever something changed or a backoff has passed.

It keeps no cursor: what to start follows from the present state alone, so a restart loses nothing. The decision
itself is made on the log's writer, where the claim of the devices and the attempt's start are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

import anyio

from finetuned.board import Board
from finetuned.domain import decisions, queue
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned.patience import patiently
from finetuned.store import Log


class Scheduler:
    """Follows the log and claims devices for the next jobs.

    ``reserved`` names devices that nobody may have, ``clock`` is monotonic seconds.
    """

    def __init__(
        self,
        log: Log,
        board: Board,
        *,
        reserved: Callable[[], AbstractSet[str]] = frozenset,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._log = log
        self._board = board
        self._reserved = reserved
        self._clock = clock
        self._waiting: anyio.CancelScope | None = None
        self._planned: tuple[object, ...] = ()  # what was planned for last
        self._until: dict[tuple[str, int], float] = {}  # (job, attempts so far) -> end of its backoff
        self._held: frozenset[str] = frozenset()

    def in_backoff(self) -> frozenset[str]:
        """The jobs that wait for their backoff to pass."""
        return self._held

    async def run(self) -> None:
        """Schedule until cancelled."""
        while True:
            head = self._log.head
            await patiently("Scheduling", self.step)
            with anyio.move_on_after(self._until_next()) as self._waiting:
                await self._log.wait(head)

    def look(self) -> None:
        """Schedule again: something changed of which the log does not tell."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def step(self) -> None:
        """Start everything that may start now."""
        world = await self._board.world()
        elapsed = self._elapsed(world)
        self._held = queue.in_backoff(world.live_jobs(), elapsed)
        reserved = self._reserved()
        situation = (world.generation, self._held, reserved)
        if situation == self._planned:
            return
        if queue.plan(world.live_jobs(), world.slots.values(), in_backoff=self._held, reserved=reserved):
            await self._log.execute(
                lambda writers: decisions.schedule(writers, elapsed=elapsed, reserved=reserved)
            )
        self._planned = situation

    def _elapsed(self, world: World) -> frozenset[tuple[str, int]]:
        now = self._clock()
        delayed = {
            (job.id, len(job.attempts)): job.delay_s
            for job in world.live_jobs()
            if job.delay_s and job.state is JobState.QUEUED
        }
        self._until = {key: self._until.get(key, now + delay) for key, delay in delayed.items()}
        return frozenset(key for key, end in self._until.items() if end <= now)

    def _until_next(self) -> float:
        now = self._clock()
        ends = [end - now for end in self._until.values() if end > now]
        return min(ends, default=float("inf"))
