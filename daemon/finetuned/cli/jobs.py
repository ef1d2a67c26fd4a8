"""``ls``, ``show``, ``cancel``, ``retry`` and ``delete``: commands about jobs that are there."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from finetuned.cli import console, tables, timeline
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import at_option, json_option, paged, watch_option, with_daemon
from finetuned.cli.shapes import Gone, Listing, ShownJob
from finetuned.client import Client
from finetuned.domain.states import TERMINAL, JobState
from finetuned.wire import Job

NONE = "No jobs. `finetune run` submits one."


@click.command
@click.option(
    "--state", type=click.Choice([state.value for state in JobState]), help="Only jobs in this state."
)
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--name", help="Only jobs of this name.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@at_option
@json_option(shape=Listing[Job])
@paged
@with_daemon
async def ls(
    daemon: Client,
    *,
    state: str | None,
    kind: str | None,
    name: str | None,
    limit: int,
    everything: bool,
    at: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    if everything:
        listed = [job async for job in daemon.all_jobs(state=state, kind=kind, name=name, at=at)]
        has_more = False
    else:
        page = await daemon.jobs(state=state, kind=kind, name=name, limit=limit, at=at)
        listed, has_more = page["data"], page["has_more"]
    if as_json:
        console.emit({"data": listed, "has_more": has_more})
        return
    some = state is not None or kind is not None or name is not None
    empty = "No job matches. `finetune ls` without options lists the newest." if some else NONE
    console.show(tables.jobs(listed, now=datetime.now(UTC)), empty=empty)
    if has_more:
        console.note(f"The newest {limit}; --all lists every one.")


@click.command
@job_argument
@at_option
@json_option("Print JSON: the job, with `timeline`.", shape=ShownJob)
@paged
@with_daemon
async def show(daemon: Client, *, job_id: str, at: str | None, as_json: bool) -> None:
    """Show a job: its timeline, attempts and result."""
    job = await daemon.job(job_id, at=at)
    events = [e async for e in daemon.all_events(job=job["id"], types=timeline.TYPES)]
    rows = timeline.timeline(e for e in events if at is None or e["seq"] <= job["seq"])
    if as_json:
        console.emit({**job, "timeline": [row.as_dict() for row in rows]})
        return
    console.say(job["id"], style="bold")
    console.show(tables.details(job))
    console.say("")
    console.show(tables.timeline(rows))
    if job["attempts"]:
        console.say("")
        console.show(tables.attempts(job))


@click.command
@job_argument
@click.option("--reason", help="Why; it is kept in the log.")
@json_option(shape=Job)
@with_daemon
async def cancel(daemon: Client, *, job_id: str, reason: str | None, as_json: bool) -> None:
    """Ask a job to end."""
    job = await daemon.cancel(job_id, reason=reason)
    _told(job, as_json, f"{job['id']} is {job['state']}. `finetune watch {job['id']}` waits for its end.")


@click.command
@job_argument
@click.option(
    "--from-checkpoint",
    metavar="STEP|ID",
    help="Go on from this one of `finetune checkpoints`, or from `latest`.",
)
@click.option("--priority", type=int, help="Another priority than the first time.")
@watch_option("Stay until the new job ends.")
@with_daemon
async def retry(
    daemon: Client,
    /,
    *,
    job_id: str,
    from_checkpoint: str | None,
    priority: int | None,
    watching: bool,
    as_json: bool,
) -> int:
    """Submit an ended job again, as a new one."""
    job = await daemon.retry(job_id, from_checkpoint=from_checkpoint, priority=priority)
    _told(job, as_json, f"{job['id']} is {job['state']}; it repeats {job_id}.")
    if not watching:
        return 0
    from finetuned.cli import watch  # noqa: PLC0415 - a live display, which `finetune ls` does without

    return await watch.to_the_end(daemon, job, as_json=as_json)


@click.command
@job_argument
@json_option(shape=Gone)
@with_daemon
async def delete(daemon: Client, *, job_id: str, as_json: bool) -> None:
    """Hide an ended job and remove its files."""
    await daemon.delete(job_id)
    if as_json:
        console.emit({"id": job_id, "object": "job", "deleted": True})
    else:
        console.say(f"{job_id} is deleted; its events stay in the log.")


def _told(job: Job, as_json: bool, sentence: str) -> None:
    if as_json:
        console.emit(job)
    elif JobState(job["state"]) in TERMINAL:
        console.say(f"{job['id']} is {job['state']}.")
    else:
        console.say(sentence)
