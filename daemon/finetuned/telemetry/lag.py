"""How late the event loop is: what every client waits besides its own work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import anyio

INTERVAL_S = 0.5
MINUTE_S = 60.0


class LoopLag:
    """Looks at the clock twice a second. ``worst_s`` is the latest wake-up since it was last taken, ``now_s`` the newest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now_s = 0.0
        self._worst_s = 0.0
        # when, and how late
        self._noted: deque[tuple[float, float]] = deque(maxlen=int(MINUTE_S / INTERVAL_S))

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock() + INTERVAL_S
            await anyio.sleep(INTERVAL_S)
            self.note(self._clock() - due)

    def note(self, late_s: float) -> None:
        """Take one measurement."""
        self.now_s = max(0.0, late_s)
        self._worst_s = max(self._worst_s, self.now_s)
        self._noted.append((self._clock(), self.now_s))

    @property
    def minute_s(self) -> float:
        """The worst of the last minute."""
        since = self._clock() - MINUTE_S
        return max((late for at, late in self._noted if at >= since), default=0.0)

    def take_worst(self) -> float:
        """The worst since this was last asked; it begins anew."""
        worst, self._worst_s = self._worst_s, 0.0
        return worst
