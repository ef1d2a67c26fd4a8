"""``files``: what batches and trainings of the OpenAI API read and make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
import click
from rich.table import Table

from finetuned.cli import console, transfers, units
from finetuned.cli.nouns import Noun
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import FetchedFile, Gone, Listing
from finetuned.cli.tables import table
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.files import PURPOSES
from finetuned.wire import File

DAY_S = 86_400

purpose_option = click.option("--purpose", help="Only files of this purpose.")


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[File])
@click.pass_context
def files(context: click.Context, *, as_json: bool) -> None:
    """Upload, list, download and remove files of batches and trainings."""
    if context.invoked_subcommand is None:
        context.invoke(ls, purpose=None, as_json=as_json)


@files.command
@purpose_option
@json_option(shape=Listing[File])
@with_daemon
async def ls(daemon: Client, *, purpose: str | None, as_json: bool) -> None:
    """List files, newest first."""
    listed = [file async for file in daemon.all_files(purpose=purpose)]
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        empty = "No files. `finetune files upload FILE --purpose batch` brings one."
        if purpose is not None:
            empty = f"No files have the purpose {purpose}; `finetune files` lists all."
        console.show(_table(listed), empty=empty)


@files.command
@click.argument("file_id", metavar="ID")
@json_option(shape=File)
@with_daemon
async def show(daemon: Client, *, file_id: str, as_json: bool) -> None:
    """Show a file: its name, purpose and size, and when it expires."""
    file = await daemon.file(file_id)
    if as_json:
        console.emit(file)
    else:
        console.show(_table([file]))


@files.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--purpose", required=True, type=click.Choice(PURPOSES), help="What it is for.")
@click.option(
    "--keep",
    "days",
    metavar="DAYS",
    type=click.FloatRange(0.042, 30),
    help="Days that it is kept, from an hour (0.042) to 30. Default: 30 for batches, others until they are removed.",
)
@json_option(shape=File)
@with_daemon
async def upload(daemon: Client, *, file: Path, purpose: str, days: float | None, as_json: bool) -> None:
    """Send a file of this machine."""
    if not await anyio.to_thread.run_sync(file.is_file):
        raise InvalidRequestError(f"{file} is no file of this machine; give the path of one.", param="file")
    size = (await anyio.to_thread.run_sync(file.stat)).st_size
    with transfers.progress(file.name, size) as count:
        made = await daemon.upload_file(
            file,
            purpose=purpose,
            expires_after_s=None if days is None else round(days * DAY_S),
            on_bytes=count,
        )
    if as_json:
        console.emit(made)
    else:
        console.say(
            f"{made['id']}: {made['filename']}, {units.size(made['bytes'])}. Jobs name it file:{made['id']}."
        )


@files.command
@click.argument("file_id", metavar="ID")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to. Default: a file of its name here."
)
@json_option(shape=FetchedFile)
@with_daemon
async def download(daemon: Client, *, file_id: str, output: Path | None, as_json: bool) -> None:
    """Bring a file to this machine, resumed where it broke off."""
    file = await daemon.file(file_id)
    target = output or Path(Path(file["filename"]).name)
    with transfers.progress(target.name, file["bytes"]) as count:
        await daemon.download_file_content(file_id, target, on_bytes=count)
    if as_json:
        console.emit({"id": file_id, "target": str(target.absolute())})
    else:
        console.say(f"{target}: {units.size(file['bytes'])}.")


@files.command
@click.argument("file_id", metavar="ID")
@json_option(shape=Gone)
@with_daemon
async def rm(daemon: Client, *, file_id: str, as_json: bool) -> None:
    """Remove a file. Jobs that are live keep what they were given."""
    await daemon.delete_file(file_id)
    if as_json:
        console.emit({"id": file_id, "object": "file", "deleted": True})
    else:
        console.say(f"{file_id} is removed; jobs that are live keep what they were given.")


def _table(listed: Iterable[File]) -> Table:
    shown = table("ID", "PURPOSE", "SIZE", "CREATED", "EXPIRES", "NAME", right=("SIZE",))
    for each in listed:
        expires_at = each["expires_at"]
        shown.add_row(
            each["id"],
            each["purpose"],
            units.size(each["bytes"]),
            units.unix_local(each["created_at"]),
            units.NOTHING if expires_at is None else units.unix_local(expires_at),
            each["filename"],
        )
    return shown
