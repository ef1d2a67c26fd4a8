"""Figures over time in bounded memory: samples for an hour, minutes for a day. Pure.

Times are seconds on a clock that never goes back. A point keeps the least, the mean and the greatest of what it
stands for, so that neither the step to minutes nor a coarser look hides a spike.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

FINE_POINTS = 720  # an hour of samples every 5 s
MINUTE_S = 60.0
COARSE_POINTS = 1440  # a day of minutes

#: what is measured: the device's id ("" for the machine), and the figure's name
Key = tuple[str, str]


class Range(NamedTuple):
    """What a figure was over a while."""

    low: float
    mean: float
    high: float


class Point(NamedTuple):
    """A stretch of time that begins at ``at``, and what each figure was in it."""

    at: float
    figures: Mapping[Key, Range]


@dataclass(slots=True)
class _Gathered:
    """Ranges being put together."""

    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    count: int = 0

    def take(self, low: float, mean: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += mean
        self.count += 1

    def range(self) -> Range:
        return Range(self.low, self.total / self.count, self.high)


class Ring:
    """The newest ``capacity`` points. 24 bytes a figure and point; a figure may come later than others."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0  # points ever added
        self._at = self._column()
        self._columns: dict[Key, tuple[array[float], array[float], array[float]]] = {}

    def __len__(self) -> int:
        return min(self._count, self._capacity)

    def _column(self) -> array[float]:
        return array("d", [math.nan]) * self._capacity

    @property
    def oldest(self) -> float | None:
        """When the oldest point that is kept began."""
        return self._at[self._place(0)] if self._count else None

    def add(self, point: Point) -> None:
        """Keep a point, and forget the oldest if there is no room for both."""
        place = self._count % self._capacity
        self._at[place] = point.at
        for key in point.figures.keys() - self._columns.keys():
            self._columns[key] = (self._column(), self._column(), self._column())
        for key, (low, mean, high) in self._columns.items():
            found = point.figures.get(key)
            low[place] = math.nan if found is None else found.low
            mean[place] = math.nan if found is None else found.mean
            high[place] = math.nan if found is None else found.high
        self._count += 1

    def since(self, at: float) -> Iterator[Point]:
        """The points that begin at ``at`` or later, oldest first."""
        for index in range(len(self)):
            place = self._place(index)
            if self._at[place] >= at:
                yield Point(self._at[place], dict(self._figures(place)))

    def _place(self, index: int) -> int:
        return (self._count - len(self) + index) % self._capacity

    def _figures(self, place: int) -> Iterator[tuple[Key, Range]]:
        for key, (low, mean, high) in self._columns.items():
            if not math.isnan(mean[place]):
                yield key, Range(low[place], mean[place], high[place])


@dataclass(slots=True)
class History:
    """Samples as they came for a while, and minutes of them for longer."""

    fine: Ring = field(default_factory=lambda: Ring(FINE_POINTS))
    coarse: Ring = field(default_factory=lambda: Ring(COARSE_POINTS))
    _minute: float | None = None  # when the minute began that is being gathered
    _gathered: dict[Key, _Gathered] = field(default_factory=dict)

    def add(self, at: float, figures: Mapping[Key, float]) -> None:
        """Take a sample. ``at`` must not be before the last one's."""
        minute = at - at % MINUTE_S
        if self._minute is not None and minute != self._minute:
            self._close_minute()
        self._minute = minute
        for key, value in figures.items():
            self._gathered.setdefault(key, _Gathered()).take(value, value, value)
        self.fine.add(Point(at, {key: Range(value, value, value) for key, value in figures.items()}))

    def _close_minute(self) -> None:
        assert self._minute is not None
        self.coarse.add(Point(self._minute, {key: each.range() for key, each in self._gathered.items()}))
        self._gathered.clear()

    def since(self, at: float) -> Iterator[Point]:
        """What is known from ``at`` on: samples if all of them are still kept, else minutes and the rest of samples."""
        kept = self.fine.oldest
        if kept is not None and at < kept:
            for point in self.coarse.since(at):
                yield point
                at = point.at + MINUTE_S
        yield from self.fine.since(at)


def in_buckets(points: Iterator[Point], width: float) -> list[Point]:
    """The points put together in buckets of ``width`` seconds that begin at multiples of it.

    A bucket's mean is that of the points in it; one without any point is left out.
    """
    buckets: dict[float, dict[Key, _Gathered]] = {}
    for point in points:
        gathered = buckets.setdefault(point.at - point.at % width, {})
        for key, each in point.figures.items():
            gathered.setdefault(key, _Gathered()).take(each.low, each.mean, each.high)
    return [
        Point(at, {key: each.range() for key, each in gathered.items()}) for at, gathered in buckets.items()
    ]
