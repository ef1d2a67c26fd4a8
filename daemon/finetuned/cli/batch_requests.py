"""The requests of a batch that has ended, brought here so that those without an answer can be asked again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import anyio.to_thread

from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, NotFoundError, Rejected
from finetuned.wire import Batch, Job

FILE: Final = "file:"
DATASET: Final = "dataset:"
BOM: Final = b"\xef\xbb\xbf"


async def unanswered(daemon: Client, old: Batch, job: Job, target: Path) -> None:
    """Write the requests that a batch's error file names, taken out of what the batch has read.

    Raises ``InvalidRequestError`` with the remedy if they cannot be had any more.
    """
    source, errors = target.with_suffix(".input"), target.with_suffix(".errors")
    if old["error_file_id"] is None:
        raise InvalidRequestError(
            f"{old['id']} is {old['status']} and has no error file, so there is nothing to ask again.",
            param="batch_id",
        )
    await daemon.download_file_content(old["error_file_id"], errors)
    try:
        await _input(daemon, job, source)
        await anyio.to_thread.run_sync(_choose, source, errors, target)
    except (NotFoundError, Rejected, OSError, ValueError, LookupError) as error:
        raise InvalidRequestError(
            f"{old['id']} read {job['params']['input']}, of which its requests cannot be had any more ({error}); take those"
            f" that its error file {old['error_file_id']} names out of a copy of yours, and ask them with `finetune batch"
            " run`.",
            param="batch_id",
        ) from None


async def _input(daemon: Client, job: Job, target: Path) -> None:
    """Bring here what a batch has read: a file of the API, a version of a dataset, or a path on this machine."""
    given = job["params"]["input"]
    if given.startswith(FILE):
        await daemon.download_file_content(given.removeprefix(FILE), target)
    elif given.startswith(DATASET):
        used = job["datasets"]["input"]
        await daemon.download_dataset(used["name"], target, version=used["version"])
    else:
        await anyio.to_thread.run_sync(shutil.copyfile, given, target)


def _choose(source: Path, errors: Path, target: Path) -> None:
    """Write those requests of an input that an error file names. Raises ``LookupError`` unless all are there."""
    with errors.open("rb") as lines:
        wanted = {json.loads(line)["custom_id"] for line in lines}
    found = set()
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            request = json.loads(line.removeprefix(BOM)) if line.strip() else None
            if request is not None and request["custom_id"] in wanted:
                found.add(request["custom_id"])
                out.write(line.removeprefix(BOM).rstrip(b"\n") + b"\n")
    if wanted - found:
        raise LookupError(f"it has no request {min(wanted - found)!r}")
