"""``batch``: ask a model all prompts of a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import click
from rich.table import Table

from finetuned.cli import batch_requests, console, parameters, prompts, transfers, units, watch
from finetuned.cli.nouns import Noun
from finetuned.cli.prompts import CHAT, PROMPTED, Asking
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.cli.tables import table
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError
from finetuned.openai import batch_ids
from finetuned.wire import Batch, Event, Job

Json = Any

PURPOSE: Final = "batch"
LIMITS: Final = frozenset({"max_requests", "max_bytes"})  # the daemon says them anew

batch_argument = click.argument("batch_id", metavar="BATCH")
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Wait for the end and bring the answers here; what failed comes beside it, as NAME.errors.jsonl.",
)


json_lines = json_option(
    "Print JSON: the batch; with --watch also its job's events and the ended job, one a line.",
    shape=Batch | Event | Job,
    lines=True,
)


@click.group(cls=Noun, invoke_without_command=True)
@json_option(shape=Listing[Batch])
@click.pass_context
def batch(context: click.Context, *, as_json: bool) -> None:
    """Ask a model all prompts of a file, and look at such batches."""
    if context.invoked_subcommand is None:
        context.invoke(ls, limit=20, as_json=as_json)


@batch.command
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    help="The model that answers, all of them: it takes the place of those that requests in OpenAI's form name.",
)
@click.option(
    "--template",
    help='What is asked of each row: "… {column} …"; {{ and }} are braces. Needed for CSV and Parquet.',
)
@click.option("--system", help="A system message before each prompt.")
@click.option(
    "--endpoint",
    type=click.Choice([CHAT, *PROMPTED]),
    default=CHAT,
    show_default=True,
    help="What the requests ask.",
)
@click.option(
    "--param",
    "params",
    metavar="K=V",
    multiple=True,
    help="A field of each request, max_tokens=64 for instance; can be repeated.",
)
@click.option("--priority", type=int, help="Higher goes first; one point is worth ten minutes of waiting.")
@click.option("--engine", help="The kind of engine that answers. Default: the daemon's.")
@click.option("--metadata", metavar="K=V", multiple=True, help="Your own keys; the daemon only keeps them.")
@output_option
@click.option("--watch", "watching", is_flag=True, help="Stay until the batch ends.")
@json_lines
@with_daemon
async def run(
    daemon: Client,
    /,
    *,
    file: Path,
    model: str | None,
    template: str | None,
    system: str | None,
    endpoint: str,
    params: tuple[str, ...],
    priority: int | None,
    engine: str | None,
    metadata: tuple[str, ...],
    output: Path | None,
    watching: bool,
    as_json: bool,
) -> int:
    """Ask all prompts of FILE.

    FILE is of this machine: JSON lines of requests as OpenAI's batches have them, or of `messages` or `prompt`; or CSV or
    Parquet, whose columns --template puts into a prompt. A column `custom_id` or `id` names the rows.

    With --watch or --output the exit code is 0 if all were answered, and 1 if some were not.
    """
    if not await anyio.to_thread.run_sync(file.is_file):
        raise InvalidRequestError(f"{file} is no file of this machine; give the path of one.", param="file")
    asking = Asking(
        endpoint=endpoint,
        model=model,
        template=template,
        system=system,
        params={key: parameters.guess(value) for key, value in map(parameters.split, params)},
    )
    with tempfile.TemporaryDirectory() as scratch:
        ready = Path(scratch) / f"{file.stem}.jsonl"
        await anyio.to_thread.run_sync(prompts.write, file, asking, ready)
        file_id = await _sent(daemon, ready)
    made = await daemon.create_batch(
        file_id,
        endpoint=endpoint,
        priority=priority,
        engine=engine,
        metadata=dict(map(parameters.split, metadata)) or None,
    )
    return await _begun(daemon, made, output, watching=watching, as_json=as_json)


@batch.command(name="retry-failed")
@batch_argument
@output_option
@click.option("--watch", "watching", is_flag=True, help="Stay until the new batch ends.")
@json_lines
@with_daemon
async def retry_failed(
    daemon: Client, /, *, batch_id: str, output: Path | None, watching: bool, as_json: bool
) -> int:
    """Ask those requests of an ended batch again that have no answer: refused, failed or not finished.

    With --watch or --output the exit code is 0 if all were answered, and 1 if some were not.
    """
    old = await daemon.batch(batch_id)
    job = await daemon.job(old["x_finetuned"]["job"])
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / f"{batch_id}-again.jsonl"
        await batch_requests.unanswered(daemon, old, job, again)
        file_id = await _sent(daemon, again)
    params = {name: value for name, value in job["params"].items() if name not in LIMITS}
    submitted = await daemon.submit(
        job["kind"],
        {**params, "input": f"file:{file_id}"},
        priority=job["priority"],
        metadata={**job["metadata"], "retry_of": batch_id},
        max_attempts=job["max_attempts"],
    )
    made = await daemon.batch(batch_ids.of_job(submitted["id"]))
    return await _begun(daemon, made, output, watching=watching, as_json=as_json)


@batch.command
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many.")
@json_option(shape=Listing[Batch])
@with_daemon
async def ls(daemon: Client, *, limit: int, as_json: bool) -> None:
    """List batches, newest first."""
    page = await daemon.batches(limit=limit)
    if as_json:
        console.emit({"data": page["data"], "has_more": page["has_more"]})
    else:
        console.show(
            _table(page["data"]), empty="No batches. `finetune batch run FILE --model NAME` begins one."
        )


@batch.command
@batch_argument
@json_option(shape=Batch)
@with_daemon
async def show(daemon: Client, *, batch_id: str, as_json: bool) -> None:
    """Show a batch: how far it is, its files, and what is wrong with its input."""
    found = await daemon.batch(batch_id)
    if as_json:
        console.emit(found)
        return
    console.show(_table([found]))
    for line in _told(found):
        console.say(line)


@batch.command
@batch_argument
@json_option(shape=Batch)
@with_daemon
async def cancel(daemon: Client, *, batch_id: str, as_json: bool) -> None:
    """Ask a batch to end. What it has finished is kept."""
    found = await daemon.cancel_batch(batch_id)
    if as_json:
        console.emit(found)
    else:
        console.say(f"{batch_id} is {found['status']}; what it has finished is kept.")


async def _sent(daemon: Client, file: Path) -> str:
    size = (await anyio.to_thread.run_sync(file.stat)).st_size
    with transfers.progress(file.name, size) as count:
        return (await daemon.upload_file(file, purpose=PURPOSE, on_bytes=count))["id"]


async def _begun(daemon: Client, made: Batch, output: Path | None, *, watching: bool, as_json: bool) -> int:
    """Tell of a batch, and if that is wanted, stay until its end and bring its files; the exit code."""
    job_id = made["x_finetuned"]["job"]
    if as_json:
        console.emit(made)
    else:
        console.say(f"{made['id']} is {made['status']}; its job is {job_id}.")
    if not watching and output is None:
        console.note(
            f"`finetune watch {job_id}` shows it live, `finetune batch show {made['id']}` its files."
        )
        return 0
    code = await watch.to_the_end(daemon, await daemon.job(job_id), as_json=as_json)
    ended = await daemon.batch(made["id"])
    if output is not None:
        await _brought(daemon, ended, output)
    if not as_json:
        for line in _told(ended, told_why=True):
            console.say(line)
    return code or int(ended["request_counts"]["failed"] > 0)


async def _brought(daemon: Client, ended: Batch, output: Path) -> None:
    errors = output.with_name(f"{output.stem}.errors.jsonl")
    for file_id, target in ((ended["output_file_id"], output), (ended["error_file_id"], errors)):
        if file_id is not None:
            await daemon.download_file_content(file_id, target)
            console.note(f"{target} is here.")
        elif await anyio.to_thread.run_sync(target.exists):
            console.note(f"{target} is not of this batch: it was there before.")


def _told(found: Batch, *, told_why: bool = False) -> Iterable[str]:
    counts = found["request_counts"]
    if found["output_file_id"] is not None:
        yield f"{counts['completed']} answered: `finetune files download {found['output_file_id']}`."
    if found["error_file_id"] is not None:
        missing = counts["total"] - counts["completed"]
        yield (
            f"{missing} without an answer: `finetune files download {found['error_file_id']}`;"
            f" `finetune batch retry-failed {found['id']}` asks them again."
        )
    for problem in [] if found["errors"] is None else found["errors"]["data"][:20]:
        if problem["line"] is None and told_why:
            continue  # whoever watched has read why the job failed
        where = "" if problem["line"] is None else f"line {problem['line']}: "
        yield f"{where}{problem['message']} ({problem['code']})"


def _table(listed: Iterable[Batch]) -> Table:
    shown = table("ID", "STATUS", "DONE", "FAILED", "OF", "MODEL", "CREATED", right=("DONE", "FAILED", "OF"))
    for each in listed:
        counts = each["request_counts"]
        shown.add_row(
            each["id"],
            each["status"],
            str(counts["completed"]),
            str(counts["failed"]),
            str(counts["total"]),
            each["model"],
            units.unix_local(each["created_at"]),
        )
    return shown
