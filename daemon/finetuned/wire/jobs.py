"""Jobs and their attempts."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from finetuned.wire.artifacts import Artifact, Checkpoint

Json = Any


class Stopping(TypedDict):
    """That the watchdog has an attempt stopped: for which kind of failure, and why."""

    failure: str
    reason: str


class Alert(TypedDict):
    """Something about an attempt that is worth a look; nothing was done about it."""

    attempt: int
    subject: str
    message: str
    figures: dict[str, float]
    at: str | None


class Attempt(TypedDict):
    """One try at a job. ``purpose`` is ``validate`` or ``run``; times are RFC 3339 or null.

    ``failure`` is the kind of its failure, ``stopping`` the watchdog's reason to stop it, and ``overrides`` are the
    parameters that differ from the job's.
    """

    number: int
    purpose: str
    devices: list[str]
    pid: int | None
    resume_from: str | None
    starting_at: str | None
    started_at: str | None
    ended_at: str | None
    outcome: str | None
    cause: str | None
    exit_code: int | None
    signal: int | None
    failure: str | None
    stopping: Stopping | None
    overrides: dict[str, Json]


class JobError(TypedDict):
    """Why a job failed: a stable code and a sentence with the remedy."""

    code: str
    message: str


class FilesRemoved(TypedDict):
    """That a job's files are gone: checkpoints, artifacts and output. Its events are not."""

    at: str
    reason: str
    bytes: int


class Job(TypedDict):
    """A job. ``seq`` is its newest event's: follow its events after that and miss none.

    ``secrets`` are names and references (``secret:hf``), never values. ``timeouts`` are seconds, ``limits`` cores and
    bytes. ``repeated_steps`` are those that its next attempt does again, ``overrides`` parameters that differ from then on.
    """

    id: str
    object: Literal["job"]
    seq: int
    kind: str
    name: str | None
    state: str
    phase: str | None
    params: dict[str, Json]
    priority: int
    metadata: dict[str, Json]
    attempt: int
    max_attempts: int
    created_at: str | None
    updated_at: str | None
    started_at: str | None
    paused_at: str | None
    finished_at: str | None
    progress: dict[str, Json] | None
    wait_reason: str | None
    queue_position: int | None
    retry_of: str | None
    resume_from: str | None
    template: str | None
    datasets: dict[str, Json]
    secrets: dict[str, str]
    estimate: dict[str, Json] | None
    measured: dict[str, Json] | None
    ignores_estimate: bool
    timeouts: dict[str, float | None]
    limits: dict[str, float]
    preemptible: bool
    reduces_batch: bool
    overrides: dict[str, Json]
    pause_reason: str | None
    repeated_steps: int | None
    cancel_reason: str | None
    error: JobError | None
    result: dict[str, Json] | None
    devices: list[str]
    submitted_by: str
    attempts: list[Attempt]
    checkpoints: list[Checkpoint]
    artifacts: list[Artifact]
    audits: list[dict[str, Json]]
    evaluations: list[dict[str, Json]]
    advice: list[dict[str, Json]]
    alerts: list[Alert]
    files_removed: FilesRemoved | None


class Kind(TypedDict):
    """A job kind; ``params_schema`` is the JSON schema of its parameters, ``dataset_params`` those of them that may
    refer to a dataset.
    """

    name: str
    object: Literal["kind"]
    summary: str
    validates: bool
    params_schema: dict[str, Json]
    dataset_params: list[str]
