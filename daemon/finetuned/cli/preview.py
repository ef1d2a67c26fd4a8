"""Rows of a dataset for people: as they are, and as tokens."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from rich.text import Text

from finetuned.cli.parameters import dump
from finetuned.client import Client
from finetuned.domain.errors import NotFoundError
from finetuned.wire import DatasetRow

Json = Any

ARTIFACT = "preview.json"  # what a job of kind sft-audit publishes
TRAINED, SEEN = "bold green", "dim"
STRIPES = ("", "underline")  # neighbours are told apart


def row_text(row: DatasetRow) -> str:
    """A row on one line, its number before it."""
    if row["problem"] is not None:
        return f"{row['row']:>6}  ! {row['problem']}"
    value = row["value"] if isinstance(row["value"], str) else dump(row["value"])
    return f"{row['row']:>6}  {value}{' …' if row['cut'] else ''}"


async def newest(daemon: Client, name: str, version: str | None) -> tuple[str, dict[str, Json]]:
    """The newest audit's rows as tokens: the job and its ``preview.json``. Raises ``NotFoundError`` with the remedy."""
    for audit in await daemon.dataset_audits(name, version=version):
        try:
            document = await _of_job(daemon, audit["job"])
        except NotFoundError:
            continue  # it was deleted, or it is a training, which keeps no preview
        return audit["job"], document
    raise NotFoundError(
        f"No audit has kept rows of {name} as tokens; `finetune datasets audit {name} --model MODEL --watch` does."
    )


async def _of_job(daemon: Client, job_id: str) -> dict[str, Json]:
    files = [file async for file in daemon.artifact_files(job_id, ARTIFACT)]
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        place = Path(folder) / ARTIFACT
        await daemon.download_file(job_id, ARTIFACT, files[0], place)
        document: dict[str, Json] = json.loads(await anyio.to_thread.run_sync(place.read_text))
    return document


def token_lines(document: dict[str, Json]) -> Iterator[Text]:
    """The rows of a preview: tokens that are trained on stand out by colour, or by brackets where there is none."""
    yield Text(
        f"{document['format']} rows for {document['model']}, at most {document['max_length']} tokens; "
        "what is trained on is [ so ]."
    )
    for row in document["rows"]:
        yield Text("")
        if "problem" in row:
            yield Text(f"row {row['row']}: {row['problem']}", style="yellow")
            continue
        cut = f", {row['cut']} cut off" if row["cut"] else ""
        yield Text(
            f"row {row['row']}: {row['length']} tokens, {row['trained']} trained on{cut}", style="bold"
        )
        yield tokens(row["tokens"])
        if row["hidden"]:
            yield Text(f"… and {row['hidden']} more", style="dim")


def tokens(listed: list[dict[str, Json]]) -> Text:
    """Tokens one after the other; a run of trained ones stands in brackets."""
    text, trained = Text(), False
    for number, token in enumerate(listed):
        if token["trained"] != trained:
            trained = token["trained"]
            text.append("[" if trained else "]", "bold")
        style = TRAINED if trained else SEEN
        text.append(token["text"], f"{style} {STRIPES[number % 2]}".strip())
    if trained:
        text.append("]", "bold")
    return text
