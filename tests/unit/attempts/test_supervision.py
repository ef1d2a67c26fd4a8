from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from finetuned.attempts import identity, supervision
from finetuned.attempts.launcher import LocalExecutor, runner_environment
from finetuned.attempts.ports import Ending, LiveAttempt, SpecUnavailableError
from finetuned.attempts.runner import write_exit
from finetuned.attempts.supervision import Supervision, find_strays
from finetuned.attempts.supervisor import Supervisor, Timing
from finetuned.attempts.testing import MemoryAttemptLog, fake_spec
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk.bundle import Bundle, ExitRecord, RunnerIdentity, Spec
from finetuned_sdk.spool import BadLine, Fact, encode


class FailingExecutor:
    """Cannot start anything; counts how often it was asked to."""

    def __init__(self) -> None:
        self.asked = 0

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        self.asked += 1
        raise OSError(28, "No space left on device")

    def reap(self) -> None: ...


class WaitingExecutor(FailingExecutor):
    """Takes its time."""

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        self.asked += 1
        await anyio.sleep_forever()


@asynccontextmanager
async def running(kept: Supervision) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(kept.run)
        yield
        tasks.cancel_scope.cancel()


async def test_a_runner_that_cannot_be_started_ends_the_attempt_with_the_reason(tmp_path: Path) -> None:
    log = MemoryAttemptLog()
    log.start(fake_spec())
    async with running(Supervision(tmp_path, log, FailingExecutor())):
        ending = await log.until_ended("job-1", 1)
    assert ending.lost == "its runner could not be started: [Errno 28] No space left on device"


async def test_a_specification_that_cannot_be_made_ends_the_attempt_with_the_reason(tmp_path: Path) -> None:
    class Unloaded(MemoryAttemptLog):
        async def spec(self, job: str, attempt: int) -> Spec:
            raise SpecUnavailableError("The plugin is not loaded.")

    log = Unloaded()
    log.start(fake_spec())
    async with running(Supervision(tmp_path, log, LocalExecutor())):
        ending = await log.until_ended("job-1", 1)
    assert ending.lost == "The plugin is not loaded."


async def test_a_start_that_was_given_up_before_the_restart_stays_given_up(tmp_path: Path) -> None:
    log = MemoryAttemptLog()
    log.start(fake_spec())
    kept = Supervision(tmp_path, log, FailingExecutor())
    bundle = kept.bundle("job-1", 1)
    bundle.create(fake_spec())
    bundle.revoke()
    async with running(kept):
        ending = await log.until_ended("job-1", 1)
    assert ending.lost == "its start was given up"


async def test_an_attempt_that_starts_later_is_noticed_when_told(tmp_path: Path) -> None:
    log = MemoryAttemptLog()
    kept = Supervision(tmp_path, log, FailingExecutor())
    async with running(kept):
        log.start(fake_spec())
        kept.notice()
        await log.until_ended("job-1", 1)


async def test_an_attempt_that_nobody_told_of_is_noticed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RECONCILE_INTERVAL", 0.02)
    log = MemoryAttemptLog()
    async with running(Supervision(tmp_path, log, FailingExecutor())):
        log.start(fake_spec())
        await log.until_ended("job-1", 1)


async def test_one_attempt_that_cannot_be_looked_at_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "ATTACH_BUDGET", 0.05)
    log = MemoryAttemptLog()
    log.start(fake_spec())
    kept = Supervision(tmp_path, log, WaitingExecutor())
    with caplog.at_level(logging.WARNING):
        async with running(kept):
            assert kept.supervised == {("job-1", 1)}
    assert "was not found within 0.05 s" in caplog.text


async def test_a_supervisor_that_breaks_is_begun_anew_until_the_attempt_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)
    failures = 3

    class Unsteady(MemoryAttemptLog):
        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            nonlocal failures
            failures -= 1
            if failures:
                raise RuntimeError("the log is busy")
            await super().ended(job, attempt, ending)

    log = Unsteady()
    log.start(fake_spec())
    async with running(Supervision(tmp_path, log, FailingExecutor())):
        await log.until_ended("job-1", 1)
    assert failures == 0


async def test_an_attempt_that_ended_in_the_log_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)

    class Unsure(MemoryAttemptLog):
        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            await super().ended(job, attempt, ending)
            raise RuntimeError("the answer was lost")

    log = Unsure()
    log.start(fake_spec())
    kept = Supervision(tmp_path, log, FailingExecutor())
    async with running(kept):
        with anyio.fail_after(20):
            while kept.supervised:  # noqa: ASYNC110 - looked at from outside
                await anyio.sleep(0.005)
    assert log.entries["job-1", 1].ending is not None


async def test_nothing_is_started_while_everything_is_being_ended(tmp_path: Path) -> None:
    log, executor = MemoryAttemptLog(), FailingExecutor()
    kept = Supervision(tmp_path, log, executor)
    async with running(kept):
        await kept.kill_all()
        log.start(fake_spec())
        kept.notice()
        await anyio.wait_all_tasks_blocked()
    assert executor.asked == 0
    assert log.entries["job-1", 1].ending is None


async def test_a_revocation_that_comes_too_late_leaves_the_attempt_to_its_runner(tmp_path: Path) -> None:
    class Late(FailingExecutor):
        """Fails, but a runner of before has just claimed the bundle."""

        async def launch(self, bundle: Bundle, spec: Spec) -> None:
            await anyio.to_thread.run_sync(self._claim, bundle, spec)
            raise OSError(12, "Cannot allocate memory")

        def _claim(self, bundle: Bundle, spec: Spec) -> None:
            bundle.create(spec)
            bundle.claim(RunnerIdentity(boot_id="earlier", pid=1, start_time=1, process_group=1))

    log = MemoryAttemptLog()
    entry = log.start(fake_spec())
    async with running(Supervision(tmp_path, log, Late())):
        ending = await log.until_ended("job-1", 1)
    assert [runner.boot_id for runner in entry.runners] == ["earlier"]
    assert ending.lost == "the machine was restarted while it ran"


def stray(jobs: Path, **files: object) -> Bundle:
    bundle = Bundle(jobs / "job-s" / "attempts" / "1")
    bundle.create(fake_spec("job-s", devices=("cpu:0",)))
    bundle.claim(identity.own())
    for name, content in files.items():
        (bundle.path / f"{name}.json").write_text(json.dumps(content))
    return bundle


def test_a_running_bundle_that_is_not_known_is_a_stray(tmp_path: Path) -> None:
    stray(tmp_path)
    (tmp_path / "job-s" / "attempts" / "notes").mkdir()
    (found,) = find_strays(tmp_path, frozenset())
    assert (found.job, found.attempt, found.devices) == ("job-s", 1, ("cpu:0",))
    assert find_strays(tmp_path, frozenset({("job-s", 1)})) == []


@pytest.mark.parametrize(
    "files",
    [
        {"exit": {"exit_code": 0, "signal": None}},
        {"runner": {"boot_id": "b", "pid": 1, "start_time": 1, "process_group": 1}},
        {"runner": {"revoked": True}},
        {"runner": {"pid": 1}},
        {"spec": []},
    ],
)
def test_what_does_not_run_or_cannot_be_read_is_no_stray(tmp_path: Path, files: dict[str, object]) -> None:
    stray(tmp_path, **files)
    assert find_strays(tmp_path, frozenset()) == []


def test_the_daemons_own_settings_do_not_reach_its_workers() -> None:
    environment = {"PATH": "/bin", "NOTIFY_SOCKET": "/s", "FINETUNED_TOKEN": "t", "HF_HOME": "/h"}
    assert runner_environment(environment) == {"PATH": "/bin", "HF_HOME": "/h"}


def test_an_exit_record_waits_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, tries = Bundle(tmp_path), 0
    write = bundle.write_exit

    def fail_twice(record: ExitRecord) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(28, "No space left on device")
        write(record)

    monkeypatch.setattr(bundle, "write_exit", fail_twice)
    write_exit(bundle, ExitRecord(exit_code=0, signal=None), pause=0)
    assert bundle.read_exit() == ExitRecord(exit_code=0, signal=None)


async def test_a_hint_is_heeded_before_the_next_look_is_due(tmp_path: Path) -> None:
    """The poll is an hour away: only the hint, and the runner's death, can bring the lines."""
    log = MemoryAttemptLog()
    entry = log.start(fake_spec(params={"steps": 1000, "step_seconds": 0.05}))
    bundle = Bundle(tmp_path / "job-1" / "attempts" / "1")
    executor = LocalExecutor()
    supervisor = Supervisor(
        entry.attempt, bundle, log, executor, timing=Timing(poll=3600, poll_idle=3600, start_poll=0.01)
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.run)
        await supervisor.attached.wait()
        with anyio.fail_after(20):
            while not entry.facts:
                supervisor.hint()
                await anyio.sleep(0.02)
        supervisor.request_stop("enough")
        ending = await log.until_ended("job-1", 1)
    assert ending.exit_code == 75


class LastWords(ProcessWatch):
    """A process whose last line is written at the moment at which it is first seen dead."""

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        self._path = path
        self._looks = 0

    def has_ended(self) -> bool:
        self._looks += 1
        if self._looks == 2:
            self._path.write_bytes(encode(Fact(1, "result", 1, {"values": {}})))
        return self._looks >= 2


async def test_what_was_written_just_before_death_is_recorded(tmp_path: Path) -> None:
    log = MemoryAttemptLog()
    entry = log.start(fake_spec())
    timing = Timing(poll=0.01)
    supervisor = Supervisor(entry.attempt, Bundle(tmp_path), log, FailingExecutor(), timing=timing)
    await supervisor._ingest(LastWords(tmp_path / "spool.ndjson"))
    assert [fact.type for fact in entry.facts] == ["result"]


class TestMemoryAttemptLog:
    """The fake refuses what the log refuses."""

    async def test_a_line_counts_once(self) -> None:
        log = MemoryAttemptLog()
        log.start(fake_spec())
        await log.record("job-1", 1, [BadLine(1, "x")])
        with pytest.raises(ValueError, match="recorded already"):
            await log.record("job-1", 1, [BadLine(1, "x")])

    async def test_an_end_is_an_end(self) -> None:
        log = MemoryAttemptLog()
        log.start(fake_spec())
        await log.ended("job-1", 1, Ending(exit_code=0))
        with pytest.raises(ValueError, match="has ended"):
            await log.ended("job-1", 1, Ending(exit_code=1))
        with pytest.raises(ValueError, match="has ended"):
            await log.record("job-1", 1, [])

    async def test_a_cancelled_attempt_is_live_with_its_reason(self) -> None:
        log = MemoryAttemptLog()
        log.start(fake_spec())
        log.cancel("job-1", 1, "no longer wanted")
        assert await log.live() == [
            LiveAttempt(job="job-1", number=1, purpose="run", line=0, stop="no longer wanted")
        ]
