"""The sign of life that the service manager waits for, given only by a daemon that can do its work.

It comes from the event loop itself, and it is withheld while the loop is late, the log's writer does not answer or no
file can be opened any more: a daemon that merely exists is restarted, which costs no training step. What a restart does
not mend (a full disk, a WAL that somebody else's reader holds) is only told of.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned_events import LogError

log = logging.getLogger(__name__)

BEATS: Final = 4  # signs of life in the time that one is waited for: one may be withheld without harm
UNWATCHED_PERIOD_S: Final = 40.0  # how often the status line is brought up to date where no watchdog is
WAL_BYTES: Final = 1_000_000_000  # of a WAL that is told of; it is emptied at 64 MiB where no reader holds it
START_BEAT_S: Final = 10.0
START_EXTENSION_S: Final = 30.0  # asked for at each beat of a start
START_BUDGET_S: Final = 120.0  # a start may take this and …
START_BYTES_PER_S: Final = 2 << 20  # … the time to read the log so slowly; a start without end is none

Send = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Signs:
    """What can be seen of a daemon's health. ``writer_failed`` says how the writer ended, if it has.

    ``out_of_files``: the process has as many files open as it may.
    """

    loop_lag_s: float
    writer_wait_s: float
    writer_failed: str | None = None
    out_of_files: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How late the loop, and how long without an answer the writer may be, in seconds."""

    loop_lag_s: float
    writer_wait_s: float

    @classmethod
    def within(cls, period_s: float) -> Limits:
        """The limits that go with a watchdog's period: 5 s and 15 s with one of 30 s."""
        return cls(loop_lag_s=period_s / 6, writer_wait_s=period_s / 2)


def ailment(signs: Signs, limits: Limits) -> str | None:
    """What is wrong with the daemon; ``None`` if it is healthy."""
    if signs.writer_failed is not None:
        return f"the log's writer has ended: {signs.writer_failed}"
    if signs.writer_wait_s > limits.writer_wait_s:
        return f"the log's writer has not answered for {signs.writer_wait_s:.1f} s"
    if signs.loop_lag_s > limits.loop_lag_s:
        return f"the event loop is {signs.loop_lag_s:.1f} s late"
    if signs.out_of_files:
        return "it has as many files open as it may"
    return None


def is_out_of_files() -> bool:
    """Whether another file cannot be opened. Asked of the kernel: to count a million of them takes too long."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EMFILE
    return False


def status_of(world: World, head: int, *, wal_bytes: int = 0) -> str:
    """The daemon in one line, for ``systemctl status``."""
    states = [job.state for job in world.live_jobs()]
    waiting = sum(state in {JobState.QUEUED, JobState.PAUSED} for state in states)
    said = f"Ready: {len(states) - waiting} jobs at work, {waiting} waiting; log at event {head}"
    if wal_bytes <= WAL_BYTES:
        return said
    return f"{said}; its WAL has {wal_bytes / 1e9:.1f} GB: somebody reads without an end"


def start_budget(log_bytes: int) -> float:
    """How many seconds a start may take with a log of this size."""
    return START_BUDGET_S + log_bytes / START_BYTES_PER_S


class Watchdog:
    """Feeds the service manager's watchdog, and keeps its status line.

    ``ask_writer`` returns when the log's writer has answered; ``status`` gives the line; ``send`` must not
    block. ``period_s`` is within how many seconds a sign is wanted.
    """

    def __init__(
        self,
        *,
        ask_writer: Callable[[], Awaitable[object]],
        status: Callable[[], Awaitable[str]],
        send: Send,
        period_s: float,
        limits: Limits | None = None,
        out_of_files: Callable[[], bool] = is_out_of_files,
    ) -> None:
        self._ask_writer = ask_writer
        self._status = status
        self._send = send
        self._beat_s = period_s / BEATS
        self._limits = limits or Limits.within(period_s)
        self._out_of_files = out_of_files
        self._asked_at: float | None = None
        self._failed: str | None = None
        self._said = ""
        self.ailment: str | None = None  # why the last sign was withheld

    async def run(self) -> None:
        """Feed it for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_asking)
            due = anyio.current_time()
            while True:
                await self.beat(lag_s=anyio.current_time() - due)
                due = anyio.current_time() + self._beat_s
                await anyio.sleep_until(due)

    async def beat(self, *, lag_s: float) -> None:
        """Give one sign of life if there is cause to. ``lag_s``: how late the loop came to it."""
        waited = 0.0 if self._asked_at is None else anyio.current_time() - self._asked_at
        found = ailment(Signs(lag_s, waited, self._failed, self._out_of_files()), self._limits)
        if found is not None and self.ailment is None:
            log.error("The watchdog is not fed: %s", found)
        elif found is None and self.ailment is not None:
            log.warning("The watchdog is fed again")
        self.ailment = found
        if found is not None:
            self._send(f"STATUS=Unwell: {found}")
            self._said = ""
            return
        self._send("WATCHDOG=1")
        try:
            said = await self._status()
        except LogError:  # the next look at the writer says more
            return
        if said != self._said and self._send(f"STATUS={said}"):
            self._said = said

    async def _keep_asking(self) -> None:
        while True:
            self._asked_at = anyio.current_time()
            try:
                await self._ask_writer()
            except LogError as error:
                self._failed = str(error)
                return
            self._asked_at = None
            await anyio.sleep(self._beat_s)


@asynccontextmanager
async def starting(
    send: Send, *, budget_s: float, beat_s: float = START_BEAT_S
) -> AsyncIterator[anyio.Event]:
    """Ask for more time, again and again, until the event that is yielded is set or ``budget_s`` is over."""
    ready = anyio.Event()

    async def extend() -> None:
        send("STATUS=Starting: reading the log")
        ends = anyio.current_time() + budget_s
        while anyio.current_time() < ends and not ready.is_set():
            send(f"EXTEND_TIMEOUT_USEC={START_EXTENSION_S * 1e6:.0f}")
            with anyio.move_on_after(beat_s):
                await ready.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(extend)
        try:
            yield ready
        finally:
            ready.set()
