"""Whether a job fits into what the host has at the moment; pure, and in bytes.

Two things bound its memory: what is free now, of whoever's making, and what has not been promised to our own jobs that
run, which may not have taken theirs yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetuned.domain.job import Job

TOLERANCE = 0.25  # how far an estimate of memory may be off: nobody is held back or refused within it


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The host's memory, what is free of it, and of the disk that the jobs' files are on. 0 is not known."""

    memory_bytes: int = 0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0


def promised(jobs: Iterable[Job]) -> int:
    """The memory that jobs with a running attempt will take, as far as it was estimated."""
    return sum(memory_of(job) for job in jobs if _runs(job))


def _runs(job: Job) -> bool:
    attempt = job.live_attempt
    return attempt is not None and attempt.purpose == "run"


def memory_of(job: Job) -> int:
    """The host's memory that a job will probably take; 0 if nobody knows."""
    return int((job.estimate or {}).get("host_bytes") or 0)


def lack(job: Job, room: Room | None, taken: int) -> str | None:
    """Why a job does not fit now, with the figures; ``None`` if it does, or if it is to start all the same.

    ``taken`` is what is promised to others.
    """
    if room is None or job.ignores_estimate:
        return None
    return _lacks_memory(job, room, taken) or _lacks_disk(job, room)


def _lacks_memory(job: Job, room: Room, taken: int) -> str | None:
    needed = memory_of(job)
    left = min(room.memory_free_bytes, max(0, room.memory_bytes - taken))
    if not room.memory_bytes or needed * (1 - TOLERANCE) <= left:
        return None
    others = f", {gigabytes(taken)} promised to jobs that run" if taken else ""
    return (
        f"needs about {gigabytes(needed)} of memory; {gigabytes(room.memory_free_bytes)} of"
        f" {gigabytes(room.memory_bytes)} free{others}"
    )


def _lacks_disk(job: Job, room: Room) -> str | None:
    needed = int((job.estimate or {}).get("disk_bytes") or 0)
    if job.runs or not room.disk_free_bytes or needed <= room.disk_free_bytes:
        return None  # what it ran before has left its checkpoints: they are counted in it
    return (
        f"needs about {gigabytes(needed)} of disk for its checkpoints and its result; "
        f"{gigabytes(room.disk_free_bytes)} free"
    )


def gigabytes(size: float) -> str:
    """A size for people."""
    return f"{size / 1e9:.1f} GB"
