"""Curves: the series of (step, time, value) that a job's events make, thinned out without hiding a spike.

A series is folded in one pass and in bounded memory. What is too long is thinned by M4: of each bucket of neighbours
the first, the least, the greatest and the last point stay, so that a plot of the rest looks as the whole would
(Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from finetuned.domain import facts

AXES = frozenset({"current_step", "total_steps"})  # figures of progress that are no curve
PENDING = 256  # points that are gathered before they are thinned together

#: order of arrival, step, microseconds since the epoch, value
Point = tuple[int, int, int, float]

#: takes a point: step, microseconds since the epoch, value
Add = Callable[[int, int, float], None]

_value = itemgetter(3)


class Happened(Protocol):
    """What of an event the fold looks at."""

    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


def m4(points: Sequence[Point]) -> list[Point]:
    """The first, the least, the greatest and the last of points that are in order; all if there are at most four."""
    if len(points) <= 4:
        return list(points)
    return sorted({points[0], min(points, key=_value), max(points, key=_value), points[-1]})


class Thinner:
    """Takes points in order and keeps about ``points`` of them: never more than that rounded up to four.

    What fits is kept whole. Beyond that, buckets of equal counts are merged in pairs whenever there are too many.
    """

    def __init__(self, points: int) -> None:
        self.total = 0
        self._most = max(1, -(-points // 4))  # buckets that are given out; up to twice as many are kept
        self._buckets: list[list[Point]] = []
        self._width = 2  # points that one bucket stands for
        self._left = 0  # points that the newest bucket still takes
        self._pending: list[Point] = []  # the newest bucket's, not thinned yet
        self._room = 0  # how many of those there may be before something has to be done

    def add(self, step: int, at: int, value: float) -> None:
        """Take the next point."""
        if len(self._pending) >= self._room:
            self._settle()
        self._pending.append((self.total, step, at, value))
        self.total += 1

    @property
    def held(self) -> int:
        """How many points are in memory, at most."""
        return 4 * len(self._buckets) + len(self._pending)

    def points(self) -> list[Point]:
        """What is kept, in order."""
        buckets = [*self._buckets[:-1], [*self._buckets[-1], *self._pending]] if self._buckets else []
        count = len(buckets)
        groups = min(count, self._most)
        kept: list[Point] = []
        for group in range(groups):
            merged = buckets[group * count // groups : (group + 1) * count // groups]
            kept += m4([point for bucket in merged for point in bucket])
        return kept

    def _settle(self) -> None:
        """Thin what is pending, and begin a new bucket if the newest is full."""
        if self._pending:
            self._buckets[-1] = m4([*self._buckets[-1], *self._pending])
            self._left -= len(self._pending)
            self._pending = []
        if self._left == 0:
            self._begin()
        self._room = min(self._left, PENDING)

    def _begin(self) -> None:
        if len(self._buckets) == 2 * self._most:
            pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
            self._buckets = [m4([*left, *right]) for left, right in pairs]
            self._width *= 2
        self._buckets.append([])
        self._left = self._width


@dataclass(frozen=True, slots=True)
class Span:
    """Where a run begins in the log, and the last step of it that no later run did again (``None``: all stand)."""

    seq: int
    attempt: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a job: where it begins in the log, the step it went on from, and the first step it reported.

    ``resumed_at`` is 0 for one that began anew and ``None`` if its checkpoint is not known; ``first_step`` is ``None``
    for one that did no step: it replaces nothing.
    """

    seq: int
    attempt: int
    resumed_at: int | None
    first_step: int | None


def trajectory(runs: Iterable[Run]) -> list[Span]:
    """What of each run belongs to the final trajectory: a later run replaces the steps that it did again."""
    spans: list[Span] = []
    until: int | None = None
    for run in reversed(list(runs)):
        spans.append(Span(run.seq, run.attempt, until))
        if run.first_step is not None:
            before = run.first_step - 1 if run.resumed_at is None else min(run.resumed_at, run.first_step - 1)
            until = before if until is None else min(until, before)
    return spans[::-1]


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. ``attempt`` is ``None`` for the final trajectory; ``total`` counts the points before thinning."""

    name: str
    attempt: int | None
    points: list[Point]
    total: int


def _no_curves() -> dict[str, Add]:
    return dict.fromkeys(AXES, _ignore)


def _ignore(_step: int, _at: int, _value: float) -> None:
    """A point of a series that is not kept."""


@dataclass(slots=True)
class Curves:
    """The fold: events in, series out.

    ``spans`` are those of all runs, oldest first; ``each_attempt`` keeps the runs apart and all of their points.
    ``wanted`` names the series to keep (``None`` for all); ``most`` is how many are kept at all. Every name that
    occurred is in ``names``, up to ``most_names``.
    """

    spans: Sequence[Span]
    points: int
    wanted: Collection[str] | None = None
    each_attempt: bool = False
    most: int = 100
    most_names: int = 10_000
    names: set[str] = field(default_factory=set)
    _kept: dict[tuple[str, int | None], Thinner] = field(default_factory=dict)
    _adders: dict[str, Add] = field(default_factory=_no_curves)  # of the run at hand, by name
    _run: int = -1  # index of the span that the next event is looked for from
    _step: int = 0  # the newest step, for evaluations that name none

    def fold(self, events: Iterable[Happened]) -> None:
        """Take the next events of the job, in order."""
        for event in events:
            while self._run + 1 < len(self.spans) and self.spans[self._run + 1].seq <= event.seq:
                self._run += 1
                self._step = 0
                self._adders = _no_curves()
            if self._run < 0:
                continue  # validation
            if event.type == facts.JobProgress.type:
                self._fold_progress(event)
            elif event.type == facts.EvaluationRecorded.type:
                self._fold_evaluation(event)

    def series(self) -> list[Series]:
        """The curves, by name and attempt."""
        found = sorted(self._kept.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        return [Series(name, attempt, thinner.points(), thinner.total) for (name, attempt), thinner in found]

    @property
    def held(self) -> int:
        """How many points are in memory, at most."""
        return sum(thinner.held for thinner in self._kept.values())

    @property
    def more(self) -> bool:
        """Whether there are series that were left out for their number."""
        wanted = self.names if self.wanted is None else self.names & set(self.wanted)
        return len(wanted) > len({name for name, _ in self._kept})

    def _fold_progress(self, event: Happened) -> None:
        step = event.data.get("current_step")
        if type(step) is not int:
            return
        self._step = step
        if not self._replaced(step):
            self._add_all("", event.data, step, event.at)

    def _fold_evaluation(self, event: Happened) -> None:
        step = event.data.get("step")
        step = self._step if step is None else step
        if not self._replaced(step):
            self._add_all(f"evaluation/{event.data['name']}/", event.data["metrics"], step, event.at)

    def _replaced(self, step: int) -> bool:
        until = self.spans[self._run].until
        return until is not None and step > until and not self.each_attempt

    def _add_all(self, prefix: str, figures: Mapping[str, Any], step: int, at: int) -> None:
        adders = self._adders
        for figure, value in figures.items():
            if type(value) is not float and type(value) is not int:
                continue  # a text, a truth value, or nothing: no point of a curve
            name = prefix + figure
            (adders.get(name) or self._adder(name))(step, at, value)

    def _adder(self, name: str) -> Add:
        """What takes the points of a series: of one that is kept, or nothing."""
        if len(self.names) < self.most_names:
            self.names.add(name)
        key = (name, self.spans[self._run].attempt if self.each_attempt else None)
        thinner = self._kept.get(key)
        is_kept = (self.wanted is None or name in self.wanted) and len(self._kept) < self.most
        if thinner is None and is_kept:
            thinner = self._kept[key] = Thinner(self.points)
        adder = _ignore if thinner is None else thinner.add
        if len(self._adders) < self.most_names:
            self._adders[name] = adder
        return adder
