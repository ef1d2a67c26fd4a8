"""What decides who may start beside the log, and who is ready for the devices that there are."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from finetuned.domain.job import Job
from finetuned.domain.room import TOLERANCE, Room, lack, promised
from finetuned.domain.states import JobState
from finetuned.domain.world import Slot


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


@dataclass(frozen=True, slots=True)
class Look:
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
        return job.devices <= sum(is_in_reach(job, holds.get(slot.id)) for slot in self.slots)

    def is_behind(self, job: Job) -> bool:
        """Whether it waits for the job that preempted it."""
        return job.preempted_by in self.preemptors

    def blocks(self, job: Job) -> bool:
        """Whether a queued job keeps free devices for itself."""
        return job.devices > 0 and not self.is_behind(job) and self.is_ready(job)


def look_at(jobs: list[Job], slots: list[Slot], situation: Situation) -> Look:
    look = Look(slots, situation, promised(jobs))
    queued = {job.id: job for job in jobs if job.state is JobState.QUEUED}
    named = {job.preempted_by for job in queued.values() if job.preempted_by in queued}
    return replace(look, preemptors={each for each in named if each and look.is_ready(queued[each])})


def may_use(job: Job, hold: Hold | None) -> bool:
    """Whether what is free of a device is enough for the job, as far as estimates can tell and it wants them heeded."""
    estimated = 0 if job.ignores_estimate else (job.estimate or {}).get("device_bytes") or 0
    return hold is None or 0 < hold.free_bytes >= estimated * (1 - TOLERANCE)


def is_in_reach(job: Job, hold: Hold | None) -> bool:
    """Whether the job may use a device once none of our attempts holds it, nor anything in passing."""
    return may_use(job, hold) or (hold is not None and hold.passing)
