"""``next``: what makes sense after a job."""

from __future__ import annotations

import click

from finetuned.cli import console
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import NextStep


@click.command
@job_argument
@json_option(shape=Listing[NextStep])
@with_daemon
async def next(  # noqa: A001 - the command's name
    daemon: Client, *, job_id: str, as_json: bool
) -> None:
    """Say what makes sense next for a job, with the commands that do it."""
    steps = await daemon.next_steps(job_id)
    if as_json:
        console.emit({"data": steps, "has_more": False})
        return
    for step in steps:
        console.say(f"{step['why']}")
        if step["command"]:
            console.say(f"  {step['command']}", style="bold")
    if not steps:
        console.note(f"Nothing is left to do for {job_id}.")
