"""Attempts that live and do not get on: real runners and workers, hung in every way that there is."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from tests.acceptance.attempts.conftest import QUICK

from finetuned.attempts.ports import Alert, Intervention, NoRoomError, StopOrder, Timeouts
from finetuned.attempts.testing import Entry
from finetuned_sdk import checkpoints
from finetuned_sdk.bundle import STOPPED_EXIT_CODE, Bundle, Spec

if TYPE_CHECKING:
    from tests.acceptance.attempts.conftest import House

#: short, so that a test can wait for them, and longer than a busy machine lets a trainer wait for a core
SHORT = Timeouts(heartbeat_s=3.0, start_s=60.0, stall_s=3.0, evaluation_s=60.0, saving_s=60.0, pause_s=10.0)
IMPATIENT = replace(SHORT, pause_s=0.3)
HANG = {"steps": 1000, "checkpoint_every": 1, "hang_at": 3}
DEAF = {**HANG, "ignore_sigterm": True, "spawn_children": 1}


def actions(entry: Entry) -> list[str]:
    """What was done, in order; a worker that came back to life on a busy machine may be dumped twice."""
    found = [each.action for each in entry.interventions if isinstance(each, Intervention)]
    return [action for action, _ in groupby(found)]


def reasons(entry: Entry, action: str) -> list[str]:
    each_of = [each for each in entry.interventions if isinstance(each, Intervention)]
    return [each.reason for each in each_of if each.action == action]


def failures(entry: Entry) -> set[str | None]:
    return {each.failure for each in entry.interventions if isinstance(each, Intervention)}


async def until_action(house: House, action: str) -> Intervention:
    entry = house.log.entries["job-1", 1]
    with anyio.fail_after(60):
        while True:
            for each in entry.interventions:
                if isinstance(each, Intervention) and each.action == action:
                    return each
            await house.log.until_changed()


async def test_a_hung_trainer_shows_its_stacks_saves_and_stops(house: House) -> None:
    entry = house.start(params=HANG, timeouts=SHORT)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE
    assert (actions(entry), failures(entry)) == (["dump_stacks", "request_stop"], {"stall"})
    output = house.bundle(entry.spec).output_path.read_text(encoding="utf-8")
    assert "most recent call first" in output
    assert "in _fail" in output  # where the fake kind hangs
    newest = checkpoints.newest_complete(house.bundle(entry.spec).checkpoints.iterdir())
    assert newest is not None
    assert newest.name == "checkpoint-3"


async def test_one_that_ignores_everything_is_killed_with_its_group_and_each_step_is_told(
    house: House,
) -> None:
    entry = house.start(params=DEAF, timeouts=IMPATIENT, grace_s=0.3)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert actions(entry) == ["dump_stacks", "request_stop", "terminate", "kill"]
    assert failures(entry) == {"stall"}
    assert reasons(entry, "terminate")[0].startswith("it did not stop within 0.3 s: no step for ")
    assert reasons(entry, "kill")[0].startswith("it did not end within 0.3 s of SIGTERM: no step for ")
    assert house.log.alive_at_end == []


async def test_native_code_that_holds_the_interpreter_is_silent_and_shows_its_stacks_all_the_same(
    house: House,
) -> None:
    timeouts = replace(IMPATIENT, heartbeat_s=1.0, stall_s=6.0)  # silent long before it is stuck, at any load
    entry = house.start(params={"steps": 9, "seize_at": 3}, timeouts=timeouts, grace_s=0.3)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert {each.subject for each in entry.interventions if isinstance(each, Alert)} == {"silence"}
    assert "in _fail" in house.bundle(entry.spec).output_path.read_text(encoding="utf-8")


async def test_long_phases_within_their_limits_are_left_alone(house: House) -> None:
    """Each of them is longer than what is called a stall anywhere else, which no disk may cause."""
    timeouts = replace(SHORT, heartbeat_s=30.0, stall_s=10.0)
    long = 12.0
    slow = [
        {"loading_seconds": long},
        {"evaluate_at": 1, "evaluation_seconds": long},
        {"checkpoint_every": 2, "saving_seconds": long},
    ]
    entries = [
        house.start(job=f"job-{number}", params={"steps": 2, **params}, timeouts=timeouts)
        for number, params in enumerate(slow)
    ]
    async with house.daemon():
        endings = [await house.log.until_ended(entry.spec.job, 1) for entry in entries]
    assert [ending.exit_code for ending in endings] == [0, 0, 0]
    assert [entry.interventions for entry in entries] == [[], [], []]


@pytest.mark.parametrize(
    ("params", "short", "failure"),
    [
        ({"loading_seconds": 60}, {"start_s": 8.0}, "start_timeout"),
        ({"evaluate_at": 1, "evaluation_seconds": 60}, {"evaluation_s": 4.0}, "stall"),
        ({"checkpoint_every": 1, "saving_seconds": 60}, {"saving_s": 4.0}, "stall"),
    ],
)
async def test_each_phase_is_stopped_beyond_its_limit(
    house: House, params: dict[str, float], short: dict[str, float], failure: str
) -> None:
    timeouts = replace(IMPATIENT, stall_s=60.0, **short)
    entry = house.start(params=params, timeouts=timeouts, grace_s=0.2)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert failures(entry) == {failure}
    assert actions(entry)[:2] == ["dump_stacks", "request_stop"]


async def test_a_validator_that_tells_of_nothing_is_given_time_and_then_stopped(house: House) -> None:
    work: dict[str, Any] = {"entry": "finetuned_sdk.fake:validate", "purpose": "validate"}
    quick = house.start(params={"validation_seconds": 2.5}, timeouts=replace(SHORT, heartbeat_s=30.0), **work)
    limits = replace(IMPATIENT, heartbeat_s=30.0, start_s=1.0, evaluation_s=2.0)
    slow = house.start(job="job-2", params={"validation_seconds": 60}, timeouts=limits, grace_s=0.2, **work)
    async with house.daemon():
        assert (await house.log.until_ended("job-1", 1)).exit_code == 0
        assert (await house.log.until_ended("job-2", 1)).signal == signal.SIGKILL
    assert quick.interventions == []
    assert failures(slow) == {"stall"}


async def test_the_deadline_takes_earlier_attempts_into_account_and_lets_it_save(house: House) -> None:
    limits = replace(SHORT, stall_s=60.0, max_duration_s=103.0)
    entry = house.start(
        params={"steps": 10_000, "step_seconds": 0.02, "spawn_children": 1}, timeouts=limits, spent_s=100.0
    )
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE
    assert (actions(entry), failures(entry)) == (["request_stop"], {"deadline"})
    assert [fact for fact in entry.facts if fact.type == "checkpoint"]


async def test_a_trainer_that_somebody_stopped_with_sigstop_goes_through_the_ladder(house: House) -> None:
    entry = house.start(params={"steps": 10_000, "step_seconds": 0.02}, timeouts=IMPATIENT, grace_s=5.0)
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
        os.kill(entry.facts[0].data["pid"], signal.SIGSTOP)
        ending = await house.log.until_ended("job-1", 1)
    assert actions(entry)[:3] == ["dump_stacks", "request_stop", "terminate"]
    assert reasons(entry, "dump_stacks")[-1].endswith("its process is stopped, as by SIGSTOP")
    assert ending.exit_code == STOPPED_EXIT_CODE  # SIGCONT lets it obey


async def test_one_that_comes_back_to_life_after_its_stacks_is_left_alone(house: House) -> None:
    limits = replace(SHORT, stall_s=8.0)  # and so four seconds until the second look
    entry = house.start(params={"steps": 10_000, "step_seconds": 0.02}, timeouts=limits)
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        pid = entry.facts[0].data["pid"]
        os.kill(pid, signal.SIGSTOP)
        await until_action(house, "dump_stacks")
        os.kill(pid, signal.SIGCONT)
        lines = len(entry.lines)
        await house.until(lambda: len(entry.lines) > lines + 50)  # five seconds' worth
        await supervision.kill_all()
    assert actions(entry) == ["dump_stacks"]


async def test_a_runner_that_somebody_stopped_is_woken_and_tells_how_its_worker_ended(house: House) -> None:
    limits = replace(IMPATIENT, stall_s=60.0)  # it is the worker's end that is noticed
    entry = house.start(timeouts=limits, **house.held())
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
        await house.until(house.bundle(entry.spec).heartbeat_path.exists)  # by it the worker's end is noticed
        os.kill(entry.runners[0].pid, signal.SIGSTOP)
        await to_thread.run_sync(house.gate.touch)
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == 0
    assert entry.facts[-1].type == "result"


async def test_a_stall_is_seen_through_by_the_daemon_that_comes_after_the_killed_one(house: House) -> None:
    limits = replace(SHORT, pause_s=8.0)
    entry = house.start(params=DEAF, timeouts=limits, grace_s=0.3)
    async with house.daemon():
        await until_action(house, "request_stop")
    assert await to_thread.run_sync(house.processes, entry.spec)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL
    assert actions(entry) == ["dump_stacks", "request_stop", "terminate", "kill"]
    assert house.log.alive_at_end == []


async def test_a_pause_that_had_to_be_helped_says_so_and_is_no_failure(house: House) -> None:
    entry = house.start(params={"steps": 9999, "step_seconds": 0.02, "ignore_sigterm": True}, grace_s=0.3)
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        house.log.stop("job-1", 1, StopOrder(reason="lunch", checkpoint=True, patience_s=0.3))
        supervision.notice()
        await house.log.until_ended("job-1", 1)
    assert (actions(entry), failures(entry)) == (["terminate", "kill"], {None})


async def test_a_cancel_that_is_obeyed_is_nothing_to_tell_of(house: House) -> None:
    entry = house.start(params={"steps": 9999, "step_seconds": 0.02})
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        house.log.cancel("job-1", 1)
        supervision.notice()
        await house.log.until_ended("job-1", 1)
    assert entry.interventions == []


async def test_the_runner_of_an_older_protocol_is_never_sent_what_would_end_it(house: House) -> None:
    entry = house.start(params=HANG, timeouts=SHORT, protocol=1)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE
    assert actions(entry) == ["request_stop"]
    assert "most recent call first" not in house.bundle(entry.spec).output_path.read_text(encoding="utf-8")


async def test_a_log_that_cannot_be_written_keeps_nobody_alive(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(job: str, attempt: int, what: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.log, "intervened", full)
    house.start(params={"steps": 9999, "step_seconds": 0.02, "ignore_sigterm": True}, grace_s=0.3)
    async with house.daemon() as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        house.log.stop("job-1", 1, StopOrder(reason="lunch", checkpoint=True, patience_s=0.3))
        supervision.notice()
        ending = await house.log.until_ended("job-1", 1)
    assert ending.signal == signal.SIGKILL


async def test_a_stall_that_found_no_room_in_the_log_is_found_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = house.log.intervened, 0

    async def full(job: str, attempt: int, what: Intervention | Alert) -> None:
        nonlocal refused
        refused += 1
        if refused <= 3:
            raise NoRoomError("the disk is full")
        await real(job, attempt, what)

    monkeypatch.setattr(house.log, "intervened", full)
    entry = house.start(params=HANG, timeouts=SHORT)
    async with house.daemon():
        ending = await house.log.until_ended("job-1", 1)
    assert ending.exit_code == STOPPED_EXIT_CODE
    assert refused > 3
    assert actions(entry) == ["request_stop"]


async def test_an_attempt_that_nobody_saw_end_has_run_until_its_last_heartbeat(house: House) -> None:
    entry = house.start(params={"steps": 9999, "step_seconds": 0.02}, timeouts=SHORT)
    async with house.daemon():
        await house.log.until_fact("job-1", 1, "progress")
        os.kill(entry.runners[0].pid, signal.SIGKILL)
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost is not None
    assert 0 < ending.usage["wall_s"] < 60


class HungExecutor:
    """Starts a runner that claims its bundle, has a worker, and hears of nothing any more."""

    code = """
import os, signal, subprocess, sys
from finetuned.attempts import identity
from finetuned_sdk.bundle import ATTEMPT_VARIABLE, Bundle
signal.signal(signal.SIGTERM, signal.SIG_IGN)
bundle = Bundle(sys.argv[1])
environment = {**os.environ, ATTEMPT_VARIABLE: bundle.read_spec().tag}
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], env=environment)
bundle.claim(identity.own())
worker.wait()
"""

    def __init__(self) -> None:
        self.pid: int | None = None

    async def launch(self, bundle: Bundle, spec: Spec) -> None:
        await to_thread.run_sync(self._launch, bundle, spec)

    def _launch(self, bundle: Bundle, spec: Spec) -> None:
        bundle.create(spec)
        command = [sys.executable, "-c", self.code, str(bundle.path)]
        self.pid = os.posix_spawn(sys.executable, command, os.environ, setsid=True)

    def reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid or 0, os.WNOHANG)


async def test_a_runner_that_reacts_to_nothing_is_killed_with_all_that_is_below_it(house: House) -> None:
    house.executor = HungExecutor()
    entry = house.start(params={}, grace_s=0.2)
    async with house.daemon(replace(QUICK, deaf=0.3)) as supervision:
        await house.until(lambda: house.processes(entry.spec))
        house.log.cancel("job-1", 1)
        supervision.notice()
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost == "its runner died before it could say how the work ended"
    assert reasons(entry, "kill")[-1] == "its runner does not react, and is killed: asked to"
    assert set(actions(entry)) == {"kill"}
    assert house.log.alive_at_end == []


async def test_a_runner_that_is_only_writing_down_the_end_is_left_to_it(house: House) -> None:
    """Nothing of the work is alive: to kill the runner would lose how it ended, as on a full disk."""
    entry = house.start(params={"steps": 9999, "step_seconds": 0.02}, grace_s=0.2)
    async with house.daemon(replace(QUICK, deaf=0.1)) as supervision:
        await house.log.until_fact("job-1", 1, "progress")
        exit_path = house.bundle(entry.spec).exit_path
        await to_thread.run_sync(exit_path.mkdir)  # it cannot be replaced by a file
        house.log.cancel("job-1", 1)
        supervision.notice()
        await house.until(lambda: not house.processes(entry.spec))
        await until_action(house, "kill")
        await anyio.sleep(0.5)  # some rounds in which nothing may happen
        await to_thread.run_sync(exit_path.rmdir)
        ending = await house.log.until_ended("job-1", 1)
    assert ending.lost is None
    assert actions(entry) == ["kill"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
async def test_signals_that_come_before_there_is_a_worker_do_no_harm(
    tmp_path: Path, number: signal.Signals
) -> None:
    """SIGUSR1 is passed on only to a worker that catches it; SIGTERM ends the worker once it is there."""
    code = f"""
import os, signal, sys
from finetuned.attempts import runner
real = runner.identity.own
def own():
    os.kill(os.getpid(), {int(number)})
    return real()
runner.identity.own = own
sys.exit(runner.main([{str(tmp_path / "b")!r}]))
"""
    bundle = Bundle(tmp_path / "b")
    spec = Spec(
        job="j", attempt=1, kind="fake", entry="finetuned_sdk.fake:run", params={"steps": 1},
        params_model="finetuned_sdk.fake:FakeParams", interpreter=sys.executable,
    )  # fmt: skip
    await to_thread.run_sync(bundle.create, spec)
    done = await anyio.run_process([sys.executable, "-c", code], check=False)
    assert done.returncode == 0, done.stderr
    record = await to_thread.run_sync(bundle.read_exit)
    assert record is not None
    if number is signal.SIGUSR1:
        assert record.exit_code == 0
    else:
        assert record.signal == signal.SIGTERM or record.exit_code == STOPPED_EXIT_CODE
