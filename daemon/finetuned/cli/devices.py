"""``devices``: what the daemon schedules."""

from __future__ import annotations

import click

from finetuned.cli import console, tables
from finetuned.cli.session import at_option, json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import Device


@click.command
@at_option
@json_option(shape=Listing[Device])
@with_daemon
async def devices(daemon: Client, *, at: str | None, as_json: bool) -> None:
    """List devices and the jobs that hold them."""
    listed = await daemon.devices(at=at)
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.devices(listed), empty="The daemon schedules no device.")
