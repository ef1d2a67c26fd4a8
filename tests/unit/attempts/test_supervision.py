from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from finetuned.attempts import identity, strays, supervision, temporary
from finetuned.attempts.ladder import Ladder
from finetuned.attempts.launcher import (
    KEPT_READABLE,
    LocalExecutor,
    runner_environment,
    withheld_secrets,
)
from finetuned.attempts.liveness import Signs
from finetuned.attempts.monitor import Monitor
from finetuned.attempts.ports import (
    Ending,
    LiveAttempt,
    NoRoomError,
    SpecUnavailableError,
    StopOrder,
    Timeouts,
)
from finetuned.attempts.runner import write_exit
from finetuned.attempts.strays import find_strays
from finetuned.attempts.supervision import Supervision
from finetuned.attempts.supervisor import Supervisor, Timing
from finetuned.attempts.tail import SpoolTail
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
        raise OSError(13, "Permission denied")

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
    assert ending.lost == "its runner could not be started: [Errno 13] Permission denied"


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


@pytest.mark.parametrize("code", [None, "secret_unsafe"])
async def test_why_a_start_was_given_up_is_told_by_the_next_daemon_if_the_log_had_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(supervision, "ATTACH_BUDGET", 0.05)

    class Unsafe(MemoryAttemptLog):
        asked = False
        is_full = True

        async def spec(self, job: str, attempt: int) -> Spec:
            self.asked = True
            raise SpecUnavailableError("its secret hf can be read by others.", code=code)

        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            if self.is_full:
                raise NoRoomError("the disk is full")
            await super().ended(job, attempt, ending)

    log = Unsafe()
    log.start(fake_spec())
    kept = Supervision(tmp_path, log, FailingExecutor())
    async with running(kept):
        with anyio.fail_after(20):
            while not kept.bundle("job-1", 1).is_revoked:  # noqa: ASYNC110 - looked at from outside
                await anyio.sleep(0.005)
    log.asked = log.is_full = False
    async with running(Supervision(tmp_path, log, FailingExecutor())):
        ending = await log.until_ended("job-1", 1)
    assert (ending.lost, ending.refused) == ("its secret hf can be read by others.", code)
    assert not log.asked


async def test_an_attempt_that_is_stopped_before_it_starts_says_so_also_to_the_next_daemon(
    tmp_path: Path,
) -> None:
    log, executor = MemoryAttemptLog(), FailingExecutor()
    entry = log.start(fake_spec())
    log.cancel("job-1", 1, "lunch")
    async with running(Supervision(tmp_path, log, executor)):
        told = await log.until_ended("job-1", 1)
    entry.ending = None  # as if that daemon had died just before it was recorded
    async with running(Supervision(tmp_path, log, executor)):
        again = await log.until_ended("job-1", 1)
    assert told == again == Ending(lost="it was stopped before it started", asked="lunch")
    assert executor.asked == 0


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


@pytest.mark.parametrize(
    "content", ['{"boot_id": 1, "pid": "x", "start_time": [], "process_group": {}}', "\x00", "[]", "{}"]
)
def test_one_broken_bundle_hides_no_stray(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "boot_id", lambda: 1)  # so that the broken identity is looked at, too
    stray(tmp_path)
    broken = Bundle(tmp_path / "job-a" / "attempts" / "1")
    broken.create(fake_spec("job-a"))
    broken.runner_path.write_text(content)
    (tmp_path / "job-a" / "attempts" / "²").mkdir()  # a digit, and no number
    (tmp_path / "job-a" / "attempts" / "3").write_text("no directory")
    assert [found.job for found in find_strays(tmp_path, frozenset())] == ["job-s"]
    assert "job-a/attempts/1" in caplog.text


async def test_a_full_disk_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)

    class Full(LocalExecutor):
        left = 3

        async def launch(self, bundle: Bundle, spec: Spec) -> None:
            self.left -= 1
            if self.left:
                raise OSError(errno.ENOSPC if self.left == 2 else errno.EDQUOT, "no room")
            await super().launch(bundle, spec)

    log = MemoryAttemptLog()
    log.start(fake_spec(params={"steps": 1}))
    async with running(Supervision(tmp_path, log, Full())):
        ending = await log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert caplog.text.count("waits for room on the disk") == 2
    assert "Traceback" not in caplog.text


class Quiet(MemoryAttemptLog):
    """Says once, when told to, that it cannot be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    async def live(self) -> list[LiveAttempt]:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return await super().live()


async def test_a_log_that_cannot_be_asked_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)
    log = Quiet()
    kept = Supervision(tmp_path, log, FailingExecutor())
    async with running(kept):
        log.error = RuntimeError("the disk is full")
        log.start(fake_spec())
        kept.notice()
        await log.until_ended("job-1", 1)
    assert "the disk is full" in caplog.text


async def test_a_log_that_fails_while_a_supervisor_is_made_anew_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RETRY_PAUSE", 0.01)

    class Failing(Quiet):
        failed = False

        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            if not self.failed:
                self.failed, self.error = True, RuntimeError("the disk is full")
                raise RuntimeError("the log is busy")
            await super().ended(job, attempt, ending)

    log = Failing()
    log.start(fake_spec())
    async with running(Supervision(tmp_path, log, FailingExecutor())):
        await log.until_ended("job-1", 1)
    assert log.error is None


class BrokenError(Exception):
    """Nothing can go on."""


async def test_a_fatal_error_of_the_log_ends_the_supervision(tmp_path: Path) -> None:
    log = Quiet()
    kept = Supervision(tmp_path, log, FailingExecutor(), fatal=(BrokenError,))

    async def run() -> None:
        async with running(kept):
            log.error = BrokenError("the log is broken")
            kept.notice()
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(BrokenError)


async def test_a_fatal_error_ends_the_supervision_also_from_within_a_supervisor(tmp_path: Path) -> None:
    class Broken(MemoryAttemptLog):
        async def record(
            self, job: str, attempt: int, lines: Sequence[Fact | BadLine], *, last: bool = False
        ) -> None:
            raise BrokenError

    log = Broken()
    log.start(fake_spec(params={"steps": 1}))
    kept = Supervision(tmp_path, log, LocalExecutor(), fatal=(BrokenError,))
    with pytest.raises(ExceptionGroup) as caught, anyio.fail_after(30):
        async with running(kept):
            await anyio.sleep_forever()
    assert caught.group_contains(BrokenError)


async def test_ending_everything_does_not_wait_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(MemoryAttemptLog):
        async def ended(self, job: str, attempt: int, ending: Ending) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    log = Full()
    log.start(fake_spec())
    kept = Supervision(tmp_path, log, FailingExecutor())
    async with running(kept):
        with anyio.fail_after(20):
            await kept.kill_all(deadline=0.05)
    assert "1 attempts have not ended within 0.05 s" in caplog.text


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def identify(process: subprocess.Popen[bytes]) -> RunnerIdentity:
    started = identity.start_time(process.pid)
    assert started is not None
    return RunnerIdentity(
        boot_id=identity.boot_id(), pid=process.pid, start_time=started, process_group=process.pid
    )


async def test_the_devices_of_a_stray_are_free_once_nothing_of_it_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RECONCILE_INTERVAL", 0.02)
    released = anyio.Event()
    process = sleeper()
    try:
        bundle = Bundle(tmp_path / "job-s" / "attempts" / "1")
        bundle.create(fake_spec("job-s", devices=("cpu:0",)))
        bundle.claim(identify(process))
        directory = temporary.create(bundle, {})
        kept = Supervision(tmp_path, MemoryAttemptLog(), FailingExecutor(), released=released.set)
        async with running(kept):
            assert kept.reserved == {"cpu:0"}
            process.kill()
            with anyio.fail_after(20):
                await released.wait()
            assert kept.reserved == frozenset()
        assert not await anyio.to_thread.run_sync(directory.exists)
    finally:
        process.kill()
        process.wait()


async def test_a_bundle_of_a_number_that_the_log_has_not_given_out_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryAttemptLog()
    log.start(fake_spec()).ending = Ending(exit_code=1)
    kept = Supervision(tmp_path, log, LocalExecutor())
    for number in (1, 2):
        kept.bundle("job-1", number).create(fake_spec(attempt=number, params={"steps": 7}))
    kept.bundle("job-9", 1).create(fake_spec("job-9"))  # of a job that the log does not know
    kept.bundle("job-1", 2).revoke()
    async with running(kept):
        assert not kept.bundle("job-1", 2).path.exists()
        (aside,) = (tmp_path / "job-1" / "attempts").glob("quarantine-2-*")
        assert Bundle(aside).read_spec().params == {"steps": 7}
        log.start(fake_spec(attempt=2, params={"steps": 1}))
        kept.notice()
        ending = await log.until_ended("job-1", 2)
    assert ending.exit_code == 0  # and not: its start was given up
    assert kept.bundle("job-1", 1).spec_path.exists()
    assert kept.bundle("job-9", 1).spec_path.exists()
    assert str(aside) in caplog.text


async def test_a_number_is_not_used_again_while_a_stray_runs_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RECONCILE_INTERVAL", 0.02)
    process = sleeper()
    try:
        log = MemoryAttemptLog()
        log.start(fake_spec()).ending = Ending(exit_code=1)
        kept = Supervision(tmp_path, log, LocalExecutor())
        kept.bundle("job-1", 2).create(fake_spec(attempt=2))
        kept.bundle("job-1", 2).claim(identify(process))
        async with running(kept):
            entry = log.start(fake_spec(attempt=2, params={"steps": 1}))
            kept.notice()
            await anyio.wait_all_tasks_blocked()
            assert kept.supervised == frozenset()
            process.kill()
            ending = await log.until_ended("job-1", 2)
        assert ending.exit_code == 0
        assert [runner.pid == process.pid for runner in entry.runners] == [False]
    finally:
        process.kill()
        process.wait()


async def test_a_bundle_that_cannot_be_moved_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RECONCILE_INTERVAL", 0.02)
    failures = iter([OSError(errno.ENOSPC, "No space left on device")])

    def fail_once(bundle: Bundle) -> Path:
        for failure in failures:
            raise failure
        return strays.set_aside(bundle)

    monkeypatch.setattr(supervision, "set_aside", fail_once)
    log = MemoryAttemptLog()
    log.start(fake_spec()).ending = Ending(exit_code=1)
    kept = Supervision(tmp_path, log, LocalExecutor())
    kept.bundle("job-1", 2).create(fake_spec(attempt=2))
    async with running(kept):
        with anyio.fail_after(20):
            while kept.bundle("job-1", 2).path.exists():  # noqa: ASYNC110 - looked at from outside
                await anyio.sleep(0.005)
    assert len(list((tmp_path / "job-1" / "attempts").glob("quarantine-2-*"))) == 1


def test_the_daemons_own_settings_do_not_reach_its_workers() -> None:
    environment = {"PATH": "/bin", "NOTIFY_SOCKET": "/s", "FINETUNED_TOKEN": "t", "HF_HOME": "/h"}
    environment["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer x"
    assert runner_environment(environment) == {"PATH": "/bin", "HF_HOME": "/h", **KEPT_READABLE}


def test_a_process_that_changes_its_title_keeps_the_mark_by_which_it_is_found() -> None:
    # setproctitle writes over the environment that /proc shows, unless it is told not to.
    assert runner_environment({})["SPT_NOENV"] == "1"


def test_secrets_in_the_daemons_environment_do_not_reach_its_workers() -> None:
    secret = [
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "DB_PASSWORD",
        "token",
    ]
    kept = ["HF_HOME", "TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "KEYBOARD", "MONKEY"]
    environment = dict.fromkeys([*secret, *kept], "x")
    assert sorted(runner_environment(environment)) == sorted([*kept, *KEPT_READABLE])
    assert withheld_secrets({**environment, "FINETUNED_TOKEN": "x"}) == secret


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
        supervisor.request_stop(StopOrder(reason="enough"))
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


@pytest.mark.parametrize("dies", ["long ago", "while it is looked at"])
async def test_nothing_is_judged_of_an_attempt_that_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    """As when the daemon was away: what it wrote is still being recorded, and its deadline is over by now."""
    log = MemoryAttemptLog()
    entry = log.start(fake_spec(), Timeouts(max_duration_s=0.0))
    bundle = Bundle(tmp_path / "job-1" / "attempts" / "1")
    bundle.create(fake_spec())
    ladder = Ladder(entry.attempt, bundle, log)
    monitor = Monitor(entry.attempt, bundle, log, SpoolTail(bundle.spool_path, line=0), ladder)
    process = sleeper()
    runner, look = identify(process), monitor._look

    def kill() -> None:
        process.kill()
        process.wait()

    def look_at_its_last_moment(runner: RunnerIdentity) -> Signs:
        signs = look(runner)
        kill()
        return signs

    with await ProcessWatch.on(runner) as watch:
        if dies == "long ago":
            kill()
        monkeypatch.setattr(monitor, "_look", look_at_its_last_moment)
        with anyio.fail_after(20):
            await monitor.run(runner, watch)
    assert (entry.interventions, ladder.is_ordered) == ([], False)


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
            LiveAttempt(
                job="job-1", number=1, purpose="run", line=0, stop=StopOrder(reason="no longer wanted")
            )
        ]
