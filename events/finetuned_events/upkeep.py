"""The long work on a log that goes on beside its use: replaying it, comparing with the replay, archiving."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import anyio

from finetuned_events import archive, rebuild, verify
from finetuned_events import seals as sealing
from finetuned_events.archive import ArchiveFile
from finetuned_events.committer import Committer
from finetuned_events.errors import ArchiveError, LogError
from finetuned_events.projection import S
from finetuned_events.rebuild import Scratch
from finetuned_events.seals import Seal
from finetuned_events.sql import QUERIES

__all__ = ("Upkeep",)

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Aside(Protocol):
    """Runs a long scan in a thread and on a connection of its own."""

    def __call__(self, run: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class Exclusively(Protocol[S]):
    """Runs something on the writer's thread between two transactions."""

    def __call__(self, run: Callable[[Committer[S]], T], /) -> Awaitable[T]: ...


class Upkeep(Generic[S]):
    """Replays and archives one log; knows where its beginning is sealed."""

    def __init__(
        self, path: Path, scratch: Callable[[], Scratch[S]], aside: Aside, exclusively: Exclusively[S]
    ) -> None:
        self.seals: tuple[Seal, ...] = ()
        self.rewriting = anyio.Lock()  # held by an archiving, which deletes what is replayed, or a replay
        self._swept = 0  # up to where nothing is left to delete
        self._path = path
        self._scratch = scratch
        self._aside = aside
        self._exclusively = exclusively

    @property
    def sealed(self) -> int:
        """Position of the newest event that is in an archive; 0 for a log that is whole."""
        return self.seals[-1].head.seq if self.seals else 0

    async def find_seals(self) -> None:
        """Read what is sealed from the file."""
        self.seals = tuple(await self._aside(sealing.all_of))

    async def rebuild(self) -> rebuild.RebuildReport:
        """Replay into shadow tables, compare, and swap in what differs."""

        def swap(committer: Committer[S]) -> rebuild.RebuildReport:
            report = scratch.swap(committer.connection)
            if report.swapped:
                committer.recover()
            return report

        async with self.rewriting:
            with closing(self._scratch()) as scratch:
                await self._aside(scratch.catch_up)
                return await self._exclusively(swap)

    async def differing(self) -> list[str]:
        """Replay, and return the tables that are not what it gives."""

        def compare(read: sqlite3.Connection) -> list[str]:
            read.execute("BEGIN")
            with closing(self._scratch()) as scratch:
                return scratch.differing(read)

        return await self._aside(compare)

    async def archive(self, upto: int, destination: Path | None) -> ArchiveFile:
        """Write the file, seal the log behind it in one transaction, sweep; raises ArchiveError.

        A sweep that fails is for later: the archive is made.
        """
        async with self.rewriting:
            await self.find_seals()
            head = await self._aside(_head)
            if not self.sealed < upto < head:
                raise ArchiveError(
                    f"Positions {self.sealed + 1} to {head - 1} can be archived up to, not {upto}: name one of them."
                )
            previous = self.seals[-1].head if self.seals else verify.Anchor(0, bytes(32))
            name = f"events-{previous.seq + 1}-{upto}.jsonl.gz"
            target = destination or self._path.parent / sealing.ARCHIVES / name
            file = await self._aside(lambda read: archive.write(read, previous, upto, target))
            await self._seal(upto, file)
            try:
                await self.sweep()
            except LogError as error:
                _logger.warning("Archived up to event %d, and not all of it is deleted yet: %s", upto, error)
            return file

    async def _seal(self, upto: int, file: ArchiveFile) -> None:
        def seal(committer: Committer[S]) -> None:
            _require_room(committer)
            scratch.seal(committer.connection, file, again)
            # At once, and whoever gave up meanwhile: readers must not take what is gone for what never was.
            self.seals = (*self.seals, Seal.at_end_of(file))

        with closing(self._scratch()) as scratch, closing(self._scratch()) as again:
            await self._aside(lambda read: scratch.catch_up(read, upto))
            await self._aside(lambda _read: scratch.copy(again))
            await self._aside(again.catch_up)  # most of it, so that the writer is not held up for long
            await self._exclusively(seal)

    async def sweep(self) -> int:
        """Delete what is left of events that are in archives; return how many there were.

        Raises LogFullError while room is left for necessary events only: deleting takes some.
        """

        def sweep(committer: Committer[S]) -> int:
            _require_room(committer)
            return sealing.sweep(committer.connection, sealed)

        swept, sealed = 0, self.sealed
        while self._swept < sealed:
            some = await self._exclusively(sweep)
            swept += some
            if not some:
                self._swept = sealed
        return swept


def _head(read: sqlite3.Connection) -> int:
    row = read.execute(QUERIES["fetch_head"]).fetchone()
    return int(row[0]) if row else 0


def _require_room(committer: Committer[S]) -> None:
    if committer.is_short:
        raise committer.full()
