"""The long work on a log that goes on beside its use: replaying it, comparing with the replay, archiving."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import anyio
import anyio.to_thread

from finetuned_events import archive, rebuild, verify
from finetuned_events import seals as sealing
from finetuned_events.archive import ArchiveFile
from finetuned_events.committer import Committer
from finetuned_events.errors import ArchiveError
from finetuned_events.projection import S
from finetuned_events.rebuild import Scratch
from finetuned_events.seals import Seal

__all__ = ("Upkeep",)

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
                committer.reload()
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

    async def archive(self, upto: int, head: Callable[[], int], destination: Path | None) -> ArchiveFile:
        """Write the file, seal the log behind it in one transaction, sweep; raises ArchiveError."""
        async with self.rewriting:
            await self.find_seals()  # who was cancelled while it was sealed does not know of it
            if not self.sealed < upto < head():
                raise ArchiveError(
                    f"Positions {self.sealed + 1} to {head() - 1} can be archived up to, not {upto}: name one of them."
                )
            previous = self.seals[-1].head if self.seals else verify.Anchor(0, bytes(32))
            name = f"events-{previous.seq + 1}-{upto}.jsonl.gz"
            target = destination or self._path.parent / sealing.ARCHIVES / name
            file = await self._aside(lambda read: archive.write(read, previous, upto, target))
            await self._seal(upto, file)
            await self.find_seals()
            await self.sweep()
            return file

    async def _seal(self, upto: int, file: ArchiveFile) -> None:
        with closing(self._scratch()) as scratch, closing(self._scratch()) as again:
            await self._aside(lambda read: scratch.catch_up(read, upto))
            await anyio.to_thread.run_sync(scratch.copy, again)
            await self._aside(again.catch_up)  # most of it, so that the writer is not held up for long
            await self._exclusively(lambda committer: scratch.seal(committer.connection, file, again))

    async def sweep(self) -> int:
        """Delete what is left of events that are in archives; return how many there were."""
        swept = 0
        while self.sealed and (
            some := await self._exclusively(lambda committer: sealing.sweep(committer.connection))
        ):
            swept += some
        return swept
