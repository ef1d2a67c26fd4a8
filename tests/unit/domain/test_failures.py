"""What follows each kind of failure."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.domain import attempt_decisions, facts, pauses
from finetuned.domain.failures import RULES, Failure, of_error
from finetuned.domain.job import Job


def running(**changes: Any) -> Scene:
    scene = Scene()
    scene.submit("job-1", **changes)
    scene.schedule()
    scene.start("job-1")
    return scene


def job(scene: Scene) -> Job:
    return scene.world.jobs["job-1"]


def fail(scene: Scene, code: str, *, retryable: bool, reduced: dict[str, Any] | None = None) -> None:
    number = job(scene).attempts[-1].number
    fact = facts.AttemptError(attempt=number, code=code, message=f"It said {code}.", retryable=retryable)
    scene.report("job-1", fact)
    scene.end(exit_code=1, reduced=reduced)


def intervene(scene: Scene, failure: str, action: str = "request_stop") -> None:
    fact = facts.AttemptIntervened(attempt=1, action=action, failure=failure, reason="no step for 600 s")
    scene.fold(attempt_decisions.intervene(scene.world, "job-1", fact))


def test_every_failure_has_a_rule() -> None:
    assert set(RULES) == set(Failure)


@pytest.mark.parametrize(
    ("code", "retryable", "failure"),
    [
        ("worker_error", True, Failure.CRASH),
        ("bad_dataset", False, Failure.BAD_INPUT),
        ("loss_diverged", False, Failure.DIVERGED),
        ("out_of_memory", False, Failure.OUT_OF_MEMORY),
        ("disk_full", True, Failure.DISK_FULL),
        ("disk_full", False, Failure.BAD_INPUT),
    ],
)
def test_an_error_is_a_kind_of_failure(code: str, *, retryable: bool, failure: Failure) -> None:
    assert of_error(code, retryable=retryable) is failure


@pytest.mark.parametrize("failure", ["stall", "start_timeout"])
def test_an_attempt_that_the_watchdog_stopped_is_stalled_and_tried_again(failure: str) -> None:
    scene = running()
    intervene(scene, failure)
    scene.end(exit_code=75, resume_from="/checkpoint-1", step=1)
    newest = job(scene).attempts[-1]
    assert (newest.outcome, newest.failure, newest.cause) == ("stalled", failure, "no step for 600 s")
    assert (scene.state(), job(scene).resume_from) == ("queued", "/checkpoint-1")


def test_a_stack_dump_alone_stops_nothing() -> None:
    scene = running()
    intervene(scene, "stall", "dump_stacks")
    assert job(scene).attempts[-1].stopping is None


def test_an_attempt_that_comes_to_its_end_while_it_is_stopped_has_succeeded() -> None:
    scene = running()
    intervene(scene, "stall")
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    assert scene.state() == "succeeded"


@pytest.mark.parametrize(
    ("failure", "code"), [("deadline", "deadline_exceeded"), ("limit", "limit_exceeded")]
)
def test_what_used_up_its_time_or_its_limits_fails_for_good(failure: str, code: str) -> None:
    scene = running()
    intervene(scene, failure)
    scene.end(exit_code=75)
    error = job(scene).error
    assert error is not None
    assert error["code"] == code
    assert error["message"].lower().startswith("no step for 600 s")


def test_out_of_memory_is_followed_by_half_the_batch_which_the_next_attempt_is_told() -> None:
    scene = running()
    halved = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    fail(scene, "out_of_memory", retryable=False, reduced=halved)
    assert (scene.state(), job(scene).overrides) == ("queued", halved)
    scene.schedule()
    assert job(scene).attempts[-1].overrides == halved


@pytest.mark.parametrize("why", ["nothing left to halve", "the job forbids it"])
def test_out_of_memory_that_cannot_be_reduced_fails_at_once(why: str) -> None:
    scene = running(reduces_batch=why != "the job forbids it")
    fail(scene, "out_of_memory", retryable=False, reduced=None if "nothing" in why else {"batch": 1})
    assert job(scene).error == {"code": "out_of_memory", "message": "It said out_of_memory."}


def test_a_kill_by_the_kernel_for_want_of_memory_is_tried_again_with_half_the_batch() -> None:
    scene = running()
    scene.end(exit_code=None, signal=9, oom_killed=True, reduced={"batch": 2})
    assert (scene.state(), job(scene).attempts[-1].failure) == ("queued", "host_out_of_memory")
    assert job(scene).overrides == {"batch": 2}


def test_a_loss_that_diverged_is_not_tried_again_because_it_would_diverge_again() -> None:
    scene = running()
    fail(scene, "loss_diverged", retryable=False)
    assert job(scene).error == {"code": "loss_diverged", "message": "It said loss_diverged."}


def test_each_attempts_cause_is_told_when_the_job_is_given_up() -> None:
    scene = running(max_attempts=2)
    intervene(scene, "stall")
    scene.end(exit_code=75)
    scene.schedule()
    scene.start("job-1")
    scene.end(exit_code=None, signal=11)
    error = job(scene).error
    assert error is not None
    assert error["code"] == "gave_up"
    assert "attempt 1: no step for 600 s; attempt 2: it was killed by signal 11" in error["message"]


@pytest.mark.parametrize(("then", "state"), [("paused", "paused"), ("queued", "queued")])
def test_a_job_that_runs_out_of_memory_while_it_pauses_goes_on_with_half_the_batch(
    then: str, state: str
) -> None:
    scene = running()
    scene.fold(pauses.pause(scene.world, "job-1", actor="uid:1"))
    if then == "queued":
        scene.fold(pauses.resume(scene.world, "job-1", actor="uid:1"))
    fail(scene, "out_of_memory", retryable=False, reduced={"batch": 2})
    assert scene.state() == state
    if state == "paused":
        scene.fold(pauses.resume(scene.world, "job-1", actor="uid:1"))
    scene.schedule()
    assert job(scene).attempts[-1].overrides == {"batch": 2}


def lose(scene: Scene, step: int | None) -> None:
    """Let the host of the job's next attempt go down; ``step`` is that of the newest checkpoint then."""
    if scene.state() == "queued":
        scene.schedule()
        scene.start("job-1")
    scene.end(
        exit_code=None,
        lost="the machine was restarted while it ran",
        resume_from=None if step is None else f"/checkpoint-{step}",
        step=step,
    )


def test_a_host_that_goes_down_uses_up_no_try_of_a_job_that_got_on_since_the_last_time() -> None:
    scene = running(max_attempts=2)
    for power_cut in range(1, 6):
        lose(scene, 100 * power_cut)
        assert scene.state() == "queued"
    assert job(scene).resume_from == "/checkpoint-500"


@pytest.mark.parametrize("step", [None, 100])
def test_a_host_that_goes_down_before_the_job_gets_anywhere_uses_up_a_try(step: int | None) -> None:
    scene = running(max_attempts=2, resume_from=None if step is None else f"/checkpoint-{step}")
    lose(scene, step)
    assert scene.state() == "queued"
    lose(scene, step)
    assert scene.state() == "failed"


@pytest.mark.parametrize(("exit_code", "signal"), [(75, None), (None, 15)])
def test_a_shutdown_that_ends_what_a_stopped_daemon_left_running_costs_what_a_power_cut_does(
    exit_code: int | None, signal: int | None
) -> None:
    scene = running(max_attempts=2)
    for step in (100, 200, 300, 300):
        scene.end(exit_code=exit_code, signal=signal, resume_from=f"/checkpoint-{step}", step=step)
        assert (scene.state(), job(scene).attempts[-1].failure) == ("queued", "stopped")
        scene.schedule()
        scene.start("job-1")
    scene.end(exit_code=exit_code, signal=signal, resume_from="/checkpoint-300", step=300)
    assert scene.state() == "failed"


def test_an_error_of_one_that_ends_as_if_told_to_stop_counts() -> None:
    scene = running(max_attempts=1)
    fact = facts.AttemptError(attempt=1, code="worker_error", message="It broke.", retryable=True)
    scene.report("job-1", fact)
    scene.end(exit_code=75, resume_from="/checkpoint-100", step=100)
    assert (scene.state(), job(scene).attempts[-1].failure) == ("failed", "crash")


def test_a_crash_counts_although_the_job_got_on() -> None:
    scene = running(max_attempts=2)
    lose(scene, 100)
    for step, state in ((200, "queued"), (300, "failed")):
        scene.schedule()
        scene.start("job-1")
        scene.end(exit_code=1, resume_from=f"/checkpoint-{step}", step=step)
        assert scene.state() == state


def test_a_job_that_takes_its_host_down_again_and_again_is_given_up_in_the_end() -> None:
    scene = running(max_attempts=2)
    for power_cut in range(1, RULES[Failure.LOST].spared + 2):
        lose(scene, power_cut)
        assert scene.state() == "queued"
    lose(scene, 1_000)
    assert scene.state() == "failed"


def test_nothing_is_recorded_of_an_attempt_that_has_ended() -> None:
    scene = running()
    scene.end(exit_code=1)
    fact = facts.AttemptAlert(attempt=1, subject="memory", message="95 %")
    assert attempt_decisions.intervene(scene.world, "job-1", fact) == []
