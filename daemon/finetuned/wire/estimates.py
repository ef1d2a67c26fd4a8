"""What a job will take, and what would come of a request."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

Json = Any


class Check(TypedDict):
    """One thing that was looked at. ``verdict`` is ``ok``, ``warning``, ``refused`` or ``unknown``; figures are bytes."""

    name: str
    verdict: str
    message: str
    figures: dict[str, int]


class Fix(TypedDict):
    """Parameters that could be changed, and what the job would take then."""

    params: dict[str, Json]
    estimate: dict[str, Json]


class Duration(TypedDict):
    """Seconds that it will probably take. ``source`` is ``history`` (of ``jobs`` similar ones), ``kind`` or null."""

    seconds: float | None
    source: str | None
    jobs: int
    steps: int | None


class Start(TypedDict):
    """Whether it would start at once, on which devices; else why not, and its place in the queue."""

    now: bool
    devices: list[str]
    wait_reason: str | None
    queue_position: int | None
    after_validation: bool


class DryRun(TypedDict):
    """What would come of a request: nothing was recorded. ``accepted`` is whether it would be taken."""

    object: Literal["dry_run"]
    kind: str
    accepted: bool
    params: dict[str, Json]
    devices: int
    estimate: dict[str, Json]
    duration: Duration
    checks: list[Check]
    fixes: list[Fix]
    start: Start
