from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned.attempts import liveness
from finetuned.attempts.liveness import Finding, Liveness, Signs
from finetuned.attempts.ports import Timeouts
from finetuned_sdk.heartbeat import Heartbeat

STALL = 100.0
TIMEOUTS = Timeouts(
    heartbeat_s=30.0, start_s=300.0, stall_s=STALL, evaluation_s=500.0, saving_s=200.0, max_duration_s=None
)


@dataclass
class Scene:
    """A worker, its heartbeat and its spool, and somebody who looks at them; all on a clock of its own."""

    timeouts: Timeouts = TIMEOUTS
    purpose: str = "run"
    beats_s: float | None = 10.0
    spent_s: float = 0.0
    spool: bool = True  # whether it reaches the disk
    beats: bool = True  # whether its side thread runs
    phase: str = "starting"
    step: int | None = None
    now: float = 5_000.0
    found: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.step_at = self.beat_at = self.now
        self.work, self.told_step, self.told_phase = 0, self.step, None if self.step is None else self.phase
        self.record: Heartbeat | None = None
        self.interval = liveness.look_interval(self.timeouts)
        self.restart()
        self.beat()
        self.look()

    def restart(self) -> None:
        """Another daemon looks from now on."""
        self.liveness = Liveness(
            self.timeouts, purpose=self.purpose, beats_s=self.beats_s, spent_s=self.spent_s
        )

    def beat(self) -> None:
        if self.beats and self.beats_s is not None:
            self.beat_at = self.now
            self.record = Heartbeat(
                pid=1, beat_at=self.now, step_at=self.step_at, step=self.step, phase=self.phase
            )

    def look(self, **changes: Any) -> None:
        signs = Signs(
            now=self.now, ran_s=self.now - self.began, heartbeat=self.record,
            work=self.work, step=self.told_step, phase=self.told_phase,
        )  # fmt: skip
        finding = self.liveness.look(replace(signs, **changes))
        if finding is not None:
            self.found.append(finding)

    def live(self, seconds: float, *, watched: bool = True) -> None:
        """Let time pass without any work; the side thread goes on."""
        end = self.now + seconds
        looked = self.now
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            if self.beats_s is not None and self.now - self.beat_at >= self.beats_s:
                self.beat()
            if watched and self.now - looked >= self.interval:
                looked = self.now
                self.look()

    def do_step(self) -> None:
        self.step, self.step_at = (self.step or 0) + 1, self.now
        if self.step == 1:
            self.beat()
        if self.spool:
            self.work, self.told_step = self.work + 1, self.step

    def advance(self) -> None:
        self.step_at = self.now

    def enter(self, phase: str) -> None:
        self.phase, self.step_at = phase, self.now
        self.beat()
        if self.spool:
            self.work, self.told_phase = self.work + 1, phase

    @property
    def actions(self) -> list[str]:
        return [each.action for each in self.found]


def training(**changes: Any) -> Scene:
    """One that has done a step."""
    scene = Scene(**changes)
    scene.enter("training")
    scene.do_step()
    scene.live(1)
    return scene


def test_a_worker_that_steps_in_time_is_left_alone() -> None:
    scene = training()
    for _ in range(20):
        scene.live(STALL - 10)
        scene.do_step()
    assert scene.found == []


def test_a_worker_that_makes_no_step_is_dumped_then_asked_to_stop() -> None:
    scene = training()
    scene.live(STALL + 30)
    assert scene.actions[:2] == ["dump_stacks", "request_stop"]
    first = scene.found[0]
    assert first.failure == "stall"
    assert first.reason.startswith("no step for 1")
    assert first.reason.endswith(" s (training, after step 1)")


def test_stopping_follows_the_dump_after_a_second_look_and_not_at_once() -> None:
    scene = training()
    scene.live(STALL + 5)
    assert scene.actions == ["dump_stacks"]
    scene.live(liveness.SECOND_LOOK + 6)
    assert scene.actions[1] == "request_stop"


def test_one_that_comes_back_to_life_after_its_dump_is_left_alone_and_looked_at_anew() -> None:
    scene = training()
    scene.live(STALL + 5)
    scene.do_step()
    scene.live(STALL - 10)
    assert scene.actions == ["dump_stacks"]
    scene.live(40)
    assert scene.actions[:3] == ["dump_stacks", "dump_stacks", "request_stop"]


@pytest.mark.parametrize(("phase", "limit"), [("evaluating", 500.0), ("saving", 200.0)])
def test_an_evaluation_and_a_save_have_their_own_limits(phase: str, limit: float) -> None:
    scene = training()
    scene.enter(phase)
    scene.live(limit - 10)
    assert scene.found == []
    scene.live(20)
    assert scene.actions == ["dump_stacks"]
    assert scene.found[0].failure == "stall"
    assert f"({phase}, after step 1)" in scene.found[0].reason


def test_a_phase_that_nobody_knows_is_under_the_stall_time_out() -> None:
    scene = training()
    scene.enter("generating")
    scene.live(STALL + 10)
    assert scene.actions == ["dump_stacks"]


def test_a_start_may_show_nothing_for_longer_than_a_step_and_not_for_ever() -> None:
    scene = Scene()
    for phase in ("preparing_data", "loading_model", "evaluating", "training"):
        scene.live(290)
        scene.enter(phase)
    scene.live(290)
    assert scene.found == []  # its first step may compile: longer than a stall, and still its start
    scene.live(20)
    assert scene.actions == ["dump_stacks"]
    assert scene.found[0].failure == "start_timeout"
    assert scene.found[0].reason.startswith("no first step, and no sign of work for 30")
    assert scene.found[0].reason.endswith(" s (training)")


@pytest.mark.parametrize("spool", [True, False])
def test_a_start_that_shows_signs_of_work_may_last_for_hours(spool: bool) -> None:
    scene = Scene(spool=spool)
    scene.enter("preparing_data")
    for _ in range(100):
        scene.live(60)
        scene.advance()  # tokenizing a large dataset
    assert scene.found == []
    scene.live(330)
    assert scene.found[0].failure == "start_timeout"


def test_a_validation_may_be_silent_as_long_as_the_longest_of_start_and_evaluation() -> None:
    scene = Scene(purpose="validate")
    scene.live(490)
    assert scene.found == []
    scene.enter("preparing_data")
    scene.live(490)
    assert scene.found == []
    scene.live(30)
    assert scene.actions[:2] == ["dump_stacks", "request_stop"]
    assert scene.found[0].failure == "stall"
    assert scene.found[0].reason.startswith("its validation told of nothing for 5")


def test_a_worker_without_heartbeats_is_judged_by_its_spool_alone() -> None:
    scene = training(beats_s=None)
    for _ in range(5):
        scene.live(STALL - 10)
        scene.do_step()
    assert scene.found == []
    scene.live(STALL + 30)
    assert scene.actions[:2] == ["dump_stacks", "request_stop"]
    assert "alert" not in scene.actions


def test_silence_is_told_once_and_again_when_it_comes_again() -> None:
    scene = training()
    for _ in range(2):
        scene.beats = False
        scene.live(60)
        scene.beats = True
        scene.do_step()
        scene.live(20)
    assert scene.actions == ["alert", "alert"]
    assert scene.found[0].failure is None
    assert 30 <= scene.found[0].figures["silent_s"] <= 45


def test_a_worker_that_has_not_beaten_yet_is_told_of_and_no_more() -> None:
    scene = Scene(beats=False)
    scene.live(200)
    assert scene.actions == ["alert"]


def test_a_silent_worker_is_stalled_after_the_limit_of_its_phase() -> None:
    scene = training()
    scene.beats = False
    scene.live(STALL + 30)
    assert scene.actions[:3] == ["alert", "dump_stacks", "request_stop"]


def test_one_that_stands_still_is_told_so() -> None:
    scene = training()
    scene.live(STALL + 1)
    scene.found.clear()
    scene.liveness = Liveness(replace(TIMEOUTS, stall_s=0.0), purpose="run", beats_s=None)
    scene.look(is_stopped=True)
    assert scene.found[0].reason.endswith("; its process is stopped, as by SIGSTOP")


def test_steps_count_although_a_full_disk_keeps_the_spool_from_telling_of_them() -> None:
    scene = training(spool=False, beats_s=30.0, timeouts=replace(TIMEOUTS, heartbeat_s=90.0))
    for _ in range(20):
        scene.live(
            STALL - 5
        )  # some are seen only a beat later, and so more than the limit after the one before
        scene.do_step()
    assert scene.found == []


def test_a_record_that_is_half_written_is_no_sign_of_work() -> None:
    scene = training()
    for _ in range(30):
        scene.live(STALL / 20)
        scene.look(heartbeat=None)
    assert scene.actions[:2] == ["dump_stacks", "request_stop"]


def test_a_runner_that_does_not_notice_its_workers_end_is_not_waited_for_as_long_as_for_a_save() -> None:
    scene = training()
    scene.enter("saving")  # what a worker does last
    scene.beats = False
    scene.live(29)
    scene.look(has_ended=True)
    assert scene.found == []
    scene.live(6)
    scene.found.clear()  # its silence
    scene.look(has_ended=True)
    assert scene.actions == ["dump_stacks"]
    assert scene.found[0].reason.startswith("its worker has ended, and its runner has not said so for 3")


@pytest.mark.parametrize("beats_s", [10.0, None])
def test_time_in_which_nobody_looked_does_not_count(beats_s: float | None) -> None:
    scene = training(beats_s=beats_s)
    scene.live(STALL / 2)
    scene.live(10 * STALL, watched=False)
    scene.live(STALL / 4)
    assert scene.found == []
    scene.live(STALL / 2)
    assert scene.actions[0] == "dump_stacks"


def test_a_machine_that_was_suspended_makes_nobody_a_stalled_one() -> None:
    scene = training()
    scene.live(STALL / 2)
    scene.now += 100_000  # where the monotonic clock goes on meanwhile, as in a frozen machine
    scene.beat()  # the side thread is faster than the work
    scene.live(STALL / 4)
    assert scene.found == []


def test_a_new_daemon_looks_for_as_long_as_the_limit_before_it_does_anything() -> None:
    scene = training()
    scene.live(STALL - 5)
    scene.restart()
    scene.live(STALL - 5)
    assert scene.found == []
    scene.live(15)
    assert scene.actions == ["dump_stacks"]


def test_the_deadline_counts_earlier_attempts_and_needs_no_heartbeat() -> None:
    limits = replace(TIMEOUTS, max_duration_s=1_000.0)
    scene = training(timeouts=limits, spent_s=900.0, beats=False, beats_s=None)
    scene.live(80)
    scene.do_step()
    assert scene.found == []
    scene.live(30)
    assert scene.actions[0] == "request_stop"
    assert scene.found[0].failure == "deadline"
    assert scene.found[0].reason.startswith("it ran for 10")
    assert scene.found[0].reason.endswith(" s in all, and max_duration_s allows 1000 s")


def test_a_limit_that_is_not_set_is_never_passed() -> None:
    none: Any = None  # a kind may say so in its declaration
    limits = Timeouts(heartbeat_s=none, start_s=none, stall_s=none, evaluation_s=none, saving_s=none)
    for scene in (
        training(timeouts=limits),
        Scene(timeouts=limits),
        Scene(timeouts=limits, purpose="validate"),
    ):
        scene.beats = False
        scene.live(20_000)
        assert scene.found == []


def test_looks_and_beats_are_frequent_enough_for_the_shortest_limit() -> None:
    assert liveness.look_interval(Timeouts()) <= 30 / 2
    assert liveness.beat_interval(Timeouts()) == 10.0
    short = Timeouts(stall_s=1.0)
    assert liveness.look_interval(short) <= 1 / 4
    assert liveness.beat_interval(short) <= 1 / 3


moments = st.lists(
    st.tuples(
        st.floats(0.5, STALL * 0.99),  # between two pieces of work
        st.sampled_from(["step", "phase", "evaluate", "save"]),
        st.sampled_from(["watched", "unwatched", "restart", "suspended"]),
    ),
    max_size=12,
)


@given(moments, st.booleans(), st.sampled_from([10.0, 30.0, None]))
def test_work_within_its_limits_is_never_called_stuck_however_it_is_looked_at(
    story: list[tuple[float, str, str]], spool: bool, beats_s: float | None
) -> None:
    scene = training(spool=spool or beats_s is None, beats_s=beats_s)
    for pause, what, looked in story:
        if looked == "restart":
            scene.restart()
        if looked == "suspended":
            scene.now += 10 * STALL
        scene.live(pause, watched=looked != "unwatched")
        match what:
            case "step":
                scene.do_step()
            case "phase":
                scene.enter("training")
            case "evaluate":
                scene.enter("evaluating")
                scene.live(4 * STALL)
                scene.enter("training")
            case "save":
                scene.enter("saving")
                scene.live(1.5 * STALL)
                scene.enter("training")
    assert [each for each in scene.found if each.failure is not None] == []


@given(st.floats(0, 3 * STALL), st.booleans(), st.sampled_from([10.0, None]))
def test_one_that_never_steps_again_is_stopped_within_its_limit_and_the_second_look(
    before: float, beats: bool, beats_s: float | None
) -> None:
    scene = training(beats_s=beats_s)
    while scene.now - scene.began < before:
        scene.live(STALL / 2)
        scene.do_step()
    scene.live(1)
    scene.beats = beats
    scene.live(STALL + 2.5 * 10 + liveness.SECOND_LOOK + 3 * scene.interval)
    failures = [each.action for each in scene.found if each.failure is not None]
    assert failures[:2] == ["dump_stacks", "request_stop"]
