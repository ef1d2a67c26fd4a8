"""Why a job waits, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from finetuned.domain import engines
from finetuned.domain.job import Job
from finetuned.domain.places import order
from finetuned.domain.queue import MAX_ASKING, gives_way, in_order, is_full
from finetuned.domain.room import lack
from finetuned.domain.situation import CALM, Hold, Look, Situation, look_at, may_use
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot

WAITING_FOR_ENGINE = "waiting_for_engine"  # the phase of a job whose engine is not there


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits; ``position`` counts from 1 among queued jobs and is ``None`` for others."""

    reason: str
    position: int | None = None


class Waits(Mapping[str, Wait]):
    """Why each live job that does not run is waiting, by job id. Reasons are put into words when they are asked for."""

    def __init__(self, jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> None:
        self._jobs = {job.id: job for job in engines.as_asked(jobs)}
        live, queued = list(self._jobs.values()), in_order(self._jobs.values(), JobState.QUEUED)
        self._situation = situation
        self._look = look_at(live, list(slots), situation)
        self._asking = engines.asking(live)
        self._positions = {job.id: position for position, job in enumerate(queued, start=1)}
        self._blocker = next(filter(self._look.blocks, queued), None)

    def __getitem__(self, job_id: str) -> Wait:
        job, position = self._jobs[job_id], self._positions.get(job_id)
        if position is None:
            engine = _awaited(job, self._jobs.values())
            if engine is not None and engine.id in self._positions:
                return Wait(f"its engine {engine.id} waits: {self[engine.id].reason}")
            reason = _unqueued_reason(job, self._situation)
            if reason is None:
                raise KeyError(job_id)
            return Wait(reason)
        blocker = self._blocker
        if blocker is not None and self._positions[blocker.id] >= position:
            blocker = None
        return Wait(_queued_reason(job, blocker, self._look, self._asking), position)

    def __iter__(self) -> Iterator[str]:
        return (
            job.id
            for job in self._jobs.values()
            if job.id in self._positions or _unqueued_reason(job, self._situation) is not None
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


def wait_of(job: Job, jobs: Iterable[Job], slots: Iterable[Slot], situation: Situation = CALM) -> Wait | None:
    """What :class:`Waits` says of one of the jobs, in one pass over them instead of a sort."""
    all_slots, all_jobs = list(slots), engines.as_asked(jobs)
    if job.serves is not None:
        job = next((each for each in all_jobs if each.id == job.id), job)
    if job.state is not JobState.QUEUED:
        engine = _awaited(job, all_jobs)
        if engine is not None and (behind := wait_of(engine, all_jobs, all_slots, situation)) is not None:
            return Wait(f"its engine {engine.id} waits: {behind.reason}")
        reason = _unqueued_reason(job, situation)
        return None if reason is None else Wait(reason)
    own, position = order(job), 1
    blocked_by: tuple[tuple[int, int], Job] | None = None
    look = look_at(all_jobs, all_slots, situation)
    for each in all_jobs:
        if each.state is not JobState.QUEUED or (key := order(each)) >= own:
            continue
        position += 1
        if (blocked_by is None or key < blocked_by[0]) and look.blocks(each):
            blocked_by = key, each
    blocker = None if blocked_by is None else blocked_by[1]
    return Wait(_queued_reason(job, blocker, look, engines.asking(all_jobs)), position)


def _queued_reason(
    job: Job, blocked_by: Job | None, look: Look, asking: Mapping[tuple[str, int], int]
) -> str:
    situation = look.situation
    if situation.closed is not None:
        return situation.closed
    if job.id in situation.in_backoff:
        return f"backing off before the next attempt: {job.queued_reason}"
    if look.is_behind(job):
        return f"behind {job.preempted_by}, which preempted it"
    if (lacking := lack(job, situation.room, look.taken)) is not None:
        return lacking
    if job.engine and not job.devices:
        if blocked_by is not None and gives_way(job, blocked_by):
            return f"behind {blocked_by.id}, which has waited longer for a device and gets that of an engine"
        if is_full(job, asking):
            return f"behind {MAX_ASKING} jobs that ask the same engine"
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
        case JobState.RUNNING if job.phase == WAITING_FOR_ENGINE:
            return f"its engine with {job.engine['model'] if job.engine else 'its model'} is not there yet"
        case JobState.PAUSING:
            return "saving a checkpoint before it pauses"
        case JobState.PAUSED:
            return "paused" if job.pause_reason is None else f"paused: {job.pause_reason}"
        case JobState.CANCELLING:
            return "its processes are being stopped"
    return None


def _awaited(job: Job, jobs: Iterable[Job]) -> Job | None:
    """The engine that a running job waits for, where there is one that waits itself."""
    if job.engine is None or job.state is not JobState.RUNNING or job.phase != WAITING_FOR_ENGINE:
        return None
    engine = engines.engine_of(job.engine["key"], jobs)
    return engine if engine is not None and engine.state is JobState.QUEUED else None


def _unvalidated_reason(job: Job, situation: Situation) -> str:
    newest = job.attempt
    if newest is None or job.id not in situation.in_backoff:
        return "waiting for its data to be checked"
    return f"backing off before its data are checked again: attempt {newest.number} ended: {newest.cause}"


def _device_reason(job: Job, slots: list[Slot], holds: Mapping[str, Hold]) -> str:
    unheld = [slot for slot in slots if slot.holder is None]
    free = [slot for slot in unheld if may_use(job, holds.get(slot.id))]
    if job.devices > len(slots):
        return f"needs {job.devices} devices; this host has {len(slots)}"
    if job.devices <= len(free):
        return "next; about to start"
    holders = sorted({slot.holder[0] for slot in slots if slot.holder})
    holders += sorted({holds[slot.id].reason for slot in unheld if slot not in free})
    noun = "device" if job.devices == 1 else "devices"
    return f"needs {job.devices} {noun}; {len(free)} of {len(slots)} free, held by {', '.join(holders)}"
