"""When a loss is beyond hope: no number any more, or far above the best it has been, and staying there. Pure."""

from __future__ import annotations

import math
from collections import deque

NOT_A_NUMBER_LIMIT = 3  # reports in a row; fp16 recovers from one or two
SMOOTHED = 10  # reports that a level is the mean of
PATIENCE = 20  # reports in a row above the limit


class LossGuard:
    """Takes each loss that is reported, in order, and says what is wrong once it is.

    A loss has diverged when ``PATIENCE`` reports in a row lie above ``max_ratio`` times the best level *and* above the
    level that the run began with; a level is the mean of ``SMOOTHED`` reports. So neither hard batches, nor spikes, nor
    a loss near zero that becomes a little larger are taken for it. ``max_ratio`` of ``None`` looks for NaN alone.
    """

    def __init__(self, max_ratio: float | None) -> None:
        self._max_ratio = max_ratio
        self._recent: deque[float] = deque(maxlen=SMOOTHED)
        self._first: float | None = None
        self._best = math.inf
        self._not_a_number = 0
        self._above = 0

    def add(self, loss: float) -> str | None:
        """What is wrong with the loss, in words, or ``None``."""
        if not math.isfinite(loss):
            self._not_a_number += 1
            return "is no longer a number" if self._not_a_number >= NOT_A_NUMBER_LIMIT else None
        self._not_a_number = 0
        limit = self._limit()
        self._above = self._above + 1 if loss > limit else 0
        if self._above >= PATIENCE:
            return (
                f"has been above {limit:.4g} for {PATIENCE} reports ({loss:.4g} now), more than {self._max_ratio:g} "
                f"times its best level ({self._best:.4g}) and more than it began with ({self._first:.4g})"
            )
        self._recent.append(loss)
        if len(self._recent) == SMOOTHED:
            level = math.fsum(self._recent) / SMOOTHED
            self._first = level if self._first is None else self._first
            self._best = min(self._best, level)
        return None

    def _limit(self) -> float:
        if self._max_ratio is None or self._first is None:
            return math.inf
        return max(self._max_ratio * self._best, self._first)
