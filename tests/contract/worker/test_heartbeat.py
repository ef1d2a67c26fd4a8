"""The heartbeat of a real worker process: signs of life told apart from signs of progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.small_disk import fill, free, small_disk

from finetuned.attempts.testing import fake_spec
from finetuned_sdk import heartbeat
from finetuned_sdk.bundle import Bundle
from finetuned_sdk.heartbeat import Heartbeat

Start = Callable[[str], "subprocess.Popen[bytes]"]

PATIENCE = 20.0
BEAT_S = 0.02


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path / "jobs" / "job-1" / "attempts" / "1")


@pytest.fixture
def start(bundle: Bundle, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker whose entry is the function body given."""
    started: list[subprocess.Popen[bytes]] = []

    def start(body: str) -> subprocess.Popen[bytes]:
        (tmp_path / "entry.py").write_text(f"import time\ndef run(ctx, params):\n{body}")
        bundle.create(fake_spec(entry="entry:run", heartbeat_s=BEAT_S))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def beats(bundle: Bundle, wanted: Callable[[Heartbeat], bool]) -> Heartbeat:
    """The first heartbeat that is as wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = heartbeat.read(bundle.heartbeat_path)
        if found is not None and wanted(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.005)


def test_a_worker_that_hangs_in_a_step_beats_on_while_its_progress_stands_still(
    start: Start, bundle: Bundle
) -> None:
    process = start(
        "    ctx.phase('training')\n    ctx.progress(current_step=3, total_steps=9)\n    time.sleep(600)\n"
    )
    begun = beats(bundle, lambda last: last.step == 3)
    later = beats(bundle, lambda last: last.beat_at >= begun.beat_at + 10 * BEAT_S)
    assert (later.pid, later.phase, later.step) == (process.pid, "training", 3)
    assert later.step_at == begun.step_at


def test_steps_between_beats_move_the_progress(start: Start, bundle: Bundle) -> None:
    start(
        "    for step in range(1, 10_000):\n"
        "        ctx.progress(current_step=step, total_steps=10_000)\n"
        "        time.sleep(0.01)\n"
    )
    begun = beats(bundle, lambda last: last.step is not None)
    later = beats(bundle, lambda last: (last.step or 0) >= (begun.step or 0) + 5)
    assert later.step_at > begun.step_at


def test_a_stopped_worker_beats_no_more_until_it_goes_on(start: Start, bundle: Bundle) -> None:
    process = start("    time.sleep(600)\n")
    beats(bundle, lambda last: last.phase == "starting")
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    last = beats(bundle, lambda last: time.monotonic() - last.beat_at > 20 * BEAT_S)
    process.send_signal(signal.SIGCONT)
    beats(bundle, lambda now: now.beat_at > last.beat_at)


def test_the_first_record_is_there_before_the_work_is_imported(start: Start, bundle: Bundle) -> None:
    start("    pass\ntime.sleep(600)\n")  # the import itself hangs
    first = beats(bundle, lambda last: last.phase == "starting")
    beats(bundle, lambda last: last.beat_at > first.beat_at)


def test_a_full_disk_does_not_stop_the_heart(tmp_path: Path) -> None:
    with small_disk(1 << 20) as directory:
        on_disk = Bundle(directory / "jobs" / "job-1" / "attempts" / "1")
        (tmp_path / "entry.py").write_text(
            "import time\n"
            "def run(ctx, params):\n"
            "    for step in range(1, 1_000_000):\n"
            "        ctx.progress(current_step=step, total_steps=None, note='x' * 150)\n"
            "        time.sleep(0.01)\n"
        )
        on_disk.create(fake_spec(entry="entry:run", heartbeat_s=BEAT_S))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(on_disk.path)],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        try:
            beats(on_disk, lambda last: last.step is not None)
            fill(directory)
            full = beats(on_disk, lambda _: free(directory) == 0)
            beats(on_disk, lambda last: (last.step or 0) >= (full.step or 0) + 50)
            assert free(directory) == 0
        finally:
            process.kill()
            process.wait()


def test_a_heartbeat_that_cannot_be_written_does_not_end_the_work(start: Start, bundle: Bundle) -> None:
    bundle.heartbeat_path.mkdir(parents=True)
    assert start("    ctx.phase('training')\n").wait(PATIENCE) == 0
