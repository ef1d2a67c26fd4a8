"""A full disk is not the job's doing: it uses up no try, and the job goes on from its newest checkpoint."""

from __future__ import annotations

from tests.unit.domain.worlds import Scene

from finetuned.domain import facts, failures
from finetuned.domain.failures import RULES, End, Failure

SPARED = RULES[Failure.DISK_FULL].spared


def fail(scene: Scene, code: str = "disk_full") -> None:
    """Let the next attempt of ``job-1`` start and give up."""
    scene.schedule()
    number = scene.start()
    said = facts.AttemptError(attempt=number, code=code, message="It gave up.", retryable=True)
    scene.report("job-1", said)
    scene.end(exit_code=1, resume_from="/checkpoint-4", step=4)


def submitted(*, max_attempts: int) -> Scene:
    scene = Scene()
    scene.submit(max_attempts=max_attempts)
    return scene


def test_more_attempts_than_it_has_may_end_for_want_of_room() -> None:
    scene = submitted(max_attempts=1)
    for _ in range(5):
        fail(scene)
    job = scene.world.job("job-1")
    assert (job.state, job.resume_from) == ("queued", "/checkpoint-4")
    assert {attempt.failure for attempt in job.attempts} == {"disk_full"}


def test_a_crash_counts_beside_them() -> None:
    scene = submitted(max_attempts=2)
    for code in ("disk_full", "crashed", "disk_full"):
        fail(scene, code)
    assert scene.state() == "queued"
    fail(scene, "crashed")
    error = scene.world.job("job-1").error
    assert error is not None
    assert error["code"] == "gave_up"


def test_a_job_that_fills_every_disk_is_given_up_in_the_end() -> None:
    scene = submitted(max_attempts=3)
    for _ in range(SPARED + 2):
        fail(scene)
        assert scene.state() == "queued"
    fail(scene)
    assert scene.state() == "failed"


def test_only_what_is_spared_is_not_counted() -> None:
    ends = [End(None), End("crash"), End("disk_full"), End("stall"), End("lost"), End("lost", got_on=True)]
    assert failures.counted(ends) == 4
    assert failures.counted([End("disk_full")] * (SPARED + 4)) == 4
    assert failures.counted([]) == 0
