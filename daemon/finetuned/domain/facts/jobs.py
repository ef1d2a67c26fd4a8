"""The life of a job: what its users and the daemon decide about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from finetuned.domain.facts.base import Fact, Json


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
    estimate: dict[str, Json] | None  #: duration_s, device_bytes, host_bytes, disk_bytes, breakdown
    retry_of: str | None  #: the job that this one repeats
    resume_from: str | None  #: the checkpoint that the first run goes on from
    datasets: dict[str, Json] = field(default_factory=dict)  #: per parameter: name, version and path
    template: str | None = None  #: the template it was made from, as name@version
    secrets: dict[str, str] = field(default_factory=dict)  #: names of its secrets, and what each refers to
    timeouts: dict[str, float | None] = field(
        default_factory=dict
    )  #: seconds; how long which silence is borne
    limits: dict[str, float] = field(default_factory=dict)  #: cpu (cores), memory, gpu_memory, disk (bytes)
    preemptible: bool = False  #: whether a job of higher priority may take its devices
    reduces_batch: bool = True  #: whether an attempt after one without memory halves its batches
    ignores_estimate: bool = False  #: whether it starts though the estimate says that it does not fit
    overrides: dict[str, Json] = field(
        default_factory=dict
    )  #: parameters that differ, as those of the job that it repeats did
    engine: dict[str, Json] | None = None  #: the engine that its worker asks: kind, params and key
    serves: str | None = None  #: the key of the engine that it is itself


@dataclass(frozen=True, kw_only=True)
class JobQueued(Fact):
    """The job is ready to run. ``delay_s`` holds it back after a crash; it keeps its place meanwhile."""

    type: ClassVar[str] = "job.queued"
    reason: str
    delay_s: float = 0.0
    resume_from: str | None = None
    repeated_steps: int | None = None  #: steps done after that checkpoint, which are done again
    rewinds: bool = (
        False  #: somebody named the checkpoint: later ones of earlier attempts do not count any more
    )
    overrides: dict[str, Json] = field(
        default_factory=dict
    )  #: parameters that differ from the job's from now on
    preempted_by: str | None = None  #: the job that goes first


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
    """The job is to leave its devices after a checkpoint. Asked again, the newest request counts.

    Recorded for a job whose trainer could not go on, too, once its attempt has ended.
    """

    type: ClassVar[str] = "job.pause_requested"
    reason: str | None = None
    then: str = "paused"  #: paused: until it is resumed; queued: it goes on by itself
    wait_s: float = 30.0  #: how long the checkpoint is waited for
    preempted_by: str | None = None  #: the job that is to have its devices


@dataclass(frozen=True, kw_only=True)
class JobPaused(Fact):
    """The job holds no device and waits to be resumed."""

    type: ClassVar[str] = "job.paused"
    resume_from: str | None = None
    repeated_steps: int | None = None  #: steps done after that checkpoint, which are done again
    overrides: dict[str, Json] = field(
        default_factory=dict
    )  #: parameters that differ from the job's from now on


@dataclass(frozen=True, kw_only=True)
class JobCheckpointRequested(Fact):
    """Somebody asked for a checkpoint at the next step, without a stop."""

    type: ClassVar[str] = "job.checkpoint_requested"


@dataclass(frozen=True, kw_only=True)
class JobMeasured(Fact):
    """What the job took, beside what was estimated. Bytes and seconds; ``None`` where nobody measured."""

    type: ClassVar[str] = "job.measured"
    estimate: dict[str, Json]
    measured: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class JobFilesRemoved(Fact):
    """The files of an ended job are removed: checkpoints, artifacts and output. Its events stay."""

    type: ClassVar[str] = "job.files_removed"
    reason: str
    bytes: int  #: that they took


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
