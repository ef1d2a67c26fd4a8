"""What the watchdog did about an attempt, as its job sees it."""

from __future__ import annotations

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import attempt_decisions, facts, pauses, verdicts
from finetuned.domain.job import Attempt, Job
from finetuned_sdk import bundle


def running(**changes: object) -> Scene:
    scene = Scene()
    scene.submit("job-1", **changes)
    scene.schedule()
    scene.start("job-1")
    return scene


def intervene(scene: Scene, action: str, failure: str | None, reason: str = "no step for 600 s") -> None:
    fact = facts.AttemptIntervened(attempt=1, action=action, failure=failure, reason=reason)
    scene.fold(attempt_decisions.intervene(scene.world, "job-1", fact))


def job(scene: Scene) -> Job:
    return scene.world.jobs["job-1"]


def attempt(scene: Scene) -> Attempt:
    return job(scene).attempts[-1]


def test_a_stack_dump_stops_nothing() -> None:
    scene = running()
    intervene(scene, "dump_stacks", "stall")
    assert attempt(scene).stopping is None


def test_an_attempt_that_is_being_stopped_keeps_its_first_reason_and_its_newest_step() -> None:
    scene = running()
    intervene(scene, "request_stop", "stall")
    intervene(scene, "terminate", "stall", "it did not stop within 30 s: no step for 600 s")
    assert attempt(scene).stopping == {
        "failure": "stall", "reason": "no step for 600 s", "action": "terminate",
    }  # fmt: skip
    scene.end(exit_code=None, signal=9)
    assert (attempt(scene).outcome, attempt(scene).cause) == ("stalled", "no step for 600 s")


@pytest.mark.parametrize("action", ["terminate", "kill"])
def test_a_pause_that_had_to_be_helped_ends_paused_and_not_failed(action: str) -> None:
    scene = running()
    scene.fold(pauses.pause(scene.world, "job-1", actor="a"))
    intervene(scene, action, None, "it did not stop within 30 s: lunch")
    assert attempt(scene).stopping is None
    scene.end(exit_code=None, signal=9)
    assert (scene.state(), attempt(scene).outcome, attempt(scene).failure) == ("paused", "paused", None)


@pytest.mark.parametrize(
    ("exit_code", "signal", "how"), [(75, None, "exit code 75"), (None, 15, "signal 15")]
)
def test_an_attempt_that_somebody_else_told_to_stop_says_so_and_is_tried_again(
    exit_code: int | None, signal: int | None, how: str
) -> None:
    scene = running()
    scene.end(exit_code=exit_code, signal=signal)
    assert (scene.state(), attempt(scene).outcome) == ("queued", "crashed")
    assert attempt(scene).cause == (
        f"somebody told it to stop who is neither its watchdog nor a pause nor a cancel ({how})"
    )


@pytest.mark.parametrize(("exit_code", "signal"), [(75, None), (None, 15), (None, 9)])
def test_a_stop_that_was_asked_for_of_which_the_log_does_not_know_uses_up_no_try(
    exit_code: int | None, signal: int | None
) -> None:
    scene = running(max_attempts=1)
    scene.end(exit_code=exit_code, signal=signal, asked="lunch", resume_from="/checkpoint-10", step=10)
    assert (scene.state(), attempt(scene).outcome, attempt(scene).failure) == ("queued", "paused", None)
    assert attempt(scene).cause == "it was asked to stop: lunch"
    assert job(scene).resume_from == "/checkpoint-10"
    assert job(scene).delay_s == 0


def test_an_attempt_that_was_stopped_before_it_started_uses_up_no_try() -> None:
    scene = running(max_attempts=1)
    scene.end(exit_code=None, lost="it was stopped before it started", asked="lunch")
    assert (scene.state(), attempt(scene).outcome, attempt(scene).failure) == ("queued", "paused", None)
    assert attempt(scene).cause == "it was stopped before it started"


def test_a_kill_for_want_of_memory_is_no_stop_though_one_was_asked_for() -> None:
    scene = running()
    scene.end(exit_code=None, signal=9, oom_killed=True, asked="lunch")
    assert (attempt(scene).outcome, attempt(scene).failure) == ("crashed", "host_out_of_memory")


def test_one_that_ends_otherwise_though_it_was_asked_to_stop_has_crashed() -> None:
    scene = running()
    scene.end(exit_code=1, asked="lunch")
    assert (scene.state(), attempt(scene).outcome) == ("queued", "crashed")


def test_the_exit_code_of_a_stopped_worker_is_the_workers() -> None:
    assert bundle.STOPPED_EXIT_CODE == verdicts.STOPPED_EXIT_CODE


def test_a_job_that_used_up_its_time_fails_and_says_how_to_go_on() -> None:
    scene = running()
    intervene(scene, "request_stop", "deadline", "it ran for 60 s in all, and max_duration_s allows 60 s")
    scene.end(exit_code=75)
    assert scene.state() == "failed"
    assert job(scene).error == {
        "code": "deadline_exceeded",
        "message": "It ran for 60 s in all, and max_duration_s allows 60 s. `finetune retry job-1 --from-checkpoint"
        " latest` goes on with what it has, for as long again.",
    }
