"""Followers of the log: effects outside of it, each with a cursor of its own.

An effect is done at least once: the cursor moves after it, so a crash between the two repeats it. Effects are
therefore idempotent.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from finetuned.attempts.supervision import Supervision
from finetuned.commands.datasets import DatasetCommands
from finetuned.commands.files import FileCommands
from finetuned.domain import facts, files
from finetuned.domain.failures import Failure
from finetuned.domain.job import Job
from finetuned.patience import patiently
from finetuned.store import Log, job_from, queries
from finetuned_events import Event

log = logging.getLogger(__name__)


class Follower(Protocol):
    """Something that reacts to events of certain types."""

    @property
    def name(self) -> str:
        """Under which its cursor is kept."""

    @property
    def types(self) -> Collection[str]:
        """The events that it wants."""

    async def react(self, event: Event) -> None:
        """Do what the event calls for; once more after a crash, so twice must equal once."""


async def follow(events: Log, follower: Follower) -> None:
    """Run a follower from its cursor on, until cancelled; while the log cannot be read or written it waits."""
    await patiently(follower.name, partial(_follow, events, follower))


async def _follow(events: Log, follower: Follower) -> None:
    position = await events.position(follower.name)
    async for page in events.follow(after=position, types=follower.types):
        for event in page:
            await follower.react(event)
        position = page[-1].seq
        # Tried again by itself, or the effects of the whole page would be.
        await patiently(follower.name, partial(_keep, events, follower.name, position))


async def _keep(events: Log, name: str, position: int) -> None:
    # Necessary: on a full disk the files of deleted jobs are to go, one after the other.
    await events.execute(lambda _world: (), cursor=(name, position), necessary=True)


async def dispatch(events: Log, supervision: Supervision, *, after: int) -> None:
    """Tell the supervision of attempts that start and of jobs that are to end, to pause or to save.

    No cursor: at its start the supervision takes everything alive from the log, and it is idempotent.
    """
    types = (
        facts.AttemptStarting.type,
        facts.JobCancelRequested.type,
        facts.JobPauseRequested.type,
        facts.JobCheckpointRequested.type,
        facts.AttemptIntervened.type,
    )

    async def go_on() -> None:
        nonlocal after
        async for page in events.follow(after=after, types=types):
            if any(map(_is_an_order, page)):
                supervision.notice()
            after = page[-1].seq

    await patiently("The dispatch of attempts", go_on)


def _is_an_order(event: Event) -> bool:
    """Whether the supervision is to look: what it did itself it knows."""
    return event.type != facts.AttemptIntervened.type or event.data["failure"] == Failure.STOPPED


class FileRemover:
    """Removes the files of jobs that were deleted, or whose files were kept long enough."""

    name = "file-remover"
    types = (facts.JobDeleted.type, facts.JobFilesRemoved.type)

    def __init__(self, jobs_dir: Path) -> None:
        self._jobs_dir = jobs_dir

    async def react(self, event: Event) -> None:
        """Remove the job's directory."""
        directory = self._jobs_dir / event.stream.removeprefix("job/")
        try:
            await anyio.to_thread.run_sync(shutil.rmtree, directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning(
                "The files of %s could not be removed, remove %s by hand: %s", event.stream, directory, error
            )
        else:
            log.info("Removed the files of %s", event.stream)


class ContentRemover:
    """Removes the content of files that nobody can name and no live job reads any more."""

    name = "content-remover"
    types = (
        facts.FileDeleted.type,
        facts.JobSucceeded.type,
        facts.JobFailed.type,
        facts.JobCancelled.type,
    )

    def __init__(self, commands: FileCommands) -> None:
        self._commands = commands

    async def react(self, event: Event) -> None:
        """Remove what became unused by the event."""
        if event.type == facts.FileDeleted.type:
            await self._remove(event.data["id"], event.data.get("job"))
            return
        ended = await self._job(event.stream.removeprefix("job/"))
        for used in {} if ended is None else ended.datasets.values():
            if files.is_id(used["name"]):
                await self._remove(used["name"], self._commands.maker(used["path"]))

    async def _remove(self, file_id: str, made_by: str | None) -> None:
        job = None if made_by is None else await self._job(made_by)
        if job is None and made_by is not None:
            return  # its files go with it
        try:
            await self._commands.remove_unused(file_id, job)
        except OSError as error:
            log.warning("The content of %s could not be removed, remove it by hand: %s", file_id, error)

    async def _job(self, job_id: str) -> Job | None:
        rows = await self._commands.appending.log.fetch(queries()["select_job"], (job_id,))
        return job_from(rows[0][0]) if rows else None


class DatasetRemover:
    """Removes uploaded content that no dataset and no live job needs any more."""

    name = "dataset-remover"
    types = (
        facts.DatasetDeleted.type,
        facts.DatasetRegistered.type,  # it may have replaced a file of the same content
        facts.JobSucceeded.type,
        facts.JobFailed.type,
        facts.JobCancelled.type,
    )

    def __init__(self, datasets: DatasetCommands) -> None:
        self._datasets = datasets

    async def react(self, event: Event) -> None:
        """Remove what became unused by the event."""
        for version in await self._versions(event):
            async with self._datasets.store.changing:
                try:
                    await self._datasets.remove_unused(version)
                except OSError as error:
                    log.warning("Content %s could not be removed, remove it by hand: %s", version, error)

    async def _versions(self, event: Event) -> Collection[str]:
        if event.type == facts.DatasetDeleted.type:
            return list(event.data["versions"])
        if event.type == facts.DatasetRegistered.type:
            return [event.data["version"]]
        rows = await self._datasets.appending.log.fetch(
            queries()["select_job"], (event.stream.removeprefix("job/"),)
        )
        return {each["version"] for row in rows for each in job_from(row[0]).datasets.values()}
