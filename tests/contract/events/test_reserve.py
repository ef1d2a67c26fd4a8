"""The room that is kept for what must be recorded on a full disk."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.small_disk import fill, free, no_room, relieve, small_disk

from finetuned_events import EventLog, LogFullError, NewEvent
from finetuned_events import reserve as reserves
from finetuned_events.reserve import INDEX_BYTES, Reserve, reserve_path

MIB = 1 << 20


def new(kind: str = "job.noted", **data: Any) -> NewEvent:
    return NewEvent("job/1", kind, data)


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(24 * MIB) as directory:
        yield directory


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserves, "_RETRY", 0.0)


def is_short(log: EventLog[Any]) -> bool:
    """What the log says; it may say another thing after each call."""
    return log.is_short


async def append_until_full(log: EventLog[Any], *, necessary: bool = False) -> int:
    """How many appends found room."""
    for count in range(100_000):
        try:
            await log.append([new(value="x" * 3000)], necessary=necessary)
        except LogFullError:
            return count
    pytest.fail("the disk never became full")


async def test_on_a_full_disk_necessary_events_alone_are_appended_and_afterwards_all(
    disk: Path, counts: dict[str, Any]
) -> None:
    path = disk / "events.db"
    async with EventLog.open(path, reserve=8 * MIB, **counts) as log:
        fill(disk, leave=MIB)
        acknowledged = await append_until_full(log)
        assert acknowledged > 10
        fill(disk)
        assert not is_short(log)
        for _ in range(50):
            await log.append([new(value="the end")], necessary=True)
        assert is_short(log)
        with pytest.raises(LogFullError):
            await log.append([new(value="a wish")])
        with pytest.raises(LogFullError):
            await log.execute(lambda _: [], cursor=("follower", 1))
        assert await log.execute(lambda _: []) == ()  # nothing is to be written, so it is not refused
        assert (await log.statistics()).reserve_bytes < 8 * MIB

        relieve(disk)
        await log.append([new(value="a wish")])
        assert not is_short(log)
        assert (await log.statistics()).reserve_bytes == reserve_path(path).stat().st_size == 8 * MIB
        assert log.head == acknowledged + 51
        assert (await log.verify()).ok
        assert (await log.rebuild()).equal


async def test_a_reserve_that_is_used_up_refuses_what_is_necessary_too_and_loses_nothing(
    disk: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(disk / "events.db", reserve=2 * MIB, **counts) as log:
        fill(disk)
        before = await append_until_full(log)
        more = await append_until_full(log, necessary=True)
        assert more > 50
        assert (await log.statistics()).reserve_bytes == 0
        relieve(disk)
        await log.append([new(value="goes on")])
        assert log.head == before + more + 1
        assert (await log.rebuild()).equal


async def test_a_log_killed_on_a_full_disk_is_opened_on_the_full_disk(
    disk: Path, counts: dict[str, Any]
) -> None:
    """The copy is what a kill leaves: the WAL with room behind its last frame, and no clean end."""
    path, copy = disk / "events.db", disk / "copy.db"
    async with EventLog.open(path, reserve=8 * MIB, **counts) as log:
        await log.append([new(value=1)])
        fill(disk)
        await append_until_full(log)
        await log.append([new(value="the end")], necessary=True)
        relieve(disk)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        head = log.head
    path.unlink()
    reserve_path(path).rename(reserve_path(copy))
    os.truncate(reserve_path(copy), 6 * MIB)
    fill(disk)
    async with EventLog.open(copy, reserve=8 * MIB, **counts) as log:
        assert log.head == head
        await log.append([new(value="once more")], necessary=True)
        assert (await log.verify()).ok
        assert (await log.rebuild()).equal


async def test_a_full_disk_does_not_break_the_log_where_the_index_of_the_wal_grows(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite alone answers with SQLITE_IOERR_SHMSIZE after the commit record was written: an unknown outcome."""
    monkeypatch.setattr("finetuned_events.connection.WAL_AUTOCHECKPOINT", 0)
    path = disk / "events.db"
    wal = path.with_name("events.db-wal")
    frames = 4062  # that the first part of the index has room for
    async with EventLog.open(path) as log:
        while wal.stat().st_size < (frames - 40) * 4120:
            await log.append([new(value="x" * 3000)])
        reserves._allocate(wal, wal.stat().st_size + 100 * 4120)  # room that is none for the index
        fill(disk)
        assert free(disk) == 0
        acknowledged = log.head + await append_until_full(log)
        assert wal.stat().st_size > (frames + 40) * 4120
        relieve(disk)
        await log.append([new()])
        assert log.head == acknowledged + 1
        assert path.with_name("events.db-shm").stat().st_size >= INDEX_BYTES


class Full(sqlite3.Connection):
    """A connection whose transactions find no room until they are given some."""

    given = 0
    needed = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and Full.given < Full.needed:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(sql, *parameters)


async def test_the_reserve_is_given_up_piece_by_piece(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without a file system of its own: runs everywhere."""
    give = Reserve.give

    def counting(self: Reserve) -> bool:
        found = give(self)
        Full.given += found
        return found

    monkeypatch.setattr(Reserve, "give", counting)
    monkeypatch.setattr(Reserve, "_free", lambda _: 0)
    monkeypatch.setattr(Full, "given", 0)
    async with EventLog.open(path, reserve=4 * MIB, factory=Full, **counts) as log:
        monkeypatch.setattr(Full, "needed", 2)
        with pytest.raises(LogFullError):
            await log.append([new(value="a wish")])
        assert Full.given == 0
        await log.append([new(value="the end")], necessary=True)
        assert Full.given == Full.needed
        assert (await log.statistics()).reserve_bytes == 2 * MIB
        with pytest.raises(LogFullError):  # there is room, but not for that
            await log.append([new(value="a wish")])
        assert [event.data["value"] for event in await log.read()] == ["the end"]
        assert (await log.rebuild()).equal


async def test_in_one_transaction_the_necessary_is_written_and_the_rest_refused(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Full, "given", 0)

    def give(_: Reserve) -> bool:
        Full.given = 1
        return True

    monkeypatch.setattr(Reserve, "give", give)
    async with EventLog.open(path, reserve=MIB, factory=Full, **counts) as log:
        monkeypatch.setattr(Full, "needed", 1)
        outcomes = await asyncio.gather(
            log.append([new(value=1)]),
            log.append([new(value=2)], necessary=True),
            log.append([new(value=3)]),
            return_exceptions=True,
        )
        assert [isinstance(each, LogFullError) for each in outcomes] == [True, False, True]
        assert [event.data["value"] for event in await log.read()] == [2]


async def test_without_room_for_the_reserve_room_is_short_from_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = reserves._allocate
    monkeypatch.setattr(reserves, "_allocate", no_room)
    async with EventLog.open(path, reserve=MIB) as log:
        assert is_short(log)
        with pytest.raises(LogFullError):
            await log.append([new()])
        monkeypatch.setattr(reserves, "_allocate", allocate)
        await log.append([new()])
        assert not is_short(log)


async def test_a_smaller_setting_gives_room_back_and_none_all_of_it(path: Path) -> None:
    for size in (4 * MIB, MIB, 0):
        async with EventLog.open(path, reserve=size) as log:
            await log.append([new()])
            kept = reserve_path(path)
            assert (kept.stat().st_size if kept.exists() else 0) == size


def test_the_reserve_takes_up_blocks_and_is_no_hole(path: Path) -> None:
    Reserve(path, MIB)
    assert reserve_path(path).stat().st_blocks * 512 >= MIB


def test_a_reserve_that_cannot_be_cut_says_so_and_gives_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Reserve(path, MIB)
    monkeypatch.setattr(os, "truncate", no_room)
    with caplog.at_level(logging.ERROR):
        assert not kept.give()
    assert "cannot be used" in caplog.text
    assert not kept.give()


def test_an_index_that_cannot_be_made_longer_is_told_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(reserves.WalIndexRoom(path)):
        assert "a full disk may break the log" in caplog.text
