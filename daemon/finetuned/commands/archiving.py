"""The way in for archiving the log's beginning: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from finetuned.board import Board
from finetuned.domain import decisions, subscriptions
from finetuned.domain.errors import InvalidRequestError, Rejected
from finetuned.domain.facts import (
    DatasetDeleted,
    DatasetRegistered,
    FileDeleted,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobFilesRemoved,
    JobSucceeded,
    WebhookDelivered,
)
from finetuned.store import Log
from finetuned_events import ArchiveError, ArchiveFile, LogFullError

_logger = logging.getLogger(__name__)

#: Followers that must have seen an event before it goes, and the types that they want.
FOLLOWED: dict[str, Collection[str]] = {
    "file-remover": (JobDeleted.type, JobFilesRemoved.type),
    "dataset-remover": (
        DatasetDeleted.type,
        DatasetRegistered.type,
        JobSucceeded.type,
        JobFailed.type,
        JobCancelled.type,
    ),
    "content-remover": (FileDeleted.type, JobSucceeded.type, JobFailed.type, JobCancelled.type),
}


@dataclass(frozen=True, slots=True)
class Archived:
    """What was archived, and what kept it from being as much as was asked for; ``None`` if nothing did."""

    file: ArchiveFile
    held_back_by: str | None


@dataclass(slots=True)
class ArchiveCommands:
    """Seals the log behind events that nothing alive needs, one archive at a time.

    ``check_room`` raises ``StorageFullError``: an archive takes room, and gives none back.
    """

    log: Log
    board: Board
    check_room: Callable[[], Awaitable[None]]
    _one: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def archive(self, upto: int, destination: Path | None = None, *, actor: str) -> Archived:
        """Archive the events up to ``upto``, or up to the first of a job that has not ended, if that comes before.

        Who did it is recorded behind it, if there is room for that: what is done is no error. Raises ``Rejected`` if
        that leaves nothing, ``StorageFullError`` if there is too little room to begin, ``InvalidRequestError`` if the
        file cannot be written.
        """
        if destination is not None and not destination.is_absolute():
            raise InvalidRequestError(
                f"path must be absolute (the daemon's directory is not yours); got {str(destination)!r}.",
                param="path",
            )
        async with self._one:
            done = await self._archive(upto, destination)
            await self._record(done.file, actor)
            return done

    async def _record(self, file: ArchiveFile, actor: str) -> None:
        upto, path = file.head.seq, str(file.path)
        try:
            await self.log.execute(
                lambda _world: decisions.log_archived(upto, path, actor=actor), necessary=True
            )
        except LogFullError as error:
            _logger.warning("That %s archived up to event %d is not in the log: %s", actor, upto, error)

    async def _archive(self, upto: int, destination: Path | None) -> Archived:
        limit, reason = await self._limit(upto)
        if limit <= self.log.sealed:
            why = f": {reason}" if reason else f"; events up to {self.log.sealed} are archived already"
            raise Rejected(
                "nothing_to_archive", f"Nothing can be archived{why}. Name a later position, or wait."
            )
        await self.check_room()
        try:
            file = await self.log.archive(limit, destination)
        except ArchiveError as error:
            raise InvalidRequestError(str(error), param="path", code=error.code) from None
        return Archived(file, reason)

    async def _limit(self, upto: int) -> tuple[int, str | None]:
        """How far can be archived, and why not further."""
        limit, reason = upto, None
        if limit >= self.log.head:
            limit, reason = self.log.head - 1, "the newest event stays"
        world = await self.board.world()
        for job in world.live_jobs():  # all its events are wanted: its curves, its supervision
            if job.seq <= limit:
                limit, reason = job.seq - 1, f"job {job.id} has not ended, and its events begin at {job.seq}"
        for name, types in FOLLOWED.items():
            after = await self.log.position(name)
            waiting = await self.log.read(after=after, before=limit + 1, types=types, limit=1)
            if waiting:
                limit, reason = waiting[0].seq - 1, f"{name} has not seen event {waiting[0].seq} yet"
        for webhook in [each for each in world.webhooks.values() if each.disabled is None]:
            types = subscriptions.native(subscriptions.matched(webhook.types)) - {WebhookDelivered.type}
            waiting = await self.log.read(after=webhook.since, before=limit + 1, types=types, limit=1)
            if waiting:
                limit = waiting[0].seq - 1
                reason = f"the webhook {webhook.id} was not sent event {waiting[0].seq} yet"
        return limit, reason
