"""The event log as its users see it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import anyio
import anyio.to_thread

from finetuned_events import backup, codec, connection, lock, opening, rebuild, verify
from finetuned_events import seals as sealing
from finetuned_events.archive import ArchiveFile
from finetuned_events.committer import Committer
from finetuned_events.errors import ArchiveError, LogClosedError, ReadOnlyError
from finetuned_events.event import Event, NewEvent, Page
from finetuned_events.projection import Decide, Model, Projection, Replayed, S, Stateless
from finetuned_events.reader import PoolReader, Reader, failure, select
from finetuned_events.rebuild import Scratch
from finetuned_events.request import Committed, Request
from finetuned_events.ring import Ring
from finetuned_events.seals import Seal
from finetuned_events.sql import QUERIES
from finetuned_events.upcast import Upcasters
from finetuned_events.upkeep import Upkeep
from finetuned_events.writer import Publish, Task, ThreadWriter, Writer

__all__ = ("EventLog", "LogStatistics", "now")

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_SCAN = 5000  # positions a filtered page looks at, so that its read transaction stays short


def now() -> int:
    """Return the time in microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Figures for operators; since the log was opened unless said otherwise."""

    head: int  # position of the newest event
    queued: int  # requests that wait for the writer
    busy_seconds: float  # how long the transaction in progress has taken so far
    commits: int
    failed_commits: int
    wal_bytes: int
    database_bytes: int
    seals: tuple[Seal, ...]  # what was archived, the oldest first
    read_only: str | None  # why nothing can be appended
    is_short: bool = False  # room is left for necessary events only
    reserve_bytes: int = 0  # that are kept for them


class EventLog(Generic[S]):
    """An append-only log of events in one SQLite file, with group commit, projections and cursors.

    Made by `open`. All methods belong to the event loop that opened it; every one raises LogClosedError after
    the end and LogBrokenError once a commit's outcome is unknown.
    """

    def __init__(
        self,
        *,
        path: Path,
        reader: Reader,
        head: int,
        model: Model[S],
        projections: Sequence[Projection[S]],
        upcasters: Upcasters,
        read_only: ReadOnlyError | None = None,
        start: Callable[[Publish], Writer[S]] | None = None,
    ) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._head = head
        self._model = model
        self._upcasters = upcasters
        self._read_only = read_only
        scratch = partial(Scratch, model, projections, upcasters, path.parent / sealing.ARCHIVES)
        self._upkeep: Upkeep[S] = Upkeep(path, scratch, self._aside, self._exclusively)
        self._ring = Ring(head)
        self._changed = asyncio.Event()
        self._closed = False
        self._writer = None if start is None else start(self._publish)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        model: Model[S] | None = None,
        projections: Sequence[Projection[S]] = (),
        upcasters: Upcasters | None = None,
        known: Mapping[str, int] | None = None,
        readers: int = 2,
        clock: Callable[[], int] = now,
        read_only: bool = False,
        factory: type[sqlite3.Connection] = sqlite3.Connection,
        reserve: int = 0,
    ) -> AsyncIterator[EventLog[S]]:
        """Open the log at `path` (made if it is not there) and close it at the end of the block.

        `model` says how the state comes to be that `execute` decides on, `projections` which tables are written
        with the events; those that are new, of another version or behind are rebuilt here. `known` maps each
        event type to the newest schema version that the program understands (None: any). If the file holds
        others, or was written by a newer version of this package, it is opened for reading only, with an error
        in the program's log and the reason in `read_only`. `readers` is the number of reading connections,
        `clock` gives microseconds since the epoch, `factory` the class of the writing connection. `reserve` bytes of
        the disk are kept in a file beside the log, for requests that are `necessary`, until the disk is full.

        Raises LogLockedError if another process writes to the file, NotALogError if it is something else (or not
        there, when it is to be read only).
        """
        model = model or cast("Model[S]", Stateless())
        upcasters = upcasters or Upcasters()
        reason: ReadOnlyError | None = await anyio.to_thread.run_sync(opening.look, path, known, read_only)
        if reason is not None:
            _logger.error("%s", reason)
        elif read_only:
            reason = ReadOnlyError()
        if reason is not None:
            async with cls._serving(path, readers, model, projections, upcasters, reason=reason) as log:
                yield log
            return

        with ExitStack() as stack:
            stack.enter_context(lock.held(path))
            prepare = partial(
                opening.open_committer,
                path,
                stack,
                model=model,
                projections=projections,
                upcasters=upcasters,
                known=known,
                clock=clock,
                factory=factory,
                reserve=reserve,
            )
            committer = await anyio.to_thread.run_sync(prepare)
            stack.callback(committer.connection.close)
            start = partial(ThreadWriter, committer, path, asyncio.get_running_loop())
            async with cls._serving(path, readers, model, projections, upcasters, start=start) as log:
                yield log

    @classmethod
    @asynccontextmanager
    async def _serving(
        cls,
        path: Path,
        readers: int,
        model: Model[S],
        projections: Sequence[Projection[S]],
        upcasters: Upcasters,
        *,
        reason: ReadOnlyError | None = None,
        start: Callable[[Publish], Writer[S]] | None = None,
    ) -> AsyncIterator[EventLog[S]]:
        reader = PoolReader()
        try:
            await reader.open(path, readers)
            newest = await reader.fetch(QUERIES["fetch_head"])
        except BaseException:
            with anyio.CancelScope(shield=True):
                await reader.aclose()
            raise

        log = cls(
            path=path,
            reader=reader,
            head=newest[0][0] if newest else 0,
            model=model,
            projections=projections,
            upcasters=upcasters,
            read_only=reason,
            start=start,
        )
        try:
            await log._upkeep.find_seals()
            yield log
        finally:
            with anyio.CancelScope(shield=True):
                await log._close()

    async def _close(self) -> None:
        """Refuse new work, finish what is queued; the writing connection goes last and empties the WAL."""
        self._closed = True
        self._wake()
        await self._reader.aclose()
        if self._writer is not None:
            await self._writer.aclose()

    @property
    def head(self) -> int:
        """Position of the newest committed event; 0 for an empty log."""
        return self._head

    @property
    def seals(self) -> tuple[Seal, ...]:
        """Where the beginning of the log was archived, the oldest first."""
        return self._upkeep.seals

    @property
    def sealed(self) -> int:
        """Position of the newest event that is in an archive; 0 for a log that is whole."""
        return self._upkeep.sealed

    @property
    def read_only(self) -> str | None:
        """Why nothing can be appended; None if it can."""
        return None if self._read_only is None else str(self._read_only)

    @property
    def is_short(self) -> bool:
        """Whether the disk is full, so that only what is necessary can be appended."""
        return self._writer is not None and self._writer.committer.is_short

    async def append(
        self,
        events: Iterable[NewEvent],
        *,
        expected: Mapping[str, int] | None = None,
        necessary: bool = False,
    ) -> tuple[Event, ...]:
        """Append the events as one: all are on disk when this returns, or none is.

        `expected` names the version that each given stream must be at (0: it does not exist), else
        WrongVersionError. Raises InvalidEventError and UnknownEventError for events that cannot be stored,
        LogFullError when the disk is full; what is `necessary` may then take of the log's reserve. Who is cancelled
        while waiting does not know the outcome.
        """
        future: Future[tuple[Event, ...]] = self._loop.create_future()
        self._submit(Request(future, tuple(events), None, expected, necessary=necessary))
        return await future

    async def execute(
        self, decide: Decide[S], *, cursor: tuple[str, int] | None = None, necessary: bool = False
    ) -> tuple[Event, ...]:
        """Append what `decide` makes of the state, which has every earlier event applied.

        What `decide` raises, this raises, and nothing is appended. `cursor` names a follower and the position
        it has processed with this; both are committed with the events, and also when there are none. A position
        before the stored one raises StaleCursorError. What is `necessary` may take of the log's reserve when the
        disk is full.
        """
        future: Future[tuple[Event, ...]] = self._loop.create_future()
        self._submit(Request(future, (), decide, None, cursor, necessary=necessary))
        return await future

    async def position(self, follower: str) -> int:
        """Return the position that the follower has processed; 0 for one that has none."""
        rows = await self.fetch(QUERIES["fetch_cursor"], (follower,))
        return int(rows[0][0]) if rows else 0

    async def read(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 500,
        stream: str | None = None,
        stream_prefix: str | None = None,
        types: Collection[str] | None = None,
        descending: bool = False,
    ) -> list[Event]:
        """Return at most `limit` events with `after` < seq < `before` that match, oldest first unless `descending`."""
        query, parameters = select(
            after=max(after, self.sealed),  # what is not swept yet is not given out either
            before=before,
            limit=limit,
            stream=stream,
            stream_prefix=stream_prefix,
            types=types,
            descending=descending,
        )
        return [codec.decode(row, self._upcasters) for row in await self.fetch(query, parameters)]

    async def scan(
        self,
        *,
        after: int,
        limit: int = 500,
        stream: str | None = None,
        types: Collection[str] | None = None,
    ) -> Page:
        """Return the next matching events, and how far was looked: a page may be empty before the head."""
        head, after = self._head, max(after, self.sealed)
        recent = self.recent(after)
        if recent is not None:
            found = [event for event in recent if _matches(event, stream, types)]
        else:
            # Only a filter by type has no index: then look at a bounded piece.
            before = after + _SCAN + 1 if types is not None and stream is None else None
            head = head if before is None else min(head, before - 1)
            found = await self.read(after=after, before=head + 1, limit=limit, stream=stream, types=types)
            if len(found) < limit:
                return Page(found, max(head, after))

        if len(found) > limit:
            del found[limit:]
            return Page(found, found[-1].seq)

        return Page(found, found[-1].seq if recent is None and found else max(head, after))

    async def follow(
        self,
        *,
        after: int,
        limit: int = 500,
        stream: str | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncIterator[list[Event]]:
        """Yield pages of matching events beyond `after` up to the head, then wait for more, without end."""
        while True:
            page = await self.scan(after=after, limit=limit, stream=stream, types=types)
            after = page.scanned
            if page.events:
                yield page.events
            elif after >= self._head:
                await self.wait(after)

    async def wait(self, beyond: int) -> int:
        """Wait until the head is beyond a position; return the head."""
        self._check()
        while self._head <= beyond:
            await self._changed.wait()
            self._check()

        return self._head

    def recent(self, after: int) -> tuple[Event, ...] | None:
        """Return the events beyond `after` from memory; None if some of them are only in the file by now."""
        return self._ring.since(after)

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query over the projections, read in one short transaction that cannot write."""
        self._check()
        return await self._reader.fetch(sql, parameters)

    async def anchor(self) -> verify.Anchor:
        """Return the newest position with its hash, to be kept elsewhere for `verify`."""
        rows = await self.fetch(QUERIES["fetch_head"])
        return verify.Anchor(rows[0][0], rows[0][1]) if rows else verify.Anchor(0, bytes(32))

    async def verify(self, anchors: Iterable[verify.Anchor] = ()) -> verify.VerifyReport:
        """Check the whole file: the hash chain, gaps, versions, SQLite's structure, and the given anchors.

        The log may be appended to and archived meanwhile, by another process too.
        """
        known = {anchor.seq: anchor.hash for anchor in anchors if anchor.seq}
        return await self._aside(lambda read: verify.verify(read, known))

    async def rebuild(self) -> rebuild.RebuildReport:
        """Replay the log into shadow tables, compare them with the live ones, and swap in what differs.

        It waits for an archiving that is under way, as that waits for this.
        """
        self._check_writable()
        return await self._upkeep.rebuild()

    async def differing(self) -> list[str]:
        """Return the projected tables that are not what a replay gives, and change nothing; for a log read only too."""
        return await self._upkeep.differing()

    async def archive(self, upto: int, destination: Path | None = None) -> ArchiveFile:
        """Move the events up to `upto` into a compressed file, and let the log begin after them.

        The file, `archives/events-FIRST-LAST.jsonl.gz` beside the log unless `destination` says otherwise, is on disk
        and checked before the log is sealed in one transaction; only then the events are deleted, piece by piece
        (`sweep` ends that after a kill, or a full disk). One is made at a time. Raises ArchiveError, with the log as it was, for
        positions before the newest seal or not before the head, for a state that can only be replayed, and if a replay
        of what is left would not give the projections.
        """
        self._check_writable()
        if isinstance(self._model, Replayed):
            raise ArchiveError(
                "This log's state is replayed from all events at each start: archive none of them."
            )
        return await self._upkeep.archive(upto, destination)

    async def sweep(self) -> int:
        """Delete what is left of events that are in archives; return how many there were.

        `archive` does it too, as far as it can. Raises LogFullError while room is left for necessary events only.
        """
        return await self._upkeep.sweep()

    async def archived(self, stream: str) -> int:
        """Return the position of the stream's newest event that is in an archive; 0 if none is."""
        return (await self.fetch(QUERIES["fetch_sealed_stream"], (stream,)))[0][0] if self.seals else 0

    async def backup(self, destination: Path) -> backup.BackupReport:
        """Write a checked copy of this moment's log to `destination`; raises BackupError."""
        return await self._aside(lambda read: backup.backup(read, destination))

    async def statistics(self) -> LogStatistics:
        """Return figures about the log."""
        ((size,),) = await self.fetch(QUERIES["fetch_database_bytes"])
        writer = self._writer
        return LogStatistics(
            head=self._head,
            queued=writer.queued if writer else 0,
            busy_seconds=writer.busy_seconds if writer else 0.0,
            commits=writer.committer.commits if writer else 0,
            failed_commits=writer.committer.failures if writer else 0,
            wal_bytes=_size(f"{self.path}-wal"),
            database_bytes=size,
            seals=self.seals,
            read_only=self.read_only,
            is_short=self.is_short,
            reserve_bytes=writer.committer.reserve.kept if writer and writer.committer.reserve else 0,
        )

    def _submit(self, request: Request[S]) -> None:
        writer = self._writer
        if writer is None or self._closed or writer.committer.broken is not None:
            self._check_writable()
            raise LogClosedError

        writer.submit(request)

    async def _exclusively(self, run: Callable[[Committer[S]], T]) -> T:
        """Run something on the writer's thread between two transactions."""
        self._check_writable()
        assert self._writer is not None
        future: asyncio.Future[object] = self._loop.create_future()
        self._writer.submit(Task(future, partial(_mapped, run)))
        return cast("T", await future)

    async def _aside(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a long scan in a thread and on a connection of its own."""
        self._check()

        def scan() -> T:
            try:
                with closing(connection.connect_reader(self.path)) as read:
                    return run(read)
            except sqlite3.Error as error:
                raise failure(error) from error

        return await anyio.to_thread.run_sync(scan)

    def _publish(self, committed: Committed) -> None:
        if committed.events:
            self._ring.extend(committed.events, committed.sizes)
            self._head = committed.events[-1].seq
            self._wake()
        elif self._writer is not None and self._writer.committer.broken is not None:
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _check(self) -> None:
        if self._closed:
            raise LogClosedError

        if self._writer is not None and self._writer.committer.broken is not None:
            raise self._writer.committer.broken

    def _check_writable(self) -> None:
        self._check()
        if self._read_only is not None:
            raise self._read_only


def _mapped(run: Callable[[Committer[S]], T], committer: Committer[S]) -> T:
    """Let SQLite's errors be heard as the log's."""
    try:
        return run(committer)
    except sqlite3.Error as error:
        raise committer.failure(error) from error


def _matches(event: Event, stream: str | None, types: Collection[str] | None) -> bool:
    return (stream is None or event.stream == stream) and (types is None or event.type in types)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
