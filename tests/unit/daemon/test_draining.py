"""The drain, and what ends a daemon."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from tests.unit.domain.worlds import end, submission

from finetuned.board import Board
from finetuned.domain import attempt_decisions, decisions, facts
from finetuned.domain.errors import Rejected
from finetuned.domain.streams import job_event
from finetuned.domain.world import World
from finetuned.draining import Drain
from finetuned.machine import shutdown
from finetuned.stopping import Stop
from finetuned.store import Log, open_log
from finetuned_events import LogFullError, NewEvent

SLOTS = [{"id": f"cpu:{number}", "kind": "cpu", "name": "slot", "memory_bytes": 1} for number in range(2)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(tmp_path / "log") as opened:
        await opened.execute(lambda world: decisions.devices_detected(world, SLOTS))
        yield opened


async def board_of(log: Log) -> Board:
    """A board that has read what is there: its first look is at files."""
    board = Board(log)
    await board.world()
    return board


async def start(log: Log, job_id: str) -> None:
    """A job whose trainer reported for work."""
    await log.execute(lambda world: decisions.submit(world, job_id, submission(), actor="a"))
    await log.execute(lambda world: decisions.schedule(world, elapsed=frozenset()))
    await log.append([job_event(job_id, facts.AttemptStarted(attempt=1), actor="attempt:1")])


async def leave(log: Log, job_id: str) -> None:
    """Its trainer leaves as it was asked to."""
    await log.execute(
        lambda world: attempt_decisions.ended(
            world, job_id, 1, end(exit_code=75), attempt_decisions.Prospect(resume_from="/c", step=3)
        )
    )


async def states(log: Log) -> dict[str, str]:
    """The live jobs' states, as the log's writer has them."""
    found: dict[str, str] = {}

    def look(world: World) -> list[NewEvent]:
        found.update({job.id: job.state.value for job in world.live_jobs()})
        return []

    await log.execute(look)
    return found


async def test_a_drain_is_done_once_what_ran_has_left_and_would_go_on_by_itself(log: Log) -> None:
    await start(log, "job-1")
    drain = Drain(log, await board_of(log))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain.run)
        await drain.begin("pause", actor="uid:0")
        assert await states(log) == {"job-1": "pausing"}
        assert drain.closed is not None
        assert not drain.done.is_set()
        await leave(log, "job-1")
        with anyio.fail_after(20):
            await drain.done.wait()
    assert await states(log) == {"job-1": "queued"}


async def test_a_drain_that_lets_things_finish_asks_nobody_to_leave(log: Log) -> None:
    await start(log, "job-1")
    drain = Drain(log, await board_of(log))
    await drain.begin("finish", actor="uid:0")
    assert await states(log) == {"job-1": "running"}
    assert [job.id for job in await drain.live()] == ["job-1"]


async def test_what_was_being_started_at_the_moment_of_the_drain_leaves_too(log: Log) -> None:
    await start(log, "job-1")
    drain = Drain(log, await board_of(log))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain.run)
        await drain.begin("pause", actor="uid:0")
        await start(log, "job-2")  # a claim that was under way
        with anyio.fail_after(20):
            await until(log, "job-2", "pausing")
        tasks.cancel_scope.cancel()


async def test_a_drain_that_is_taken_back_opens_the_queue_again(log: Log) -> None:
    called: list[str | None] = []
    drain = Drain(log, await board_of(log), changed=lambda: called.append(drain.closed))
    await start(log, "job-1")
    await drain.begin("pause", actor="uid:0")
    drain.take_back()
    assert drain.closed is None
    assert [each is None for each in called] == [False, True]
    with pytest.raises(Rejected, match="nothing to take back"):
        drain.take_back()


async def refused(_decide: object) -> None:
    raise Rejected("key_reused", "The key was used for another request.")


async def test_a_drain_that_is_refused_starts_nothing_and_changes_nothing(log: Log) -> None:
    called: list[str | None] = []
    drain = Drain(log, await board_of(log), changed=lambda: called.append(drain.closed))
    with pytest.raises(Rejected):
        await drain.begin("pause", actor="uid:0", append=refused)
    assert (drain.mode, drain.closed) == (None, None)
    assert called[-1] is None
    await drain.begin("finish", actor="uid:0")
    with pytest.raises(Rejected):
        await drain.begin("pause", actor="uid:0", append=refused)
    assert drain.mode == "finish"


async def test_a_drain_whose_request_is_cancelled_before_it_is_in_the_log_leaves_the_queue_open(
    log: Log,
) -> None:
    drain = Drain(log, await board_of(log))

    async def never(_decide: object) -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(drain.begin, "pause", actor="uid:0", append=never))
        await anyio.wait_all_tasks_blocked()
        assert drain.closed is not None
        tasks.cancel_scope.cancel()
    assert drain.closed is None


async def test_a_drain_that_is_taken_back_before_it_is_in_the_log_begins_only_when_asked_again(
    log: Log,
) -> None:
    drain = Drain(log, await board_of(log))

    async def taken_back(_decide: object) -> None:
        await anyio.lowlevel.checkpoint()
        drain.take_back()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain.run)
        await anyio.wait_all_tasks_blocked()
        await drain.begin("pause", actor="uid:0", append=taken_back)
        await anyio.wait_all_tasks_blocked()
        assert (drain.mode, drain.done.is_set()) == (None, False)
        await drain.begin("finish", actor="uid:0")
        with anyio.fail_after(20):
            await drain.done.wait()


async def until(log: Log, job_id: str, state: str) -> None:
    """Wait until a job is in a state."""
    while True:
        head = log.head
        if (await states(log))[job_id] == state:
            return
        await log.wait(head)


class Signals:
    """Signals that come when the test sends them."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[signal.Signals](10)

    def send(self, number: signal.Signals) -> None:
        self._send.send_nowait(number)

    def __aiter__(self) -> AsyncIterator[signal.Signals]:
        return self._receive.__aiter__()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


def answering(answer: bool) -> Callable[[], Awaitable[bool]]:
    async def is_shutting_down() -> bool:
        await anyio.lowlevel.checkpoint()
        return answer

    return is_shutting_down


async def stop_of(log: Log, *, shutting_down: bool, timeout_s: float) -> Stop:
    return Stop(
        Drain(log, await board_of(log)),
        say=lambda _line: None,
        drain_timeout_s=timeout_s,
        is_shutting_down=answering(shutting_down),
    )


async def test_a_signal_ends_the_daemon_and_asks_no_job_to_leave(log: Log) -> None:
    await start(log, "job-1")
    signals = Signals()
    stop = await stop_of(log, shutting_down=False, timeout_s=60)
    signals.send(signal.SIGTERM)
    with anyio.fail_after(20):
        await stop.wait(signals)
    signals.close()
    assert await states(log) == {"job-1": "running"}


async def test_while_the_system_stops_jobs_leave_first_and_the_service_manager_waits(log: Log) -> None:
    await start(log, "job-1")
    said: list[str] = []
    signals = Signals()
    drain = Drain(log, await board_of(log))
    stop = Stop(drain, say=said.append, drain_timeout_s=60, is_shutting_down=answering(True))
    signals.send(signal.SIGTERM)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop.wait, signals)
        with anyio.fail_after(20):
            await until(log, "job-1", "pausing")
            await leave(log, "job-1")
            await drain.done.wait()
    signals.close()
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in said)


@pytest.mark.parametrize("mode", ["finish", "pause"])
async def test_the_end_of_the_system_has_jobs_leave_although_a_drain_is_under_way(
    log: Log, mode: Literal["finish", "pause"]
) -> None:
    await start(log, "job-1")
    signals = Signals()
    drain = Drain(log, await board_of(log))
    await drain.begin(mode, actor="uid:0")
    stop = Stop(drain, say=lambda _line: None, drain_timeout_s=60, is_shutting_down=answering(True))
    signals.send(signal.SIGTERM)
    ended = False

    async def wait() -> None:
        nonlocal ended
        await stop.wait(signals)
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        with anyio.fail_after(20):
            await until(log, "job-1", "pausing")
            await anyio.wait_all_tasks_blocked()
            assert not ended  # it is waited for
            await leave(log, "job-1")
            await drain.done.wait()
    signals.close()


async def test_a_job_that_does_not_leave_in_time_does_not_hold_up_the_end_of_the_system(log: Log) -> None:
    await start(log, "job-1")
    signals = Signals()
    stop = await stop_of(log, shutting_down=True, timeout_s=0.01)
    signals.send(signal.SIGTERM)
    with anyio.fail_after(20):
        await stop.wait(signals)
    signals.close()


async def test_a_log_that_is_full_delays_the_end_of_the_system_and_does_not_end_the_daemon(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(log, "job-1")
    signals, stop, execute = Signals(), await stop_of(log, shutting_down=True, timeout_s=60), log.execute

    refused = 0

    async def full_at_first(*arguments: Any, necessary: bool = False, **keywords: Any) -> Any:
        nonlocal refused
        if necessary and not refused:
            refused += 1
            raise LogFullError
        return await execute(*arguments, necessary=necessary, **keywords)

    monkeypatch.setattr(log, "execute", full_at_first)
    monkeypatch.setattr("finetuned.patience.FIRST_PAUSE_S", 0.0)
    signals.send(signal.SIGTERM)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop.wait, signals)
        with anyio.fail_after(20):
            await until(log, "job-1", "pausing")
        tasks.cancel_scope.cancel()
    signals.close()
    assert refused


async def test_a_second_signal_ends_a_drain_at_once(log: Log) -> None:
    await start(log, "job-1")
    signals = Signals()
    stop = await stop_of(log, shutting_down=True, timeout_s=60)
    signals.send(signal.SIGTERM)
    signals.send(signal.SIGTERM)
    with anyio.fail_after(20):
        await stop.wait(signals)
    signals.close()
    assert await states(log) == {"job-1": "pausing"} or await states(log) == {"job-1": "running"}


def saying(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r}); raise SystemExit(1)"]


@pytest.mark.parametrize(
    ("answer", "expected"), [("stopping", True), ("degraded", False), ("running", False)]
)
async def test_the_system_is_asked_whether_it_stops(tmp_path: Path, answer: str, *, expected: bool) -> None:
    found = await shutdown.is_under_way(booted=tmp_path, commands=[saying("running"), saying(answer)])
    assert found is expected


async def test_where_systemd_is_not_the_system_does_not_stop(tmp_path: Path) -> None:
    assert not await shutdown.is_under_way(booted=tmp_path / "none", commands=[saying("stopping")])


async def test_a_system_that_cannot_be_asked_is_not_stopping(tmp_path: Path) -> None:
    assert not await shutdown.is_under_way(booted=tmp_path, commands=[[str(tmp_path / "no-systemctl")]])
