"""``plugins``: what was found and what became of it, and a new one. Needs no daemon."""

from __future__ import annotations

import importlib.util
import logging
import shlex
from pathlib import Path

import click
from rich.text import Text

from finetuned import plugins as loading
from finetuned.cli import console, tables
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Listing, NewPlugin, Plugin
from finetuned.domain.errors import Rejected
from finetuned.skeleton import writing
from finetuned.skeleton.names import PluginName
from finetuned_sdk import Registry

STYLES = {"loaded": "green", "blocked": "yellow", "broken": "bold red"}


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Plugin])
@click.pass_context
def plugins(context: click.Context, *, as_json: bool) -> int:
    """List the plugins that a daemon of this environment would find, or begin a new one.

    The exit code of a list is 1 if a plugin is broken.
    """
    if context.invoked_subcommand is not None:
        return 0
    code: int = context.invoke(ls, as_json=as_json)
    return code


@plugins.command
@json_option(shape=Listing[Plugin])
def ls(*, as_json: bool) -> int:
    """List plugins: loaded, blocked or broken, and why."""
    _, reports = _load()
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


@plugins.command
@click.argument("name", metavar="NAME")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to make the folder finetuned-NAME. Default: here.",
)
@json_option(shape=NewPlugin)
def new(*, name: str, directory: Path, as_json: bool) -> None:
    """Write a new plugin: a small trainer that works, with its tests, to be made your own."""
    parsed = PluginName.parse(name)
    _refuse_taken(parsed)
    root = writing.write(parsed, directory)
    files = list(writing.render(parsed))
    if as_json:
        made: NewPlugin = {
            "name": parsed.kind,
            "distribution": parsed.distribution,
            "package": parsed.package,
            "directory": str(root.absolute()),
            "files": files,
        }
        console.emit(made)
        return
    console.say(f"{root} is a plugin with the kind of job {parsed.kind}:")
    for file in files:
        console.say(f"  {file}")
    place = shlex.quote(f"./{root}" if not root.is_absolute() else str(root))
    console.note(
        f"`python -m pip install --editable {place}` in the daemon's environment installs it; "
        "its README says how to test and run it."
    )


def _load() -> tuple[Registry, list[loading.PluginReport]]:
    quiet = logging.getLogger(loading.__name__)
    quiet.disabled = True  # what it would log of broken plugins is shown by whoever asks
    try:
        return loading.load()
    finally:
        quiet.disabled = False


def _refuse_taken(name: PluginName) -> None:
    """Two plugins of one name could not live in one environment."""
    if importlib.util.find_spec(name.package) is not None:
        taken = f"the package {name.package}"
    elif name.kind in _load()[0].job_kinds:
        taken = f"the kind of job {name.kind}"
    else:
        return
    raise Rejected(
        "plugin_exists", f"This environment has {taken} already; choose another name.", param="NAME"
    )
