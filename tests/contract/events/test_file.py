"""What the log promises about its file: reopening, locking, versions, tampering, rebuilding, leaks."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from finetuned_events import (
    EventLog,
    LogError,
    LogLockedError,
    LogReadError,
    LogWriteError,
    NewerSchemaError,
    NewEvent,
    NotALogError,
    ProjectionError,
    ReadOnlyError,
    Replayed,
    chain,
    connection,
)
from finetuned_events.rebuild import Scratch


def new(stream: str = "job/1", kind: str = "job.noted", **data: Any) -> NewEvent:
    return NewEvent(stream, kind, data)


def edit(path: Path, *statements: str) -> None:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path)) as raw:
        for statement in statements:
            raw.execute(statement)
        raw.commit()


DROP_TRIGGERS = (
    "DROP TRIGGER events_refuse_update",
    "DROP TRIGGER events_refuse_delete",
    "DROP TRIGGER streams_refuse_update",
    "DROP TRIGGER streams_refuse_delete",
)


async def test_everything_is_there_after_reopening(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new("job/1", value=1), new("job/2", value=2)])
        await log.execute(lambda _: [new("job/1", value=3)], cursor=("scheduler", 2))
        events = await log.read()

    assert not list(path.parent.glob("*-wal"))
    async with EventLog.open(path, **counts) as log:
        assert log.head == 3
        assert log.recent(3) == ()
        assert log.recent(2) is None
        assert await log.read() == events
        assert await log.position("scheduler") == 2
        assert await log.fetch("SELECT stream, count FROM counts") == [("job/1", 2), ("job/2", 1)]
        (event,) = await log.execute(lambda state: [new("job/1", value=state.count("job/1"))])
        assert (event.seq, event.version, event.data) == (4, 3, {"value": 2})
        assert event.at >= events[-1].at
        with pytest.raises(Exception, match="already at position 2"):
            await log.execute(lambda _: (), cursor=("scheduler", 1))


async def test_a_second_writer_is_refused_and_a_reader_is_not(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append([new()])
        with pytest.raises(LogLockedError, match=str(os.getpid())) as caught:
            async with EventLog.open(path):
                pass

        assert caught.value.code == "log_locked"
        async with EventLog.open(path, read_only=True) as reading:
            assert await reading.read() == await log.read()
            assert reading.read_only == str(ReadOnlyError())
            for call in (reading.append([new()]), reading.rebuild()):
                with pytest.raises(ReadOnlyError):
                    await call
            assert (await reading.verify()).ok
            assert (await reading.statistics()).commits == 0


async def test_the_lock_ends_with_its_holder(path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from finetuned_events import lock\n"
        "held = lock.held(Path(sys.argv[1])); held.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(connection.__file__).parents[1])}
    with subprocess.Popen(  # noqa: ASYNC220 - the holder must be another process
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LogLockedError, match=str(holder.pid)):
            async with EventLog.open(path):
                pass
        holder.kill()

    async with EventLog.open(path) as log:
        await log.append([new()])


async def test_unknown_kinds_open_read_only_with_a_loud_error(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with EventLog.open(path) as log:
        await log.append([new(), new(kind="job.teleported")])

    async with EventLog.open(path, known={"job.noted": 1}) as log:
        assert "job.teleported 1" in (log.read_only or "")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert len(await log.read()) == 2
        with pytest.raises(NewerSchemaError, match="teleported"):
            await log.append([new()])

    async with EventLog.open(path, known={"job.noted": 1, "job.teleported": 1}) as log:
        assert log.read_only is None
        await log.append([new()])


async def test_a_file_of_a_newer_format_opens_read_only(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append([new()])
    edit(path, f"PRAGMA user_version = {connection.FORMAT + 1}")

    async with EventLog.open(path) as log:
        assert "upgrade" in (log.read_only or "")
        assert len(await log.read()) == 1
        with pytest.raises(NewerSchemaError):
            await log.execute(lambda _: [new()])


@pytest.mark.parametrize("content", [b"not a database, just text " * 50, None])
async def test_another_file_is_not_taken_for_a_log(path: Path, content: bytes | None) -> None:
    if content is None:
        edit(path, "CREATE TABLE things (id)")
    else:
        path.write_bytes(content)  # noqa: ASYNC240 - no log is open
    before = path.read_bytes()  # noqa: ASYNC240

    for read_only in (False, True):
        with pytest.raises(NotALogError):
            async with EventLog.open(path, read_only=read_only):
                pass
    assert path.read_bytes() == before  # noqa: ASYNC240


async def test_a_file_to_read_must_be_there(path: Path) -> None:
    with pytest.raises(NotALogError, match="no event log"):
        async with EventLog.open(path, read_only=True):
            pass
    assert not path.exists()  # noqa: ASYNC240 - no log is open


async def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.touch()  # noqa: ASYNC240 - no log is open yet
    async with EventLog.open(path) as log:
        await log.append([new()])


async def test_a_file_whose_maker_was_killed_before_its_tables_were_there_becomes_a_log(path: Path) -> None:
    edit(path, "PRAGMA journal_mode = WAL")
    assert path.stat().st_size  # noqa: ASYNC240 - no log is open yet

    with pytest.raises(NotALogError, match="no event log"):
        async with EventLog.open(path, read_only=True):
            pass
    async with EventLog.open(path) as log:
        await log.append([new()])


async def test_a_file_that_was_cut_off_while_it_was_made_is_begun_anew(path: Path) -> None:
    other = path.with_name("other")
    with closing(sqlite3.connect(other, isolation_level=None)) as raw:
        raw.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the end
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("CREATE TABLE things (content)")
        raw.executemany("INSERT INTO things VALUES (?)", [(bytes(4096),)] * 50)
        for end in ("", "-journal"):
            shutil.copy(f"{other}{end}", f"{path}{end}")
    assert path.stat().st_size  # noqa: ASYNC240 - no log is open yet

    async with EventLog.open(path) as log:
        await log.append([new()])
    assert not path.with_name(f"{path.name}-journal").exists()


async def test_a_log_that_cannot_be_durable_is_refused(path: Path) -> None:
    class Lossy(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(
                "PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *parameters
            )

    with pytest.raises(LogWriteError, match="durable"):
        async with EventLog.open(path, factory=Lossy):
            pass


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}'",
        "DELETE FROM events",
        "UPDATE streams SET name = 'job/9'",
        "DELETE FROM streams",
    ],
)
async def test_triggers_refuse_to_change_the_past(path: Path, statement: str) -> None:
    async with EventLog.open(path) as log:
        await log.append([new()])

    with pytest.raises(sqlite3.IntegrityError, match="never"):
        edit(path, statement)
    with pytest.raises(sqlite3.IntegrityError, match="never"):
        edit(path, "PRAGMA recursive_triggers = ON", "REPLACE INTO events SELECT * FROM events")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE events SET data = '{\"value\":8}' WHERE seq = 7", "Event 7 or its place was changed"),
        ("UPDATE events SET type = 'job.other' WHERE seq = 7", "Event 7"),
        ("UPDATE events SET actor = 'root' WHERE seq = 7", "Event 7"),
        ("UPDATE events SET cause = 'x' WHERE seq = 7", "Event 7"),
        ("UPDATE events SET at = at + 1 WHERE seq = 20", "Event 20"),
        ("UPDATE events SET at = at - 10000000 WHERE seq = 7", "dated before"),
        ("UPDATE events SET schema = 2 WHERE seq = 7", "not listed among the kinds"),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 7", "Event 7"),
        ("UPDATE events SET stream = 2, version = 11 WHERE seq = 19", "Event 19"),
        ("UPDATE events SET version = 70 WHERE seq = 7", "versions 1 to 70"),
        ("UPDATE streams SET name = 'job/9' WHERE id = 1", "Event 1 "),
        ("DELETE FROM events WHERE seq = 7", "Events 7 to 7 are missing"),
        ("DELETE FROM events WHERE seq > 18", "Events 19 to 20 were cut off"),
        ("UPDATE events SET seq = 70 WHERE seq = 20", "Events 20 to 69 are missing"),
        ("DELETE FROM events WHERE seq < 3", "Events 1 to 2 are missing"),
        ("UPDATE projections SET position = 99", "beyond the head"),
        ("UPDATE events SET data = 'x' || data", "Event 20"),
    ],
)
async def test_verification_finds_any_edit(
    path: Path, counts: dict[str, Any], statement: str, problem: str
) -> None:
    async with EventLog.open(path, **counts) as log:
        for number in range(20):
            await log.append([new(f"job/{number % 2}", value=number)])
        assert (await log.verify()).ok

    edit(path, *DROP_TRIGGERS, statement)
    async with EventLog.open(path, read_only=True) as log:
        report = await log.verify()
        assert not report.ok
        assert len(report.problems) <= 20
        assert any(problem in found for found in report.problems), report.problems


async def test_an_anchor_finds_a_chain_that_was_computed_anew(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append([new(value=1), new(value=2)])
        anchor = await log.anchor()

    with closing(sqlite3.connect(path)) as raw:
        (at,) = raw.execute("SELECT at FROM events WHERE seq = 1").fetchone()
        first = chain.link(chain.GENESIS, 1, "job/1", 1, "job.noted", 1, at, "system", None, b'{"value":9}')
        second = chain.link(first, 2, "job/1", 2, "job.noted", 1, at, "system", None, b'{"value":2}')
        raw.execute(DROP_TRIGGERS[0])
        raw.execute("UPDATE events SET data = '{\"value\":9}', hash = ? WHERE seq = 1", (first,))
        raw.execute("UPDATE events SET hash = ? WHERE seq = 2", (second,))
        raw.commit()

    async with EventLog.open(path, read_only=True) as log:
        assert (await log.verify()).ok
        assert (await log.verify([anchor])).problems == ("Event 2 does not have the hash that was anchored.",)


async def test_a_damaged_projection_is_found_and_mended(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new("job/1", value=1), new("job/2", value=2)])
        edit(path, "UPDATE counts SET count = 7 WHERE stream = 'job/1'")
        report = await log.rebuild()
        assert not report.equal
        assert report.swapped == ("counts",)
        assert await log.fetch("SELECT stream, count FROM counts") == [("job/1", 1), ("job/2", 1)]
        assert len(counts["model"].loaded) == 2
        assert (await log.rebuild()).equal

        # One and one-point-nought are equal for Python and SQL, but not the same bytes.
        edit(path, "UPDATE counts SET value = CAST(value AS REAL) WHERE stream = 'job/1'")
        assert not (await log.rebuild()).equal


async def test_a_new_version_of_a_projection_is_rebuilt_when_the_log_opens(
    path: Path, counts: dict[str, Any]
) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new(f"job/{number % 3}", value=number) for number in range(1500)])

    class Renamed(type(counts["projections"][0])):  # type: ignore[misc] # the fixture's class
        version = 2
        tables = ("counts", "totals")
        schema = (
            "CREATE TABLE counts (stream TEXT PRIMARY KEY, count INTEGER NOT NULL, value);\n"
            "CREATE TABLE totals (total INTEGER); -- how many\n"
            "INSERT INTO totals VALUES (0);\n"
        )

        def __init__(self) -> None:
            """Keep the schema above."""

        def write(self, connection: sqlite3.Connection, state: Any, events: Any) -> None:
            super().write(connection, state, events)
            connection.execute("UPDATE totals SET total = total + ?", (len(events),))

    async with EventLog.open(path, model=counts["model"], projections=[Renamed()]) as log:
        assert await log.fetch("SELECT total FROM totals") == [(1500,)]
        await log.append([new()])
        assert await log.fetch("SELECT total FROM totals") == [(1501,)]
        assert (await log.rebuild()).equal

    # Back to the first version: its tables come back, those of the second go.
    async with EventLog.open(path, **counts) as log:
        assert await log.fetch("SELECT sum(count) FROM counts") == [(1501,)]
        assert await log.fetch("SELECT name FROM sqlite_schema WHERE name = 'totals'") == []


async def test_a_projection_that_missed_events_is_rebuilt(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new()])
    async with EventLog.open(path) as log:
        await log.append([new(), new()])
    async with EventLog.open(path, **counts) as log:
        assert await log.fetch("SELECT stream, count FROM counts") == [("job/1", 3)]


async def test_a_projection_must_make_the_tables_that_it_declares(path: Path, counts: dict[str, Any]) -> None:
    counts["projections"][0].tables = ("counts", "missing")
    with pytest.raises(ProjectionError, match="missing"):
        async with EventLog.open(path, **counts):
            pass

    # Nothing is held after a failed start.
    async with EventLog.open(path) as log:
        await log.append([new()])


async def test_a_state_without_projections_is_replayed(path: Path) -> None:
    class Total:
        def __init__(self) -> None:
            self.total = 0

        def apply(self, event: Any) -> None:
            self.total += event.data["value"]

        def committed(self) -> None:
            """Nothing to forget."""

    model = Replayed(Total)
    async with EventLog.open(path, model=model) as log:
        await log.append([new(value=number) for number in range(2500)])
    async with EventLog.open(path, model=model) as log:
        (event,) = await log.execute(lambda state: [new(value=state.total)])
        assert event.data == {"value": 2500 * 2499 // 2}


async def test_nothing_leaks_when_a_log_is_opened_many_times(path: Path, counts: dict[str, Any]) -> None:
    async def once() -> None:
        async with EventLog.open(path, **counts) as log:
            await log.append([new()])
            await log.read()
            await log.rebuild()

    await once()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
    for _ in range(20):
        await once()

    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # noqa: PTH208
    assert threading.active_count() <= threads + 2


async def test_stalled_followers_do_not_pin_the_wal(path: Path) -> None:
    """A hundred subscribers stop in the middle of history; the WAL stays under its ceiling all the same."""
    async with EventLog.open(path) as log:
        await log.append([new(value=number) for number in range(1000)])
        followers = [log.follow(after=0, limit=3) for _ in range(100)]
        for follower in followers:
            assert len(await anext(follower)) == 3

        highest = 0
        for step in range(150):
            await log.append([new(f"job/{step}-{number}", value="x" * 1000) for number in range(300)])
            highest = max(highest, (await log.statistics()).wal_bytes)

        written = (await log.statistics()).database_bytes
        assert written > 48 << 20
        assert highest < 24 << 20
        for follower in followers:
            assert [event.seq for event in await anext(follower)] == [4, 5, 6]
            await follower.aclose()  # type: ignore[attr-defined] # it is a generator


async def test_the_wal_is_emptied_once_a_foreign_reader_lets_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned_events.writer.WAL_LIMIT", 1 << 20)
    monkeypatch.setattr("finetuned_events.writer._CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr("finetuned_events.writer._CHECKPOINT_BUSY", 1)
    async with EventLog.open(path) as log:
        await log.append([new()])
        with closing(sqlite3.connect(path)) as foreign:
            foreign.execute("BEGIN")
            foreign.execute("SELECT count(*) FROM events").fetchall()
            for _ in range(10):
                await log.append([new(value="x" * 1000) for _ in range(300)])
            assert (await log.statistics()).wal_bytes > 2 << 20

        async def commits(count: int) -> None:
            for _ in range(count):
                await log.append([new()])

        await commits(2)
        await asyncio.wait_for(commits(1), 10)
        assert (await log.statistics()).wal_bytes < 1 << 20


async def test_a_cancelled_rebuild_leaves_the_log_at_work(
    path: Path, counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may still be reading when the caller is gone."""
    reached, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    fold = Scratch._fold

    def slow(self: Scratch[Any], source: sqlite3.Connection, *upto: int) -> int:
        reached.set()
        go_on.wait(10)
        try:
            return fold(self, source, *upto)
        finally:
            ended.set()

    async with EventLog.open(path, **counts) as log:
        await log.append([new(value=number) for number in range(10)])
        monkeypatch.setattr(Scratch, "_fold", slow)
        rebuilding = asyncio.create_task(log.rebuild())
        assert await asyncio.to_thread(reached.wait, 10)
        rebuilding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rebuilding
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 10)
        monkeypatch.undo()
        await log.append([new()])
        assert (await log.rebuild()).equal


async def test_a_query_that_the_file_cannot_answer_is_an_error_of_the_log(path: Path) -> None:
    async with EventLog.open(path) as log:
        await log.append([new()])
        with pytest.raises(LogReadError, match="no such table") as caught:
            await log.fetch("SELECT * FROM missing")
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert await log.fetch("SELECT count(*) FROM events") == [(1,)]


async def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(LogError, match="strict tables"):
        async with EventLog.open(path):
            pass
