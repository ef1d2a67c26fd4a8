"""What of an attempt may take of the log's reserve when the disk is full: its fate, and not its telemetry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.domain.worlds import submission

from finetuned.attempt_log import DaemonAttemptLog
from finetuned.attempt_orders import AttemptSettings
from finetuned.attempts.ports import Alert, Ending, NoRoomError
from finetuned.board import Board
from finetuned.domain import decisions
from finetuned.store import Log, open_log
from finetuned_events import LogFullError
from finetuned_events.reserve import Reserve
from finetuned_sdk import Registry, fake
from finetuned_sdk.spool import BadLine, Fact

JOB = "job-1"
SLOTS = [{"id": "cpu:0", "kind": "cpu", "name": "slot", "memory_bytes": 1}]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(tmp_path / "log", reserve=1 << 20) as opened:
        await opened.execute(lambda world: decisions.devices_detected(world, SLOTS))
        await opened.execute(lambda world: decisions.submit(world, JOB, submission(), actor="a"))
        await opened.execute(lambda world: decisions.schedule(world, elapsed=frozenset()))
        yield opened


@pytest.fixture
def port(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DaemonAttemptLog:
    """The port over a log on whose disk room is left for necessary events only."""
    monkeypatch.setattr(Reserve, "is_whole", False)
    monkeypatch.setattr(Reserve, "restore", lambda _: None)
    registry = Registry()
    registry.job_kind(fake.FAKE)
    settings = AttemptSettings(allow_remote_code=False, grace_s=10)
    return DaemonAttemptLog(log, Board(log), registry, settings, tmp_path / "jobs", jitter=lambda: 0)


def line(kind: str, data: dict[str, Any], number: int = 1) -> Fact:
    return Fact(number, kind, 0, data)


async def types(log: Log) -> list[str]:
    return [event.type for event in await log.read(stream=f"job/{JOB}")][2:]


async def test_telemetry_alone_waits(log: Log, port: DaemonAttemptLog) -> None:
    with pytest.raises(NoRoomError, match="free some space"):
        await port.record(JOB, 1, [line("progress", {"current_step": 1})])
    assert await types(log) == []


async def test_telemetry_is_recorded_before_an_end(log: Log, port: DaemonAttemptLog) -> None:
    await port.record(JOB, 1, [line("progress", {"current_step": 1})], last=True)
    await port.ended(JOB, 1, Ending(exit_code=1))
    assert await types(log) == ["job.progress", "attempt.ended", "job.queued"]


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (line("hello", {}), "attempt.started"),
        (line("checkpoint", {"step": 1, "path": "/c", "bytes": 3, "metrics": {}}), "checkpoint.saved"),
        (line("error", {"code": "disk_full", "message": "m", "retryable": True}), "attempt.error"),
        (BadLine(1, "the line is damaged"), "attempt.line_rejected"),
    ],
)
async def test_what_its_fate_hangs_on_is_recorded_with_what_came_before(
    log: Log, port: DaemonAttemptLog, said: Any, event: str
) -> None:
    await port.record(JOB, 1, [said])
    assert await types(log) == [event]


async def test_what_the_watch_saw_is_recorded(log: Log, port: DaemonAttemptLog) -> None:
    await port.intervened(JOB, 1, Alert(subject="disk", message="little is free"))
    assert await types(log) == ["attempt.alert"]


@pytest.mark.usefixtures("port")
async def test_no_new_job_takes_of_it(log: Log) -> None:
    with pytest.raises(LogFullError):
        await log.execute(lambda world: decisions.submit(world, "job-2", submission(), actor="a"))
    await log.execute(lambda world: decisions.cancel(world, JOB, actor="a"), necessary=True)
