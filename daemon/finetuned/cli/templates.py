"""``templates``: job requests that are kept under a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from finetuned.cli import console, listings, parameters, standing, tables, units
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Gone, Listing
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.wire import Template

Json = Any

#: What of a job a template of it keeps.
KEPT = ("kind", "params", "priority", "metadata", "max_attempts", "secrets", "limits", "preemptible")


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Template])
@click.pass_context
def templates(context: click.Context, *, as_json: bool) -> None:
    """Keep job requests under names, and run them again."""
    if context.invoked_subcommand is None:
        context.invoke(ls, as_json=as_json)


@templates.command
@json_option(shape=Listing[Template])
@with_daemon
async def ls(daemon: Client, *, as_json: bool) -> None:
    """List templates."""
    listed = [template async for template in daemon.all_templates()]
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(
            listings.templates(listed),
            empty="No templates. `finetune templates save NAME --job JOB` keeps one.",
        )


@templates.command
@click.argument("name", metavar="NAME[@VERSION]")
@click.option("--versions", is_flag=True, help="List its versions instead, the newest first.")
@json_option(shape=Template | Listing[Template])
@with_daemon
async def show(daemon: Client, *, name: str, versions: bool, as_json: bool) -> None:
    """Show what a template says."""
    name, version = split(name)
    if versions:
        listed = await daemon.template_versions(name)
        if as_json:
            console.emit({"data": listed, "has_more": False})
        else:
            console.show(listings.templates(listed))
        return
    template = await daemon.template(name, version=version)
    if as_json:
        console.emit(template)
        return
    console.say(f"{template['name']}@{template['version']}", style="bold")
    if template["description"]:
        console.say(template["description"])
    for key, value in template["request"].items():
        if key == "params":
            for param, each in value.items():
                console.say(f"  {param:<20} {tables.compact(each)}")
        else:
            console.say(f"{key:<22} {tables.compact(value)}")
    console.note(f"Saved {units.local(template['saved_at'])} by {template['saved_by']}.")


@templates.command
@click.argument("name")
@click.option("--job", "job_id", metavar="JOB", help="Keep the request of this job.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Keep the request in this JSON file.",
)
@click.option("--description", help="What it is for.")
@click.option("--new", is_flag=True, help="Refuse if the name is taken, instead of saving the next version.")
@json_option(shape=Template)
@with_daemon
async def save(
    daemon: Client,
    *,
    name: str,
    job_id: str | None,
    file: Path | None,
    description: str | None,
    new: bool,
    as_json: bool,
) -> None:
    """Keep a job request under a name: that of a job, or one in a file."""
    if (job_id is None) == (file is None):
        raise InvalidRequestError("Say either --job or --file: which request is to be kept.", param="--job")
    request = _read(file) if file is not None else await _of_job(daemon, str(job_id))
    keep = daemon.create_template if new else daemon.save_template
    try:
        template = await keep(name, request, description=description)
    except Rejected as error:
        if error.stable_code != "template_exists":
            raise
        raise Rejected(
            error.stable_code,
            f"There is a template {name!r} already; `finetune templates save` without --new saves its next version.",
            param="--new",
        ) from None
    if as_json:
        console.emit(template)
        return
    console.say(f"{template['name']}@{template['version']} is saved.")
    console.note(f"`finetune run --template {template['name']}` submits it.")


@templates.command
@click.argument("name")
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, name: str, as_json: bool) -> None:
    """Free a template's name. Jobs that were made from it keep what it said."""
    await daemon.delete_template(name)
    if as_json:
        console.emit({"id": name, "object": "template", "deleted": True})
    else:
        console.say(f"{name} is removed.")


async def _of_job(daemon: Client, job_id: str) -> dict[str, Json]:
    job = await daemon.job(job_id)
    shown: dict[str, Json] = {**job}
    kept = {key: shown[key] for key in KEPT if shown[key] not in (None, {}, 0)}
    timeouts = standing.own_timeouts(job)
    if timeouts:
        kept["timeouts"] = timeouts
    if job["ignores_estimate"]:
        kept["ignores_estimate"] = True
    return kept if job["reduces_batch"] else {**kept, "reduces_batch": False}


def _read(file: Path) -> dict[str, Json]:
    request = parameters.guess(file.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(request, dict):
        raise InvalidRequestError(
            f"{file} is no JSON object; it should be what POST /v1/jobs takes.", param="--file"
        )
    return request


def split(name: str) -> tuple[str, int | None]:
    """``NAME`` or ``NAME@VERSION`` as a pair. Raises ``InvalidRequestError``."""
    name, at, version = name.partition("@")
    if at and not version.isdecimal():
        raise InvalidRequestError(
            f"{version!r} is no version; write {name}@1, or {name} for the newest.", param="template"
        )
    return name, int(version) if at else None
