"""How long a job will take, from how long similar ones took on this machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pydantic import BaseModel, ValidationError

from finetuned.domain.job import Job
from finetuned_sdk import JobKind

LOOKED_AT = 50  # of the newest jobs of the kind that succeeded
MOST_SIMILAR = 10  # of those, to take the middle of


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Seconds that a job will probably take, and what that was told from.

    ``source`` is ``history`` (``jobs`` similar ones), ``kind`` (its declaration says so), or ``None``: not known.
    """

    seconds: float | None = None
    source: str | None = None
    jobs: int = 0
    steps: int | None = None


def foretell(
    kind: JobKind,
    params: BaseModel,
    *,
    steps: int | None,
    device: str,
    declared: float | None,
    ended: Iterable[Job],
) -> Duration:
    """The duration on a device of one sort (``gpu``, ``cpu``) from the newest ended jobs, else as declared."""
    if declared is not None:
        return Duration(seconds=declared, source="kind", steps=steps)
    if not kind.speed_params or steps is None:
        return Duration(steps=steps)
    wanted = _speed(kind, params)
    paces = [
        pace
        for job in ended
        if _device(job) == device and _given_speed(kind, job) == wanted and (pace := seconds_a_step(job))
    ][:MOST_SIMILAR]
    if not paces:
        return Duration(steps=steps)
    return Duration(seconds=round(median(paces) * steps, 1), source="history", jobs=len(paces), steps=steps)


def seconds_a_step(job: Job) -> float | None:
    """What a step cost, all that is around the steps included; ``None`` if the job did not do and count them all.

    Steps count from the beginning, so a job that began at another's checkpoint did fewer than it says.
    """
    if not job.runs or job.runs[0].resume_from is not None:
        return None
    done = (job.progress or {}).get("current_step")
    wall = sum(attempt.wall_s for attempt in job.runs)
    return wall / done if isinstance(done, int) and done > 0 and wall > 0 else None


def _device(job: Job) -> str:
    return next((name.partition(":")[0] for attempt in reversed(job.runs) for name in attempt.devices), "")


def _speed(kind: JobKind, params: BaseModel) -> Sequence[Any]:
    return [getattr(params, name, None) for name in kind.speed_params]


def _given_speed(kind: JobKind, job: Job) -> Sequence[Any] | None:
    try:
        return _speed(kind, kind.params.model_validate({**job.params, **job.overrides}))
    except ValidationError:  # of an older version of its plugin
        return None
