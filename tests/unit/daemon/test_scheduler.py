from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.unit.domain.worlds import end, submission

from finetuned.board import Board
from finetuned.domain import attempt_decisions, decisions, facts
from finetuned.domain.room import Room
from finetuned.domain.situation import Hold
from finetuned.domain.streams import job_event
from finetuned.scheduler import LONGEST_REST_S, MIN_RUN_S, ROOM_PERIOD_S, Scheduler, rest_s
from finetuned.store import Log, open_log
from finetuned_events import LogBrokenError, LogFullError

SLOTS = [{"id": "cpu:0", "kind": "cpu", "name": "slot", "memory_bytes": 1}]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(tmp_path / "log") as opened:
        await opened.execute(lambda world: decisions.devices_detected(world, SLOTS))
        yield opened


async def submit(log: Log, job_id: str) -> None:
    await log.execute(lambda world: decisions.submit(world, job_id, submission(), actor="a"))


async def crash(log: Log, job_id: str, attempt: int) -> None:
    how = end(exit_code=None, signal=9)
    await log.execute(
        lambda world: attempt_decisions.ended(
            world, job_id, attempt, how, attempt_decisions.Prospect(resume_from=None, jitter=1.0)
        )
    )


async def state(board: Board, job_id: str) -> str:
    return (await board.world()).jobs[job_id].state.value


async def test_a_job_that_is_submitted_while_it_runs_is_started(log: Log) -> None:
    board = Board(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Scheduler(log, board).run)
        await submit(log, "job-1")
        with anyio.fail_after(20):
            while await state(board, "job-1") != "starting":
                await log.wait(log.head)
        tasks.cancel_scope.cancel()


async def test_a_job_waits_its_backoff_out_on_the_monotonic_clock(log: Log) -> None:
    clock = Clock()
    board = Board(log)
    scheduler = Scheduler(log, board, clock=clock)
    await submit(log, "job-1")
    await scheduler.step()
    await crash(log, "job-1", 1)

    await scheduler.step()
    assert scheduler.situation().in_backoff == {"job-1"}
    assert await state(board, "job-1") == "queued"
    clock.now += 4.9
    await scheduler.step()
    assert await state(board, "job-1") == "queued"
    clock.now += 0.2
    await scheduler.step()
    assert await state(board, "job-1") == "starting"
    assert scheduler.situation().in_backoff == set()


async def test_a_backoff_that_passes_while_the_scheduler_works_is_seen_at_the_next_look(log: Log) -> None:
    clock = Clock()

    async def slow() -> Room:
        clock.now += 10.0
        return Room()

    scheduler = Scheduler(log, Board(log), room=slow, clock=clock)
    fact = submission(estimate={"host_bytes": 1})
    await log.execute(lambda world: decisions.submit(world, "job-1", fact, actor="a"))
    await scheduler.step()
    await crash(log, "job-1", 1)
    await scheduler.step()
    assert scheduler.situation().in_backoff == {"job-1"}
    assert scheduler.next_look_s() == 0.0
    await scheduler.step()
    assert scheduler.situation().in_backoff == set()


async def test_a_job_for_which_another_left_a_device_in_vain_preempts_nobody_again(log: Log) -> None:
    board, clock = Board(log), Clock()
    strangers: dict[str, Hold] = {}
    scheduler = Scheduler(log, board, holds=lambda: strangers, clock=clock)

    async def run_low(attempt: int) -> None:
        await scheduler.step()
        reported = attempt_decisions.Reported(line=1, fact=facts.AttemptStarted(attempt=attempt))
        await log.execute(lambda world: attempt_decisions.record(world, "low", attempt, [reported]))
        await scheduler.step()
        clock.now += MIN_RUN_S
        await scheduler.step()

    low, urgent = submission(preemptible=True), submission(priority=9, estimate={"device_bytes": 23 << 30})
    await log.execute(lambda world: decisions.submit(world, "low", low, actor="a"))
    await run_low(1)
    await log.execute(lambda world: decisions.submit(world, "urgent", urgent, actor="a"))
    await scheduler.step()
    assert await state(board, "low") == "pausing"
    left = attempt_decisions.Prospect(resume_from="/checkpoint-1", step=1)
    await log.execute(lambda world: attempt_decisions.ended(world, "low", 1, end(exit_code=75), left))
    strangers["cpu:0"] = Hold("pid 812 (Xorg)", free_bytes=9 << 30)
    await run_low(2)
    assert await state(board, "low") == "running"
    assert scheduler.situation().in_vain == {"urgent"}
    await log.execute(lambda world: decisions.cancel(world, "urgent", actor="a"))
    await scheduler.step()
    assert scheduler.situation().in_vain == set()


async def test_a_validation_waits_its_backoff_out_too(log: Log) -> None:
    clock, board = Clock(), Board(log)
    scheduler = Scheduler(log, board, clock=clock)
    fact = submission(validates=True)
    await log.execute(lambda world: decisions.submit(world, "job-1", fact, actor="a"))
    await scheduler.step()
    await crash(log, "job-1", 0)

    await scheduler.step()
    assert scheduler.situation().in_backoff == {"job-1"}
    assert scheduler.next_look_s() == 5.0
    clock.now += 4.9
    await scheduler.step()
    assert len((await board.world()).jobs["job-1"].attempts) == 1
    clock.now += 0.2
    await scheduler.step()
    assert len((await board.world()).jobs["job-1"].attempts) == 2
    assert scheduler.situation().in_backoff == set()


def test_a_long_queue_takes_a_fifth_of_the_event_loop_at_most_and_delays_no_start_for_long() -> None:
    for took in (0.0, 0.001, 0.01):
        assert took <= (took + rest_s(took)) / 5 + 1e-9
    assert rest_s(60.0) == LONGEST_REST_S < 1


async def test_the_device_of_a_job_in_backoff_is_given_to_the_next(log: Log) -> None:
    board = Board(log)
    scheduler = Scheduler(log, board, clock=Clock())
    await submit(log, "job-1")
    await scheduler.step()
    await submit(log, "job-2")
    await crash(log, "job-1", 1)
    await scheduler.step()
    assert await state(board, "job-2") == "starting"


async def test_a_scheduler_with_nothing_new_to_plan_leaves_the_log_alone(log: Log) -> None:
    board = Board(log)
    scheduler = Scheduler(log, board)
    await submit(log, "job-1")
    await scheduler.step()
    commits = (await log.statistics()).commits
    await scheduler.step()
    assert (await log.statistics()).commits == commits


async def test_a_full_disk_delays_the_scheduler_and_does_not_end_it(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(log)
    scheduler = Scheduler(log, board)
    await submit(log, "job-1")
    execute, failures = log.execute, iter([LogFullError()])

    async def fail_once(*arguments: Any, **keywords: Any) -> Any:
        for failure in failures:
            raise failure
        return await execute(*arguments, **keywords)

    monkeypatch.setattr(log, "execute", fail_once)
    monkeypatch.setattr("finetuned.patience.FIRST_PAUSE_S", 0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run)
        with anyio.fail_after(20):
            while await state(board, "job-1") != "starting":
                await log.wait(log.head)
        tasks.cancel_scope.cancel()


async def test_a_device_that_becomes_free_beside_the_log_is_given_out_when_somebody_says_so(log: Log) -> None:
    board = Board(log)
    reserved = {"cpu:0"}
    scheduler = Scheduler(log, board, holds=lambda: {device: Hold("a stray") for device in reserved})
    await submit(log, "job-1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run)
        await anyio.wait_all_tasks_blocked()
        assert await state(board, "job-1") == "queued"
        reserved.clear()
        scheduler.look()
        with anyio.fail_after(20):
            while await state(board, "job-1") != "starting":
                await log.wait(log.head)
        tasks.cancel_scope.cancel()


async def test_a_broken_log_ends_the_scheduler(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_arguments: Any, **_keywords: Any) -> Any:
        raise LogBrokenError

    await submit(log, "job-1")
    monkeypatch.setattr(log, "execute", broken)
    with pytest.raises(LogBrokenError):
        await Scheduler(log, Board(log)).run()


async def test_a_job_that_lacks_memory_is_looked_after_until_there_is_some(log: Log) -> None:
    free = [1]

    async def room() -> Room:
        return Room(memory_bytes=16 << 30, memory_free_bytes=free[0] << 30)

    board, clock = Board(log), Clock()
    scheduler = Scheduler(log, board, room=room, clock=clock)
    fact = submission(estimate={"host_bytes": 8 << 30})
    await log.execute(lambda world: decisions.submit(world, "job-1", fact, actor="a"))
    await scheduler.step()
    assert await state(board, "job-1") == "queued"
    assert scheduler.situation().room is not None
    assert scheduler.next_look_s() == ROOM_PERIOD_S
    clock.now += 2.0
    assert scheduler.next_look_s() == ROOM_PERIOD_S - 2.0
    clock.now += ROOM_PERIOD_S
    assert scheduler.next_look_s() == 0.0
    free[0] = 12
    await scheduler.step()
    assert await state(board, "job-1") == "starting"
    await scheduler.step()
    assert scheduler.next_look_s() == float("inf")


async def test_the_host_is_looked_at_when_who_waits_has_changed_and_not_at_every_commit(log: Log) -> None:
    looks = 0

    async def room() -> Room:
        nonlocal looks
        looks += 1
        return Room(memory_bytes=16 << 30, memory_free_bytes=1 << 30)

    board, clock = Board(log), Clock()
    scheduler = Scheduler(log, board, room=room, clock=clock)
    await submit(log, "job-1")
    await scheduler.step()
    fact = submission(estimate={"host_bytes": 8 << 30})
    await log.execute(lambda world: decisions.submit(world, "job-2", fact, actor="a"))
    await scheduler.step()
    assert looks == 1
    for step in range(3):
        await log.append([job_event("job-1", facts.JobProgress({"current_step": step}), actor="attempt:1")])
        await scheduler.step()
    assert looks == 1
    await log.append([job_event("job-1", facts.AttemptStarted(attempt=1), actor="attempt:1")])
    await scheduler.step()
    assert looks == 2
    clock.now += ROOM_PERIOD_S
    await scheduler.step()
    assert looks == 3


async def test_the_host_is_not_looked_at_for_jobs_without_an_estimate(log: Log) -> None:
    async def room() -> Room:
        pytest.fail("nobody asked")

    board = Board(log)
    await submit(log, "job-1")
    await Scheduler(log, board, room=room).step()
    assert await state(board, "job-1") == "starting"
