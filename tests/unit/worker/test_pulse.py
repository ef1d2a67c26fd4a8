"""The worker's pulse: what it notes, and when it writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned_sdk import heartbeat, phases
from finetuned_sdk.heartbeat import Heartbeat, HeartbeatFile
from finetuned_sdk.phases import limit_of
from finetuned_sdk.testing import RecordingContext
from finetuned_sdk.worker_pulse import Pulse


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


@pytest.fixture
def pulse(path: Path, clock: Clock) -> Pulse:
    return Pulse(path, clock=clock)


def test_the_first_record_says_that_the_worker_starts(pulse: Pulse, path: Path) -> None:
    pulse.beat()
    assert heartbeat.read(path) == Heartbeat(pid=os.getpid(), beat_at=100.0, step_at=100.0, phase="starting")


def test_a_beat_tells_the_life_of_the_process_and_not_of_the_work(
    pulse: Pulse, path: Path, clock: Clock
) -> None:
    pulse.note(phase="training")
    clock.now += 60
    pulse.beat()
    found = heartbeat.read(path)
    assert found is not None
    assert (found.beat_at, found.step_at) == (160.0, 100.0)


def test_a_change_of_phase_and_the_first_step_are_written_at_once_and_other_steps_with_the_next_beat(
    pulse: Pulse, path: Path, clock: Clock
) -> None:
    def told() -> tuple[str | None, int | None]:
        found = heartbeat.read(path)
        assert found is not None
        return found.phase, found.step

    pulse.note(phase="training")
    assert told() == ("training", None)
    pulse.note(step=0)
    assert told() == ("training", None)
    pulse.note(step=1)
    assert told() == ("training", 1)
    clock.now += 1
    pulse.note(step=2)
    assert told() == ("training", 1)
    assert (pulse.last.step, pulse.last.step_at) == (2, 101.0)
    pulse.beat()
    assert told() == ("training", 2)
    pulse.note(phase="evaluating")
    assert told() == ("evaluating", 2)


def test_a_file_that_cannot_be_made_is_tried_again(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(tmp_path / "later" / "heartbeat", clock=clock)
    pulse.beat()
    (tmp_path / "later").mkdir()
    pulse.beat()
    assert heartbeat.read(tmp_path / "later" / "heartbeat") == pulse.last


def test_a_write_that_fails_ends_nothing(
    pulse: Pulse, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse.beat()

    def fail(_: HeartbeatFile, __: Heartbeat) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HeartbeatFile, "write", fail)
        pulse.note(phase="training")
    clock.now += 1
    pulse.beat()
    assert heartbeat.read(path) == pulse.last


def test_a_file_without_room_for_the_record_leaves_no_descriptor_open(clock: Clock) -> None:
    """``/dev/full`` refuses every write as a full disk does."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    pulse = Pulse(Path("/dev/full"), clock=clock)
    pulse.beat()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_closed_pulse_writes_nothing(pulse: Pulse, path: Path) -> None:
    pulse.beat()
    pulse.close()
    path.unlink()
    pulse.note(phase="training")
    pulse.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "phase", ["ä" * 500, "\N{GRINNING FACE}" * 500, "\x00" * 500, "\ud800" * 500, '"' * 500]
)
def test_a_record_keeps_its_length_whatever_a_phase_is_called(pulse: Pulse, path: Path, phase: str) -> None:
    pulse.note(phase=phase, step=2**63)
    pulse.beat()
    assert path.stat().st_size == heartbeat.SIZE
    found = heartbeat.read(path)
    assert found is not None
    assert found.step == 2**63


@pytest.mark.parametrize(
    ("phase", "step", "limit"),
    [
        (phases.STARTING, None, "start_s"),
        (phases.PREPARING_DATA, None, "start_s"),
        (phases.LOADING_MODEL, None, "start_s"),
        (phases.TRAINING, None, "start_s"),
        (phases.TRAINING, 1, "stall_s"),
        (phases.EVALUATING, None, "evaluation_s"),
        (phases.EVALUATING, 7, "evaluation_s"),
        (phases.SAVING, 7, "saving_s"),
        ("a plugin's own", 7, "stall_s"),
        (None, None, "start_s"),
    ],
)
def test_each_phase_is_under_one_limit(phase: str | None, step: int | None, limit: str) -> None:
    assert limit_of(phase, step) == limit


def test_what_a_trainer_reports_is_its_pulse(tmp_path: Path, clock: Clock) -> None:
    ctx = RecordingContext(tmp_path, clock=clock)

    def advanced() -> bool:
        clock.now += 1
        return ctx.pulse.last.step_at == clock.now - 1

    ctx.phase(phases.TRAINING)
    assert advanced()
    ctx.progress(current_step=3, total_steps=9)
    assert advanced()
    ctx.evaluation("eval", {"loss": 1.0})
    assert advanced()
    made = ctx.work_dir / "made"
    made.mkdir()
    ctx.checkpoint(made, step=3, metrics={})
    assert advanced()
    ctx.advancing()
    assert advanced()
    ctx.advice("setting", "message")
    assert not advanced()
    assert (ctx.pulse.last.phase, ctx.pulse.last.step) == ("training", 3)
