"""``datasets``: what jobs are trained on, by name and version."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import click

from finetuned.cli import console, listings, parameters, preview, transfers, units, watch
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, paged, watch_option, with_daemon
from finetuned.cli.shapes import Fetched, Gone, Listing, TokenPreview
from finetuned.client import Client
from finetuned.client.datasets import sha256
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.wire import Dataset, DatasetAudit, DatasetPreview

FORMATS = ("jsonl", "json", "csv", "parquet")

named = click.argument("name", metavar="NAME[@VERSION]")
format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), help="How it is written. Default: found out."
)


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Dataset])
@click.pass_context
def datasets(context: click.Context, *, as_json: bool) -> None:
    """Upload, list, look into, audit and remove datasets."""
    if context.invoked_subcommand is None:
        context.invoke(ls, as_json=as_json)


@datasets.command
@json_option(shape=Listing[Dataset])
@with_daemon
async def ls(daemon: Client, *, as_json: bool) -> None:
    """List datasets."""
    listed = [dataset async for dataset in daemon.all_datasets()]
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(
            listings.datasets(listed), empty="No datasets. `finetune datasets upload FILE` brings one."
        )


@datasets.command
@click.argument("name")
@json_option(shape=Dataset)
@with_daemon
async def show(daemon: Client, *, name: str, as_json: bool) -> None:
    """Show a dataset and its versions."""
    dataset = await daemon.dataset(name)
    if as_json:
        console.emit(dataset)
        return
    console.say(f"{dataset['reference']}", style="bold")
    console.show(listings.versions(dataset["versions"]))


@datasets.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The dataset's name. Default: from the file's name.")
@format_option
@json_option(shape=Dataset)
@with_daemon
async def upload(daemon: Client, *, file: Path, name: str | None, form: str | None, as_json: bool) -> None:
    """Send a file of this machine as the newest version of a dataset."""
    if not await anyio.to_thread.run_sync(file.is_file):
        raise InvalidRequestError(f"{file} is no file of this machine; give the path of one.", param="file")
    name = name or transfers.name_for(file)
    version = await anyio.to_thread.run_sync(sha256, file)
    if await transfers.is_there(daemon, name, version):
        console.note(f"dataset:{name} has this content already; nothing is sent.")
        dataset = await daemon.dataset(name)
    else:
        dataset = await transfers.send(daemon, name, file, version=version, format=form)
    _told(dataset, version, as_json=as_json)


@datasets.command
@click.argument("name")
@click.argument("path")
@format_option
@json_option(shape=Dataset)
@with_daemon
async def register(daemon: Client, *, name: str, path: str, form: str | None, as_json: bool) -> None:
    """Name a file that is on the daemon's machine and stays there. PATH is absolute."""
    dataset = await daemon.register_dataset(name, path, format=form)
    _told(dataset, dataset["version"], as_json=as_json)


def _told(dataset: Dataset, version: str, *, as_json: bool) -> None:
    if as_json:
        console.emit(dataset)
        return
    found = next(each for each in dataset["versions"] if each["version"] == version)
    rows = "" if found["rows"] is None else f"{found['rows']} rows, "
    console.say(
        f"dataset:{dataset['id']}@{version[: transfers.SHOWN_DIGITS]}: {rows}{found['format']}, {units.size(found['bytes'])}"
    )


@datasets.command("preview")
@named
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many rows.")
@click.option("--after", help="Go on after a page: its `next_after`.")
@click.option(
    "--tokens",
    is_flag=True,
    help="As tokens, as the newest audit saw them; those that are trained on stand out.",
)
@json_option(shape=DatasetPreview | TokenPreview)
@paged
@with_daemon
async def preview_command(
    daemon: Client, *, name: str, rows: int, after: str | None, tokens: bool, as_json: bool
) -> None:
    """Show the first rows of a dataset, or what the model will read of them."""
    name, version = split(name)
    if tokens:
        job, document = await preview.newest(daemon, name, version)
        document["rows"] = document["rows"][:rows]
        if as_json:
            console.emit({"job": job, **document})
        else:
            for line in preview.token_lines(document):
                console.say(line)
        return
    found = await daemon.preview_dataset(name, version=version, rows=rows, after=after)
    if as_json:
        console.emit(found)
        return
    for row in found["data"]:
        console.say(preview.row_text(row))
    if found["has_more"]:
        console.note(f"More: --after {found['next_after']}")


@datasets.command
@named
@click.option("--model", required=True, help="The model whose tokenizer and chat template are used.")
@click.option(
    "--param",
    "params",
    metavar="K=V",
    multiple=True,
    help="A parameter of the training that is planned; can be repeated.",
)
@watch_option("Stay until it is done, and show the rows as tokens.")
@with_daemon
async def audit(
    daemon: Client, /, *, name: str, model: str, params: tuple[str, ...], watching: bool, as_json: bool
) -> int:
    """Read a dataset through as a training would, and report what it found."""
    name, version = split(name)
    given = {key: parameters.guess(value) for key, value in map(parameters.split, params)}
    job = await daemon.audit_dataset(name, model=model, version=version, params=given or None)
    if as_json:
        console.emit(job)
    else:
        console.say(f"{job['id']} is {job['state']}.")
    if not watching:
        return 0
    code = await watch.to_the_end(daemon, job, as_json=as_json)
    if code == 0 and not as_json:
        console.note(
            f"`finetune datasets preview {name} --tokens` shows the first rows as the model reads them."
        )
    return code


@datasets.command
@named
@json_option(shape=Listing[DatasetAudit])
@with_daemon
async def audits(daemon: Client, *, name: str, as_json: bool) -> None:
    """List what jobs found in a dataset, the newest first."""
    name, version = split(name)
    listed = await daemon.dataset_audits(name, version=version)
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(
            listings.audits(listed),
            empty=f"Nobody has read {name} through; `finetune datasets audit {name} --model MODEL` does.",
        )


@datasets.command
@named
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to. Default: a file of its name here."
)
@json_option(shape=Fetched)
@with_daemon
async def download(daemon: Client, *, name: str, output: Path | None, as_json: bool) -> None:
    """Bring a dataset's file to this machine, resumed where it broke off, its checksum compared."""
    name, version = split(name)
    dataset = await daemon.dataset(name)
    fitting = [each for each in dataset["versions"] if version is None or each["version"].startswith(version)]
    if not fitting:
        raise NotFoundError(f"{name} has no version {version}; `finetune datasets show {name}` lists them.")
    chosen = fitting[0]
    target = output or Path(f"{name}.{chosen['format']}")
    with transfers.progress(target.name, chosen["bytes"]) as count:
        await daemon.download_dataset(name, target, version=chosen["version"], on_bytes=count)
    if as_json:
        console.emit({"id": name, "version": chosen["version"], "target": str(target.absolute())})
    else:
        console.say(f"{target}: {units.size(chosen['bytes'])}, checksum right.")


@datasets.command
@named
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, name: str, as_json: bool) -> None:
    """Free a dataset's name, or one version of it."""
    dataset, version = split(name)
    await daemon.delete_dataset(dataset, version=version)
    if as_json:
        kind = "dataset" if version is None else "dataset.version"
        console.emit({"id": name, "object": kind, "deleted": True})
    else:
        console.say(f"{name} is removed; jobs that are live keep what they were given.")


def split(name: str) -> tuple[str, str | None]:
    """``NAME``, ``NAME@VERSION`` or the same with ``dataset:`` before it, as a pair."""
    name, at, version = name.removeprefix("dataset:").partition("@")
    return name, version if at else None
