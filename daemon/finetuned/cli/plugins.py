"""``plugins``: what was found, and what became of it. Needs no daemon."""

from __future__ import annotations

import logging

import click
from rich.text import Text

from finetuned.cli import console, tables
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Listing, Plugin

STYLES = {"loaded": "green", "blocked": "yellow", "broken": "bold red"}


@click.command
@json_option(shape=Listing[Plugin])
def plugins(*, as_json: bool) -> int:
    """List the plugins that a daemon of this environment would find: loaded, blocked or broken, and why.

    The exit code is 1 if one is broken.
    """
    from finetuned import plugins as loading  # noqa: PLC0415 - imports every plugin's declaration

    quiet = logging.getLogger(loading.__name__)
    quiet.disabled = True  # what it would log of broken plugins stands in the table
    try:
        _, reports = loading.load()
    finally:
        quiet.disabled = False
    listed: list[Plugin] = [
        {"name": each.name, "module": each.module, "status": each.status, "reason": each.reason}
        for each in reports
    ]
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        shown = tables.table("NAME", "STATUS", "MODULE", "WHY")
        for each in listed:
            status = Text(each["status"], style=STYLES[each["status"]])
            shown.add_row(each["name"], status, each["module"], Text(each["reason"] or ""))
        console.show(shown, empty="No plugin is installed; without one there is no kind of job.")
    return int(any(each["status"] == "broken" for each in listed))
