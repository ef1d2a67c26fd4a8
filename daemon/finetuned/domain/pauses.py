"""Pausing and resuming jobs, also to make room for others; pure, as :mod:`finetuned.domain.decisions` is."""

from __future__ import annotations

from typing import Final

from finetuned.domain import facts
from finetuned.domain.errors import Rejected
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.streams import job_event
from finetuned.domain.world import World
from finetuned_events import NewEvent

Events = list[NewEvent]

WAIT_S: Final = 30.0  # for the checkpoint of a pause, if the job does not say otherwise
_HAS_PROCESS: Final = frozenset({JobState.STARTING, JobState.RUNNING})


def pause(
    world: World, job_id: str, *, actor: str, reason: str | None = None, wait_s: float | None = None
) -> Events:
    """Ask a job to save a checkpoint and leave its devices. Asking twice changes nothing, asking for less ``wait_s`` does.

    More is not given to one that pauses already: who asks again and again would have it hold its devices for ever.
    Rejected for a job that has ended, is being cancelled, or whose data are still being checked.
    """
    job = world.job(job_id)
    if job.state is JobState.PAUSED:
        return []
    if job.state is JobState.PAUSING and job.pause_then == "paused":
        if wait_s is None or wait_s >= job.pause_wait_s:
            return []
        sooner = facts.JobPauseRequested(reason=reason or job.pause_reason, wait_s=wait_s)
        return [job_event(job_id, sooner, actor=actor)]
    _require_pausable(job)
    wanted = facts.JobPauseRequested(reason=reason, wait_s=wait_of(job) if wait_s is None else wait_s)
    events = [job_event(job_id, wanted, actor=actor)]
    if job.state is JobState.QUEUED:
        paused = facts.JobPaused(resume_from=job.resume_from, repeated_steps=job.repeated_steps)
        events.append(job_event(job_id, paused, actor=actor))
    return events


def restart(world: World, job_id: str, *, actor: str, reason: str) -> Events:
    """Ask a job to save a checkpoint, leave its devices, and go on from it. Rejected as a pause is."""
    job = world.job(job_id)
    if job.state is JobState.PAUSING:
        return []
    _require_pausable(job)
    wanted = facts.JobPauseRequested(reason=reason, then="queued", wait_s=wait_of(job))
    return [job_event(job_id, wanted, actor=actor)]


def _require_pausable(job: Job) -> None:
    if not job.is_live:
        raise Rejected(
            "job_ended", f"Job {job.id} has ended already ({job.state}); there is nothing left to pause."
        )
    if job.state is JobState.CANCELLING:
        raise Rejected("job_cancelling", f"Job {job.id} is being cancelled; it cannot be paused any more.")
    if job.state is JobState.VALIDATING:
        raise Rejected(
            "job_validating",
            f"The data of job {job.id} are being checked, which holds no device; pause it once it is queued.",
        )


def resume(
    world: World,
    job_id: str,
    *,
    actor: str,
    checkpoint: str | None = None,
    repeated_steps: int | None = None,
    rewinds: bool = True,
    attempts: int | None = None,
) -> Events:
    """Let a paused job go on: from ``checkpoint`` if there is one, else from what it paused with.

    With ``rewinds`` somebody named it: later ones do not count any more. One that is still pausing goes on by itself
    afterwards. Rejected for any other, and for one that had more than ``attempts`` meanwhile: the checkpoint may not be
    its newest any more.
    """
    job = world.job(job_id)
    rewinds = rewinds and checkpoint is not None
    if job.state is JobState.PAUSING and not rewinds:
        if job.pause_then == "queued":
            return []
        wanted = facts.JobPauseRequested(reason="resumed", then="queued", wait_s=job.pause_wait_s)
        return [job_event(job_id, wanted, actor=actor)]
    if job.state is not JobState.PAUSED:
        raise not_paused(job)
    if attempts is not None and len(job.attempts) != attempts:
        raise Rejected(
            "job_changed",
            f"Job {job_id} was resumed and paused again while its checkpoints were read; `finetune resume {job_id}`"
            " looks for its newest again.",
        )
    queued = facts.JobQueued(
        reason="resumed",
        resume_from=checkpoint or job.resume_from,
        repeated_steps=repeated_steps if checkpoint else job.repeated_steps,
        rewinds=rewinds,
    )
    return [job_event(job_id, queued, actor=actor)]


def not_paused(job: Job) -> Rejected:
    """That a job cannot be resumed, and what to do."""
    remedy = (
        "wait until it is paused" if job.state is JobState.PAUSING else "only a paused job can be resumed"
    )
    return Rejected("job_not_paused", f"Job {job.id} is {job.state}; {remedy} (`finetune show {job.id}`).")


def request_checkpoint(world: World, job_id: str, *, actor: str) -> Events:
    """Ask a running job for a checkpoint at its next step. Rejected for one that does not run."""
    job = world.job(job_id)
    if job.state is not JobState.RUNNING:
        raise Rejected(
            "job_not_running", f"Job {job_id} is {job.state}; only a running job can save a checkpoint."
        )
    return [job_event(job_id, facts.JobCheckpointRequested(), actor=actor)]


def preemption(victim: Job, by: Job) -> facts.JobPauseRequested:
    """What is asked of a job whose devices go to another."""
    return facts.JobPauseRequested(
        reason=f"preempted by {by.id}, which has priority {by.priority} over its {victim.priority}",
        then="queued",
        wait_s=wait_of(victim),
        preempted_by=by.id,
    )


def drain(world: World, *, actor: str, reason: str, wait_s: float | None = None) -> Events:
    """Ask every job that has a process to save a checkpoint and leave; each goes on after the next start."""
    return [
        job_event(
            job.id,
            facts.JobPauseRequested(
                reason=reason, then="queued", wait_s=wait_of(job) if wait_s is None else wait_s
            ),
            actor=actor,
        )
        for job in world.live_jobs()
        if job.state in _HAS_PROCESS
    ]


def wait_of(job: Job) -> float:
    """How long the checkpoint of a pause is waited for, in seconds."""
    return job.timeouts.get("pause_s") or WAIT_S
