"""Decisions about live attempts that somebody restarts or kills by hand. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from finetuned.domain import decisions, engines, facts, pauses
from finetuned.domain.engines import Demand
from finetuned.domain.errors import Rejected
from finetuned.domain.failures import Failure
from finetuned.domain.job import Attempt, Job
from finetuned.domain.streams import job_event
from finetuned.domain.world import World
from finetuned_events import NewEvent

Events = list[NewEvent]

RESTARTED: Final = "restarted by hand"
CLEARED: Final = "nobody asks it, and its device was to be cleared"


def restart(world: World, job_id: str, *, actor: str) -> Events:
    """Have a worker end what it does and leave, and come again: a trainer from the checkpoint that it saves first.

    An engine's requests may end first, and it comes again when it is asked. Rejected for a job without a worker.
    """
    job, _ = _live(world, job_id)
    if job.serves is not None:
        return decisions.cancel(world, job_id, actor=actor, reason=RESTARTED)
    return pauses.restart(world, job_id, actor=actor, reason=RESTARTED)


def kill(world: World, job_id: str, *, actor: str) -> Events:
    """Kill a worker's processes at once. Its job is tried again as after a crash. Rejected for a job without one."""
    _, attempt = _live(world, job_id)
    fact = facts.AttemptIntervened(
        attempt=attempt.number,
        action="kill",
        failure=Failure.STOPPED.value,
        reason=f"killed by hand ({actor})",
    )
    return [job_event(job_id, fact, actor=actor)]


def idle(world: World, online: Demand) -> tuple[list[Job], list[Job]]:
    """The engines that nobody asks, and those that somebody does; ``online`` are requests that the log does not tell of."""
    asked = engines.demanded(world.live_jobs(), online)
    live = [each for each in engines.engines(world.live_jobs()) if each.live_attempt is not None]
    return [each for each in live if each.serves not in asked], [
        each for each in live if each.serves in asked
    ]


def clear(world: World, idle_jobs: Collection[str], *, actor: str) -> Events:
    """End the engines of these jobs, those that still live."""
    live = (each.id for each in engines.engines(world.live_jobs()) if each.id in idle_jobs)
    return [
        event for job_id in live for event in decisions.cancel(world, job_id, actor=actor, reason=CLEARED)
    ]


def _live(world: World, job_id: str) -> tuple[Job, Attempt]:
    job = world.job(job_id)
    attempt = job.live_attempt
    if attempt is None:
        raise Rejected(
            "no_worker",
            f"Job {job_id} is {job.state} and has no worker; `finetune worker status` lists those that live.",
        )
    return job, attempt
