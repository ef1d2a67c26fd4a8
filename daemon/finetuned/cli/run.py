"""``run``: submit a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from finetuned.cli import console, parameters, watch
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.wire import Event, Job

Json = Any

#: option -> the parameter that it is short for
SHORT = {"model": "model", "data": "dataset", "dataset_format": "dataset_format"}


@click.command
@click.argument("kind")
@click.option("--model", help="The base model: a registered name, a directory or a hub id.")
@click.option("--data", metavar="FILE", help="The training rows: a file, a folder or a hub id.")
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
@click.option("--watch", "watching", is_flag=True, help="Stay until the job ends, as `finetune watch` does.")
@json_option(
    "Print JSON: the job; with --watch its events and the ended job, one a line.",
    shape=Job | Event,
    lines=True,
)
@with_daemon
async def run(
    daemon: Client,
    /,
    *,
    kind: str,
    params: tuple[str, ...],
    callbacks: tuple[str, ...],
    name: str | None,
    priority: int | None,
    metadata: tuple[str, ...],
    max_attempts: int | None,
    secrets: tuple[str, ...],
    watching: bool,
    as_json: bool,
    **short: str | None,
) -> int:
    """Submit a job.

    KIND is one of `finetune kinds`; `finetune kinds KIND` lists its parameters. Relative paths are those of
    this directory.
    """
    given = await _params(daemon, kind, short, params, callbacks)
    job = await daemon.submit(
        kind,
        given,
        name=name,
        priority=priority,
        metadata={key: parameters.guess(value) for key, value in map(parameters.split, metadata)} or None,
        max_attempts=max_attempts,
        secrets={variable: _reference(name) for variable, name in map(parameters.split, secrets)} or None,
    )
    if as_json:
        console.emit(job)
    else:
        console.say(f"{job['id']} is {job['state']}.")
        if not watching:
            console.note(f"`finetune watch {job['id']}` shows it live.")
    return await watch.to_the_end(daemon, job, as_json=as_json) if watching else 0


def _reference(name: str) -> str:
    return name if name.startswith("secret:") else f"secret:{name}"


async def _params(
    daemon: Client,
    /,
    kind: str,
    short: dict[str, str | None],
    params: tuple[str, ...],
    callbacks: tuple[str, ...],
) -> dict[str, Json]:
    schema = await _schema(daemon, kind)
    texts = [f"{SHORT[option]}={value}" for option, value in short.items() if value is not None]
    given = parameters.parse_params([*texts, *params], kind, schema)
    if callbacks:
        listed = given.setdefault("callbacks", [])
        listed.extend(parameters.parse_callback(text) for text in callbacks)
    return parameters.absolute_paths(given, here=Path.cwd())


async def _schema(daemon: Client, kind: str) -> dict[str, Json]:
    try:
        return (await daemon.kind(kind))["params_schema"]
    except NotFoundError:
        known = [each["name"] for each in await daemon.kinds()]
        raise InvalidRequestError(
            f"There is no job kind {kind!r}.{parameters.nearest(kind, known)} `finetune kinds` lists them.",
            param="kind",
            code="unknown_kind",
        ) from None
