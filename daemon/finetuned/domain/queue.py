"""Who is next, and who waits for what.

Order: by ``finetuned.domain.places``. So nobody starves (enough waiting beats any fixed priority), equals are first in,
first out, and a job that comes back from a backoff finds its old place. An engine has the place and the priority of the
first of the jobs that ask it.

A job in backoff is passed over and holds nothing. The first job that is ready but does not fit keeps the free
devices for itself: later jobs do not slip past it, so a job that needs many devices is not starved by small ones.
Only jobs that need no device at all pass. What waits for memory, for disk or for strangers to leave a device waits for
what may never come, and keeps nobody from anything. If the first has a higher priority of its own (waiting does not
count here) than preemptible jobs that run, enough of them are asked to leave their devices to it, where those that
become free by themselves are too few; they go on after it has begun, or if it cannot begin. An engine leaves its device
also to a job of the same priority, once that has waited longer by a point's worth than all who ask the engine; who would
ask it after that waits for the job in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from finetuned.domain import engines, tries
from finetuned.domain.engines import Contender
from finetuned.domain.job import Job
from finetuned.domain.places import POINT, order
from finetuned.domain.room import memory_of
from finetuned.domain.situation import CALM, Situation, is_in_reach, look_at, may_use
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot

MAX_ASKING = 2  # jobs that ask one engine at once: the second keeps it busy while the first ends
MAX_VALIDATIONS = 2  # validation attempts hold no device, but they do take a core each

_LEAVING = frozenset({JobState.PAUSING, JobState.CANCELLING})


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that may start now, and the devices it gets."""

    job: Job
    purpose: str
    devices: tuple[str, ...]


def in_backoff(jobs: Iterable[Job], elapsed: AbstractSet[tuple[str, int]]) -> frozenset[str]:
    """The jobs that wait for their backoff to pass, before a run or another validation.

    ``elapsed`` names those whose wait is over, as (job, attempts so far): what is not in it waits, so a decision
    that knows less than the present errs on the side of waiting.
    """
    return frozenset(
        job.id for job in jobs if (job.id, len(job.attempts)) not in elapsed and tries.delay_s(job)
    )


def in_order(jobs: Iterable[Job], state: JobState) -> list[Job]:
    """The jobs of one state, next first."""
    return sorted((job for job in jobs if job.state is state), key=order)


def plan(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> list[Claim]:
    """The attempts that may start now, in order. Pure: the caller records them."""
    if situation.closed is not None:
        return []
    live = engines.as_asked(jobs)
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
    look = look_at(jobs, slots, situation)
    asking = engines.asking(jobs)
    for job in in_order(jobs, JobState.QUEUED):
        if job.devices and blocked is not None:
            continue
        if is_full(job, asking) or (blocked is not None and gives_way(job, blocked)):
            continue
        if look.is_behind(job) or not look.is_ready(job):
            continue  # what it waits for may never come: it must not keep others from the devices
        usable = [device for device in free if may_use(job, situation.holds.get(device))]
        if job.devices > len(usable):
            blocked = job
            continue
        claims.append(Claim(job, "run", tuple(usable[: job.devices])))
        if job.engine:
            asking[job.engine["key"], job.priority] += 1
        look = replace(look, taken=look.taken + memory_of(job))
        free = [device for device in free if device not in usable[: job.devices]]
    return claims, blocked


def is_full(job: Job, asking: Mapping[tuple[str, int], int]) -> bool:
    """Whether as many jobs as may ask the job's engine already, none of them of less priority than it."""
    if job.engine is None:
        return False
    key = job.engine["key"]
    return (
        sum(count for (asked, priority), count in asking.items() if asked == key and priority >= job.priority)
        >= MAX_ASKING
    )


def gives_way(job: Job, blocked: Job) -> bool:
    """Whether a job that would ask an engine came too long after one that waits for a device, as the engine's."""
    return (
        job.engine is not None
        and job.engine["key"] != blocked.serves
        and order(blocked)[0] + POINT <= order(job)[0]
    )


def victims(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> list[tuple[Job, Job]]:
    """The running jobs that are to leave their devices, each with the job that gets them.

    Only as many as are needed, of the lowest priority first, and of equals the one that was submitted last. Devices
    that are being left are waited for: by jobs that pause or are cancelled, and by what holds them in passing.
    """
    live = engines.as_asked(jobs)
    found = contender(live, slots, situation)
    if found is None:
        return []
    return [(job, found.job) for job in _fewest(live, found.job, found.missing, situation)]


def contender(jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> Contender | None:
    """The first job that could start if others left their devices to it; none where nothing is started at all."""
    if situation.closed is not None:
        return None
    live, all_slots = engines.as_asked(jobs), list(slots)
    claims, first = _plan_runs(live, all_slots, situation)
    if first is None or first.id in situation.in_vain:
        return None
    claimed = {device for claim in claims for device in claim.devices}
    leaving = {job.id for job in live if job.state in _LEAVING}
    missing = first.devices - sum(
        slot.id not in claimed and is_in_reach(first, situation.holds.get(slot.id))
        if slot.holder is None
        else slot.holder[0] in leaving and not slot.gone
        for slot in all_slots
    )
    return Contender(first, missing)


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
