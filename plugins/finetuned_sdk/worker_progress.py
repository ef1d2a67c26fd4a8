"""Progress reports: what a trainer says of a step, completed with percent, ETA and memory, and throttled."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from resource import getpagesize
from typing import Any, Final

from finetuned_sdk.context import PROGRESS_FIELDS

INTERVAL: Final = 0.1  # seconds between two reports that are written
RATE_WINDOW: Final = 60.0  # seconds of steps that the ETA looks back on
RATE_SAMPLES: Final = 200
GB: Final = 1e9  # bytes; decimal, as disks and NVML count


class Rate:
    """Steps a second over the last minute, on a monotonic clock. Starts anew when steps go backwards."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)

    def add(self, now: float, step: int) -> None:
        """Note that ``step`` was done at ``now`` (seconds)."""
        if self._samples and step < self._samples[-1][1]:
            self._samples.clear()
        if not self._samples or step > self._samples[-1][1]:
            self._samples.append((now, step))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW:
            self._samples.popleft()

    def seconds_for(self, steps: int) -> float | None:
        """How long ``steps`` more take at this rate; ``None`` while there is no rate."""
        if len(self._samples) < 2:
            return None
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        return max(steps, 0) * (end - begin) / (last - first)


class ProgressReporter:
    """Writes at most one report each ``interval`` seconds, or as a report says if that is longer: the newest.

    What waits is written by :meth:`flush`.
    """

    def __init__(
        self, emit: Callable[[Mapping[str, Any]], None], *, clock: Callable[[], float], interval: float
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._least = self._interval = interval
        self._rate = Rate()
        self._pending: dict[str, Any] | None = None
        self._written_at = float("-inf")
        self._lock = threading.RLock()

    def report(
        self,
        current_step: int,
        total_steps: int | None,
        metrics: Mapping[str, Any],
        *,
        final: bool,
        interval: float | None = None,
    ) -> None:
        """Take a step's figures and write them if it is time."""
        with self._lock:
            now = self._clock()
            self._interval = max(self._least, interval or 0.0)
            self._rate.add(now, current_step)
            self._pending = {
                **dict.fromkeys(PROGRESS_FIELDS),
                **metrics,
                "current_step": current_step,
                "total_steps": total_steps,
            }
            if final or now - self._written_at >= self._interval:
                self.flush()

    def flush_if_due(self) -> None:
        """Write the report that waits if it has waited long enough."""
        with self._lock:
            if self._clock() - self._written_at >= self._interval:
                self.flush()

    def flush(self) -> None:
        """Write the report that waits, if one does."""
        with self._lock:
            if self._pending is None:
                return
            report, self._pending = self._pending, None
            self._written_at = self._clock()
            self._complete(report)
            self._emit(report)

    def _complete(self, report: dict[str, Any]) -> None:
        total, step = report["total_steps"], report["current_step"]
        if total:
            report["progress"] = round(min(100.0, 100.0 * step / total), 2)
            eta = self._rate.seconds_for(total - step)
            report["eta_seconds"] = None if eta is None else round(eta, 1)
        report["rss_gb"] = resident_gb()
        report["gpu_memory_allocated_gb"], report["gpu_utilization_percent"] = gpu_figures()


def resident_gb() -> float:
    """Resident memory of this process in GB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * getpagesize() / GB, 3)


def gpu_figures() -> tuple[float | None, float | None]:
    """Memory that torch holds on the GPU in GB, and the GPU's utilisation in percent.

    ``None`` without torch or before torch has used a GPU: asking earlier would initialise CUDA.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None, None
    allocated = round(torch.cuda.memory_allocated() / GB, 3)
    try:
        return allocated, float(torch.cuda.utilization())
    except Exception:  # noqa: BLE001 - NVML raises its own errors where a driver keeps the figure to itself
        return allocated, None
