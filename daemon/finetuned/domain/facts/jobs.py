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
    estimate: dict[str, Json] | None  #: duration_s, device_bytes, host_bytes, disk_bytes
    retry_of: str | None  #: the job that this one repeats
    resume_from: str | None  #: the checkpoint that the first run goes on from
    datasets: dict[str, Json] = field(default_factory=dict)  #: per parameter: name, version and path
    template: str | None = None  #: the template it was made from, as name@version
    secrets: dict[str, str] = field(default_factory=dict)  #: names of its secrets, and what each refers to


@dataclass(frozen=True, kw_only=True)
class JobQueued(Fact):
    """The job is ready to run. ``delay_s`` holds it back after a crash; it keeps its place meanwhile."""

    type: ClassVar[str] = "job.queued"
    reason: str
    delay_s: float = 0.0
    resume_from: str | None = None


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
