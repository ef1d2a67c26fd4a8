"""``pause``, ``resume`` and ``checkpoint``: leave the devices and come back, save without leaving."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing

import anyio
import click

from finetuned.cli import console, standing, units
from finetuned.cli.arguments import job_argument
from finetuned.cli.bounds import seconds
from finetuned.cli.session import json_option, watch_option, with_daemon
from finetuned.cli.timeline import again
from finetuned.client import Client
from finetuned.domain.states import JobState
from finetuned.wire import Event, Job

ENDS = ("job.succeeded", "job.failed", "job.cancelled")
#: what ends a pausing: it is paused, it goes on, or it has ended
LEFT = ("job.paused", "job.queued", "job.cancel_requested", *ENDS)
SAVED = ("checkpoint.saved", "job.queued", "job.paused", *ENDS)


@click.command
@job_argument
@click.option(
    "--wait",
    "wait_s",
    callback=seconds,
    metavar="DURATION",
    help="How long its checkpoint is waited for, before it is stopped without one; for a job that pauses already, only"
    " less. Default: as the job has it, 30 s.",
)
@click.option("--reason", help="Why; it is kept in the log.")
@click.option("--detach", is_flag=True, help="Do not stay until it is paused.")
@json_option("Print JSON: the job, once it is paused.", shape=Job)
@with_daemon
async def pause(
    daemon: Client, *, job_id: str, wait_s: float | None, reason: str | None, detach: bool, as_json: bool
) -> int:
    """Have a job save a checkpoint and leave its devices, until it is resumed.

    The exit code is 0 if it is paused, and 1 if it ended first.
    """
    job = await daemon.pause(job_id, reason=reason, wait_s=wait_s)
    if job["state"] == JobState.PAUSING and not detach:
        if not as_json:
            console.say(f"{job_id} saves a checkpoint at its next step, then leaves its devices …")
        await _follow(daemon, job, LEFT)
        job = await daemon.job(job_id)
    if as_json:
        console.emit(job)
    else:
        console.say(f"{job_id} is {standing.line(job)}.")
        if job["state"] == JobState.PAUSED:
            console.note(f"`finetune resume {job_id}` lets it go on.")
    return 0 if JobState(job["state"]) in {JobState.PAUSED, JobState.PAUSING} else 1


@click.command
@job_argument
@click.option(
    "--from-checkpoint",
    metavar="STEP|ID",
    help="Go on from this one of `finetune checkpoints`, and not from the newest.",
)
@watch_option("Stay until the job ends.")
@with_daemon
async def resume(
    daemon: Client, /, *, job_id: str, from_checkpoint: str | None, watching: bool, as_json: bool
) -> int:
    """Let a paused job go on from a checkpoint."""
    job = await daemon.resume(job_id, from_checkpoint=from_checkpoint)
    if as_json:
        console.emit(job)
    else:
        repeated = f"; {again(job['repeated_steps'])}" if job["repeated_steps"] else ""
        console.say(f"{job_id} is {job['state']}{repeated}.")
    if not watching:
        return 0
    from finetuned.cli import watch  # noqa: PLC0415 - a live display, which `finetune pause` does without

    return await watch.to_the_end(daemon, job, as_json=as_json)


@click.command
@job_argument
@click.option("--wait", "waiting", is_flag=True, help="Stay until it is saved.")
@json_option("Print JSON: the job; with --wait, once it is saved.", shape=Job)
@with_daemon
async def checkpoint(daemon: Client, *, job_id: str, waiting: bool, as_json: bool) -> int:
    """Have a running job save a checkpoint at its next step, without a stop.

    With --wait the exit code is 1 if the job left its devices before.
    """
    job = await daemon.checkpoint(job_id)
    found: Event | None = None
    if waiting:
        found = await _follow(daemon, job, SAVED)
        job = await daemon.job(job_id)
    missed = found is not None and found["type"] != "checkpoint.saved"
    if as_json:
        console.emit(job)
    elif found is None:
        console.say(
            f"{job_id} saves a checkpoint at its next step; `finetune checkpoints {job_id}` lists it."
        )
    elif missed:
        console.say(f"{job_id} is {job['state']} and has saved no checkpoint since.")
    else:
        saved = found["data"]
        console.say(f"{job_id} has saved step {saved['step']} ({units.size(saved['bytes'])}).")
    return 1 if missed else 0


async def _follow(daemon: Client, job: Job, types: Iterable[str]) -> Event:
    """The next event of one of the types. Ctrl-C leaves the job with what it was asked."""
    wanted = tuple(types)
    try:
        async with aclosing(daemon.follow(job=job["id"], after=job["seq"], types=wanted)) as events:
            async for event in events:
                return event
    except anyio.get_cancelled_exc_class():
        console.note(f"Detached; {job['id']} was asked. `finetune show {job['id']}` tells what became of it.")
        raise
    raise AssertionError("a stream that is followed has no end")
