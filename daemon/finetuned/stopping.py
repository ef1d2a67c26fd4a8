"""What ends a daemon: a signal, the end of its drain, or, for an ephemeral one, the end of whoever started it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import suppress
from typing import Final

import anyio

from finetuned.draining import Drain
from finetuned.machine import shutdown
from finetuned.patience import patiently

log = logging.getLogger(__name__)

BEAT_S: Final = 5.0
EXTENSION_S: Final = 20.0  # asked of the service manager at each beat: more than the pause to the next


class Stop:
    """Waits for the end. ``say`` tells the service manager, ``is_shutting_down`` asks whether the system stops.

    While the system stops trainers cannot outlive the daemon: then SIGTERM has all jobs save a checkpoint and leave,
    for at most ``drain_timeout_s`` seconds. Otherwise SIGTERM spares them. A second signal ends the
    daemon at once.
    """

    def __init__(
        self,
        drain: Drain,
        *,
        say: Callable[[str], object],
        drain_timeout_s: float,
        is_shutting_down: Callable[[], Awaitable[bool]] = shutdown.is_under_way,
    ) -> None:
        self._drain = drain
        self._say = say
        self._drain_timeout_s = drain_timeout_s
        self._is_shutting_down = is_shutting_down

    async def wait(self, signals: AsyncIterable[signal.Signals], *, parent: int | None = None) -> None:
        """Return when the daemon is to end. An ephemeral one ends with its ``parent``."""
        leaves = False
        async with anyio.create_task_group() as waiting:

            async def drained() -> None:
                await self._drain.run()
                log.info("Stopping: nothing runs any more")
                waiting.cancel_scope.cancel()

            waiting.start_soon(drained)
            if parent is not None:
                waiting.start_soon(_until_gone, parent, waiting.cancel_scope.cancel)
            async for number in signals:
                may_leave = number == signal.SIGTERM and parent is None and not leaves
                if may_leave and await self._is_shutting_down():
                    leaves = True
                    log.info("The system stops: jobs save a checkpoint and leave")
                    waiting.start_soon(self._leave, waiting.cancel_scope.cancel)
                    continue
                log.info("Stopping on %s", signal.Signals(number).name)
                break
            waiting.cancel_scope.cancel()

    async def _leave(self, stop: Callable[[], None]) -> None:
        """Drain within the time that there is, and have the service manager wait."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._extend)
            with anyio.move_on_after(self._drain_timeout_s):
                await patiently("The drain", self._begin)
                await self._drain.done.wait()
                return
            left = await self._drain.live()
            log.warning(
                "Stopping with %d jobs that have not left within %g s", len(left), self._drain_timeout_s
            )
            stop()

    async def _begin(self) -> None:
        await self._drain.begin("pause", actor="daemon", reason="the system stops")

    async def _extend(self) -> None:
        while True:
            self._say(f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1e6:.0f}")
            self._say("STATUS=Draining: jobs save a checkpoint and leave")
            await anyio.sleep(BEAT_S)


async def _until_gone(parent: int, stop: Callable[[], None]) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(parent)
        try:
            # It may have died, and its pid may be another's, before the pidfd was opened.
            if os.getppid() == parent:
                await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    log.info("Stopping: the process that started this daemon is gone")
    stop()
