"""Draining: nothing new is started, what runs leaves or comes to its end, and then the daemon stops."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import anyio

from finetuned.board import Board
from finetuned.domain import decisions, pauses
from finetuned.domain.errors import Rejected
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned.patience import patiently
from finetuned.store import Log
from finetuned_events import NewEvent

log = logging.getLogger(__name__)

#: pause: what runs saves a checkpoint, leaves, and goes on after the next start; finish: it runs to its end
Mode = Literal["pause", "finish"]

EXIT_STATUS: Final = 100  # of a service that has drained: its unit does not start it again

Append = Callable[[Callable[[World], list[NewEvent]]], Awaitable[object]]


@dataclass(frozen=True, slots=True, eq=False)  # two that ask for the same are two
class _Request:
    mode: Mode
    reason: str
    wait_s: float | None


class Drain:
    """Whether the daemon drains, and how far it is. ``changed`` is called when it begins and when it is taken back."""

    def __init__(self, events: Log, board: Board, *, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self.done = anyio.Event()  # nothing runs any more
        self._log = events
        self._board = board
        self._requests: list[_Request] = []  # the newest counts
        self._begun = anyio.Event()

    @property
    def mode(self) -> Mode | None:
        """How the daemon drains; ``None`` while it does not."""
        return self._requests[-1].mode if self._requests else None

    @property
    def closed(self) -> str | None:
        """Why nothing is started; ``None`` while the daemon does not drain."""
        return None if self.mode is None else "the daemon drains; it goes on after the daemon's next start"

    async def live(self) -> list[Job]:
        """The jobs that still have processes."""
        world = await self._board.world()
        return [job for job in world.live_jobs() if job.live_attempt is not None]

    async def begin(
        self,
        mode: Mode,
        *,
        actor: str,
        reason: str | None = None,
        wait_s: float | None = None,
        append: Append | None = None,
    ) -> None:
        """Start nothing new from now on; with ``pause`` have what runs save and leave within ``wait_s``.

        Asked again, the newest request counts. ``append`` puts what is decided into the log; if it raises, or is
        cancelled, nothing was asked.
        """
        request = _Request(mode, reason or "the daemon drains", wait_s)
        self._requests.append(request)
        self.changed()
        try:
            await (append or partial(self._log.execute, necessary=True))(
                lambda world: [
                    *decisions.daemon_draining(mode, request.reason, actor=actor),
                    *(_pauses(world, request, actor=actor) if mode == "pause" else []),
                ]
            )
        except BaseException:
            if request in self._requests:
                self._requests.remove(request)
            self.changed()
            raise
        if request in self._requests:  # it was not taken back meanwhile
            self._begun.set()

    def take_back(self) -> None:
        """Go on as before; jobs that were asked to leave start again. Raises ``Rejected`` if it does not drain."""
        if self.mode is None or self.done.is_set():
            raise Rejected("not_draining", "The daemon does not drain; there is nothing to take back.")
        self._requests = []
        if self._begun.is_set():  # else it is being waited for
            self._begun = anyio.Event()
        self.changed()

    async def run(self) -> None:
        """See every drain to its end: return when nothing runs any more."""
        while not self.done.is_set():
            await self._begun.wait()
            await patiently("The drain", self._look)

    async def _look(self) -> None:
        """One look: done, or wait for the log to say something new."""
        head = self._log.head
        live = await self.live()
        if not self._requests:
            return
        if not live:
            self.done.set()
            return
        request = self._requests[-1]
        if request.mode == "pause" and any(
            job.state in {JobState.STARTING, JobState.RUNNING} for job in live
        ):
            # Also what was being started at the moment of the request.
            await self._log.execute(lambda world: _pauses(world, request, actor="daemon"), necessary=True)
        await self._log.wait(head)


def _pauses(world: World, request: _Request, *, actor: str) -> list[NewEvent]:
    return pauses.drain(world, actor=actor, reason=request.reason, wait_s=request.wait_s)
