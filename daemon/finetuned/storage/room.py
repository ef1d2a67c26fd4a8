"""Whether there is room on the disk: nothing new starts without, and what runs is told once it becomes little."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from finetuned.attempts.ports import Alert, AttemptLog
from finetuned.patience import FATAL, patiently
from finetuned_events import LogError

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0  # seconds between two looks
SLACK: Final = 1.05  # times what is kept must be free before room is said to be back: no to and fro


@dataclass(frozen=True, slots=True)
class Room:
    """What was seen last: bytes that are free, and whether they are too few."""

    free: int
    is_little: bool


@dataclass(slots=True)
class RoomGate:
    """Looks at the disk of ``state_dir``, of which ``least`` bytes are to stay free.

    ``is_short`` says whether the log itself found no room, ``changed`` is called when room went or came back.
    ``attempts`` says what runs, and takes what it is told. ``replenish`` has the log try to have its
    reserve back.
    """

    state_dir: Path
    least: int
    attempts: AttemptLog
    is_short: Callable[[], bool] = lambda: False
    replenish: Callable[[], Awaitable[object]] | None = None
    changed: Callable[[], None] = lambda: None
    look_s: float = LOOK_S
    _room: Room | None = None

    @property
    def closed(self) -> str | None:
        """Why nothing is started, with the numbers; ``None`` while there is room."""
        if self._room is not None and self._room.is_little:
            return too_little(self._room.free, self.least, self.state_dir)
        if self.is_short():
            return f"the disk of {self.state_dir} is full: there is room for the ends of what runs only"
        return None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await patiently("Looking at the disk", self.look)
            except OSError as error:
                log.warning("The disk of %s cannot be looked at: %s", self.state_dir, error)
            await anyio.sleep(self.look_s)

    async def look(self) -> None:
        """Look once, and tell whom it concerns what has changed."""
        before = self.closed
        if self.is_short() and self.replenish is not None:
            await self.replenish()
        free = await anyio.to_thread.run_sync(free_bytes, self.state_dir)
        was_little = self._room is not None and self._room.is_little
        is_little = free < (self.least * SLACK if was_little else self.least)
        self._room = Room(free, is_little)
        if is_little and not was_little:
            log.warning("%s; running jobs are told, and nothing is started", self.closed)
            await self._tell()
        if (self.closed is None) != (before is None):
            if before is not None:
                log.warning("There is room again: %s are free under %s", size(free), self.state_dir)
            self.changed()

    async def _tell(self) -> None:
        message = f"{self.closed}; a checkpoint may find no room. Free some: `finetune delete` removes a job's files."
        assert self._room is not None
        alert = Alert(
            subject="disk",
            message=message,
            figures={"free_bytes": self._room.free, "min_free_disk_bytes": self.least},
        )
        for attempt in await self.attempts.live():
            try:
                await self.attempts.intervened(attempt.job, attempt.number, alert)
            except FATAL:
                raise
            except (LogError, OSError) as error:  # it is full by now: nobody can be told
                log.warning("job %s could not be told: %s", attempt.job, error)


def too_little(free: int, least: int, state_dir: Path) -> str:
    """That too little is free, with the numbers."""
    return f"only {size(free)} are free under {state_dir}; {size(least)} are kept free (min_free_disk_bytes)"


def free_bytes(directory: Path) -> int:
    """What the daemon can still write on that file system. Blocks."""
    return shutil.disk_usage(directory).free


def size(value: int) -> str:
    """Bytes as people read them; rounded, so that the same is said for a while."""
    for unit, factor in (("GB", 1_000_000_000), ("MB", 1_000_000)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value / 1000:.0f} kB"
