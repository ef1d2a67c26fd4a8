"""How the runner keeps an attempt within its limits of memory and processors. Standard library only.

In a control group of the attempt's own where one can be made: the kernel keeps the limits. Elsewhere the runner looks
at what the attempt's processes hold, and ends them when it is too much; processors are limited by leaving it a part of
them. It is no rlimit: RLIMIT_AS counts addresses, of which CUDA reserves more than the machine has memory, RLIMIT_DATA
what was asked for and never touched, and both count each process alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from finetuned.attempts import cgroup, memory, oom
from finetuned.attempts.cgroup import Group, NoGroupError
from finetuned.attempts.oom import Sample
from finetuned_sdk.bundle import Spec

WATCH_S: Final = 0.25  # between two looks where the runner itself keeps a limit of memory
TREND_S: Final = 5.0  # … and where it only wants to know how the memory was before the end

GROUP: Final = "control group"
WATCHED: Final = "watched"
AFFINITY: Final = "affinity"


class Keeper:
    """Keeps one attempt's limits, and remembers what its processes held."""

    def __init__(
        self,
        spec: Spec,
        *,
        home: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[int], tuple[Sample | None, list[int]]] = memory.sample,
        proportional: Callable[[list[int]], int] = memory.proportional,
    ) -> None:
        self._memory, self._cpu = spec.limits.get("memory"), spec.limits.get("cpu")
        self._spread = zlib.crc32(spec.fence.encode())
        self._clock = clock
        self._look = look
        self._proportional = proportional
        self._group: Group | None = None
        self._why_not: str | None = None
        self._last: tuple[float, Sample] | None = None
        self._next_look = clock()
        self.peak = 0  # the most that was seen to be held, in bytes
        self.broken: str | None = None  # which limit was exceeded, and by how much
        home = cgroup.own() if home is None else home
        if self._memory is not None or self._cpu is not None:
            name = f"{spec.job}-{spec.attempt}-{spec.fence[:8]}"
            try:
                self._group = Group.create(name, home, memory=self._memory, cpu=self._cpu)
            except NoGroupError as error:
                self._why_not = str(error)
        self._counter = oom.counter_of(home if self._group is None else self._group.path)
        self._kills = oom.count(self._counter)

    # ---- the start ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def confined(self) -> Iterator[None]:
        """What is started meanwhile is within the limits from its first moment on."""
        with contextlib.ExitStack() as stack:
            if self._group is not None:
                try:
                    stack.enter_context(self._group.joined())
                except OSError as error:
                    self._group.remove()
                    self._group, self._why_not = None, f"it cannot be joined: {error.strerror}"
            if self._group is None and self._cpu is not None:
                stack.enter_context(_on_cores(self._cores(self._cpu)))
            yield

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Variables that keep libraries from starting more threads than the attempt has processors."""
        if self._cpu is None:
            return {}
        threads = max(1, int(self._cpu))
        with contextlib.suppress(KeyError, ValueError):
            threads = min(threads, int(environment["OMP_NUM_THREADS"]))
        return {"OMP_NUM_THREADS": str(threads)}

    def told(self) -> dict[str, str]:
        """How each limit is kept, and why not in a control group."""
        means = {}
        if self._memory is not None:
            means["memory"] = WATCHED if self._group is None else GROUP
        if self._cpu is not None:
            means["cpu"] = AFFINITY if self._group is None else GROUP
        return {**means, **({"why": self._why_not} if means and self._why_not else {})}

    def _cores(self, cpu: float) -> set[int]:
        """As many processors as it may use; not the same for every attempt."""
        usable = sorted(os.sched_getaffinity(0))
        wanted, first = min(len(usable), math.ceil(cpu)), self._spread % len(usable)
        return {usable[(first + index) % len(usable)] for index in range(wanted)}

    # ---- while it runs -----------------------------------------------------------------------------------

    @property
    def pause_s(self) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next_look - self._clock())

    def look(self) -> bool:
        """Look if it is time to; whether the attempt took more than it may."""
        now = self._clock()
        if now < self._next_look:
            return False
        watched = self._memory is not None and self._group is None
        self._next_look = now + (WATCH_S if watched else TREND_S)
        found, pids = self._look(os.getpid())
        if found is None:
            return False
        self._last = now, found
        self.peak = max(self.peak, found.held)
        if not watched or self._memory is None or found.held <= self._memory:
            return False
        held = self._proportional(pids)  # pages that several share have counted for each until now
        if held > self._memory:
            self.broken = (
                f"its processes held {oom.bytes_text(held)} of memory, more than its limit of"
                f" {oom.bytes_text(self._memory)}"
            )
        return self.broken is not None

    def kill(self) -> None:
        """Kill all in its control group, if there is one."""
        if self._group is not None:
            self._group.kill()

    # ---- the end -----------------------------------------------------------------------------------------

    def evidence(self, *, killed: bool) -> str | None:
        """Why it ended for want of memory, if it did. ``killed``: by a SIGKILL that was not its runner's."""
        if self.broken is not None or not killed:
            return self.broken
        after = oom.count(self._counter)
        last = None if self._last is None else self._last[1]
        found = oom.evidence(self._kills, after, last, shared=self._group is None)
        if found is None or self._group is None or self._memory is None:
            return found
        return f"{found}; its limit is {oom.bytes_text(self._memory)}"

    def close(self) -> None:
        """Remove the control group, once nothing is in it."""
        if self._group is not None:
            self._group.remove()


@contextlib.contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
