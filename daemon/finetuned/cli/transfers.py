"""Files on their way: local files that a job is to read are sent first, each content once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from finetuned.cli import console, units
from finetuned.client import Client
from finetuned.client.datasets import sha256
from finetuned.domain.errors import NotFoundError
from finetuned.wire import Dataset

Json = Any

CALLBACK_DATA = "dataset"  # the parameter of a callback that is data
SHOWN_DIGITS = 16  # of a version, in a reference
LONGEST_NAME = 96


async def uploaded(
    daemon: Client,
    params: Mapping[str, Json],
    names: Collection[str],
    *,
    here: Path,
    chosen: Collection[str] = (),
) -> dict[str, Json]:
    """``params`` with references in place of local files.

    ``names`` are the parameters that may refer to a dataset. A relative path is this machine's; an absolute one is the
    server's, unless its parameter is among ``chosen``: then it is this machine's too.
    """
    found: dict[str, Json] = {}
    for name, value in params.items():
        if name == "callbacks" and isinstance(value, list):
            found[name] = [await _of_callback(daemon, each, here) for each in value]
        elif name in names and isinstance(value, str):
            file = local_file(value, here, absolute=name in chosen)
            found[name] = value if file is None else await reference(daemon, file)
        else:
            found[name] = value
    return found


async def _of_callback(daemon: Client, callback: Json, here: Path) -> Json:
    if not isinstance(callback, dict) or not isinstance(callback.get("params"), dict):
        return callback
    return {**callback, "params": await uploaded(daemon, callback["params"], {CALLBACK_DATA}, here=here)}


def local_file(value: str, here: Path, *, absolute: bool) -> Path | None:
    """The file of this machine that ``value`` names, if it names one."""
    path = Path(value).expanduser()
    if path.is_absolute() and not absolute:
        return None
    file = here / path
    return file if file.is_file() else None


async def reference(daemon: Client, file: Path) -> str:
    """``dataset:NAME@VERSION`` of a file, which is sent unless the daemon has it."""
    name = name_for(file)
    version = await anyio.to_thread.run_sync(sha256, file)
    if not await is_there(daemon, name, version):
        await send(daemon, name, file, version=version)
    return f"dataset:{name}@{version[:SHOWN_DIGITS]}"


async def send(
    daemon: Client,
    name: str,
    file: Path,
    *,
    version: str,
    format: str | None = None,  # noqa: A002 - the API's name
) -> Dataset:
    """Send a file as the newest version of a dataset, with a bar on a terminal."""
    size = (await anyio.to_thread.run_sync(file.stat)).st_size
    with progress(file.name, size) as count:
        dataset = await daemon.upload_dataset(name, file, format=format, sha256=version, on_bytes=count)
    console.note(f"{file.name} is sent as dataset:{name}@{version[:SHOWN_DIGITS]} ({units.size(size)}).")
    return dataset


async def is_there(daemon: Client, name: str, version: str) -> bool:
    """Whether a dataset has a version with this content."""
    try:
        dataset = await daemon.dataset(name)
    except NotFoundError:
        return False
    return any(each["version"] == version for each in dataset["versions"])


def name_for(file: Path) -> str:
    """A dataset's name from a file's: what a name cannot have is a dash."""
    stem = file.name.partition(".")[0] or file.name.strip(".")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:LONGEST_NAME]
    return name or "data"


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal; what is to be told of each block's bytes."""
    from rich.progress import (  # noqa: PLC0415 - only who transfers something needs it
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    out = console.stderr()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)
