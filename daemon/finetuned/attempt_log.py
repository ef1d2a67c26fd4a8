"""Attempts and the log: what an attempt is told, and how what it reports becomes events.

This is the supervisor's only way into the log; it implements :class:`finetuned.attempts.ports.AttemptLog`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio.to_thread
from pydantic import ValidationError

from finetuned import attempt_orders, attempt_reports
from finetuned.attempt_orders import AttemptSettings
from finetuned.attempts.ports import (
    Alert,
    Ending,
    Intervention,
    LiveAttempt,
    NoRoomError,
    SpecUnavailableError,
)
from finetuned.board import Board
from finetuned.domain import attempt_decisions, facts, salvage, verdicts
from finetuned.domain.attempt_decisions import Prospect
from finetuned.domain.errors import FinetunedError
from finetuned.domain.failures import RULES, Failure
from finetuned.domain.job import Attempt, Job
from finetuned.domain.salvage import SalvageDueError
from finetuned.domain.states import JobState
from finetuned.domain.world import World
from finetuned.salvaging import Salvager
from finetuned.secrets.store import SecretStore
from finetuned.store import Log
from finetuned_events import InvalidEventError, LogFullError, ProjectionError
from finetuned_sdk import Registry, checkpoints
from finetuned_sdk.bundle import RunnerIdentity, Spec
from finetuned_sdk.spool import DROPPABLE, BadLine
from finetuned_sdk.spool import Fact as SpoolFact

#: the log or the fold refused an event: the same again will be refused again
UNRECORDABLE = (InvalidEventError, ProjectionError)


_Attempt = tuple[str, int]  # job and number


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest whole checkpoint and its step, among those that the job might go on from when it was looked for."""

    choice: tuple[int, str | None]
    found: tuple[Path, int] | None


class DaemonAttemptLog:
    """The supervisor's port, over the daemon's log. ``jitter`` gives numbers from 0 to 1."""

    def __init__(
        self,
        log: Log,
        board: Board,
        registry: Registry,
        settings: AttemptSettings,
        jobs_dir: Path,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._log = log
        self._board = board
        self._registry = registry
        self._settings = settings
        self._jobs_dir = jobs_dir
        self._jitter = jitter
        self._salvager = Salvager(registry, jobs_dir)
        self._newest: dict[_Attempt, _Newest] = {}  # of attempts whose ends could not be recorded yet

    async def live(self) -> list[LiveAttempt]:
        """The attempts whose end has not been proven."""
        world = await self._board.world()
        return [
            attempt_orders.live(job, attempt)
            for job in world.live_jobs()
            if (attempt := job.live_attempt) is not None
        ]

    async def known(self) -> dict[str, int]:
        """For each live job the number of its newest attempt, or -1."""
        world = await self._board.world()
        return {job.id: -1 if job.attempt is None else job.attempt.number for job in world.live_jobs()}

    async def spec(self, job: str, attempt: int) -> Spec:
        """What the worker of an attempt is told. Raises ``SpecUnavailableError`` if its plugin is not loaded."""
        world = await self._board.world()
        found = attempt_decisions.live_attempt(world, job, attempt)
        if found is None:
            raise SpecUnavailableError(f"Attempt {attempt} of job {job} has ended already.")
        kind = self._registry.job_kinds.get(found[0].kind)
        if kind is None:
            raise SpecUnavailableError(
                f"The plugin of the job kind {found[0].kind!r} is not loaded; install or unblock it"
            )
        spec = attempt_orders.spec(found[0], found[1], kind, self._settings, slots=len(world.slots))
        if not self._settings.warm_start or spec.interpreter != self._settings.interpreter:
            return spec
        modules = await anyio.to_thread.run_sync(attempt_orders.preload, kind, spec.params, spec.models)
        return replace(spec, preload=modules)

    async def launched(self, job: str, attempt: int, runner: RunnerIdentity) -> None:
        """Record who runs the attempt."""
        fact = facts.AttemptLaunched(
            attempt=attempt,
            pid=runner.pid,
            boot_id=runner.boot_id,
            start_time=runner.start_time,
            process_group=runner.process_group,
        )
        await self._execute(lambda world: attempt_decisions.launched(world, job, fact))

    async def record(
        self, job: str, attempt: int, lines: Sequence[SpoolFact | BadLine], *, last: bool = False
    ) -> None:
        """Ingest spool lines; the cursor moves with the events, so a line counts once.

        A line that the log or the fold refuses is recorded as rejected: it must not hold up those behind it. On a full
        disk telemetry waits in its spool, until the attempt's end is to be recorded after it.
        """
        reports = [attempt_reports.reported(line, attempt) for line in lines]
        necessary = last or any(isinstance(line, BadLine) or line.type not in DROPPABLE for line in lines)
        try:
            await self._record(job, attempt, reports, necessary=necessary)
        except UNRECORDABLE:
            for report in reports:
                await self._record_or_reject(job, attempt, report)

    async def _record_or_reject(self, job: str, attempt: int, report: attempt_decisions.Reported) -> None:
        try:
            await self._record(job, attempt, [report], necessary=True)
        except UNRECORDABLE as error:
            reason = attempt_decisions.shortened(f"{report.fact.type}: {error}")
            await self._record(
                job, attempt, [attempt_reports.rejected(attempt, report.line, reason)], necessary=True
            )

    async def _record(
        self, job: str, attempt: int, reports: Sequence[attempt_decisions.Reported], *, necessary: bool
    ) -> None:
        await self._execute(
            lambda world: attempt_decisions.record(world, job, attempt, reports), necessary=necessary
        )

    async def _execute(
        self, decide: Callable[[World], attempt_decisions.Events], *, necessary: bool = True
    ) -> None:
        """Append what is decided. Raises ``NoRoomError`` on a full disk; what is necessary has a reserve there."""
        try:
            await self._log.execute(decide, necessary=necessary)
        except LogFullError as error:
            raise NoRoomError(str(error)) from error

    async def ended(self, job: str, attempt: int, ending: Ending) -> None:
        """Record the attempt's proven end and what follows from it for the job."""
        end = verdicts.End(
            exit_code=ending.exit_code,
            signal=ending.signal,
            lost=ending.lost,
            problem=ending.problem,
            oom_killed=ending.oom_killed,
            oom_evidence=ending.oom_evidence,
            usage=dict(ending.usage),
            refused=ending.refused,
            asked=ending.asked,
        )
        try:
            await self._record_end(job, attempt, end)
        except UNRECORDABLE as error:
            why = str(error)
            await self._execute(lambda world: attempt_decisions.ended_unusably(world, job, attempt, end, why))
        self._newest.pop((job, attempt), None)

    async def _record_end(self, job: str, attempt: int, end: verdicts.End) -> None:
        """Record an end and what follows; if that is the job's own, with what is made of its leftovers."""
        while True:
            prospect = await self._prospect(job, end)
            prospect = await self._with_salvage(job, attempt, end, prospect)
            try:
                await self._execute(
                    lambda world, prospect=prospect: attempt_decisions.ended(  # type: ignore[misc]
                        world, job, attempt, end, prospect
                    )
                )
            except SalvageDueError:
                continue  # somebody cancelled it meanwhile
            return

    async def _with_salvage(
        self, job_id: str, attempt: int, end: verdicts.End, prospect: Prospect
    ) -> Prospect:
        world = await self._board.world()
        job = world.jobs.get(job_id)
        if job is None or not self._salvager.can(job):
            return prospect
        events = attempt_decisions.ended(world, job_id, attempt, end, prospect)
        fate = salvage.fate(job, events)
        if fate is None:
            return replace(prospect, salvaged=None)
        try:
            return replace(prospect, salvaged=await self._salvager.salvage(job, fate))
        except OSError as error:
            raise NoRoomError(str(error)) from error

    async def intervened(self, job: str, attempt: int, what: Intervention | Alert) -> None:
        """Record what the watchdog did or saw."""
        fact = _watched(attempt, what)
        await self._execute(lambda world: attempt_decisions.intervene(world, job, fact))

    async def _prospect(self, job_id: str, end: verdicts.End) -> Prospect:
        """What another attempt would begin with.

        The newest complete checkpoint may be one that the log has not heard of. Its files are read through, so it is
        not looked for where nothing will resume from it.
        """
        world = await self._board.world()
        job = world.jobs.get(job_id)
        attempt = job.live_attempt if job is not None else None
        if job is None or attempt is None or job.state is JobState.CANCELLING:
            return Prospect()
        verdict = verdicts.judge(job, attempt, end)
        if verdict.outcome == "succeeded":
            return Prospect()
        newest = await self._newest_checkpoint(job, attempt)
        return Prospect(
            resume_from=None if newest is None else str(newest[0]),
            step=None if newest is None else newest[1],
            reduced=self._reduced(job, attempt, verdict.failure),
            jitter=self._jitter(),
        )

    async def _newest_checkpoint(self, job: Job, attempt: Attempt) -> tuple[Path, int] | None:
        """Read through once, also if the end finds no room in the log and is tried again and again."""
        key, choice = (job.id, attempt.number), (job.rewound_at, job.resume_from)
        known = self._newest.get(key)
        if known is None or known.choice != choice:
            found = await anyio.to_thread.run_sync(newest_checkpoint, self._jobs_dir, job)
            known = self._newest[key] = _Newest(choice, found)
        return known.found

    def _reduced(self, job: Job, attempt: Attempt, failure: Failure | None) -> Mapping[str, Any] | None:
        """Parameters that take half the memory, after an attempt that ran out of it."""
        kind = self._registry.job_kinds.get(job.kind)
        if failure is None or not RULES[failure].reduces or kind is None or kind.reduce_memory is None:
            return None
        try:
            return kind.reduce_memory(kind.params.model_validate({**job.params, **attempt.overrides}))
        except ValidationError:  # a plugin that was upgraded meanwhile; the attempt itself will say so
            return None


def read_secrets(store: SecretStore, references: Mapping[str, str]) -> dict[str, str]:
    """The values for an attempt's processes. Raises ``SpecUnavailableError`` if one cannot be had any more."""
    try:
        return store.resolve(references)
    except FinetunedError as error:
        raise SpecUnavailableError(error.message, code=error.stable_code) from None


def newest_checkpoint(jobs_dir: Path, job: Job) -> tuple[Path, int] | None:
    """The whole checkpoint of the highest step that the job's next run may go on from, and that step. Blocks.

    Of the job's own since it was rewound, also such as nobody was told of; and the one that it was told to go on from.
    """
    bundles = [
        jobs_dir / job.id / "attempts" / str(each.number)
        for each in job.runs
        if each.number >= job.rewound_at
    ]
    named = [Path(each["path"]) for each in job.checkpoints if each["attempt"] >= job.rewound_at]
    found = [path for bundle in bundles for path in checkpoints.complete(bundle / "checkpoints")]
    started_from = [Path(job.resume_from)] if job.resume_from else []
    newest = checkpoints.newest_complete(dict.fromkeys([*named, *found, *started_from]))
    return None if newest is None else (newest, checkpoints.step_of(newest))


def _watched(attempt: int, what: Intervention | Alert) -> facts.AttemptIntervened | facts.AttemptAlert:
    if isinstance(what, Intervention):
        return facts.AttemptIntervened(
            attempt=attempt, action=what.action, failure=what.failure, reason=what.reason
        )
    return facts.AttemptAlert(
        attempt=attempt, subject=what.subject, message=what.message, figures=dict(what.figures)
    )
