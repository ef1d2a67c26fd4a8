"""Every event that the daemon records, one frozen dataclass each.

``fact.to_data()`` is what the log stores; ``decode(type, data)`` is its inverse. Fields hold JSON's own types
only, so that a fold of what was just decided equals a fold of what was read back. Times come from the log
(``Event.at``), durations are seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

Json = Any


@dataclass(frozen=True, kw_only=True)
class Fact:
    """The base of all facts: knows its event type and how to become data and back."""

    type: ClassVar[str]

    def to_data(self) -> dict[str, Json]:
        """The fact as JSON-ready data."""
        return {name: getattr(self, name) for name in _field_names(type(self))}

    @classmethod
    def from_data(cls, data: Mapping[str, Json]) -> Self:
        """The fact behind stored data."""
        return cls(**data)


# ---- jobs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JobSubmitted(Fact):
    """A job was accepted. It is validated first if its kind has a validator."""

    type: ClassVar[str] = "job.submitted"
    kind: str
    name: str | None
    params: dict[str, Json]  #: as the user gave them
    priority: int  #: higher goes first; one point is worth ten minutes of waiting
    metadata: dict[str, Json]
    devices: int  #: how many it holds while it runs
    validates: bool  #: whether its kind has a validator
    max_attempts: int  #: runs that may crash before the job is given up
    models: dict[str, str]  #: model parameters that named a registered model, resolved to directories
    callbacks: list[dict[str, Json]]  #: name, entry and params of each callback
    estimate: dict[str, Json] | None  #: duration_s, device_bytes, host_bytes, disk_bytes
    retry_of: str | None  #: the job that this one repeats
    resume_from: str | None  #: the checkpoint that the first run goes on from


@dataclass(frozen=True, kw_only=True)
class JobQueued(Fact):
    """The job is ready to run. ``delay_s`` holds it back after a crash; it keeps its place meanwhile."""

    type: ClassVar[str] = "job.queued"
    reason: str
    delay_s: float = 0.0
    resume_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobPhase(Fact):
    """What the worker is doing now: loading_model, training, evaluating, saving, …"""

    type: ClassVar[str] = "job.phase"
    phase: str


@dataclass(frozen=True)
class JobProgress(Fact):
    """A step was done. The data are the figures themselves; see the table of progress fields."""

    type: ClassVar[str] = "job.progress"
    figures: dict[str, Json]

    def to_data(self) -> dict[str, Json]:
        """The figures as they are."""
        return self.figures

    @classmethod
    def from_data(cls, data: Mapping[str, Json]) -> Self:
        """The fact behind stored figures."""
        return cls(dict(data))


@dataclass(frozen=True, kw_only=True)
class JobAdvice(Fact):
    """A setting is worth changing: which, why, and the figures behind it."""

    type: ClassVar[str] = "job.advice"
    setting: str
    message: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetAudited(Fact):
    """Validation read a dataset through: counts, masked share, cut rows, rows without an answer, hash."""

    type: ClassVar[str] = "dataset.audited"
    report: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class EvaluationRecorded(Fact):
    """Figures of an evaluation. Rows and answers are in an artifact, never here."""

    type: ClassVar[str] = "evaluation.recorded"
    name: str
    metrics: dict[str, float]
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Fact):
    """A checkpoint is complete on disk: its manifest was written before this event."""

    type: ClassVar[str] = "checkpoint.saved"
    attempt: int
    step: int
    path: str
    bytes: int
    metrics: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckpointDiscarded(Fact):
    """Retention removed a checkpoint."""

    type: ClassVar[str] = "checkpoint.discarded"
    path: str


@dataclass(frozen=True, kw_only=True)
class ArtifactPublished(Fact):
    """A result is complete on disk, with the size and CRC-32 of each of its files."""

    type: ClassVar[str] = "artifact.published"
    attempt: int
    name: str
    kind: str
    path: str
    bytes: int
    files: list[dict[str, Json]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class JobCancelRequested(Fact):
    """Somebody asked for the job to end. Honoured before a claim and across restarts."""

    type: ClassVar[str] = "job.cancel_requested"
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobCancelled(Fact):
    """The job ended because it was asked to; nothing of it runs any more."""

    type: ClassVar[str] = "job.cancelled"


@dataclass(frozen=True, kw_only=True)
class JobPauseRequested(Fact):
    """Somebody asked for the job to leave its devices after a checkpoint."""

    type: ClassVar[str] = "job.pause_requested"
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobPaused(Fact):
    """The job holds no device and waits to be resumed."""

    type: ClassVar[str] = "job.paused"


@dataclass(frozen=True, kw_only=True)
class JobSucceeded(Fact):
    """The job ended with a result."""

    type: ClassVar[str] = "job.succeeded"
    result: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class JobFailed(Fact):
    """The job ended with an error: a stable code and a sentence with the remedy."""

    type: ClassVar[str] = "job.failed"
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobDeleted(Fact):
    """The job is hidden and its files are removed. Its events stay."""

    type: ClassVar[str] = "job.deleted"


# ---- attempts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AttemptStarting(Fact):
    """An attempt was given its number (the fencing token) and its devices; its process comes next."""

    type: ClassVar[str] = "attempt.starting"
    attempt: int
    purpose: str  #: validate or run
    devices: list[str]
    resume_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptLaunched(Fact):
    """The attempt's runner is up. Boot id, pid and start time identify it for good."""

    type: ClassVar[str] = "attempt.launched"
    attempt: int
    pid: int
    boot_id: str
    start_time: int
    process_group: int


@dataclass(frozen=True, kw_only=True)
class AttemptStarted(Fact):
    """The attempt's worker reported for work."""

    type: ClassVar[str] = "attempt.started"
    attempt: int
    hello: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AttemptResult(Fact):
    """The worker's result: it came to the end of its work."""

    type: ClassVar[str] = "attempt.result"
    attempt: int
    values: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class AttemptModel(Fact):
    """The worker made a model; it is registered when the job succeeds."""

    type: ClassVar[str] = "attempt.model"
    attempt: int
    name: str
    path: str
    kind: str
    base: str | None
    lineage: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AttemptError(Fact):
    """The worker gave up and said why. An error that is not retryable fails the job."""

    type: ClassVar[str] = "attempt.error"
    attempt: int
    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, kw_only=True)
class AttemptLineRejected(Fact):
    """A line of the attempt's spool could not be folded; it is skipped, and said so."""

    type: ClassVar[str] = "attempt.line_rejected"
    attempt: int
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttemptEnded(Fact):
    """Nothing of the attempt runs any more. ``lost`` means: proven dead, but nobody saw how."""

    type: ClassVar[str] = "attempt.ended"
    attempt: int
    outcome: str  #: succeeded, failed, crashed, lost or cancelled
    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    oom_killed: bool = False
    usage: dict[str, float] = field(default_factory=dict)


# ---- devices, models, tokens, the daemon -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DevicesDetected(Fact):
    """The devices that this host schedules, when they differ from what the log knew."""

    type: ClassVar[str] = "devices.detected"
    devices: list[dict[str, Json]]


@dataclass(frozen=True, kw_only=True)
class DeviceClaimed(Fact):
    """An attempt holds these devices from now on. Recorded together with ``attempt.starting``."""

    type: ClassVar[str] = "device.claimed"
    devices: list[str]
    job: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class DeviceReleased(Fact):
    """The attempt's end is proven; its devices are free. Recorded together with ``attempt.ended``."""

    type: ClassVar[str] = "device.released"
    devices: list[str]
    job: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class ModelRegistered(Fact):
    """A model can be named from now on. A second registration of a name replaces the first."""

    type: ClassVar[str] = "model.registered"
    name: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelDeleted(Fact):
    """The name is free again; files are kept."""

    type: ClassVar[str] = "model.deleted"
    name: str


@dataclass(frozen=True, kw_only=True)
class TokenCreated(Fact):
    """A bearer token was made. Only its SHA-256 is kept."""

    type: ClassVar[str] = "token.created"
    id: str
    scope: str
    sha256: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class TokenRevoked(Fact):
    """The token opens nothing any more."""

    type: ClassVar[str] = "token.revoked"
    id: str


@dataclass(frozen=True, kw_only=True)
class DaemonStarted(Fact):
    """A daemon opened the log."""

    type: ClassVar[str] = "daemon.started"
    version: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class DaemonStopped(Fact):
    """The daemon closed the log on purpose. Its absence before the next start means it was killed."""

    type: ClassVar[str] = "daemon.stopped"


FACTS: dict[str, type[Fact]] = {
    fact.type: fact
    for fact in (
        JobSubmitted, JobQueued, JobPhase, JobProgress, JobAdvice, DatasetAudited, EvaluationRecorded,
        CheckpointSaved, CheckpointDiscarded, ArtifactPublished, JobCancelRequested, JobCancelled,
        JobPauseRequested, JobPaused, JobSucceeded, JobFailed, JobDeleted, AttemptStarting, AttemptLaunched,
        AttemptStarted, AttemptResult, AttemptModel, AttemptError, AttemptLineRejected, AttemptEnded,
        DevicesDetected, DeviceClaimed, DeviceReleased, ModelRegistered, ModelDeleted, TokenCreated,
        TokenRevoked, DaemonStarted, DaemonStopped,
    )
}  # fmt: skip

#: event type -> schema version that this release writes
SCHEMAS: dict[str, int] = dict.fromkeys(FACTS, 1)

_FIELD_NAMES: dict[type[Fact], tuple[str, ...]] = {
    fact: tuple(f.name for f in fields(fact)) for fact in FACTS.values()
}


def _field_names(fact: type[Fact]) -> tuple[str, ...]:
    return _FIELD_NAMES[fact]


def decode(event_type: str, data: Mapping[str, Json]) -> Fact:
    """The fact behind a stored event. Raises ``KeyError`` for a type that this release does not know."""
    return FACTS[event_type].from_data(data)
