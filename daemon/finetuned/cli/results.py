"""``checkpoints``, ``artifacts`` and ``export``: what a job leaves, and how it comes here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import click

from finetuned.cli import console, listings, units
from finetuned.cli.arguments import job_argument
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Exported, Listing
from finetuned.cli.transfers import progress
from finetuned.client import Client
from finetuned.client.errors import UnexpectedAnswerError
from finetuned.domain.errors import InvalidRequestError, NotFoundError, Rejected
from finetuned.wire import Artifact, ArtifactFile, CheckedCheckpoint

JOB_PREFIX = "job-"


@click.command
@job_argument
@click.option("--verify", is_flag=True, help="Read them through and compare every byte with its checksum.")
@json_option(shape=Listing[CheckedCheckpoint])
@with_daemon
async def checkpoints(daemon: Client, *, job_id: str, verify: bool, as_json: bool) -> None:
    """List a job's checkpoints, and whether their files are as they were saved."""
    listed = await daemon.checkpoints(job_id, verify=verify)
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(listings.checkpoints(listed), empty=f"{job_id} has saved no checkpoint.")


@click.command
@job_argument
@click.argument("name", required=False)
@click.option("--attempt", type=click.IntRange(0), help="Of this attempt. Default: the newest that has one.")
@json_option(shape=Listing[Artifact] | Listing[ArtifactFile])
@with_daemon
async def artifacts(
    daemon: Client, *, job_id: str, name: str | None, attempt: int | None, as_json: bool
) -> None:
    """List a job's artifacts, or the files of one."""
    if name is None:
        listed = await daemon.artifacts(job_id)
        if as_json:
            console.emit({"data": listed, "has_more": False})
        else:
            console.show(listings.artifacts(listed), empty=f"{job_id} has published nothing.")
        return
    files = [file async for file in daemon.artifact_files(job_id, name, attempt=attempt)]
    if as_json:
        console.emit({"data": files, "has_more": False})
    else:
        console.show(listings.files(files), empty=f"{name} has no files.")


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be exported: an artifact of a job."""

    job: str
    artifact: Artifact


@click.command
@click.argument("source", metavar="JOB|MODEL")
@click.option("--artifact", "name", help="Which, if the job has several.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to. Default: a folder of the artifact's name here.",
)
@click.option("--zip", "as_zip", is_flag=True, help="One zip archive instead of a folder.")
@json_option("Print JSON: what was brought, and where it is.", shape=Exported)
@with_daemon
async def export(
    daemon: Client, *, source: str, name: str | None, output: Path | None, as_zip: bool, as_json: bool
) -> None:
    """Bring a model or another artifact of a job to this machine.

    What broke off goes on where it was when the command is given again. Every file's checksum is compared.
    """
    found = await _found(daemon, source, name)
    artifact = found.artifact
    target = output or Path(f"{artifact['name']}.zip" if as_zip else artifact["name"])
    if as_zip and target.is_dir():
        target /= f"{artifact['name']}.zip"
    bring = _archive if as_zip else _folder
    count = await bring(daemon, found, target)
    if as_json:
        console.emit({**artifact, "job": found.job, "target": str(target.absolute()), "files": count})
        return
    what = "1 archive" if as_zip else f"{count} file{'' if count == 1 else 's'}"
    console.say(f"{target}: {what}, {units.size(artifact['bytes'])}, checksums right.")


async def _found(daemon: Client, source: str, name: str | None) -> Source:
    job_id, path = source, None
    if not source.startswith(JOB_PREFIX):
        model = await daemon.model(source)
        if model["job"] is None:
            raise NotFoundError(
                f"No job of this daemon made {source}; its files are at {model['path']} on the daemon's machine."
            )
        job_id, path = model["job"], model["path"]
    listed = await daemon.artifacts(job_id)
    fitting = [
        each
        for each in listed
        if (name is None or each["name"] == name) and (path is None or each["path"] == path)
    ]
    names = list(dict.fromkeys(each["name"] for each in fitting))
    if not fitting:
        known = ", ".join(dict.fromkeys(each["name"] for each in listed))
        raise NotFoundError(
            f"{job_id} has no such artifact. It has {known}." if known else f"{job_id} has published nothing."
        )
    if len(names) > 1:
        raise InvalidRequestError(
            f"{job_id} has several artifacts; name one with --artifact: {', '.join(names)}.",
            param="--artifact",
        )
    return Source(job_id, max(fitting, key=lambda each: each["attempt"]))


async def _folder(daemon: Client, source: Source, target: Path) -> int:
    artifact = source.artifact
    attempt = artifact["attempt"]
    files = [file async for file in daemon.artifact_files(source.job, artifact["name"], attempt=attempt)]
    places = [_below(target, file["path"]) for file in files]
    _must_be_a_folder(target)
    with progress(artifact["name"], sum(file["bytes"] for file in files)) as count:
        for file, place in zip(files, places, strict=True):
            await daemon.download_file(
                source.job, artifact["name"], file, place, attempt=attempt, on_bytes=count
            )
    return len(files)


async def _archive(daemon: Client, source: Source, target: Path) -> int:
    artifact = source.artifact
    with progress(artifact["name"], artifact["bytes"]) as count:
        await daemon.download_archive(
            source.job, artifact["name"], target, attempt=artifact["attempt"], on_bytes=count
        )
    return 1


def _must_be_a_folder(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise Rejected("target_exists", f"{target} is a file; name another place with -o.")


def _below(target: Path, path: str) -> Path:
    """Where a file goes. Raises ``UnexpectedAnswerError`` for a path that would leave the folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part in {"..", "."} or "\0" in part for part in parts):
        raise UnexpectedAnswerError(f"The daemon names a file {path!r}, which would lie outside of {target}.")
    return target.joinpath(*parts)
