"""Who is next, and who waits for what.

Order: one point of priority is worth ``PRIORITY_SECONDS`` of waiting. Since every job's age grows at the same
rate, comparing aged priorities is comparing ``queued since - priority * PRIORITY_SECONDS``: a key that never
changes. So nobody starves (enough waiting beats any fixed priority), equals are first in, first out, and a job
that comes back from a backoff finds its old place.

A job in backoff is passed over and holds nothing. The first job that is ready but does not fit keeps the free
devices for itself: later jobs do not slip past it, so a job that needs many devices is not starved by small ones.
Only jobs that need no device at all pass. What waits for memory, for disk or for strangers to leave a device waits for
what may never come, and keeps nobody from anything. If the first has a higher priority of its own (waiting does not
count here) than preemptible jobs that run, enough of them are asked to leave their devices to it, where those that
become free by themselves are too few; they go on after it has begun, or if it cannot begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from finetuned.domain import tries
from finetuned.domain.job import Job
from finetuned.domain.room import TOLERANCE, Room, lack, memory_of, promised
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
class Hold:
    """Why a device that no attempt holds is not free, or not whole: whose processes have its memory.

    A job that needs at most ``free_bytes`` of it may have it all the same. ``passing``: it goes by itself before long,
    as what is left of an attempt that has ended.
    """

    reason: str
    free_bytes: int = 0
    passing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What decides who may start beside the log.

    ``in_backoff`` names jobs that are held back, ``holds`` devices that are not free though no attempt holds them,
    ``closed`` says why nothing at all is started, ``ripe`` names attempts (job, number) that have run long enough to
    be preempted. ``in_vain`` names jobs that preempted others and could not start all the same, as for what strangers
    have of the device: they preempt nobody again. ``room`` is what the host has left; ``None`` where nobody looked.
    """

    in_backoff: AbstractSet[str] = frozenset()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    closed: str | None = None
    ripe: AbstractSet[tuple[str, int]] = frozenset()
    in_vain: AbstractSet[str] = frozenset()
    room: Room | None = None


CALM = Situation()

_LEAVING = frozenset({JobState.PAUSING, JobState.CANCELLING})


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits; ``position`` counts from 1 among queued jobs and is ``None`` for others."""

    reason: str
    position: int | None = None


def in_backoff(jobs: Iterable[Job], elapsed: AbstractSet[tuple[str, int]]) -> frozenset[str]:
    """The jobs that wait for their backoff to pass, before a run or another validation.

    ``elapsed`` names those whose wait is over, as (job, attempts so far): what is not in it waits, so a decision
    that knows less than the present errs on the side of waiting.
    """
    return frozenset(
        job.id for job in jobs if (job.id, len(job.attempts)) not in elapsed and tries.delay_s(job)
    )


def order(job: Job) -> tuple[int, int]:
    """The job's place in the queue: smaller goes first. Microseconds, then the submit order."""
    return (job.created_at - job.priority * PRIORITY_SECONDS * 1_000_000, job.seq)


def in_order(jobs: Iterable[Job], state: JobState) -> list[Job]:
    """The jobs of one state, next first."""
    return sorted((job for job in jobs if job.state is state), key=order)


def plan(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> list[Claim]:
    """The attempts that may start now, in order. Pure: the caller records them."""
    if situation.closed is not None:
        return []
    live = list(jobs)
    return [*_plan_validations(live, situation.in_backoff), *_plan_runs(live, list(slots), situation)[0]]


def _plan_validations(jobs: list[Job], in_backoff: AbstractSet[str]) -> list[Claim]:
    validating = in_order(jobs, JobState.VALIDATING)
    under_way = sum(job.live_attempt is not None for job in validating)
    ready = [job for job in validating if job.live_attempt is None and job.id not in in_backoff]
    return [Claim(job, "validate", ()) for job in ready[: max(0, MAX_VALIDATIONS - under_way)]]


def _plan_runs(jobs: list[Job], slots: list[Slot], situation: Situation) -> tuple[list[Claim], Job | None]:
    """The runs that may start, and the first job that is ready and does not fit."""
    free = sorted(slot.id for slot in slots if slot.holder is None)
    claims: list[Claim] = []
    blocked: Job | None = None
    look = _look(jobs, slots, situation)
    for job in in_order(jobs, JobState.QUEUED):
        if job.devices and blocked is not None:
            continue
        if look.is_behind(job) or not look.is_ready(job):
            continue  # what it waits for may never come: it must not keep others from the devices
        usable = [device for device in free if _may_use(job, situation.holds.get(device))]
        if job.devices > len(usable):
            blocked = job
            continue
        claims.append(Claim(job, "run", tuple(usable[: job.devices])))
        look = replace(look, taken=look.taken + memory_of(job))
        free = [device for device in free if device not in usable[: job.devices]]
    return claims, blocked


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the queue goes by: ``taken`` is the memory that is promised to jobs that run.

    ``preemptors`` are let go first by those that they preempted: queued jobs that could start.
    """

    slots: list[Slot]
    situation: Situation
    taken: int
    preemptors: AbstractSet[str] = frozenset()

    def is_ready(self, job: Job) -> bool:
        """Whether a queued job waits at most for devices that attempts of ours hold, or what is left of such."""
        if job.id in self.situation.in_backoff or lack(job, self.situation.room, self.taken) is not None:
            return False
        holds = self.situation.holds
        return job.devices <= sum(_is_in_reach(job, holds.get(slot.id)) for slot in self.slots)

    def is_behind(self, job: Job) -> bool:
        """Whether it waits for the job that preempted it."""
        return job.preempted_by in self.preemptors

    def blocks(self, job: Job) -> bool:
        """Whether a queued job keeps free devices for itself."""
        return job.devices > 0 and not self.is_behind(job) and self.is_ready(job)


def _look(jobs: list[Job], slots: list[Slot], situation: Situation) -> _Look:
    look = _Look(slots, situation, promised(jobs))
    queued = {job.id: job for job in jobs if job.state is JobState.QUEUED}
    named = {job.preempted_by for job in queued.values() if job.preempted_by in queued}
    return replace(look, preemptors={each for each in named if each and look.is_ready(queued[each])})


def _may_use(job: Job, hold: Hold | None) -> bool:
    """Whether what is free of a device is enough for the job, as far as estimates can tell and it wants them heeded."""
    estimated = 0 if job.ignores_estimate else (job.estimate or {}).get("device_bytes") or 0
    return hold is None or 0 < hold.free_bytes >= estimated * (1 - TOLERANCE)


def _is_in_reach(job: Job, hold: Hold | None) -> bool:
    """Whether the job may use a device once none of our attempts holds it, nor anything in passing."""
    return _may_use(job, hold) or (hold is not None and hold.passing)


def victims(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> list[tuple[Job, Job]]:
    """The running jobs that are to leave their devices, each with the job that gets them.

    Only as many as are needed, of the lowest priority first, and of equals the one that was submitted last. Devices
    that are being left are waited for: by jobs that pause or are cancelled, and by what holds them in passing.
    """
    if situation.closed is not None:
        return []
    live, all_slots = list(jobs), list(slots)
    claims, first = _plan_runs(live, all_slots, situation)
    if first is None or first.id in situation.in_vain:
        return []
    claimed = {device for claim in claims for device in claim.devices}
    leaving = {job.id for job in live if job.state in _LEAVING}
    missing = first.devices - sum(
        slot.id not in claimed and _is_in_reach(first, situation.holds.get(slot.id))
        if slot.holder is None
        else slot.holder[0] in leaving and not slot.gone
        for slot in all_slots
    )
    return [(job, first) for job in _fewest(live, first, missing, situation)]


def _fewest(live: list[Job], first: Job, missing: int, situation: Situation) -> list[Job]:
    """Jobs that may be preempted and have the missing devices, none of them for nothing; nobody if there are too few."""
    found: list[Job] = []
    for job in sorted(live, key=lambda each: (each.priority, -each.seq)):
        if missing > 0 and job.devices and _may_be_preempted(job, first, situation):
            found.append(job)
            missing -= job.devices
    if missing > 0:
        return []
    for job in list(found):
        if missing + job.devices <= 0:
            found.remove(job)
            missing += job.devices
    return found


def _may_be_preempted(job: Job, by: Job, situation: Situation) -> bool:
    attempt = job.live_attempt
    return (
        job.state is JobState.RUNNING
        and job.preemptible
        and job.priority < by.priority
        and attempt is not None
        and (job.id, attempt.number) in situation.ripe
    )


class Waits(Mapping[str, Wait]):
    """Why each live job that does not run is waiting, by job id. Reasons are put into words when they are asked for."""

    def __init__(self, jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation) -> None:
        self._jobs = {job.id: job for job in jobs}
        live, queued = list(self._jobs.values()), in_order(self._jobs.values(), JobState.QUEUED)
        self._situation = situation
        self._look = _look(live, list(slots), situation)
        self._positions = {job.id: position for position, job in enumerate(queued, start=1)}
        self._blocker = next(filter(self._look.blocks, queued), None)

    def __getitem__(self, job_id: str) -> Wait:
        job, position = self._jobs[job_id], self._positions.get(job_id)
        if position is None:
            reason = _unqueued_reason(job, self._situation)
            if reason is None:
                raise KeyError(job_id)
            return Wait(reason)
        blocker = self._blocker
        if blocker is not None and self._positions[blocker.id] >= position:
            blocker = None
        return Wait(_queued_reason(job, blocker, self._look), position)

    def __iter__(self) -> Iterator[str]:
        return (
            job.id
            for job in self._jobs.values()
            if job.id in self._positions or _unqueued_reason(job, self._situation) is not None
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


def waits(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> Waits:
    """Why each live job that does not run is waiting, by job id."""
    return Waits(jobs, slots, situation)


def wait(job: Job, jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> Wait | None:
    """What :func:`waits` says of one of the jobs, in one pass over them instead of a sort."""
    if job.state is not JobState.QUEUED:
        reason = _unqueued_reason(job, situation)
        return None if reason is None else Wait(reason)
    all_slots, all_jobs = list(slots), list(jobs)
    own, position = order(job), 1
    blocked_by: tuple[tuple[int, int], Job] | None = None
    look = _look(all_jobs, all_slots, situation)
    for each in all_jobs:
        if each.state is not JobState.QUEUED or (key := order(each)) >= own:
            continue
        position += 1
        if (blocked_by is None or key < blocked_by[0]) and look.blocks(each):
            blocked_by = key, each
    return Wait(_queued_reason(job, None if blocked_by is None else blocked_by[1], look), position)


def _queued_reason(job: Job, blocked_by: Job | None, look: _Look) -> str:
    situation = look.situation
    if situation.closed is not None:
        return situation.closed
    if job.id in situation.in_backoff:
        return f"backing off before the next attempt: {job.queued_reason}"
    if look.is_behind(job):
        return f"behind {job.preempted_by}, which preempted it"
    if (lacking := lack(job, situation.room, look.taken)) is not None:
        return lacking
    if blocked_by is not None and job.devices:
        return f"behind {blocked_by.id}, which is next"
    return _device_reason(job, look.slots, situation.holds)


def _unqueued_reason(job: Job, situation: Situation) -> str | None:
    match job.state:
        case JobState.VALIDATING if job.live_attempt is None:
            return situation.closed or _unvalidated_reason(job, situation)
        case JobState.VALIDATING:
            return "its data are being checked"
        case JobState.STARTING:
            return "its trainer is starting"
        case JobState.PAUSING:
            return "saving a checkpoint before it pauses"
        case JobState.PAUSED:
            return "paused" if job.pause_reason is None else f"paused: {job.pause_reason}"
        case JobState.CANCELLING:
            return "its processes are being stopped"
    return None


def _unvalidated_reason(job: Job, situation: Situation) -> str:
    newest = job.attempt
    if newest is None or job.id not in situation.in_backoff:
        return "waiting for its data to be checked"
    return f"backing off before its data are checked again: attempt {newest.number} ended: {newest.cause}"


def _device_reason(job: Job, slots: list[Slot], holds: Mapping[str, Hold]) -> str:
    unheld = [slot for slot in slots if slot.holder is None]
    free = [slot for slot in unheld if _may_use(job, holds.get(slot.id))]
    if job.devices > len(slots):
        return f"needs {job.devices} devices; this host has {len(slots)}"
    if job.devices <= len(free):
        return "next; about to start"
    holders = sorted({slot.holder[0] for slot in slots if slot.holder})
    holders += sorted({holds[slot.id].reason for slot in unheld if slot not in free})
    noun = "device" if job.devices == 1 else "devices"
    return f"needs {job.devices} {noun}; {len(free)} of {len(slots)} free, held by {', '.join(holders)}"
