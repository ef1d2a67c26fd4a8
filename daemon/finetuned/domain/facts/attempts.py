"""Attempts: each try at a job, from its number to its proven end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from finetuned.domain.facts.base import Fact, Json


@dataclass(frozen=True, kw_only=True)
class AttemptStarting(Fact):
    """An attempt was given its number (the fencing token) and its devices; its process comes next."""

    type: ClassVar[str] = "attempt.starting"
    attempt: int
    purpose: str  #: validate or run
    devices: list[str]
    resume_from: str | None = None
    overrides: dict[str, Json] = field(default_factory=dict)  #: parameters that differ from the job's


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
    measured: dict[str, Json] = field(default_factory=dict)  #: host_bytes and device_bytes at their peak


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
    """The worker gave up and said why. An error that is not retryable fails the job, or pauses it."""

    type: ClassVar[str] = "attempt.error"
    attempt: int
    code: str
    message: str
    retryable: bool = False
    pauses: bool = False  #: the job is to wait until its cause has gone and somebody resumes it


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
    outcome: str  #: succeeded, failed, crashed, stalled, lost, paused or cancelled
    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    oom_killed: bool = False
    usage: dict[str, float] = field(default_factory=dict)
    failure: str | None = None  #: the kind of its failure, by which it is decided whether another try follows


@dataclass(frozen=True, kw_only=True)
class AttemptIntervened(Fact):
    """The watchdog did something about the attempt: a step of the ladder from a stack dump to a kill."""

    type: ClassVar[str] = "attempt.intervened"
    attempt: int
    action: str  #: dump_stacks, request_stop, terminate or kill
    failure: (
        str | None
    )  #: stall, start_timeout, deadline, limit or stopped (by hand); none if a pause or cancel was helped
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttemptAlert(Fact):
    """Something about the attempt is worth a look; nothing was done about it."""

    type: ClassVar[str] = "attempt.alert"
    attempt: int
    subject: str  #: memory, device_memory, disk, silence, limits or devices
    message: str
    figures: dict[str, float] = field(default_factory=dict)
