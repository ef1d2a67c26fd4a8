"""The worker's pulse: what the work did last, noted in memory, and written to the heartbeat file now and then."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from finetuned_sdk import phases
from finetuned_sdk.heartbeat import Heartbeat, HeartbeatFile


class Pulse:
    """Notes are cheap; a file is written by :meth:`beat` and when another time-out applies from now on.

    Nothing here ends the work: a file that cannot be made or written is tried again at the next beat. Without a
    ``path`` nothing is written.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._file: HeartbeatFile | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # apart, so that a disk that hangs holds up no step
        now = clock()
        self._last = Heartbeat(pid=os.getpid(), beat_at=now, step_at=now, phase=phases.STARTING)

    @property
    def last(self) -> Heartbeat:
        """What is known; ``beat_at`` is when it was last written."""
        return self._last

    def note(self, *, phase: str | None = None, step: int | None = None) -> None:
        """The work advanced: it entered a phase, did a step, or neither. Step 0 is no step."""
        with self._lock:
            before = self._last
            self._last = replace(
                before, step_at=self._clock(), phase=phase or before.phase, step=step or before.step
            )
            told = (before.phase, before.step is None)
        if told != (self._last.phase, self._last.step is None):
            self.beat()

    def beat(self) -> None:
        """Write what is known, now."""
        with self._writing:
            with self._lock:
                self._last = last = replace(self._last, beat_at=self._clock())
            if self._path is None:
                return
            with contextlib.suppress(OSError):
                self._file = self._file or HeartbeatFile(self._path)
                self._file.write(last)

    def close(self) -> None:
        """Let go of the file; beats write nothing any more."""
        with self._writing:
            if self._file is not None:
                self._file.close()
            self._file = self._path = None
