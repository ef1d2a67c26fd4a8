"""An engine that had answered may crash again and again; one that never gets that far is given up."""

from __future__ import annotations

from tests.unit.domain.worlds import Scene

from finetuned.domain import facts
from finetuned.domain.job import SERVING
from finetuned.domain.tries import BACKOFF_FIRST_S


def crash(scene: Scene, *, serving: bool) -> str:
    """Let it start, answer if it is to, and crash; its state then."""
    scene.schedule()
    scene.start()
    if serving:
        scene.report("job-1", facts.JobPhase(phase=SERVING))
    scene.end(exit_code=None, signal=9)
    return scene.state()


def test_an_engine_that_answers_between_its_crashes_is_always_started_again() -> None:
    scene = Scene()
    scene.submit(serves="key", max_attempts=3)
    assert [crash(scene, serving=True) for _ in range(10)] == ["queued"] * 10
    assert scene.world.jobs["job-1"].delay_s < BACKOFF_FIRST_S  # the tenth time as the first


def test_an_engine_that_crashes_at_once_is_given_up_after_its_tries() -> None:
    scene = Scene()
    scene.submit(serves="key", max_attempts=3)
    assert [crash(scene, serving=False) for _ in range(3)] == ["queued", "queued", "failed"]


def test_a_crash_after_it_had_answered_does_not_use_up_the_tries_of_others() -> None:
    scene = Scene()
    scene.submit(serves="key", max_attempts=3)
    assert [crash(scene, serving=serving) for serving in (False, True, False, True, False)] == [
        *["queued"] * 4,
        "failed",
    ]


def test_any_other_job_uses_up_its_tries_whatever_its_phase_was() -> None:
    scene = Scene()
    scene.submit(max_attempts=3)
    assert [crash(scene, serving=True) for _ in range(3)] == ["queued", "queued", "failed"]


def test_who_asks_an_engine_uses_up_no_try_that_brought_answers() -> None:
    scene = Scene()
    need = {"kind": "fake-engine", "params": {"model": "m"}, "key": "key", "model": "m", "adapter": None}
    scene.submit(engine=need, devices=0, max_attempts=2)

    def killed(*, answers: int) -> str:
        scene.schedule()
        scene.start()
        scene.report("job-1", facts.JobProgress({"current_step": answers}))
        scene.end(exit_code=None, signal=9)
        return scene.state()

    assert [killed(answers=answers) for answers in (3, 4, 9, 9, 9)] == [*["queued"] * 4, "failed"]
