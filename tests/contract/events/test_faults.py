"""Failing writes: whatever fails and whenever, waiters hear of it and the log stays consistent."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finetuned_events import (
    EventLog,
    LogBrokenError,
    LogError,
    LogFullError,
    LogWriteError,
    MemoryLog,
    NewEvent,
)
from finetuned_events.committer import Committer

FULL = sqlite3.SQLITE_FULL
WRITES = ("BEGIN IMMEDIATE", "INSERT", "UPDATE", "COMMIT")
IOERR_WRITE = sqlite3.SQLITE_IOERR_WRITE
IOERR_FSYNC = sqlite3.SQLITE_IOERR_FSYNC


def new(stream: str = "job/1", kind: str = "job.noted", **data: Any) -> NewEvent:
    return NewEvent(stream, kind, data)


def from_call(number: int, code: int, persistent: bool) -> Callable[[int, str], int | None]:
    """Fail the call of that number, and all writes behind it if `persistent`."""

    def fails(call: int, sql: str) -> int | None:
        return code if call == number or (persistent and call > number and sql.startswith(WRITES)) else None

    return fails


class Plan:
    """Which call on the writing connection fails, with what, and whether the statement ran before."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: Callable[[int, str], int | None] = lambda _number, _sql: None
        self.after = False
        self.armed = False

    def check(self, sql: str) -> sqlite3.OperationalError | None:
        if not self.armed:
            return None

        self.calls.append(sql)
        code = self.fails(len(self.calls), sql)
        if code is None:
            return None

        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = code
        return error


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
def faulty(plan: Plan) -> type[sqlite3.Connection]:
    class Faulty(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return self._run(sql, lambda: super(Faulty, self).execute(sql, *parameters))

        def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
            return self._run(sql, lambda: super(Faulty, self).executemany(sql, parameters))

        def _run(self, sql: str, call: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
            error = plan.check(sql)
            if error is not None and not plan.after:
                raise error
            cursor = call()
            if error is not None:
                raise error
            return cursor

    return Faulty


def _give(events: Sequence[NewEvent], _: object) -> Sequence[NewEvent]:
    return events


async def burst(log: EventLog[Any], first: int) -> list[tuple[int, object]]:
    """Append from several callers at once; return what each tried and heard."""

    def decide(number: int) -> Callable[[Any], Sequence[NewEvent]]:
        return lambda _: [new(f"job/{number % 3}", value=number)]

    numbers = range(first, first + 8)
    outcomes = await asyncio.gather(
        *(log.execute(decide(number), cursor=("follower", number)) for number in numbers),
        return_exceptions=True,
    )
    return list(zip(numbers, outcomes, strict=True))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("code", [FULL, IOERR_WRITE])
async def test_whichever_write_fails_nothing_acknowledged_is_lost(
    path: Path,
    counts: dict[str, Any],
    plan: Plan,
    faulty: type[sqlite3.Connection],
    code: int,
    persistent: bool,
) -> None:
    """SQLite's own way of testing: the N-th call fails, for N from 1 until none does; once, or from then on."""
    broken = failed = 0
    for number in range(1, 100):
        file = path.with_name(f"{number}.db")
        acknowledged: list[int] = []
        refused: list[int] = []
        plan.calls.clear()
        async with EventLog.open(file, factory=faulty, **counts) as log:
            outcomes = await burst(log, 100)
            plan.fails = from_call(number, code, persistent)
            plan.armed = True
            outcomes += await burst(log, 200)
            reached = len(plan.calls) >= number
            plan.armed = False
            outcomes += await burst(log, 300)
            for value, outcome in outcomes:
                if isinstance(outcome, tuple):
                    acknowledged.append(value)
                else:
                    assert isinstance(outcome, LogFullError | LogWriteError | LogBrokenError), outcome
                    if not isinstance(outcome, LogBrokenError):
                        refused.append(value)

            if any(isinstance(outcome, LogBrokenError) for _, outcome in outcomes):
                broken += 1
                with pytest.raises(LogBrokenError):
                    await log.read()
            else:
                failed += bool(refused)
                assert set(range(300, 308)) <= set(acknowledged)
                assert (await log.rebuild()).equal

        async with EventLog.open(file, **counts) as log:
            values = [event.data["value"] for event in await log.read(limit=1000)]
            assert set(acknowledged) <= set(values)
            assert not set(refused) & set(values)
            assert len(values) == len(set(values))
            assert await log.position("follower") >= max(acknowledged)
            assert (await log.verify()).ok
            assert (await log.rebuild()).equal
        if not reached:
            break
    else:
        pytest.fail("the loop never came past the last write")

    assert failed >= 5
    assert broken == (0 if code == FULL else 1)


@pytest.mark.parametrize("happened", [False, True])
async def test_after_an_io_error_at_commit_everything_is_refused(
    path: Path, counts: dict[str, Any], plan: Plan, faulty: type[sqlite3.Connection], happened: bool
) -> None:
    async with EventLog.open(path, factory=faulty, **counts) as log:
        await log.append([new(value=0)])
        waiting = asyncio.create_task(log.wait(1))
        plan.fails = lambda _, sql: IOERR_FSYNC if sql == "COMMIT" else None
        plan.after = happened
        plan.armed = True
        with pytest.raises(LogBrokenError) as caught:
            await log.append([new(value=1)])
        plan.armed = False

        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        for call in (log.append([new()]), log.read(), log.fetch("SELECT 1"), log.rebuild(), waiting):
            with pytest.raises(LogBrokenError):
                await call

    async with EventLog.open(path, **counts) as log:
        assert log.head == (2 if happened else 1)
        assert (await log.verify()).ok
        assert (await log.rebuild()).equal


async def test_a_full_disk_is_survived(path: Path, counts: dict[str, Any]) -> None:
    """A real SQLITE_FULL, from a real limit."""

    class Limited(sqlite3.Connection):
        pages = 60

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                super().execute(f"PRAGMA max_page_count = {self.pages}")
            return super().execute(sql, *parameters)

    async with EventLog.open(path, factory=Limited, **counts) as log:
        acknowledged = 0
        refused: LogFullError | None = None
        while refused is None:
            try:
                await log.append([new(value="x" * 500)])
                acknowledged += 1
            except LogFullError as error:
                refused = error

        assert refused.code == "log_full"
        assert log.head == acknowledged
        with pytest.raises(LogFullError):
            await log.append([new(value="x" * 5000)])
        assert len(await log.read(limit=10_000)) == acknowledged
        assert (await log.verify()).ok

        Limited.pages = 100_000
        (event,) = await log.execute(lambda state: [new(value=state.count("job/1"))])
        assert event.data == {"value": acknowledged}
        assert (await log.rebuild()).equal
        assert (await log.statistics()).failed_commits == 2


async def test_another_programs_lock_fails_the_append_only(
    path: Path, plan: Plan, faulty: type[sqlite3.Connection]
) -> None:
    async with EventLog.open(path, factory=faulty) as log:
        plan.fails = lambda _, sql: (
            sqlite3.SQLITE_BUSY if sql == "BEGIN IMMEDIATE" and plan.calls.count(sql) == 1 else None
        )
        plan.armed = True
        with pytest.raises(LogWriteError, match="rolled back") as caught:
            await log.append([new()])

        assert isinstance(caught.value, LogError)
        await log.append([new()])


async def test_a_failing_look_up_fails_its_request_only(
    path: Path, plan: Plan, faulty: type[sqlite3.Connection]
) -> None:
    async with EventLog.open(path, factory=faulty) as log:
        await log.append([new()])
        plan.fails = lambda _, sql: IOERR_WRITE if "FROM streams WHERE name" in sql else None
        plan.armed = True
        outcomes = await asyncio.gather(
            log.append([new()]), log.append([new("job/2")]), log.append([new()]), return_exceptions=True
        )

        assert [type(outcome) for outcome in outcomes] == [tuple, LogWriteError, tuple]


async def test_a_disk_error_in_a_projection_is_a_disk_error(
    path: Path, counts: dict[str, Any], plan: Plan, faulty: type[sqlite3.Connection]
) -> None:
    async with EventLog.open(path, factory=faulty, **counts) as log:
        plan.fails = lambda _, sql: FULL if sql.startswith("INSERT INTO counts") else None
        plan.armed = True
        with pytest.raises(LogFullError):
            await log.append([new()])


async def test_a_failed_rollback_breaks_the_log(
    path: Path, plan: Plan, faulty: type[sqlite3.Connection]
) -> None:
    async with EventLog.open(path, factory=faulty) as log:
        plan.fails = lambda _, sql: (
            IOERR_WRITE if sql.startswith("INSERT INTO events") or sql == "ROLLBACK" else None
        )
        plan.armed = True
        with pytest.raises(LogBrokenError):
            await log.append([new()])


async def test_a_state_that_cannot_be_loaded_again_breaks_the_log(path: Path, counts: dict[str, Any]) -> None:
    async with EventLog.open(path, **counts) as log:
        await log.append([new()])

        def fail(_: sqlite3.Connection) -> Any:
            raise OSError

        counts["model"].load = fail
        with pytest.raises(LogBrokenError):
            await log.append([NewEvent("job/1", "job.noted", {"projection": "broken"})])


async def test_a_state_that_cannot_forget_is_loaded_again(
    path: Path, counts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with EventLog.open(path, **counts) as log:

        def fail() -> None:
            raise ValueError

        counts["model"].loaded[-1].committed = fail
        await log.append([new()])
        assert len(counts["model"].loaded) == 2
        assert "loaded again" in caplog.text
        await log.append([new()])
        assert await log.fetch("SELECT count FROM counts") == [(2,)]


async def test_a_bug_in_the_writer_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with EventLog.open(path) as log:
        monkeypatch.setattr(Committer, "commit", fail)
        with pytest.raises(LogBrokenError):
            await log.append([new()])
        with pytest.raises(LogBrokenError):
            await log.append([new()])


async def test_a_thread_that_ends_by_itself_leaves_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Ended(BaseException):
        pass

    def end(*_: Any) -> None:
        raise Ended

    async with EventLog.open(path) as log:
        following = asyncio.create_task(log.wait(log.head))
        monkeypatch.setattr(Committer, "commit", end)
        async with asyncio.timeout(20):
            first = asyncio.gather(log.append([new()]), log.append([new()]), return_exceptions=True)
            assert [type(outcome) for outcome in await first] == [LogBrokenError, LogBrokenError]
            with pytest.raises(LogBrokenError):
                await following
            with pytest.raises(LogBrokenError):
                await log.append([new()])
            with pytest.raises(LogBrokenError):
                await log.rebuild()
    assert "thread ends" in caplog.text


async def test_a_reset_that_fails_is_reported_and_survived(
    path: Path,
    plan: Plan,
    faulty: type[sqlite3.Connection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("finetuned_events.writer.WAL_LIMIT", 0)
    async with EventLog.open(path, factory=faulty) as log:
        plan.fails = lambda _, sql: FULL if "wal_checkpoint" in sql else None
        plan.armed = True
        await log.append([new()])
        await log.append([new()])
        assert "could not be emptied" in caplog.text


async def test_the_memory_of_streams_and_followers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetuned_events.batch._CACHED_STREAMS", 5)
    monkeypatch.setattr("finetuned_events.batch._CACHED_CURSORS", 3)
    async with MemoryLog.open() as log:
        for number in range(60):
            events = [new(f"job/{number % 20}")]
            await log.execute(partial(_give, events), cursor=(f"f/{number % 10}", number))

        assert await log.position("f/9") == 59
        assert [event.version for event in await log.read(stream="job/3")] == [1, 2, 3]
        assert (await log.verify()).ok
