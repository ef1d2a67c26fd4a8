"""``kinds``: what the daemon can be asked for."""

from __future__ import annotations

import click

from finetuned.cli import console, tables
from finetuned.cli.session import json_option, paged, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import Kind


@click.command
@click.argument("name", required=False)
@json_option(shape=Listing[Kind] | Kind)
@paged
@with_daemon
async def kinds(daemon: Client, *, name: str | None, as_json: bool) -> None:
    """List job kinds, or the parameters of one."""
    if name is None:
        listed = await daemon.kinds()
        if as_json:
            console.emit({"data": listed, "has_more": False})
        else:
            console.show(tables.kinds(listed), empty="No plugin declares a job kind; install one.")
        return
    kind = await daemon.kind(name)
    if as_json:
        console.emit(kind)
        return
    console.say(f"{kind['name']}: {kind['summary']}")
    console.show(tables.params(kind["params_schema"]), empty="It takes no parameters.")
