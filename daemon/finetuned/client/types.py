"""The shapes of what the daemon answers: the keys of ``finetuned.views``, as types for programs."""

from __future__ import annotations

from typing import Any, Generic, TypedDict, TypeVar

Json = Any
Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list. ``next_after`` is what the next page's ``after`` takes."""

    data: list[Item]
    has_more: bool
    last_id: str | int | None
    next_after: str | int | None


class Event(TypedDict):
    """One fact of the log. ``at`` is RFC 3339 in UTC."""

    seq: int
    stream: str
    version: int
    type: str
    at: str
    actor: str
    data: dict[str, Json]


class Attempt(TypedDict):
    """One try at a job. ``purpose`` is ``validate`` or ``run``; times are RFC 3339 or ``None``."""

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


class Job(TypedDict):
    """A job; ``state`` is one of ``finetuned.domain.states.JobState``. Follow its events after ``seq`` and miss none."""

    id: str
    object: str
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
    estimate: dict[str, Json] | None
    cancel_reason: str | None
    error: dict[str, Json] | None
    result: dict[str, Json] | None
    devices: list[str]
    submitted_by: str
    attempts: list[Attempt]
    checkpoints: list[dict[str, Json]]
    artifacts: list[dict[str, Json]]
    audits: list[dict[str, Json]]
    evaluations: list[dict[str, Json]]
    advice: list[dict[str, Json]]


class Model(TypedDict):
    """A registered model. ``created`` is in Unix seconds, as OpenAI has it."""

    id: str
    object: str
    created: int
    owned_by: str
    path: str
    kind: str
    base: str | None
    job: str | None
    lineage: dict[str, Json]


class Kind(TypedDict):
    """A job kind; ``params_schema`` is the JSON schema of its parameters."""

    name: str
    object: str
    summary: str
    validates: bool
    params_schema: dict[str, Json]


class Token(TypedDict):
    """A token without its secret."""

    id: str
    object: str
    scope: str
    name: str | None
    created_at: str | None
    revoked_at: str | None


class Device(TypedDict):
    """A device and the attempt that holds it (``{"job", "attempt"}``)."""

    id: str
    kind: str
    name: str
    memory_bytes: int
    holder: dict[str, Json] | None
