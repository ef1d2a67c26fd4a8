"""The scheduler: starts what may start, whenever something changed or a backoff has passed.

It keeps no cursor: what to start follows from the present state alone, so a restart loses nothing. The decision
itself is made on the log's writer, where the claim of the devices and the attempt's start are one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio

from finetuned.board import Board
from finetuned.domain import decisions, queue, tries
from finetuned.domain.room import Room, lack, promised
from finetuned.domain.situation import Hold, Situation
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned.patience import patiently
from finetuned.store import Log

#: seconds that an attempt runs at least before it may be preempted: starting it is not to be wasted
MIN_RUN_S = 600.0
#: for so many times as long as it worked the scheduler leaves the event loop to others: with thousands of jobs in the queue
#: a look takes milliseconds, and one after each commit would make every client wait for it
REST = 4.0
LONGEST_REST_S = 0.2
#: seconds between two looks at the host while nothing changes who waits and who runs: a job that waits for memory or
#: disk is told by nothing else that there is some, and a look at each commit would cost more than all else
ROOM_PERIOD_S = 5.0


def rest_s(took: float) -> float:
    """Seconds that the event loop is left to others after a look that took so long."""
    return min(REST * took, LONGEST_REST_S)


class Scheduler:
    """Follows the log and claims devices for the next jobs.

    ``holds`` says which devices are not free though no attempt holds them, ``closed`` why nothing is to start, if so.
    ``room`` looks at what the host has left, when a job waits. ``clock`` is monotonic seconds.
    """

    def __init__(
        self,
        log: Log,
        board: Board,
        *,
        holds: Callable[[], Mapping[str, Hold]] = dict,
        closed: Callable[[], str | None] = lambda: None,
        room: Callable[[], Awaitable[Room]] | None = None,
        min_run_s: float = MIN_RUN_S,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._log = log
        self._board = board
        self._holds = holds
        self._closed = closed
        self._look_at_room = room
        self._room: Room | None = None
        self._lacks_room = False
        self._room_of: tuple[int, float] | None = None  # generation and time of the newest look
        self._min_run_s = min_run_s
        self._clock = clock
        self._waiting: anyio.CancelScope | None = None
        self._planned: tuple[object, ...] = ()  # what was planned for last
        self._until: dict[tuple[str, int], float] = {}  # (job, attempts so far) -> end of its backoff
        self._running_since: dict[
            tuple[str, int], float
        ] = {}  # when a preemptible attempt was first seen to run
        self._in_backoff: frozenset[str] = frozenset()
        self._in_vain: frozenset[tuple[str, int]] = frozenset()  # (job, attempts so far)
        self._stepped_at = 0.0

    def situation(self) -> Situation:
        """What decides who may start beside the log, as it is now."""
        now = self._clock()
        ripe = {key for key, since in self._running_since.items() if now - since >= self._min_run_s}
        return Situation(
            in_backoff=self._in_backoff,
            holds=dict(self._holds()),
            closed=self._closed(),
            ripe=frozenset(ripe),
            in_vain=frozenset(job for job, _ in self._in_vain),
            room=self._room,
        )

    async def run(self) -> None:
        """Schedule until cancelled."""
        while True:
            head, began = self._log.head, self._clock()
            await patiently("Scheduling", self.step)
            took = self._clock() - began
            with anyio.move_on_after(self.next_look_s()) as self._waiting:
                await self._log.wait(head)
            await anyio.sleep(rest_s(took))

    def look(self) -> None:
        """Schedule again: something changed of which the log does not tell."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def step(self) -> None:
        """Start everything that may start now."""
        world = await self._board.world()
        self._stepped_at = self._clock()
        elapsed = self._elapsed(world)
        self._in_backoff = queue.in_backoff(world.live_jobs(), elapsed)
        self._note_running(world)
        await self._note_room(world)
        situation = self.situation()
        planned = (world.generation, situation)
        if planned == self._planned:
            return
        slots = world.slots.values()
        claims = queue.plan(world.live_jobs(), slots, situation)
        self._note_in_vain(world, claims)
        if claims or queue.victims(world.live_jobs(), slots, situation):
            await self._log.execute(
                lambda writers: decisions.schedule(writers, elapsed=elapsed, situation=situation)
            )
        self._planned = planned

    async def _note_room(self, world: World) -> None:
        now = self._clock()
        if self._room_of is not None:
            generation, looked_at = self._room_of
            if generation == world.generation and now - looked_at < ROOM_PERIOD_S:
                return
        queued = [job for job in world.live_jobs() if job.state is JobState.QUEUED and job.estimate]
        self._room = await self._look_at_room() if queued and self._look_at_room is not None else None
        taken = promised(world.live_jobs())
        self._lacks_room = any(lack(job, self._room, taken) is not None for job in queued)
        self._room_of = world.generation, now

    def _note_running(self, world: World) -> None:
        now = self._clock()
        running = [
            (job.id, job.attempt.number)
            for job in world.live_jobs()
            if job.preemptible and job.state is JobState.RUNNING and job.attempt is not None
        ]
        self._running_since = {key: self._running_since.get(key, now) for key in running}

    def _note_in_vain(self, world: World, claims: Sequence[queue.Claim]) -> None:
        """Who preempted a job that starts again before it did itself preempted it for nothing."""
        if not self._in_vain and not any(claim.job.preempted_by for claim in claims):
            return
        queued = {job.id: job for job in world.live_jobs() if job.state is JobState.QUEUED}
        preempted = {claim.job.preempted_by for claim in claims} & queued.keys() - {
            claim.job.id for claim in claims
        }
        newest = {(job.id, len(job.attempts)) for job in queued.values()}
        found = {(job, len(queued[job].attempts)) for job in preempted if job is not None}
        self._in_vain = frozenset((self._in_vain | found) & newest)

    def _elapsed(self, world: World) -> frozenset[tuple[str, int]]:
        now = self._clock()
        delayed = {
            (job.id, len(job.attempts)): delay for job in world.live_jobs() if (delay := tries.delay_s(job))
        }
        self._until = {key: self._until.get(key, now + delay) for key, delay in delayed.items()}
        return frozenset(key for key, end in self._until.items() if end <= now)

    def next_look_s(self) -> float:
        """Seconds until something may start without an event that tells of it."""
        now = self._clock()
        ends = [*self._until.values(), *(since + self._min_run_s for since in self._running_since.values())]
        # What has ended since the step was not over for it.
        soonest = min((max(0.0, end - now) for end in ends if end > self._stepped_at), default=float("inf"))
        if not self._lacks_room or self._room_of is None:
            return soonest
        return min(soonest, max(0.0, self._room_of[1] + ROOM_PERIOD_S - now))
