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
from finetuned.domain import facts
from finetuned.patience import patiently
from finetuned.store import Log
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
    """Run a follower from its cursor on, until cancelled."""
    position = await events.position(follower.name)
    async for page in events.follow(after=position, types=follower.types):
        for event in page:
            await follower.react(event)
        position = page[-1].seq
        await patiently(follower.name, partial(_keep, events, follower.name, position))


async def _keep(events: Log, name: str, position: int) -> None:
    await events.execute(lambda _world: (), cursor=(name, position))


async def dispatch(events: Log, supervision: Supervision, *, after: int) -> None:
    """Tell the supervision of attempts that start and of jobs that are to end.

    No cursor: at its start the supervision takes everything alive from the log, and it is idempotent.
    """
    types = (facts.AttemptStarting.type, facts.JobCancelRequested.type)
    async for _page in events.follow(after=after, types=types):
        supervision.notice()


class FileRemover:
    """Removes the files of deleted jobs."""

    name = "file-remover"
    types = (facts.JobDeleted.type,)

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
