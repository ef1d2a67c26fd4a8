from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetuned.attempts import identity
from finetuned.attempts.watch import ProcessWatch
from finetuned_sdk.bundle import ATTEMPT_VARIABLE, RunnerIdentity

Sleeper = Callable[..., "subprocess.Popen[bytes]"]

# Overwrites the environment that /proc shows, as setproctitle does: exec'd again without the variable.
FORGETFUL = (
    "import os, sys; os.execve(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'], {})"
)


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    started: list[subprocess.Popen[bytes]] = []

    def start(
        tag: str = "", *, code: str = "import time; time.sleep(600)", session: bool = False
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, ATTEMPT_VARIABLE: tag},
            start_new_session=session,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def identify(pid: int) -> RunnerIdentity:
    started = identity.start_time(pid)
    assert started is not None
    return RunnerIdentity(boot_id=identity.boot_id(), pid=pid, start_time=started, process_group=pid)


def test_this_process_is_alive_and_others_of_its_pid_are_not() -> None:
    me = identity.own()
    assert identity.is_alive(me)
    assert not identity.is_alive(replace(me, start_time=me.start_time - 1))
    assert not identity.is_alive(replace(me, boot_id="another"))


def test_a_pid_that_is_now_the_id_of_a_thread_is_a_process_that_is_gone() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert not identity.is_alive(replace(identity.own(), pid=thread.native_id))
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("number", [errno.ESRCH, errno.EINVAL, errno.ENOENT])
def test_whatever_the_kernel_says_of_a_pid_that_is_gone_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, sleeper: Sleeper, number: int
) -> None:
    process = sleeper("job-g/1/aa")
    until(lambda: identity.leftovers("job-g/1/aa", None) == [process.pid])

    def gone(_: int) -> int:
        raise OSError(number, "gone")

    monkeypatch.setattr(os, "pidfd_open", gone)
    assert not identity.is_alive(identity.own())
    assert identity.kill_leftovers("job-g/1/aa", None) == 1


def test_an_error_that_says_nothing_of_the_pid_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    with pytest.raises(OSError, match="Too many open files"):
        identity.is_alive(identity.own())


def test_a_process_that_was_not_reaped_is_dead(sleeper: Sleeper) -> None:
    process = sleeper()
    runner = identify(process.pid)
    assert identity.is_alive(runner)
    process.kill()
    until(lambda: not identity.is_alive(runner))
    process.wait()
    assert not identity.is_alive(runner)
    assert identity.start_time(process.pid) is None


def test_leftovers_are_found_by_their_tag_and_by_its_beginning(sleeper: Sleeper) -> None:
    one, two = sleeper("job-x/1/aa"), sleeper("job-x/1/bb")
    sleeper("job-x/11/aa")
    until(lambda: identity.leftovers("job-x/1/aa", None) == [one.pid])
    until(lambda: sorted(identity.leftovers("job-x/1/", None)) == sorted([one.pid, two.pid]))
    assert identity.leftovers("job-x/1", None) == []


def test_a_leftover_that_hides_its_environment_is_found_by_its_session(sleeper: Sleeper) -> None:
    process = sleeper("job-y/1/aa", code=FORGETFUL, session=True)
    until(lambda: identity.leftovers("job-y/1/aa", None) == [])
    runner = identify(process.pid)
    assert identity.leftovers("job-y/1/aa", runner) == [process.pid]
    assert identity.leftovers("job-y/1/aa", replace(runner, boot_id="another")) == []
    assert identity.leftovers("job-y/1/aa", replace(runner, start_time=1)) == []


def test_killing_leftovers_ends_them_and_says_how_many(sleeper: Sleeper) -> None:
    process = sleeper("job-z/1/aa")
    until(lambda: identity.leftovers("job-z/1/aa", None) == [process.pid])
    assert identity.kill_leftovers("job-z/1/aa", None) == 1
    assert process.wait(20) == -9
    assert identity.kill_leftovers("job-z/1/aa", None) == 0


def test_descendants_come_children_first(sleeper: Sleeper) -> None:
    child = sleeper(code="import subprocess, sys; subprocess.run(['sleep', '600'])")
    until(lambda: len(identity.descendants(child.pid)) == 1)
    below = identity.descendants(os.getpid())
    (grandchild,) = identity.descendants(child.pid)
    assert below.index(child.pid) < below.index(grandchild)
    identity.kill(grandchild)
    child.wait(20)
    identity.kill(grandchild)


async def test_a_watch_waits_for_the_end_of_exactly_its_process(sleeper: Sleeper) -> None:
    process = sleeper()
    with await ProcessWatch.on(identify(process.pid)) as watch:
        assert not watch.has_ended()
        watch.signal(signal.SIGKILL)
        await watch.wait()
        assert watch.has_ended()
        process.wait()
        watch.signal(signal.SIGKILL)


async def test_a_watch_on_a_process_that_is_gone_is_over_at_once() -> None:
    with await ProcessWatch.on(replace(identity.own(), start_time=1)) as watch:
        await watch.wait()
        watch.signal(signal.SIGKILL)
        assert watch.has_ended()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_watch_leaves_no_descriptor(sleeper: Sleeper) -> None:
    runner = identify(sleeper().pid)
    before = descriptors()
    for _ in range(50):
        with await ProcessWatch.on(runner) as watch:
            assert not watch.has_ended()
        identity.is_alive(runner)
        identity.is_alive(replace(runner, start_time=1))
    assert descriptors() == before


CATCHING = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
signal.pause()
"""


def test_only_a_process_with_a_handler_is_said_to_catch_a_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", CATCHING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert identity.catches(process.pid, signal.SIGUSR1)
        assert not identity.catches(process.pid, signal.SIGUSR2)
        process.kill()
    assert not identity.catches(process.pid, signal.SIGUSR1)


def test_a_process_is_stopped_dead_or_gone(sleeper: Sleeper) -> None:
    process = sleeper()
    process.send_signal(signal.SIGSTOP)
    until(lambda: identity.state(process.pid) == "T")
    process.kill()
    until(lambda: identity.state(process.pid) == "Z")
    process.wait()
    assert identity.state(process.pid) is None


def test_the_time_that_a_process_ran_is_counted_from_its_start_by_no_clock_that_can_be_set() -> None:
    before = identity.ran_s(identity.own())
    assert 0 <= before < 24 * 3600
    later = replace(identity.own(), start_time=identity.own().start_time - 100 * os.sysconf("SC_CLK_TCK"))
    assert 100 <= identity.ran_s(later) - before < 160
