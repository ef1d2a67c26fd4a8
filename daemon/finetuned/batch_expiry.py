"""Ends batches whose completion window is over. What is due follows from the log, so a restart loses nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import anyio

from finetuned.board import Board
from finetuned.commands.door import Commands
from finetuned.domain.errors import FinetunedError
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.openai import batches
from finetuned.patience import patiently
from finetuned_events import LogError

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0  # between two looks; windows are hours


def due(jobs: Iterable[Job], now: int) -> list[Job]:
    """Live batches whose window is over. ``now`` is in microseconds since the epoch."""
    return [
        job
        for job in jobs
        if job.kind == batches.KIND
        and job.is_live
        and job.state is not JobState.CANCELLING
        and (end := batches.expires_at(job)) is not None
        and end <= now
    ]


@dataclass(frozen=True, slots=True)
class BatchExpiry:
    """``now`` is the wall clock in microseconds since the epoch: a window is a promise to people."""

    board: Board
    commands: Commands
    now: Callable[[], int]

    async def run(self) -> None:
        """End what is due, until cancelled."""
        while True:
            await patiently("The expiry of batches", self.step)
            await anyio.sleep(LOOK_S)

    async def step(self) -> None:
        """End what is due now; what it has finished is kept."""
        world = await self.board.world()
        for job in due(world.live_jobs(), self.now()):
            reason = f"{batches.EXPIRED}: its completion window of {batches.window_s(job)} s is over"
            try:
                await self.commands.cancel(job.id, actor=batches.EXPIRY, reason=reason)
            except FinetunedError as error:  # it has ended by itself, or there is no room yet
                log.info("The batch %s was not ended: %s", job.id, error.message)
            except LogError:
                raise
            except Exception:  # one batch must not hold up the others, nor the daemon
                log.exception("The batch %s could not be ended; that is tried again", job.id)
