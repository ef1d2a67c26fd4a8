"""``run``: submit a job."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from finetuned.cli import console, foretold, parameters, starting_point, transfers, watch
from finetuned.cli.bounds import bounds_options
from finetuned.cli.session import watch_option, with_daemon
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.spelling import nearest
from finetuned.wire import DryRun, Event, Job, Kind

Json = Any

#: option -> the parameter that it is short for
SHORT = {"model": "model", "data": "dataset", "dataset_format": "dataset_format"}


@click.command
@click.argument("kind", required=False)
@click.option(
    "--template",
    metavar="NAME[@VERSION]",
    help="Take what is not said here from a template: `finetune templates`.",
)
@click.option("--model", help="The base model: a registered name, a directory or a hub id.")
@click.option(
    "--from",
    "start",
    metavar="JOB",
    help="Begin with what an earlier job made: its model, or its adapter on its base.",
)
@click.option(
    "--data",
    metavar="FILE",
    help="The training rows: a file of this machine, which is sent to the daemon, a dataset:NAME, or a hub id.",
)
@click.option("--dataset-format", help="The form of the rows. Default: detected.")
@click.option(
    "--param", "params", metavar="K=V", multiple=True, help="A parameter of the kind; can be repeated."
)
@click.option(
    "--callback",
    "callbacks",
    metavar="NAME[:K=V,...]",
    multiple=True,
    help="A callback plugin with its parameters, or NAME:{JSON}; can be repeated.",
)
@click.option("--name", help="A name for people.")
@click.option("--priority", type=int, help="Higher goes first; one point is worth ten minutes of waiting.")
@click.option("--metadata", metavar="K=V", multiple=True, help="Your own keys; the daemon only keeps them.")
@click.option("--max-attempts", type=click.IntRange(1, 100), help="Runs that may crash before it gives up.")
@click.option(
    "--secret",
    "secrets",
    metavar="NAME=SECRET",
    multiple=True,
    help="A stored secret for the job, by the variable it becomes: HF_TOKEN=hf; can be repeated.",
)
@click.option(
    "--preemptible",
    is_flag=True,
    help="A job of higher priority may have its devices; it saves, waits, and goes on by itself.",
)
@click.option(
    "--keep-batch", is_flag=True, help="Do not halve the batch for another attempt when memory runs out."
)
@click.option(
    "--ignore-estimate", is_flag=True, help="Submit it though it does not fit as far as can be foretold."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only tell what would come of it: memory, disk, time, and when it would start. Nothing is sent or recorded;"
    " a file has to be one that the daemon can read.",
)
@bounds_options
@watch_option("Stay until the job ends, as `finetune watch` does.", shape=Job | Event | DryRun)
@with_daemon
async def run(
    daemon: Client,
    /,
    *,
    kind: str | None,
    template: str | None,
    start: str | None,
    params: tuple[str, ...],
    callbacks: tuple[str, ...],
    name: str | None,
    priority: int | None,
    metadata: tuple[str, ...],
    max_attempts: int | None,
    secrets: tuple[str, ...],
    preemptible: bool,
    keep_batch: bool,
    ignore_estimate: bool,
    dry_run: bool,
    timeouts: dict[str, float] | None,
    limits: dict[str, float] | None,
    watching: bool,
    as_json: bool,
    **short: str | None,
) -> int:
    """Submit a job.

    KIND is one of `finetune kinds`; `finetune kinds KIND` lists its parameters. Files that --data or a relative path
    names are sent to the daemon first.

    A job that cannot fit is refused with the exit code 2, and --dry-run says so with the same.
    """
    known = await _kind(daemon, await _kind_of(daemon, template) if kind is None else kind)
    given = await _params(daemon, known, short, params, callbacks, sends=not dry_run)
    if start is not None:
        given |= await starting_point.of_job(daemon, start, given)
    request: dict[str, Json] = {
        "template": template,
        "name": name,
        "priority": priority,
        "metadata": {key: parameters.guess(value) for key, value in map(parameters.split, metadata)} or None,
        "max_attempts": max_attempts,
        "secrets": {variable: _reference(name) for variable, name in map(parameters.split, secrets)} or None,
        "timeouts": timeouts,
        "limits": limits,
        "preemptible": preemptible or None,
        "reduces_batch": False if keep_batch else None,
        "ignores_estimate": ignore_estimate or None,
    }
    if dry_run:
        return foretold.show(await daemon.dry_run(kind, given, **request), as_json=as_json)
    job = await daemon.submit(kind, given, **request)
    if as_json:
        console.emit(job)
    else:
        console.say(f"{job['id']} is {job['state']}.")
        if not watching:
            console.note(f"`finetune watch {job['id']}` shows it live.")
    return await watch.to_the_end(daemon, job, as_json=as_json) if watching else 0


def _here(given: dict[str, Json], names: Iterable[str]) -> dict[str, Json]:
    """The files of this machine among the parameters that ``--data`` and its like gave, by their whole paths."""
    files = {name: Path(given[name]).expanduser() for name in names if isinstance(given.get(name), str)}
    return {name: str(file.absolute()) for name, file in files.items() if file.exists()}


def _reference(name: str) -> str:
    return name if name.startswith("secret:") else f"secret:{name}"


async def _params(
    daemon: Client,
    /,
    kind: Kind,
    short: dict[str, str | None],
    params: tuple[str, ...],
    callbacks: tuple[str, ...],
    *,
    sends: bool,
) -> dict[str, Json]:
    texts = [f"{SHORT[option]}={value}" for option, value in short.items() if value is not None]
    given = parameters.parse_params([*texts, *params], kind["name"], kind["params_schema"])
    if callbacks:
        listed = given.setdefault("callbacks", [])
        listed.extend(parameters.parse_callback(text) for text in callbacks)
    here = Path.cwd()
    plain = {name for name, _ in map(parameters.split, params)}
    chosen = {SHORT[option] for option, value in short.items() if value is not None} - plain
    if not sends:
        names = [name for name in kind["dataset_params"] if name in chosen]
        return parameters.absolute_paths({**given, **_here(given, names)}, here=here)
    sent = await transfers.uploaded(daemon, given, kind["dataset_params"], here=here, chosen=chosen)
    return parameters.absolute_paths(sent, here=here)


async def _kind_of(daemon: Client, template: str | None) -> str:
    """The kind that a template is for."""
    if template is None:
        raise InvalidRequestError(
            "Name a kind or a --template; `finetune kinds` lists the kinds.", param="kind", code="usage"
        )
    name, _, version = template.partition("@")
    found = await daemon.template(name, version=int(version) if version.isdecimal() else None)
    return str(found["request"]["kind"])


async def _kind(daemon: Client, name: str) -> Kind:
    try:
        return await daemon.kind(name)
    except NotFoundError:
        known = [each["name"] for each in await daemon.kinds()]
        raise InvalidRequestError(
            f"There is no job kind {name!r}.{nearest(name, known)} `finetune kinds` lists them.",
            param="kind",
            code="unknown_kind",
        ) from None
