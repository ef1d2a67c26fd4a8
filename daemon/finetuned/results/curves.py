"""A job's curves, read from its events in short pages and kept for whoever asks again.

A fold is kept while somebody asks for it, and goes on where it stood: the first look at a long job takes a while, the
next ones take what has happened since.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from finetuned.domain import facts
from finetuned.domain.errors import ArchivedError
from finetuned.domain.job import Job
from finetuned.results.series import Curves, Run, Series, Thinner, trajectory
from finetuned.store import Log
from finetuned_events import Event

PAGE = 250  # events that are read and folded in one go
MOST_POINTS = 4000  # of a series; four for each column of a wide plot
KEPT_POINTS = 200_000  # of all folds together, at about 140 bytes each; the newest fold alone may have more
KEPT_S = 600.0  # without being asked for
MARKS = (facts.AttemptStarting.type, facts.CheckpointSaved.type)
FIGURES = (facts.JobProgress.type, facts.EvaluationRecorded.type)


@dataclass(frozen=True, slots=True)
class Found:
    """Some series, the names of all that there are, whether some were left out, and the position they stand at."""

    series: list[Series]
    names: list[str]
    more: bool
    seq: int


@dataclass(slots=True)
class _Fold:
    """A fold and how far it has come. ``idle`` is where the newest run began, until it does its first step."""

    curves: Curves
    runs: int
    idle: int | None
    asked_at: float = 0.0  # monotonic
    scanned: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)


_Key = tuple[str, bool, tuple[str, ...] | None]


class CurveReader:
    """Reads the curves of jobs from the log. ``clock`` is monotonic, in seconds."""

    def __init__(self, log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._folds: OrderedDict[_Key, _Fold] = OrderedDict()

    async def read(
        self, job: Job, *, points: int, names: Collection[str] | None, each_attempt: bool, until: int | None
    ) -> Found:
        """The curves of a job up to position ``until`` (``None``: now), each of about ``points`` points."""
        await self._refuse_archived(job)
        fold: _Fold
        if until is None:
            head = self._log.head
            fold = await self._kept(job, names, head, each_attempt=each_attempt)
        else:  # the past is looked at once: it is not worth keeping
            head = min(until, self._log.head)
            fold = await self._begun(job, names, head, each_attempt=each_attempt)
        async with fold.lock:
            while fold.scanned < head:
                page = await self._log.scan(
                    after=fold.scanned, limit=PAGE, stream=f"job/{job.id}", types=FIGURES
                )
                fold.curves.fold([event for event in page.events if event.seq <= head])
                fold.scanned = min(page.scanned, head)
            await self._refuse_archived(job)  # some were, while they were read
            self._forget()
            series = await anyio.to_thread.run_sync(lambda: thinned(fold.curves.series(), points))
            return Found(series, sorted(fold.curves.names), fold.curves.more, fold.scanned)

    async def _refuse_archived(self, job: Job) -> None:
        if await self._log.archived(f"job/{job.id}"):
            raise ArchivedError(
                f"The events of {job.id} are in an archive of the log ({self._log.seals[-1].file.name}), and its curves"
                " with them; `zcat` prints them."
            )

    async def _kept(self, job: Job, names: Collection[str] | None, head: int, *, each_attempt: bool) -> _Fold:
        """The fold that goes on from where it stood, begun if there is none."""
        key = (job.id, each_attempt, None if names is None else tuple(sorted(names)))
        fold = self._folds.get(key)
        if fold is None or await self._is_replaced(job, fold):
            fold = self._folds[key] = await self._begun(job, names, head, each_attempt=each_attempt)
        fold.asked_at = self._clock()
        if key in self._folds:
            self._folds.move_to_end(key)
        return fold

    async def _begun(
        self, job: Job, names: Collection[str] | None, head: int, *, each_attempt: bool
    ) -> _Fold:
        runs = await self._runs(job.id, head)
        curves = Curves(trajectory(runs), MOST_POINTS, wanted=names, each_attempt=each_attempt)
        idle = runs[-1].seq if runs and runs[-1].first_step is None else None
        return _Fold(curves, len(job.runs), idle)

    def _forget(self) -> None:
        """Drop the folds that nobody asks for any more, and the oldest of those that are too much together."""
        old = self._clock() - KEPT_S
        held = sum(fold.curves.held for fold in self._folds.values())
        for key, fold in list(self._folds.items()):  # in the order in which they were asked for
            if fold.asked_at < old or (held > KEPT_POINTS and len(self._folds) > 1):
                del self._folds[key]
                held -= fold.curves.held

    async def _is_replaced(self, job: Job, fold: _Fold) -> bool:
        """Whether a run began or did its first step since: it replaces steps of those before it."""
        if fold.runs != len(job.runs):
            return True
        return fold.idle is not None and await self._first_step(job.id, fold.idle, None) is not None

    async def _first_step(self, job_id: str, after: int, before: int | None) -> int | None:
        first = await self._log.read(
            after=after, before=before, limit=1, stream=f"job/{job_id}", types=FIGURES[:1]
        )
        return first[0].data.get("current_step") if first else None

    async def _runs(self, job_id: str, head: int) -> list[Run]:
        """The runs up to a position: where each begins, and from which step it went on."""
        stream = f"job/{job_id}"
        marks: list[Event] = []
        after = 0
        while after < head:
            page = await self._log.scan(after=after, limit=PAGE, stream=stream, types=MARKS)
            marks += [event for event in page.events if event.seq <= head]
            after = page.scanned
        starts = [each for each in marks if each.type == MARKS[0] and each.data["purpose"] == "run"]
        steps = {each.data["path"]: each.data["step"] for each in marks if each.type == MARKS[1]}
        runs = []
        bounds = [*(each.seq for each in starts), head + 1]
        for start, following in zip(starts, bounds[1:], strict=True):
            resume_from = start.data.get("resume_from")
            resumed_at = 0 if resume_from is None else steps.get(resume_from)
            first_step = await self._first_step(job_id, start.seq, following)
            runs.append(Run(start.seq, start.data["attempt"], resumed_at, first_step))
        return runs


def thinned(series: list[Series], points: int) -> list[Series]:
    """The series once more thinned, to fewer points."""
    return [Series(each.name, each.attempt, _thinned(each, points), each.total) for each in series]


def _thinned(series: Series, points: int) -> list[tuple[int, int, int, float]]:
    if len(series.points) <= points:
        return series.points
    thinner = Thinner(points)
    for _, step, at, value in series.points:
        thinner.add(step, at, value)
    return thinner.points()
