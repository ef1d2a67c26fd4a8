"""What is promised when the beginning of the log is archived."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.events.conftest import CountsModel, CountsProjection, Opener
from tests.contract.events.test_file import DROP_TRIGGERS, edit, new

from finetuned_events import (
    Anchor,
    ArchiveError,
    ArchiveFile,
    ArchiveMissingError,
    Event,
    EventLog,
    LogError,
    LogFullError,
    LogReadError,
    LogWriteError,
    NewEvent,
    Replayed,
    Upcasters,
    archive,
    codec,
    connection,
    durable,
    rebuild,
    seals,
    verify,
)
from finetuned_events.committer import Committer


async def fill(log: EventLog[Any], *, last: int = 30) -> None:
    for number in range(1, last + 1):
        await log.append([new(f"job/{number % 7}", value=number)])


def archived(path: Path) -> list[Event]:
    return [event for page in archive.pages(path, Upcasters()) for event in page]


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT seq, hash FROM events ORDER BY seq").fetchall()


class Newer(CountsProjection):
    version = 2


async def test_the_archive_holds_what_the_log_held_and_the_log_goes_on(
    path: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        before = await log.read()
        kept = await log.fetch("SELECT * FROM counts ORDER BY stream")
        file = await log.archive(20)

        assert (file.previous, file.head.seq, file.events) == (Anchor(0, bytes(32)), 20, 20)
        assert await asyncio.to_thread(archived, file.path) == before[:20]
        assert await log.read() == before[20:]
        assert await log.fetch("SELECT * FROM counts ORDER BY stream") == kept
        (appended,) = await log.append([new("job/1", value=31)], expected={"job/1": 5})
        assert (appended.seq, appended.version) == (31, 6)

    async with EventLog.open(path, **counts) as log:
        assert (log.sealed, log.head) == (20, 31)
        report = await log.verify()
        assert (report.ok, report.problems, report.events, report.head.seq) == (True, (), 11, 31)
        rebuilt = await log.rebuild()
        assert (rebuilt.equal, rebuilt.swapped) == (True, ())


async def test_a_stream_that_is_all_in_the_archive_goes_on_at_its_version(
    path: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new("job/old"), new("job/old"), new("job/2"), new("job/2")])
        await log.archive(2)
        assert await log.archived("job/old") == 2
        assert await log.archived("job/2") == 0

    async with EventLog.open(path, **counts) as log:
        (event,) = await log.append([new("job/old")], expected={"job/old": 2})
        assert event.version == 3
        assert (await log.verify()).ok
        assert [each.seq for each in await log.read(stream="job/old")] == [5]


async def test_archives_follow_on_each_other_and_a_new_projection_is_folded_from_all_of_them(
    path: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        first, second = await log.archive(10), await log.archive(20)
        assert second.previous == first.head

    newer: dict[str, Any] = {"model": CountsModel(), "projections": [Newer()]}
    async with EventLog.open(path, **newer) as log:
        assert (await log.rebuild()).equal
        assert await log.fetch("SELECT sum(count) FROM counts") == [(30,)]
    first.path.unlink()
    second.path.unlink()
    async with EventLog.open(path, **newer) as log:  # the copies at the seal are of the new version now
        assert (await log.rebuild()).equal


async def test_without_its_archive_a_log_is_not_folded_anew_and_says_which_file_it_wants(
    path: Path, counts: dict[str, Any], tmp_path: Path
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        file = await log.archive(20, tmp_path / "elsewhere.gz")

    newer: dict[str, Any] = {"model": CountsModel(), "projections": [Newer()]}
    away = file.path.rename(tmp_path / "away.gz")
    with pytest.raises(ArchiveMissingError, match=rf"events 1 to 20 .* put elsewhere.gz .*{file.sha256}"):
        async with EventLog.open(path, **newer):
            pass
    (path.parent / "archives").mkdir()
    away.rename(path.parent / "archives" / "elsewhere.gz")
    async with EventLog.open(path, **newer) as log:
        assert (await log.rebuild()).equal


@pytest.mark.parametrize("upto", [0, 5, 30, 31])
async def test_positions_that_cannot_be_archived_are_refused(
    path: Path, counts: dict[str, Any], upto: int
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        await log.archive(5)
        with pytest.raises(ArchiveError, match="Positions 6 to 29 can be archived up to"):
            await log.archive(upto)


async def test_a_log_that_is_replayed_whole_is_not_archived(path: Path) -> None:
    class State:
        def apply(self, event: object) -> None:
            pass

        def committed(self) -> None:
            pass

    async with EventLog.open(path, model=Replayed(State)) as log:
        await fill(log)
        with pytest.raises(ArchiveError, match="replayed from all events"):
            await log.archive(5)


async def test_projections_that_are_not_the_fold_are_found_before_anything_is_sealed(
    path: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
    edit(path, "UPDATE counts SET count = 99 WHERE stream = 'job/1'")
    async with EventLog.open(path, **counts) as log:
        with pytest.raises(ArchiveError, match=r"other rows than counts.*`rebuild`"):
            await log.archive(20)
        assert log.sealed == 0
        assert len(await log.read()) == 30
        await log.rebuild()
        assert (await log.archive(20)).events == 20  # the file from before is the same


async def test_a_name_that_is_taken_is_refused(path: Path, counts: dict[str, Any], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    await asyncio.to_thread(taken.write_text, "something else")
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        with pytest.raises(ArchiveError, match="exists already and is not this archive"):
            await log.archive(20, taken)
    assert await asyncio.to_thread(taken.read_text) == "something else"


async def test_events_after_the_seal_still_cannot_be_deleted(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        await log.archive(20)
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        edit(path, "DELETE FROM events WHERE seq = 21")
    with pytest.raises(sqlite3.IntegrityError, match="seals are never"):
        edit(path, "DELETE FROM seals")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE seals SET hash = zeroblob(32)", "Event 21 or its place was changed"),
        ("UPDATE events SET data = '{}' WHERE seq = 25", "Event 25 or its place was changed"),
        ("DELETE FROM events WHERE seq = 21", "Events 21 to 21 are missing"),
        ("UPDATE sealed_streams SET version = version + 1 WHERE stream = 1", "Stream 'job/1' has"),
    ],
)
async def test_what_was_changed_at_the_seal_or_behind_it_is_found(
    path: Path, counts: dict[str, Any], change: str, problem: str
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        await log.archive(20)
    edit(path, *DROP_TRIGGERS, "DROP TRIGGER seals_refuse_update", change)
    async with EventLog.open(path, read_only=True) as log:
        report = await log.verify()
    assert any(each.startswith(problem) for each in report.problems), report.problems


@pytest.mark.parametrize("damage", ["cut", "edited", "heading", "bytes"])
def test_a_damaged_archive_does_not_hold(path: Path, counts: dict[str, Any], damage: str) -> None:
    async def make() -> ArchiveFile:
        async with EventLog.open(path, **counts) as log:
            await fill(log)
            return await log.archive(20)

    file = asyncio.run(make())
    assert archive.check(file.path) == file
    text = gzip.decompress(file.path.read_bytes())
    match damage:
        case "cut":
            file.path.write_bytes(gzip.compress(b"\n".join(text.splitlines()[:-1])))
        case "edited":
            file.path.write_bytes(gzip.compress(text.replace(b"job.noted", b"job.hoted", 1)))
        case "heading":
            file.path.write_bytes(gzip.compress(b"{}\n" + text))
        case _:
            file.path.write_bytes(file.path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"Take another copy|take another copy"):
        archive.check(file.path)


async def test_an_older_release_only_reads_what_is_left_and_a_whole_log_keeps_its_format(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
    monkeypatch.setattr(connection, "FORMAT", 1)
    async with EventLog.open(path, **counts) as log:
        assert log.read_only is None
    monkeypatch.undo()
    async with EventLog.open(path, **counts) as log:
        await log.archive(20)
    monkeypatch.setattr(connection, "FORMAT", 1)
    async with EventLog.open(path, **counts) as log:
        assert "format 2" in (log.read_only or "")


async def test_a_file_of_an_older_release_is_archived_too(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
    edit(path, "DROP TABLE seals", "DROP TABLE sealed_streams", "DROP TABLE sealed_projections")
    async with EventLog.open(path, read_only=True) as reading:
        assert (await reading.verify()).ok
    async with EventLog.open(path, **counts) as log:
        await log.archive(20)
        assert (await log.verify()).ok


async def test_a_backup_of_a_sealed_log_goes_on_from_the_seal(
    path: Path, counts: dict[str, Any], tmp_path: Path
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        await log.archive(20)
        report = await log.backup(tmp_path / "copy.db")
    async with EventLog.open(report.path, **counts) as log:
        assert (log.sealed, log.head, (await log.verify()).ok) == (20, 30, True)
        assert (await log.rebuild()).equal
        await log.append([NewEvent("job/1", "job.noted", {"value": 5})])


async def test_what_is_not_swept_yet_is_not_given_out(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        await log.archive(20)
        first = (await log.read(limit=1))[0]
        before = rows_of(path)
    with closing(sqlite3.connect(path)) as raw:  # as a kill in the middle of sweeping would leave it
        raw.execute(
            "INSERT INTO events SELECT 20, stream, 99, type, schema, at, actor, cause, data, hash FROM events WHERE seq = 21"
        )
        raw.commit()
    async with EventLog.open(path, **counts) as log:
        assert (await log.read(limit=1))[0] == first
        assert (await log.scan(after=0, limit=1)).events[0] == first
        assert (await log.verify()).ok
        assert await log.sweep() == 1
    assert rows_of(path) == before


async def test_two_that_archive_at_once_do_it_one_after_the_other(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        first, second = await asyncio.gather(log.archive(10), log.archive(20))
        assert second.previous == first.head
        assert [seal.head.seq for seal in log.seals] == [10, 20]
        assert (await log.verify()).ok
    async with EventLog.open(path, model=CountsModel(), projections=[Newer()]) as log:  # out of the archives
        assert await log.fetch("SELECT sum(count) FROM counts") == [(30,)]


async def test_an_archive_that_does_not_follow_on_the_newest_seal_is_refused_and_the_log_is_as_it_was(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> int:
        return 0

    async with EventLog.open(path, **counts) as log:
        await fill(log)
        monkeypatch.setattr(log._upkeep, "sweep", nothing)
        await log.archive(10)
        seals, log._upkeep.seals = log.seals, ()
        monkeypatch.setattr(log._upkeep, "find_seals", nothing)
        with pytest.raises(ArchiveError, match=r"sealed at event 10 meanwhile.*Give the command again"):
            await log.archive(20)
        monkeypatch.undo()
        await log._upkeep.find_seals()
        assert log.seals == seals
        assert (await log.archive(20)).previous.seq == 10
        assert (await log.rebuild()).equal


async def test_after_one_that_was_cancelled_when_it_was_sealed_already_the_next_follows_on_it(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        exclusively = log._upkeep._exclusively

        async def cancelled(run: Any) -> None:
            await exclusively(run)
            raise asyncio.CancelledError

        monkeypatch.setattr(log._upkeep, "_exclusively", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await log.archive(10)
        monkeypatch.undo()
        assert (await log.archive(20)).previous.seq == 10
        assert (await log.verify()).ok
        assert len(rows_of(path)) == 10


async def test_a_check_during_which_the_log_is_archived_finds_nothing_wrong(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, loop = verify._Scan.check, asyncio.get_running_loop()

    def archived_meanwhile(self: Any, row: tuple[Any, ...]) -> None:
        check(self, row)
        if row[0] == 5:
            asyncio.run_coroutine_threadsafe(log.archive(20), loop).result()

    monkeypatch.setattr(verify, "_PAGE", 5)
    monkeypatch.setattr(verify._Scan, "check", archived_meanwhile)
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        report = await log.verify()
        assert log.sealed == 20
    assert (report.problems, report.events, report.head.seq) == ((), 10, 30)


async def test_a_check_at_whose_end_something_is_appended_finds_nothing_wrong(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, loop = verify._Scan.finish, asyncio.get_running_loop()

    def appended_meanwhile(self: Any) -> None:
        asyncio.run_coroutine_threadsafe(log.append([new("job/1")]), loop).result()
        finish(self)

    monkeypatch.setattr(verify._Scan, "finish", appended_meanwhile)
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        report = await log.verify()
        assert log.head == 31
    assert (report.problems, report.head.seq) == ((), 30)


async def test_a_replay_that_began_before_an_archiving_folds_all_events(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, begun, go_on = codec.pages, threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Iterator[list[Event]]:
        for page in pages(*args, **kwargs):
            yield page
            if not begun.is_set():
                begun.set()
                go_on.wait(30)

    monkeypatch.setattr(codec, "_PAGE", 5)
    monkeypatch.setattr(codec, "pages", slow)
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        rebuilding = asyncio.create_task(log.rebuild())
        await asyncio.to_thread(begun.wait, 30)
        archiving = asyncio.create_task(log.archive(20))
        while not (archiving.done() or log._upkeep.rewriting.statistics().tasks_waiting):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)
        go_on.set()
        assert (await rebuilding).equal
        assert (await archiving).events == 20
        assert (await log.rebuild()).equal
        assert await log.fetch("SELECT sum(count) FROM counts") == [(30,)]


class Disk:
    """What of the names and contents was synced, by the descriptors that were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[Path] = []
        fsync = os.fsync

        def record(descriptor: int) -> None:
            self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", record)


async def test_an_archive_and_all_names_that_lead_to_it_are_synced_before_the_log_is_sealed(
    path: Path, counts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a" / "b" / "archive.gz"
    before: list[Path] = []

    def insert(*arguments: Any) -> None:
        before.extend(disk.synced)
        really(*arguments)

    async with EventLog.open(path, **counts) as log:
        await fill(log)
        disk, really = Disk(monkeypatch), seals.insert
        monkeypatch.setattr(seals, "insert", insert)
        await log.archive(20, target)
    made = target.with_name(".archive.gz.partial")
    assert before.index(made) < before.index(target.parent)
    assert {target.parent, target.parent.parent, tmp_path} <= set(before)


async def test_a_file_that_a_kill_left_is_synced_with_its_names_before_the_log_is_sealed(
    path: Path, counts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a" / "archive.gz"

    def killed(*_arguments: Any) -> None:
        raise asyncio.CancelledError

    async with EventLog.open(path, **counts) as log:
        await fill(log)
        monkeypatch.setattr(durable, "sync_names", killed)
        with pytest.raises(asyncio.CancelledError):
            await log.archive(20, target)
        monkeypatch.undo()
        assert log.sealed == 0
        disk = Disk(monkeypatch)
        assert (await log.archive(20, target)).path == target
    assert {target, target.parent, tmp_path} <= set(disk.synced)


def test_directories_that_we_may_not_read_are_not_ours_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, told = durable.sync, OSError(errno.EACCES, "Permission denied")

    def refused(path: Path) -> None:
        if path == refusing:
            raise told
        sync(path)

    monkeypatch.setattr(durable, "sync", refused)
    refusing = tmp_path.parent
    durable.sync_names(tmp_path / "file")
    told = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        durable.sync_names(tmp_path / "file")
    refusing, told = tmp_path, OSError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError):
        durable.sync_names(tmp_path / "file")


async def test_a_full_disk_is_called_that_and_nothing_is_left(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with EventLog.open(path, **counts) as log:
        await fill(log)
        monkeypatch.setattr(os, "link", full)
        with pytest.raises(LogFullError, match="free some space and try again"):
            await log.archive(20)
        assert log.sealed == 0
    assert list((path.parent / "archives").iterdir()) == []


@pytest.mark.timeout(20)
async def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    path: Path, counts: dict[str, Any], tmp_path: Path
) -> None:
    await asyncio.to_thread(os.mkfifo, tmp_path / "pipe")
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        with pytest.raises(ArchiveError, match="exists already and is not this archive"):
            await log.archive(20, tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        with pytest.raises(ArchiveError, match="cannot be read"):
            await asyncio.to_thread(archive.check, other)


@pytest.mark.parametrize(
    "line",
    [b"[]", b"[1]", b"1", b'"text"', b"null", b"[1,2,3,4,5,6,7,8,9,10]", b"{}", b'{"seq":[]}', b"\xff"],
)
def test_lines_that_are_no_events_are_refused(tmp_path: Path, line: bytes) -> None:
    heading = b'{"format":"finetuned-event-log-archive","version":1,"after":0,"hash":"%s"}' % (b"00" * 32)
    for text in (heading + b"\n" + line + b"\n", line + b"\n"):
        (tmp_path / "file").write_bytes(gzip.compress(text))
        with pytest.raises(ArchiveError, match="cannot be read"):
            archive.check(tmp_path / "file")


class Failing:
    """A writing connection that fails at statements which begin so."""

    def __init__(self, *, name: str, code: int, times: int = 1) -> None:
        self.error = sqlite3.OperationalError("told by the test")
        self.error.sqlite_errorname, self.error.sqlite_errorcode = name, code
        self.times = times

    def factory(self, beginning: str) -> type[sqlite3.Connection]:
        failing = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                if sql.startswith(beginning) and failing.times:
                    failing.times -= 1
                    raise failing.error
                return super().execute(sql, *parameters)

        return Connection


FULL: dict[str, Any] = {"name": "SQLITE_FULL", "code": sqlite3.SQLITE_FULL}
BUSY: dict[str, Any] = {"name": "SQLITE_BUSY", "code": sqlite3.SQLITE_BUSY}


@pytest.mark.parametrize("told", [FULL, BUSY])
async def test_an_archive_is_made_although_what_is_in_it_cannot_be_deleted_yet(
    path: Path, counts: dict[str, Any], caplog: pytest.LogCaptureFixture, told: dict[str, Any]
) -> None:
    factory = Failing(**told).factory("DELETE FROM events")
    async with EventLog.open(path, **counts, factory=factory) as log:
        await fill(log)
        assert (await log.archive(20)).events == 20
        assert "not all of it is deleted yet" in caplog.text
        assert (log.sealed, len(rows_of(path))) == (20, 30)
        assert (await log.read(limit=1))[0].seq == 21
        assert await log.sweep() == 20
        assert await log.sweep() == 0
        assert len(rows_of(path)) == 10
        assert (await log.verify()).ok


@pytest.mark.parametrize(("told", "error"), [(FULL, LogFullError), (BUSY, LogWriteError)])
@pytest.mark.parametrize("beginning", ["INSERT INTO seals", "BEGIN IMMEDIATE", "COMMIT"])
async def test_a_seal_that_cannot_be_written_is_refused_as_an_event_is_and_can_be_tried_again(
    path: Path, counts: dict[str, Any], told: dict[str, Any], error: type[LogError], beginning: str
) -> None:
    failing = Failing(**told, times=0)
    async with EventLog.open(path, **counts, factory=failing.factory(beginning)) as log:
        await fill(log)
        failing.times = 1
        with pytest.raises(error):
            await log.archive(20)
        assert (log.sealed, log.head) == (0, 30)
        await log.append([new("job/1")])
        assert (await log.archive(20)).events == 20
        assert (await log.rebuild()).equal


async def test_while_room_is_short_nothing_is_sealed_or_deleted(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        monkeypatch.setattr(Committer, "is_short", True)
        with pytest.raises(LogFullError):
            await log.archive(10)
        assert log.sealed == 0

        seal = rebuild.Scratch.seal

        def short_from_now_on(*arguments: Any) -> None:
            seal(*arguments)
            monkeypatch.setattr(Committer, "is_short", True)

        monkeypatch.undo()
        monkeypatch.setattr(rebuild.Scratch, "seal", short_from_now_on)
        await log.archive(20)
        assert "not all of it is deleted yet" in caplog.text
        with pytest.raises(LogFullError):
            await log.sweep()
        assert len(rows_of(path)) == 30
        monkeypatch.undo()
        assert await log.sweep() == 20


async def test_a_scan_that_sqlite_refuses_is_refused_by_the_log(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opener() as log:
        for told, error in ((FULL, LogFullError), (BUSY, LogReadError)):
            failing = Failing(**told)

            def broken(*_arguments: Any, failing: Failing = failing) -> None:
                raise failing.error

            monkeypatch.setattr(verify, "verify", broken)
            with pytest.raises(error):
                await log.verify()


NEWER: dict[str, Any] = {"model": CountsModel(), "projections": [Newer()]}


async def of_another_log(path: Path, counts: dict[str, Any], upto: int = 20) -> ArchiveFile:
    await asyncio.to_thread(path.parent.mkdir)
    async with EventLog.open(path, **counts) as log:
        for number in range(30):
            await log.append([new("job/other", value=number)])
        return await log.archive(upto)


async def test_an_archive_of_another_log_is_passed_over_for_the_right_one(
    path: Path, counts: dict[str, Any], tmp_path: Path
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        file = await log.archive(20, tmp_path / "elsewhere.gz")
    other = await of_another_log(tmp_path / "other" / "events.db", counts)
    (path.parent / "archives").mkdir()
    file.path.rename(path.parent / "archives" / "elsewhere.gz")
    other.path.rename(file.path)
    async with EventLog.open(path, **NEWER) as log:
        assert await log.fetch("SELECT count(*), sum(count) FROM counts") == [(7, 30)]
        assert (await log.rebuild()).equal


@pytest.mark.parametrize("harm", ["another log's", "another end", "another beginning", "damaged"])
async def test_a_replay_takes_no_archive_that_does_not_hold_the_events_of_its_seal(
    path: Path, counts: dict[str, Any], tmp_path: Path, harm: str
) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        first, second = await log.archive(10), await log.archive(20)
    match harm:
        case "another log's":
            other = await of_another_log(tmp_path / "other" / "events.db", counts, 10)
            other.path.replace(first.path)
        case "another end":
            await asyncio.to_thread(shutil.copyfile, second.path, first.path)
        case "another beginning":
            await asyncio.to_thread(shutil.copyfile, first.path, second.path)
        case _:
            os.truncate(second.path, second.bytes - 1)
    with pytest.raises(ArchiveMissingError, match="holds other events, or is damaged"):
        async with EventLog.open(path, **NEWER):
            pass


async def test_an_archive_that_was_packed_anew_serves_a_replay(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await fill(log)
        file = await log.archive(20)

    def pack() -> None:
        file.path.write_bytes(gzip.compress(gzip.decompress(file.path.read_bytes()), 1))

    await asyncio.to_thread(pack)
    async with EventLog.open(path, **NEWER) as log:
        assert await log.fetch("SELECT sum(count) FROM counts") == [(30,)]
