"""Attempts on a full disk: what they report waits and is not lost, and their ends find room."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from tests.small_disk import no_room

from finetuned.attempts import supervision
from finetuned.attempts.ports import Ending, LiveAttempt, NoRoomError
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.supervisor import Supervisor, Timing
from finetuned.attempts.testing import MemoryAttemptLog, fake_spec
from finetuned_sdk.bundle import EXIT_ROOM, Bundle, ExitRecord, RunnerIdentity, Spec
from finetuned_sdk.spool import BadLine, Fact, encode


class Full(MemoryAttemptLog):
    """A log that has room for what is last only."""

    refused = 0

    async def record(
        self, job: str, attempt: int, lines: Sequence[Fact | BadLine], *, last: bool = False
    ) -> None:
        if not last:
            self.refused += 1
            raise NoRoomError("the disk is full")
        await super().record(job, attempt, lines, last=last)


class NoExecutor:
    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        raise AssertionError

    def reap(self) -> None:
        """Nobody."""


class Dying:
    """A runner that lives for so many looks."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    def has_ended(self) -> bool:
        self._left -= 1
        return self._left < 0


async def test_lines_without_room_are_kept_in_order_and_recorded_when_nothing_else_follows(
    tmp_path: Path,
) -> None:
    log = Full()
    entry = log.start(fake_spec())
    (tmp_path / "spool.ndjson").write_bytes(
        b"".join(encode(Fact(line, "progress", line * 10**6, {"current_step": line})) for line in (1, 2, 3))
    )
    timing = Timing(poll=0.001, no_room=0.001)
    supervisor = Supervisor(entry.attempt, Bundle(tmp_path), log, NoExecutor(), timing=timing)
    with anyio.fail_after(10):
        await supervisor._ingest(Dying(looks=3))  # type: ignore[arg-type]
    assert log.refused == 3
    assert [fact.line for fact in entry.facts] == [1, 2, 3]


async def test_an_end_that_finds_no_room_is_tried_again_soon_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.001)
    monkeypatch.setattr(supervision, "ROOM_PAUSE_MAX", 0.002)

    class Ends(MemoryAttemptLog):
        left = 5

        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            if self.left:
                self.left -= 1
                group = [NoRoomError("the disk is full")]
                raise ExceptionGroup("from a task", group) if self.left % 2 else group[0]
            await super().ended(job, attempt, ending)

        async def live(self) -> list[LiveAttempt]:
            return [each.attempt for each in self.entries.values() if each.ending is None]

    log = Ends()
    entry = log.start(fake_spec())
    bundle = Bundle(tmp_path / "job-1" / "attempts" / "1")
    bundle.create(fake_spec())
    bundle.claim(RunnerIdentity(boot_id="of another boot", pid=1, start_time=1, process_group=1))
    bundle.write_exit(ExitRecord(exit_code=0, signal=None))
    kept = Supervision(tmp_path, log, NoExecutor())
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            while entry.ending is None:  # noqa: ASYNC110 - the log tells nobody
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert "waits for room on the disk" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_end_is_written_into_the_room_that_was_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle(tmp_path)
    bundle.reserve_exit()
    assert bundle.exit_room_path.stat().st_blocks * 512 >= EXIT_ROOM
    monkeypatch.setattr("finetuned_sdk.bundle.write_json", no_room)  # a new file finds none
    record = ExitRecord(exit_code=3, signal=None, problem="x" * 3000)
    bundle.write_exit(record)
    assert bundle.read_exit() == record
    assert not bundle.exit_room_path.exists()


def test_without_kept_room_the_end_is_written_all_the_same(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    record = ExitRecord(exit_code=0, signal=None)
    bundle.write_exit(record)
    assert bundle.read_exit() == record


def test_what_a_full_disk_says_is_what_the_supervision_waits_for() -> None:
    assert NoRoomError("full").errno == errno.ENOSPC
