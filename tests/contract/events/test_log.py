"""What every event log promises, with a file or without."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from finetuned_events import (
    Anchor,
    BackupError,
    EventLog,
    InvalidEventError,
    LogClosedError,
    LogReadError,
    NewEvent,
    ProjectionError,
    Replayed,
    StaleCursorError,
    UnknownEventError,
    Upcasters,
    WrongVersionError,
)
from finetuned_events.codec import MAX_DATA_BYTES, MAX_DEPTH

Opener = Callable[..., AbstractAsyncContextManager[EventLog[Any]]]


def new(stream: str = "job/1", kind: str = "job.noted", **data: Any) -> NewEvent:
    return NewEvent(stream, kind, data)


async def test_appended_events_get_positions_and_versions(opener: Opener) -> None:
    async with opener() as log:
        first = await log.append([new("job/1", value=1), new("job/2", value=2)])
        second = await log.append([NewEvent("job/1", "job.noted", {}, actor="uid:7", cause="1", schema=1)])

        assert [(event.seq, event.stream, event.version) for event in (*first, *second)] == [
            (1, "job/1", 1),
            (2, "job/2", 1),
            (3, "job/1", 2),
        ]
        assert log.head == 3
        assert await log.read() == [*first, *second]
        assert (second[0].actor, second[0].cause) == ("uid:7", "1")


async def test_an_unexpected_version_appends_nothing(opener: Opener) -> None:
    async with opener() as log:
        await log.append([new()], expected={"job/1": 0})
        with pytest.raises(WrongVersionError) as caught:
            await log.append([new("job/2"), new()], expected={"job/1": 0, "job/2": 0})

        assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("job/1", 0, 1)
        assert caught.value.code == "wrong_version"
        assert log.head == 1
        await log.append([new("job/2")], expected={"job/1": 1, "job/2": 0})


async def test_a_decision_sees_all_earlier_events(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:

        def decide(state: Any) -> Sequence[NewEvent]:
            return [new(value=state.count("job/1"))]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(log.execute(decide)) for _ in range(50)]

        assert sorted(task.result()[0].data["value"] for task in tasks) == list(range(50))
        assert await log.fetch("SELECT stream, count FROM counts") == [("job/1", 50)]


class Refused(Exception):
    pass


async def test_a_refused_decision_fails_nobody_else(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:

        def decide(number: int) -> Callable[[Any], Sequence[NewEvent]]:
            def decision(state: Any) -> Sequence[NewEvent]:
                if number % 3 == 0:
                    raise Refused(number)
                if number % 3 == 1:
                    return [
                        new("job/new", value=1),
                        NewEvent(f"job/{number}", "job.other", {"value": object()}),
                    ]
                return [new(f"job/{number}", value=state.count("job/1"))]

            return decision

        outcomes = await asyncio.gather(
            *(log.execute(decide(number)) for number in range(30)), return_exceptions=True
        )

        for number, outcome in enumerate(outcomes):
            expected = (Refused, InvalidEventError, tuple)[number % 3]
            assert isinstance(outcome, expected), outcome
        events = await log.read()
        assert [event.stream for event in events] == [f"job/{number}" for number in range(2, 30, 3)]
        assert [event.seq for event in events] == list(range(1, 11))
        assert (await log.verify()).ok
        assert (await log.rebuild()).equal


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError(), SystemExit(3)])
async def test_no_exception_of_a_decision_reaches_the_writer(opener: Opener, error: BaseException) -> None:
    async with opener() as log:

        def decide(_: Any) -> Sequence[NewEvent]:
            raise error

        with pytest.raises(RuntimeError, match="The decision raised") as caught:
            await log.execute(decide)

        assert caught.value.__cause__ is error
        await log.append([new()])


@pytest.mark.parametrize("part", ["state", "projection"])
async def test_an_event_that_breaks_the_fold_fails_alone(
    opener: Opener, counts: dict[str, Any], part: str
) -> None:
    async with opener(**counts) as log:
        broken = NewEvent("job/bad", "job.noted", {part: "broken"})
        outcomes = await asyncio.gather(
            *(log.append([broken] if number == 4 else [new(value=number)]) for number in range(9)),
            return_exceptions=True,
        )

        assert [type(outcome) for outcome in outcomes] == [tuple] * 4 + [ProjectionError] + [tuple] * 4
        assert "refuses this event" in str(outcomes[4])
        assert await log.fetch("SELECT stream, count FROM counts") == [("job/1", 8)]
        assert [event.seq for event in await log.read()] == list(range(1, 9))
        assert [event.seq for event in log.recent(0) or ()] == list(range(1, 9))
        assert (await log.rebuild()).equal


async def test_a_cursor_commits_with_its_events(opener: Opener) -> None:
    async with opener() as log:
        assert await log.position("scheduler") == 0
        await log.execute(lambda _: [new()], cursor=("scheduler", 7))
        assert await log.position("scheduler") == 7

        def refuse(_: Any) -> Sequence[NewEvent]:
            raise Refused

        with pytest.raises(Refused):
            await log.execute(refuse, cursor=("scheduler", 8))

        assert await log.position("scheduler") == 7
        assert await log.execute(lambda _: (), cursor=("scheduler", 9)) == ()
        assert await log.position("scheduler") == 9
        assert log.head == 1


async def test_a_follower_that_is_behind_its_own_cursor_is_refused(opener: Opener) -> None:
    async with opener() as log:
        await log.execute(lambda _: (), cursor=("scheduler", 7))
        with pytest.raises(StaleCursorError) as caught:
            await log.execute(lambda _: [new()], cursor=("scheduler", 6))

        assert (caught.value.position, caught.value.actual) == (6, 7)
        assert log.head == 0


async def test_an_empty_append_writes_nothing(opener: Opener) -> None:
    async with opener() as log:
        assert await log.append([]) == ()
        assert (await log.statistics()).commits == 0


async def test_reading_filters_and_pages(opener: Opener) -> None:
    async with opener() as log:
        for number in range(12):
            await log.append([new(f"{('job', 'model')[number % 2]}/{number % 4}", f"kind.{number % 3}")])

        async def seqs(**filters: Any) -> list[int]:
            return [event.seq for event in await log.read(**filters)]

        assert await seqs(limit=3) == [1, 2, 3]
        assert await seqs(after=3, before=6) == [4, 5]
        assert await seqs(descending=True, limit=2) == [12, 11]
        assert await seqs(stream="job/0") == [1, 5, 9]
        assert await seqs(stream="job/0", after=1, descending=True) == [9, 5]
        assert await seqs(stream="job/9") == []
        assert await seqs(stream_prefix="model/") == [2, 4, 6, 8, 10, 12]
        assert await seqs(types=["kind.0", "kind.2"], after=6) == [7, 9, 10, 12]
        assert await seqs(types=[]) == []
        assert await seqs(stream_prefix="job/", types=["kind.1"], before=11, descending=True) == [5]


async def test_a_follower_gets_history_then_news(opener: Opener) -> None:
    async with opener() as log:
        await log.append([new(value=number) for number in range(5)])
        seen: list[int] = []
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:

                async def follow() -> None:
                    async for events in log.follow(after=1, limit=2):
                        assert len(events) <= 2
                        seen.extend(event.seq for event in events)
                        if seen[-1] == 8:
                            break

                group.start_soon(follow)
                while len(seen) < 4:
                    await anyio.lowlevel.checkpoint()
                await log.append([new(), new()])
                await log.append([new()])

        assert seen == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("from_file", [False, True])
async def test_a_filtered_follower_passes_over_the_rest(
    opener: Opener, from_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned_events.log._SCAN", 3)
    async with opener() as log:
        if from_file:
            monkeypatch.setattr(log, "recent", lambda _: None)
        for number in range(20):
            await log.append([new("job/rare" if number % 9 == 0 else "job/often", f"kind.{number % 10}")])

        async def first(count: int, **filters: Any) -> list[int]:
            found: list[int] = []
            with anyio.fail_after(10):
                async for events in log.follow(after=0, **filters):
                    found.extend(event.seq for event in events)
                    if len(found) >= count:
                        break
            return found

        assert await first(2, types=["kind.9"]) == [10, 20]
        assert await first(3, stream="job/rare") == [1, 10, 19]
        assert await first(4, stream="job/often", limit=2) == [2, 3, 4, 5]
        assert await first(1, stream="job/rare", types={"kind.8"}) == [19]
        page = await log.scan(after=10, types=["kind.0"])
        assert page.events == [] or page.events[0].seq == 11
        assert 11 <= page.scanned <= 20


async def test_waiting_ends_when_the_head_moves(opener: Opener) -> None:
    async with opener() as log:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(log.wait(1)) for _ in range(10)]
            await log.append([new()])
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            await log.append([new(), new()])

        assert {task.result() for task in waiting} == {3}
        assert await log.wait(0) == 3


def nested(levels: int) -> list[Any]:
    """A list in a list in a list …"""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def test_an_event_may_be_nested_as_deep_as_is_said(opener: Opener) -> None:
    async with opener() as log:
        await log.append([NewEvent("job/1", "job.noted", {"value": nested(MAX_DEPTH - 1)})])
        assert (await log.read())[0].data == {"value": nested(MAX_DEPTH - 1)}


@pytest.mark.parametrize(
    "event",
    [
        NewEvent("job/1", "job.noted", {"value": object()}),
        NewEvent("job/1", "job.noted", {1: 2}),  # type: ignore[dict-item] # what JSON cannot hold
        NewEvent("job/1", "job.noted", {"value": 2**70}),
        NewEvent("job/1", "job.noted", {"value": "\ud800"}),
        NewEvent("job/1", "job.noted", [1]),  # type: ignore[arg-type] # not a mapping
        NewEvent("job/1", "job.noted", {"value": "x" * MAX_DATA_BYTES}),
        NewEvent("job/1", "job.noted", {"value": nested(MAX_DEPTH)}),
        NewEvent("job/1", "job.noted", {"value": nested(1000)}),
        NewEvent("", "job.noted", {}),
        NewEvent("job/\0", "job.noted", {}),
        NewEvent("job/\ud800", "job.noted", {}),
        NewEvent("j" * 513, "job.noted", {}),
        NewEvent("job/1", "", {}),
        NewEvent("job/1", "job.noted", {}, schema=0),
        NewEvent("job/1", "job.noted", {}, schema="1"),  # type: ignore[arg-type] # not a number
        NewEvent("job/1", "job.noted", {}, actor=7),  # type: ignore[arg-type] # not text
        NewEvent("job/1", "job.noted", {}, actor="\ud800"),
        NewEvent("job/1", "job.noted", {}, cause=7),  # type: ignore[arg-type] # not text
    ],
)
async def test_an_event_that_cannot_be_stored_is_refused(opener: Opener, event: NewEvent) -> None:
    async with opener() as log:
        outcomes = await asyncio.gather(
            log.append([new()]), log.append([new(), event]), log.append([new()]), return_exceptions=True
        )

        assert [type(outcome) for outcome in outcomes] == [tuple, InvalidEventError, tuple]
        assert [(one.seq, one.version) for one in await log.read()] == [(1, 1), (2, 2)]
        assert (await log.verify()).ok


async def test_a_follower_needs_a_name(opener: Opener) -> None:
    async with opener() as log:
        with pytest.raises(InvalidEventError, match="follower"):
            await log.execute(lambda _: (), cursor=("", 1))
        with pytest.raises(InvalidEventError, match="stream"):
            await log.append([new()], expected={"": 1})


async def test_only_declared_events_are_taken(opener: Opener) -> None:
    async with opener(known={"job.noted": 2}) as log:
        await log.append([new()])
        await log.append([NewEvent("job/1", "job.noted", {}, schema=2)])
        for event in (new(kind="job.unheard"), NewEvent("job/1", "job.noted", {}, schema=3)):
            with pytest.raises(UnknownEventError):
                await log.append([event])


async def test_events_are_what_a_reader_of_the_file_gets(opener: Opener) -> None:
    async with opener() as log:
        data = {"pair": (1, 2), "loss": math.nan, "deep": {"x": [1.5, None, "ä\0"]}}
        (event,) = await log.append([NewEvent("job/1", "job.noted", data)])
        data["pair"] = (9,)

        assert event.data == {"pair": [1, 2], "loss": None, "deep": {"x": [1.5, None, "ä\0"]}}
        assert await log.read() == [event]


async def test_time_never_goes_back(opener: Opener) -> None:
    ticks = iter([100, 200, 50, 60, 300])
    async with opener(clock=lambda: next(ticks)) as log:
        for _ in range(5):
            await log.append([new()])

        assert [event.at for event in await log.read()] == [100, 200, 200, 200, 300]


async def test_positions_of_one_append_do_not_interleave(opener: Opener) -> None:
    async with opener() as log:
        appended = await asyncio.gather(
            *(log.append([new(f"job/{number}", value=step) for step in range(20)]) for number in range(50))
        )

        for events in appended:
            assert [event.seq for event in events] == list(range(events[0].seq, events[0].seq + 20))
        assert sorted(event.seq for events in appended for event in events) == list(range(1, 1001))


async def test_old_shapes_are_upcast_for_readers_and_state(opener: Opener) -> None:
    upcasters = Upcasters()

    @upcasters.register("job.noted", 1)
    def _(data: Any) -> Any:
        return {"values": [data["value"]]}

    @upcasters.register("job.noted", 2)
    def _(data: Any) -> Any:
        return {"values": data["values"], "unit": "s"}

    applied: list[Any] = []

    class Remembers:
        def apply(self, event: Any) -> None:
            applied.append(event)

        def committed(self) -> None:
            """Forget nothing."""

    async with opener(upcasters=upcasters, model=Replayed(Remembers, upcasters)) as log:
        (event,) = await log.append([new(value=3)])
        assert (event.schema, event.data) == (3, {"values": [3], "unit": "s"})
        assert await log.read() == [event] == applied
        assert (await log.verify()).ok


async def test_a_backup_is_a_log_with_the_same_events(
    opener: Opener, counts: dict[str, Any], tmp_path: Path
) -> None:
    async with opener(**counts) as log:
        events = await log.append([new(value=number) for number in range(300)])
        report = await log.backup(tmp_path / "copy.db")
        assert report.head == await log.anchor()
        assert report.bytes == (tmp_path / "copy.db").stat().st_size
        with pytest.raises(BackupError, match="exists already"):
            await log.backup(tmp_path / "copy.db")
        with pytest.raises(BackupError, match="not written"):
            await log.backup(tmp_path / "nowhere" / "copy.db")

    async with EventLog.open(tmp_path / "copy.db", **counts) as copy:
        assert await copy.read() == list(events)
        assert await copy.fetch("SELECT stream, count FROM counts") == [("job/1", 300)]
        assert (await copy.verify([report.head])).ok
        assert (await copy.rebuild()).equal
        assert (await copy.append([new()]))[0].seq == 301


async def test_an_anchor_that_does_not_fit_is_a_problem(opener: Opener) -> None:
    async with opener() as log:
        assert await log.anchor() == Anchor(0, bytes(32))
        await log.append([new()])
        anchor = await log.anchor()
        assert (await log.verify([anchor, Anchor(0, bytes(32))])).ok
        report = await log.verify([Anchor(1, bytes(32)), Anchor(5, bytes(32))])
        assert len(report.problems) == 2
        assert not report.ok


async def test_a_query_cannot_write(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:
        with pytest.raises(LogReadError, match="readonly") as caught:
            await log.fetch("DELETE FROM counts")
        assert isinstance(caught.value.__cause__, sqlite3.Error)

        await log.append([new()])
        assert await log.fetch("SELECT count(*) FROM counts WHERE stream = ?", ("job/1",)) == [(1,)]


async def test_a_caller_who_gives_up_breaks_nothing(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:
        tasks = [asyncio.create_task(log.append([new(value=number)])) for number in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert not any(isinstance(outcome, BaseException) for outcome in outcomes[1::2])
        await log.append([new(value="last")])
        events = await log.read(limit=1000)
        kept = {event.data["value"] for event in events}
        assert kept >= {*range(1, 200, 2), "last"}
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert (await log.rebuild()).equal


async def test_a_closed_log_says_so(opener: Opener, tmp_path: Path) -> None:
    async with opener() as log:
        await log.append([new()])
        waiting = asyncio.create_task(log.wait(1))
        await asyncio.sleep(0)

    with pytest.raises(LogClosedError):
        await waiting
    for call in (
        log.append([new()]),
        log.read(),
        log.verify(),
        log.rebuild(),
        log.backup(tmp_path / "x"),
        log.wait(9),
    ):
        with pytest.raises(LogClosedError):
            await call


async def test_what_was_queued_before_the_end_is_committed(opener: Opener) -> None:
    async with opener() as log:
        tasks = [asyncio.create_task(log.append([new(value=number)])) for number in range(20)]
        await asyncio.sleep(0)

    assert [task.result()[0].seq for task in tasks] == list(range(1, 21))


async def test_statistics_count(opener: Opener) -> None:
    async with opener() as log:
        await log.append([new(), new()])
        statistics = await log.statistics()

        assert (statistics.head, statistics.queued, statistics.commits, statistics.failed_commits) == (
            2,
            0,
            1,
            0,
        )
        with anyio.fail_after(10):
            while (await log.statistics()).busy_seconds:
                pass
        assert statistics.database_bytes > 0
        assert statistics.read_only is None
        assert log.read_only is None


async def test_rebuilt_projections_equal_the_live_ones(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:
        for number in range(5):
            await log.append([new(f"job/{number % 3}", value=number) for _ in range(300)])
        report = await log.rebuild()

        assert report.equal
        assert (report.head, report.swapped, report.tables[0].rows) == (1500, (), 3)


async def test_a_rebuild_may_race_with_appends(opener: Opener, counts: dict[str, Any]) -> None:
    async with opener(**counts) as log:
        await log.append([new(f"job/{number % 7}", value=number) for number in range(3000)])
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(log.append([new(f"job/{number}", value=number)]))
            rebuilding = group.create_task(log.rebuild())
            for number in range(50):
                group.create_task(log.append([new(f"job/{number}", value=number)]))

        assert rebuilding.result().equal
        assert log.head == 3100


async def test_a_failed_task_on_the_writer_reaches_its_caller(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opener() as log:

        def fail(*_: Any) -> None:
            raise Refused

        monkeypatch.setattr("finetuned_events.rebuild.Scratch.swap", fail)
        with pytest.raises(Refused):
            await log.rebuild()

        await log.append([new()])
