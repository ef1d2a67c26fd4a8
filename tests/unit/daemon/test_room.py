"""Room on the disk: the gate closes with the numbers, who runs is told once, and it opens again by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuned.attempts.ports import Alert, LiveAttempt, NoRoomError
from finetuned.storage import room
from finetuned.storage.room import RoomGate
from finetuned_events import LogBrokenError

GB = 1_000_000_000


class Attempts:
    """Two live attempts, and what they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Alert]] = []
        self.failure: Exception | None = None

    async def live(self) -> list[LiveAttempt]:
        return [LiveAttempt(job=f"job-{n}", number=n, purpose="run", line=0) for n in (1, 2)]

    async def intervened(self, job: str, _attempt: int, what: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append((job, what))


class Disk:
    """What the gate sees."""

    def __init__(self) -> None:
        self.free = 10 * GB
        self.is_short = False
        self.replenished = 0
        self.changes = 0

    async def replenish(self) -> None:
        self.replenished += 1

    def change(self) -> None:
        self.changes += 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(room, "free_bytes", lambda _directory: found.free)
    return found


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def gate(disk: Disk, attempts: Attempts) -> RoomGate:
    return RoomGate(
        Path("/state"),
        GB,
        attempts,  # type: ignore[arg-type]
        is_short=lambda: disk.is_short,
        replenish=disk.replenish,
        changed=disk.change,
    )


async def test_while_there_is_room_nobody_hears_of_it(gate: RoomGate, disk: Disk, attempts: Attempts) -> None:
    assert gate.closed is None
    await gate.look()
    assert (gate.closed, attempts.told, disk.changes) == (None, [], 0)


async def test_too_little_closes_the_gate_with_the_numbers_and_each_attempt_is_told_once(
    gate: RoomGate, disk: Disk, attempts: Attempts
) -> None:
    disk.free = 400_000_000
    await gate.look()
    await gate.look()
    assert gate.closed == ("only 400.0 MB are free under /state; 1.0 GB are kept free (min_free_disk_bytes)")
    assert [job for job, _ in attempts.told] == ["job-1", "job-2"]
    alert = attempts.told[0][1]
    assert alert.subject == "disk"
    assert alert.figures == {"free_bytes": 400_000_000, "min_free_disk_bytes": GB}
    assert "finetune delete" in alert.message
    assert disk.changes == 1


async def test_it_opens_again_only_when_there_is_somewhat_more_and_the_next_crossing_is_told_again(
    gate: RoomGate, disk: Disk, attempts: Attempts
) -> None:
    disk.free = GB - 1
    await gate.look()
    disk.free = GB + 1  # to and fro about the threshold
    await gate.look()
    assert disk.changes == 1
    disk.free = 2 * GB
    await gate.look()
    assert gate.closed is None
    assert disk.changes == 2
    disk.free = 0
    await gate.look()
    assert len(attempts.told) == 4


async def test_a_log_without_room_closes_the_gate_and_is_made_to_look_for_some(
    gate: RoomGate, disk: Disk, attempts: Attempts
) -> None:
    """As with ``min_free_disk_bytes = 0``, or a quota that says nothing of what is free."""
    disk.is_short = True
    await gate.look()
    reason = gate.closed
    assert reason is not None
    assert "is full" in reason
    assert (disk.replenished, attempts.told) == (1, [])


async def test_who_cannot_be_told_does_not_keep_the_gate_from_closing(
    gate: RoomGate, disk: Disk, attempts: Attempts
) -> None:
    disk.free, attempts.failure = 0, NoRoomError("full")
    await gate.look()
    assert "0 kB are free" in (gate.closed or "")
    assert disk.changes == 1


async def test_a_broken_log_is_not_passed_over(gate: RoomGate, disk: Disk, attempts: Attempts) -> None:
    disk.free, attempts.failure = 0, LogBrokenError()
    with pytest.raises(LogBrokenError):
        await gate.look()
