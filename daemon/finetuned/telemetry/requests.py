"""Counts and latencies of HTTP requests, by route. Costs about a microsecond a request."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

#: upper bounds in seconds: what is read from memory takes a millisecond, a commit some more, a check of the log seconds
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"  # the route of a request that no route takes
OTHER = "other"  # any method that HTTP does not know: clients may send what they like
CLIENT_WENT = 499  # the client closed before there was an answer; nginx's number


@dataclass(slots=True)
class Latencies:
    """A histogram: how many took at most each of ``BOUNDS_S``, the last place for those that took longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0


@dataclass(slots=True)
class RequestRecorder:
    """What was asked of the daemon since its start. The keys are bounded: routes are templates."""

    counts: dict[tuple[str, str, int], int] = field(default_factory=dict)
    latencies: dict[tuple[str, str], Latencies] = field(default_factory=dict)
    in_progress: int = 0

    def record(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """One request has ended. ``seconds`` is ``None`` for a stream, whose length says nothing about the daemon."""
        key = (route, method, status)
        self.counts[key] = self.counts.get(key, 0) + 1
        if seconds is None:
            return
        found = self.latencies.get((route, method))
        if found is None:
            found = self.latencies[route, method] = Latencies()
        found.counts[bisect_left(BOUNDS_S, seconds)] += 1
        found.sum_s += seconds
