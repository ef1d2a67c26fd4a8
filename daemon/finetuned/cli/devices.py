"""``devices``: what the daemon schedules."""

from __future__ import annotations

import click

from finetuned.cli import console, tables
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import Device


@click.command
@json_option(shape=Listing[Device])
@with_daemon
async def devices(daemon: Client, *, as_json: bool) -> None:
    """List devices and the jobs that hold them."""
    listed = await daemon.devices()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(tables.devices(listed), empty="The daemon schedules no device.")
