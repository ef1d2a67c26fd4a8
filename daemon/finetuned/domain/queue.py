"""Who is next, and who waits for what.

Order: one point of priority is worth ``PRIORITY_SECONDS`` of waiting. Since every job's age grows at the same
rate, comparing aged priorities is comparing ``queued since - priority * PRIORITY_SECONDS``: a key that never
changes. So nobody starves (enough waiting beats any fixed priority), equals are first in, first out, and a job
that comes back from a backoff finds its old place.

A job in backoff is passed over and holds nothing. The first job that is ready but does not fit keeps the free
devices for itself: later jobs do not slip past it, so a job that needs many devices is not starved by small ones.
Only jobs that need no device at all pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot

PRIORITY_SECONDS = 600
MAX_VALIDATIONS = 2  # validation attempts hold no device, but they do take a core each


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that may start now, and the devices it gets."""

    job: Job
    purpose: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits; ``position`` counts from 1 among queued jobs and is ``None`` for others."""

    reason: str
    position: int | None = None


def in_backoff(jobs: Iterable[Job], elapsed: AbstractSet[tuple[str, int]]) -> frozenset[str]:
    """The queued jobs that wait for their backoff to pass.

    ``elapsed`` names those whose wait is over, as (job, attempts so far): what is not in it waits, so a decision
    that knows less than the present errs on the side of waiting.
    """
    return frozenset(
        job.id
        for job in jobs
        if job.state is JobState.QUEUED and job.delay_s and (job.id, len(job.attempts)) not in elapsed
    )


def order(job: Job) -> tuple[int, int]:
    """The job's place in the queue: smaller goes first. Microseconds, then the submit order."""
    return (job.created_at - job.priority * PRIORITY_SECONDS * 1_000_000, job.seq)


def in_order(jobs: Iterable[Job], state: JobState) -> list[Job]:
    """The jobs of one state, next first."""
    return sorted((job for job in jobs if job.state is state), key=order)


def plan(
    jobs: Iterable[Job],
    slots: Iterable[Slot],
    *,
    in_backoff: AbstractSet[str] = frozenset(),
    reserved: AbstractSet[str] = frozenset(),
) -> list[Claim]:
    """The attempts that may start now, in order. Pure: the caller records them.

    ``in_backoff`` names jobs that are held back, ``reserved`` devices that nobody may have.
    """
    live = list(jobs)
    usable = [slot for slot in slots if slot.id not in reserved]
    return [*_plan_validations(live, in_backoff), *_plan_runs(live, usable, in_backoff)]


def _plan_validations(jobs: list[Job], in_backoff: AbstractSet[str]) -> list[Claim]:
    validating = in_order(jobs, JobState.VALIDATING)
    under_way = sum(job.live_attempt is not None for job in validating)
    ready = [job for job in validating if job.live_attempt is None and job.id not in in_backoff]
    return [Claim(job, "validate", ()) for job in ready[: max(0, MAX_VALIDATIONS - under_way)]]


def _plan_runs(jobs: list[Job], slots: list[Slot], in_backoff: AbstractSet[str]) -> list[Claim]:
    total = len(slots)
    free = sorted(slot.id for slot in slots if slot.holder is None)
    claims: list[Claim] = []
    if not free and all(job.devices for job in jobs if job.state is JobState.QUEUED):
        return []
    blocked = False
    for job in in_order(jobs, JobState.QUEUED):
        if job.devices > total:
            continue  # a device is gone: this one cannot run here, and must not keep others from it
        blocked = blocked or (job.id not in in_backoff and job.devices > len(free))
        if job.id in in_backoff or (blocked and job.devices):
            continue
        claims.append(Claim(job, "run", tuple(free[: job.devices])))
        del free[: job.devices]
    return claims


def waits(
    jobs: Iterable[Job],
    slots: Iterable[Slot],
    *,
    in_backoff: AbstractSet[str] = frozenset(),
    reserved: AbstractSet[str] = frozenset(),
) -> dict[str, Wait]:
    """Why each live job that does not run is waiting, by job id."""
    live, all_slots = list(jobs), list(slots)
    usable = sum(slot.id not in reserved for slot in all_slots)
    found = {job.id: Wait(reason) for job in live if (reason := _unqueued_reason(job)) is not None}
    blocked_by: Job | None = None
    for position, job in enumerate(in_order(live, JobState.QUEUED), start=1):
        found[job.id] = Wait(_queued_reason(job, blocked_by, all_slots, in_backoff, reserved), position)
        if blocked_by is None and job.id not in in_backoff and 0 < job.devices <= usable:
            blocked_by = job
    return found


def wait(
    job: Job,
    jobs: Iterable[Job],
    slots: Iterable[Slot],
    *,
    in_backoff: AbstractSet[str] = frozenset(),
    reserved: AbstractSet[str] = frozenset(),
) -> Wait | None:
    """What :func:`waits` says of one of the jobs, in one pass over them instead of a sort."""
    if job.state is not JobState.QUEUED:
        reason = _unqueued_reason(job)
        return None if reason is None else Wait(reason)
    all_slots = list(slots)
    usable = sum(slot.id not in reserved for slot in all_slots)
    own, position = order(job), 1
    blocked_by: tuple[tuple[int, int], Job] | None = None
    for each in jobs:
        if each.state is not JobState.QUEUED or (key := order(each)) >= own:
            continue
        position += 1
        if (
            (blocked_by is None or key < blocked_by[0])
            and 0 < each.devices <= usable
            and each.id not in in_backoff
        ):
            blocked_by = key, each
    first = None if blocked_by is None else blocked_by[1]
    return Wait(_queued_reason(job, first, all_slots, in_backoff, reserved), position)


def _queued_reason(
    job: Job,
    blocked_by: Job | None,
    slots: list[Slot],
    in_backoff: AbstractSet[str],
    reserved: AbstractSet[str],
) -> str:
    if job.id in in_backoff:
        return f"backing off before the next attempt: {job.queued_reason}"
    if blocked_by is not None and job.devices:
        return f"behind {blocked_by.id}, which is next"
    return _device_reason(job, slots, reserved)


def _unqueued_reason(job: Job) -> str | None:
    match job.state:
        case JobState.VALIDATING if job.live_attempt is None:
            return "waiting for its data to be checked"
        case JobState.VALIDATING:
            return "its data are being checked"
        case JobState.STARTING:
            return "its trainer is starting"
        case JobState.PAUSING:
            return "saving a checkpoint before it pauses"
        case JobState.PAUSED:
            return "paused"
        case JobState.CANCELLING:
            return "its processes are being stopped"
    return None


def _device_reason(job: Job, slots: list[Slot], reserved: AbstractSet[str]) -> str:
    free = [slot for slot in slots if slot.holder is None and slot.id not in reserved]
    if job.devices > len(slots):
        return f"needs {job.devices} devices; this host has {len(slots)}"
    if job.devices <= len(free):
        return "next; about to start"
    holders = sorted({slot.holder[0] for slot in slots if slot.holder})
    if any(slot.id in reserved for slot in slots):
        holders.append("an attempt that the log does not know")
    noun = "device" if job.devices == 1 else "devices"
    return f"needs {job.devices} {noun}; {len(free)} of {len(slots)} free, held by {', '.join(holders)}"
