"""``events``: the log itself."""

from __future__ import annotations

from contextlib import aclosing

import click

from finetuned.cli import console, timeline, units
from finetuned.cli.session import json_option, paged, with_daemon
from finetuned.cli.tables import compact
from finetuned.client import Client
from finetuned.wire import Event


@click.command
@click.argument("job_id", metavar="[JOB]", required=False)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on with new events until Ctrl-C; without JOB and --after only with those.",
)
@click.option("--after", type=click.IntRange(0), help="Only events after this seq.")
@click.option(
    "--type", "types", multiple=True, help="Only this type, for instance job.failed; can be repeated."
)
@click.option("--limit", type=click.IntRange(1), help="Stop after so many.")
@json_option("Print JSON, one event a line.", shape=Event, lines=True)
@paged
@with_daemon
async def events(
    daemon: Client,
    *,
    job_id: str | None,
    follow: bool,
    after: int | None,
    types: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the events of the log, or of one job."""
    if after is None:
        after = (await daemon.log_state())["head"] if follow and job_id is None else 0
    source = (
        daemon.follow(job=job_id, after=after, types=types, on_connection=_connection)
        if follow
        else daemon.all_events(job=job_id, after=after, types=types)
    )
    count = 0
    async with aclosing(source) as found:
        async for event in found:
            if as_json:
                console.emit(event)
            else:
                console.say(line(event))
            count += 1
            if count == limit:
                return


def _connection(trouble: str | None) -> None:
    if trouble is not None:
        console.note(f"Connection lost ({trouble}); trying again …")


def line(event: Event) -> str:
    """An event on one line."""
    text = timeline.describe(event) if event["type"] in timeline.TYPES else _data(event)
    where = event["stream"].removeprefix("job/")
    parts = (f"{event['seq']:>7}", units.local(event["at"]), f"{where:<14}", f"{event['type']:<22}")
    return "  ".join((*parts, f"{event['actor']:<10}", text)).rstrip()


def _data(event: Event) -> str:
    return " ".join(f"{name}={compact(value)}" for name, value in event["data"].items() if value is not None)
