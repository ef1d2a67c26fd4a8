"""A job as the fold of its events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from finetuned.domain import facts
from finetuned.domain.failures import Failure
from finetuned.domain.states import LIVE, TERMINAL, JobState, transition

Json = Any

SERVING = "serving"  # the phase of an engine that answers
KEPT_ADVICE = 20  # newest pieces of advice that a job shows
KEPT_ALERTS = 20
KEPT_EVALUATIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job: its number is the fencing token. Times are microseconds since the epoch (UTC)."""

    number: int
    purpose: str  # validate or run
    devices: list[str]
    starting_at: int
    resume_from: str | None = None
    pid: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    outcome: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    line: int = 0  # the highest spool line that is in the log: the cursor of ingestion
    result: dict[str, Json] | None = None
    measured: dict[str, Json] = field(default_factory=dict)  # its peaks, in bytes, as its worker saw them
    error: dict[str, Json] | None = None
    models: list[dict[str, Json]] | None = None
    overrides: dict[str, Json] = field(default_factory=dict)  # parameters that differ from the job's
    failure: str | None = None  # the kind of its failure (domain.failures)
    stopping: dict[str, str] | None = None  # by the watchdog: failure, reason and its newest action
    wall_s: float = 0.0  # how long it ran, as its runner measured
    checkpoint_requests: int = 0
    fruitful: bool = False  # an engine that had loaded; or who asks one, and got answers, which are kept

    @property
    def is_live(self) -> bool:
        """Whether its end has not been proven yet."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the log says about one job. Times are microseconds since the epoch (UTC)."""

    id: str
    seq: int  # of job.submitted: its place among jobs
    updated_seq: int  # of the newest event of its stream
    version: int  # of its stream
    kind: str
    name: str | None
    state: JobState
    params: dict[str, Json]
    priority: int
    metadata: dict[str, Json]
    devices: int
    validates: bool
    max_attempts: int
    models: dict[str, str]
    callbacks: list[dict[str, Json]]
    estimate: dict[str, Json] | None
    retry_of: str | None
    resume_from: str | None
    datasets: dict[str, Json]
    template: str | None
    submitted_by: str
    created_at: int
    updated_at: int
    started_at: int | None = None
    paused_at: int | None = None
    finished_at: int | None = None
    delay_s: float = 0.0  # backoff before the next attempt may start
    queued_reason: str | None = None
    phase: str | None = None
    progress: dict[str, Json] | None = None
    cancel_reason: str | None = None
    cancelling_at: int | None = None  # when somebody asked for its end
    deleted: bool = False
    error: dict[str, Json] | None = None
    result: dict[str, Json] | None = None
    attempts: tuple[Attempt, ...] = ()
    checkpoints: tuple[dict[str, Json], ...] = ()
    artifacts: tuple[dict[str, Json], ...] = ()
    audits: tuple[dict[str, Json], ...] = ()
    evaluations: tuple[dict[str, Json], ...] = ()
    advice: tuple[dict[str, Json], ...] = ()
    secrets: dict[str, str] = field(default_factory=dict)  # names, and references such as secret:hf
    timeouts: dict[str, float | None] = field(default_factory=dict)  # seconds
    limits: dict[str, float] = field(default_factory=dict)  # cores and bytes
    preemptible: bool = False
    reduces_batch: bool = True
    ignores_estimate: bool = False
    engine: dict[str, Json] | None = None
    serves: str | None = None
    pause_reason: str | None = None
    pause_then: str = "paused"  # what becomes of it when its pause is reached: paused or queued
    pause_wait_s: float = 30.0
    preempted_by: str | None = None  # the job that goes first
    overrides: dict[str, Json] = field(default_factory=dict)  # parameters of its next attempts that differ
    rewound_at: int = 0  # checkpoints of attempts before this number do not count any more
    repeated_steps: int | None = None  # steps that the next attempt does again
    alerts: tuple[dict[str, Json], ...] = ()
    files_removed: dict[str, Json] | None = None  # at, reason and bytes, once its files are gone
    measured: dict[str, Json] | None = None  # what it took, as the estimate says what it would

    @property
    def is_live(self) -> bool:
        """Whether the job can still change its state."""
        return self.state in LIVE

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live_attempt(self) -> Attempt | None:
        """The newest attempt while its end has not been proven."""
        newest = self.attempt
        return newest if newest is not None and newest.is_live else None

    @property
    def next_attempt(self) -> int:
        """The next fencing number: validation is attempt 0, the first run of a job is attempt 1."""
        newest = self.attempt
        if newest is not None:
            return newest.number + 1
        return 0 if self.state is JobState.VALIDATING else 1

    @property
    def runs(self) -> tuple[Attempt, ...]:
        """The attempts at the work itself, without validation."""
        return tuple(attempt for attempt in self.attempts if attempt.purpose == "run")


def submitted(job_id: str, fact: facts.JobSubmitted, *, seq: int, at: int, actor: str) -> Job:
    """The job that ``job.submitted`` brings into being."""
    return Job(
        id=job_id,
        seq=seq,
        updated_seq=seq,
        version=1,
        state=JobState.VALIDATING if fact.validates else JobState.QUEUED,
        submitted_by=actor,
        created_at=at,
        updated_at=at,
        queued_reason=None if fact.validates else "submitted",
        **fact.to_data(),
    )


def evolve(job: Job, fact: facts.Fact, *, at: int, seq: int) -> Job:
    """The job after ``fact``. Raises ``IllegalTransitionError`` for a fact that its state does not allow."""
    job = replace(job, version=job.version + 1, updated_seq=seq, updated_at=at)
    if fact.type.startswith("attempt."):
        return _evolve_attempt(job, fact, at)
    return _evolve_report(job, fact, at) or _evolve_state(job, fact, at)


def _evolve_report(job: Job, fact: facts.Fact, at: int) -> Job | None:
    """The job after a fact that is allowed in any state; ``None`` for other facts."""
    match fact:
        case facts.JobProgress():
            job, got_on = replace(job, progress=fact.figures), _got_on(job, fact)
            return _newest(job, fruitful=True) if got_on and job.engine and job.attempts else job
        case facts.JobPhase():
            job = replace(job, phase=fact.phase)
            is_there = fact.phase == SERVING and job.serves is not None and job.attempts
            return _newest(job, fruitful=True) if is_there else job
        case facts.JobAdvice():
            return replace(job, advice=(*job.advice, fact.to_data())[-KEPT_ADVICE:])
        case facts.DatasetAudited():
            return replace(job, audits=(*job.audits, fact.report))
        case facts.EvaluationRecorded():
            return replace(job, evaluations=(*job.evaluations, fact.to_data())[-KEPT_EVALUATIONS:])
        case facts.CheckpointSaved():
            return replace(job, checkpoints=(*job.checkpoints, {**fact.to_data(), "at": at}))
        case facts.CheckpointDiscarded():
            return replace(job, checkpoints=tuple(c for c in job.checkpoints if c["path"] != fact.path))
        case facts.ArtifactPublished():
            return replace(job, artifacts=(*job.artifacts, {**fact.to_data(), "at": at}))
        case facts.JobCheckpointRequested():
            return _newest(job, checkpoint_requests=job.attempts[-1].checkpoint_requests + 1)
        case facts.JobMeasured():
            return replace(job, measured=fact.measured)
        case facts.JobDeleted():
            return replace(job, deleted=True)
        case facts.JobFilesRemoved():
            return replace(job, checkpoints=(), files_removed={**fact.to_data(), "at": at})
    return None


def _got_on(job: Job, fact: facts.JobProgress) -> bool:
    """Whether more is done than was before."""
    before, after = (each.get("current_step") for each in (job.progress or {}, fact.figures))
    return isinstance(after, int) and after > (before if isinstance(before, int) else 0)


def _evolve_state(job: Job, fact: facts.Fact, at: int) -> Job:
    job = replace(job, state=transition(fact.type, job.state))
    match fact:
        case facts.JobQueued():
            return replace(
                job,
                queued_reason=fact.reason,
                delay_s=fact.delay_s,
                paused_at=None,
                phase=None,
                resume_from=fact.resume_from or job.resume_from,
                repeated_steps=fact.repeated_steps,
                rewound_at=job.next_attempt if fact.rewinds else job.rewound_at,
                overrides={**job.overrides, **fact.overrides},
                preempted_by=fact.preempted_by,
                pause_reason=None,
            )
        case facts.JobPauseRequested():
            return replace(
                job,
                pause_reason=fact.reason,
                pause_then=fact.then,
                pause_wait_s=fact.wait_s,
                preempted_by=fact.preempted_by,
            )
        case facts.JobCancelRequested():
            return replace(job, cancel_reason=fact.reason, cancelling_at=at)
        case facts.JobPaused():
            return replace(
                job,
                paused_at=at,
                phase=None,
                resume_from=fact.resume_from or job.resume_from,
                repeated_steps=fact.repeated_steps,
                overrides={**job.overrides, **fact.overrides},
            )
        case facts.JobSucceeded():
            return replace(job, finished_at=at, result=fact.result, phase=None)
        case facts.JobFailed():
            error = {"code": fact.code, "message": fact.message}
            return replace(job, finished_at=at, error=error, phase=None)
        case facts.JobCancelled():
            return replace(job, finished_at=at, phase=None)
    return job


def _evolve_attempt(job: Job, fact: facts.Fact, at: int) -> Job:
    match fact:
        case facts.AttemptStarting():
            attempt = Attempt(
                number=fact.attempt,
                purpose=fact.purpose,
                devices=fact.devices,
                starting_at=at,
                resume_from=fact.resume_from,
                overrides=fact.overrides,
            )
            state = transition(fact.type, job.state)
            return replace(
                job, state=state, delay_s=0.0, preempted_by=None, attempts=(*job.attempts, attempt)
            )
        case facts.AttemptStarted():
            job = replace(job, state=transition(fact.type, job.state))
            if job.attempts[-1].purpose == "run" and job.started_at is None:
                job = replace(job, started_at=at)
            return _newest(job, started_at=at)
        case facts.AttemptLaunched():
            return _newest(job, pid=fact.pid)
        case facts.AttemptResult():
            return _newest(job, result=fact.values, measured=fact.measured)
        case facts.AttemptModel():
            produced = fact.to_data()
            del produced["attempt"]
            return _newest(job, models=[*(job.attempts[-1].models or []), produced])
        case facts.AttemptError():
            error = {
                "code": fact.code,
                "message": fact.message,
                "retryable": fact.retryable,
                "pauses": fact.pauses,
            }
            return _newest(job, error=error)
        case facts.AttemptEnded():
            return _newest(
                job,
                ended_at=at,
                outcome=fact.outcome,
                cause=fact.cause,
                exit_code=fact.exit_code,
                signal=fact.signal,
                failure=fact.failure,
                wall_s=fact.usage.get("wall_s", 0.0),
            )
        case facts.AttemptAlert():
            return replace(job, alerts=(*job.alerts, {**fact.to_data(), "at": at})[-KEPT_ALERTS:])
        case facts.AttemptIntervened(failure=str(failure)) if fact.action != "dump_stacks":
            found = {"failure": failure, "reason": fact.reason}
            by_hand = failure == Failure.STOPPED
            first = found if by_hand else job.attempts[-1].stopping or found
            return _newest(job, stopping={**first, "action": fact.action})
    return job


def _newest(job: Job, **changes: Any) -> Job:
    return replace(job, attempts=(*job.attempts[:-1], replace(job.attempts[-1], **changes)))


def at_line(job: Job, line: int) -> Job:
    """The job after spool line ``line`` of its newest attempt was ingested."""
    newest = job.attempt
    if newest is None or line <= newest.line:
        return job
    return _newest(job, line=line)


__all__ = ("TERMINAL", "Attempt", "Job", "JobState", "at_line", "evolve", "submitted")
