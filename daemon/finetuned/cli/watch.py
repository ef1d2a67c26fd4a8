"""``watch``: stay with a job until it ends, whatever happens to the connection or the daemon."""

from __future__ import annotations

from contextlib import aclosing

import anyio
import click

from finetuned.cli import console, display, ending
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.client.errors import UnreachableError
from finetuned.client.follow import ResetError
from finetuned.domain.states import TERMINAL, JobState
from finetuned.wire import Event, Job

ENDS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


@click.command
@job_argument
@json_option("Print JSON: each event from now on on a line, the job last.", shape=Event | Job, lines=True)
@with_daemon
async def watch(daemon: Client, *, job_id: str, as_json: bool) -> int:
    """Watch a job until it ends.

    Ctrl-C leaves the job alone. The exit code is 0 if the job succeeded and 1 if it failed or was cancelled.
    """
    return await to_the_end(daemon, await daemon.job(job_id), as_json=as_json)


async def to_the_end(daemon: Client, job: Job, *, as_json: bool) -> int:
    """Show a job until it ends, then how it ended; the exit code."""
    job_id = job["id"]
    try:
        with display.choose(job_id, as_json=as_json) as view:
            job = await follow(daemon, job, view)
    except anyio.get_cancelled_exc_class():
        console.note(
            f"Detached; {job_id} goes on. `finetune watch {job_id}` comes back to it, "
            f"`finetune cancel {job_id}` ends it."
        )
        raise
    if as_json:
        console.emit(job)
    else:
        for line in ending.lines(job):
            console.say(line)
    return ending.exit_code(job)


async def follow(daemon: Client, job: Job, view: display.View) -> Job:
    """Hand a job as it is, and its events from there on, to ``view`` until it has ended; the ended job."""
    job_id = job["id"]
    while JobState(job["state"]) not in TERMINAL:
        view.begin(job)
        try:
            async with aclosing(
                daemon.follow(job=job_id, after=job["seq"], on_connection=view.connection)
            ) as events:
                async for event in events:
                    view.event(event)
                    if event["type"] in ENDS:
                        break
        except ResetError:
            view.connection("the log was put back to an earlier state; looking again")
        job = await _looked_up(daemon, job_id, view)
    return job


async def _looked_up(daemon: Client, job_id: str, view: display.View) -> Job:
    while True:
        try:
            return await daemon.job(job_id)
        except UnreachableError as error:
            view.connection(error.message)
            await anyio.sleep(0.5)
