"""Pausing, resuming, preempting and draining."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.domain.worlds import Scene, end

from finetuned.domain import attempt_decisions, decisions, facts, pauses, queue
from finetuned.domain.errors import Rejected
from finetuned.domain.job import Job
from finetuned.domain.next_steps import next_steps
from finetuned.domain.places import order
from finetuned.domain.room import Room
from finetuned.domain.situation import Hold, Situation
from finetuned.domain.verdicts import judge
from finetuned.domain.waits import Waits, wait_of


def job(scene: Scene, job_id: str = "job-1") -> Job:
    return scene.world.jobs[job_id]


def running(**changes: object) -> Scene:
    scene = Scene()
    scene.submit("job-1", **changes)
    scene.schedule()
    scene.start("job-1")
    return scene


def pause(scene: Scene, job_id: str = "job-1") -> None:
    scene.fold(pauses.pause(scene.world, job_id, actor="uid:1"))


def resume(scene: Scene, checkpoint: str | None = None) -> None:
    scene.fold(pauses.resume(scene.world, "job-1", actor="uid:1", checkpoint=checkpoint))


def test_a_running_job_is_pausing_until_its_attempt_has_ended_and_then_holds_no_device() -> None:
    scene = running()
    pause(scene)
    assert scene.state() == "pausing"
    assert any(slot.holder for slot in scene.world.slots.values())
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    assert scene.state() == "paused"
    assert not any(slot.holder for slot in scene.world.slots.values())
    assert job(scene).resume_from == "/checkpoint-10"
    assert job(scene).attempts[-1].outcome == "paused"


def test_a_queued_job_is_paused_at_once_and_not_started() -> None:
    scene = Scene()
    scene.submit("job-1")
    pause(scene)
    scene.schedule()
    assert scene.state() == "paused"
    assert job(scene).attempts == ()


def test_pausing_twice_is_pausing_once() -> None:
    scene = running()
    pause(scene)
    assert pauses.pause(scene.world, "job-1", actor="uid:2") == []


def test_who_pauses_again_can_have_less_patience_and_not_more() -> None:
    scene = running()
    scene.fold(pauses.pause(scene.world, "job-1", actor="uid:1", reason="lunch", wait_s=300))
    for patience_s in (None, 300, 600):
        assert pauses.pause(scene.world, "job-1", actor="uid:2", wait_s=patience_s) == []
    scene.fold(pauses.pause(scene.world, "job-1", actor="uid:2", wait_s=10))
    assert (job(scene).pause_wait_s, job(scene).pause_reason, scene.state()) == (10, "lunch", "pausing")
    assert job(scene).pause_then == "paused"
    assert pauses.pause(scene.world, "job-1", actor="uid:2", wait_s=10) == []


def test_the_steps_that_a_pause_costs_are_told() -> None:
    scene = running()
    scene.report("job-1", facts.JobProgress({"current_step": 17}))
    pause(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    assert job(scene).repeated_steps == 7
    resume(scene)
    assert job(scene).repeated_steps == 7


def test_a_job_that_ends_well_while_it_pauses_has_succeeded() -> None:
    scene = running()
    pause(scene)
    scene.report("job-1", facts.AttemptResult(attempt=1, values={}))
    scene.end()
    assert scene.state() == "succeeded"


def test_a_job_that_crashes_while_it_pauses_is_paused_at_its_newest_checkpoint() -> None:
    scene = running()
    pause(scene)
    scene.end(exit_code=None, signal=9, resume_from="/checkpoint-5", step=5)
    assert scene.state() == "paused"
    assert job(scene).resume_from == "/checkpoint-5"


def test_pauses_use_up_no_attempt() -> None:
    scene = running(max_attempts=1)
    for _ in range(3):
        pause(scene)
        scene.end(exit_code=75)
        resume(scene)
        scene.schedule()
        scene.start("job-1")
    scene.end(exit_code=1)
    assert scene.state() == "failed"
    error = job(scene).error
    assert error is not None
    assert "Gave up after 1 attempt: attempt 4" in error["message"]


def test_a_resumed_job_keeps_its_id_and_goes_on_from_its_checkpoint() -> None:
    scene = running()
    pause(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    resume(scene)
    scene.schedule()
    assert scene.state() == "starting"
    assert job(scene).attempts[-1].resume_from == "/checkpoint-10"


def test_a_named_checkpoint_rewinds_the_job_so_that_later_ones_do_not_count_any_more() -> None:
    scene = running()
    pause(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    resume(scene, "/checkpoint-5")
    assert (job(scene).resume_from, job(scene).rewound_at) == ("/checkpoint-5", 2)


def test_resuming_a_job_that_still_pauses_lets_it_go_on_by_itself() -> None:
    scene = running()
    pause(scene)
    resume(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    assert scene.state() == "queued"


@pytest.mark.parametrize(
    ("state", "code"),
    [("succeeded", "job_ended"), ("cancelling", "job_cancelling"), ("validating", "job_validating")],
)
def test_a_pause_that_cannot_be_is_refused_with_the_reason(state: str, code: str) -> None:
    scene = Scene()
    scene.submit("job-1", validates=state == "validating")
    if state != "validating":
        scene.schedule()
    if state == "succeeded":
        scene.run_to_success()
    elif state == "cancelling":
        scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    with pytest.raises(Rejected) as refused:
        pause(scene)
    assert refused.value.stable_code == code


def test_a_checkpoint_that_was_looked_for_before_the_job_ran_again_is_refused() -> None:
    scene = running()
    pause(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-10", step=10)
    resume(scene)
    scene.schedule()
    scene.start("job-1")
    pause(scene)
    scene.end(exit_code=75, resume_from="/checkpoint-20", step=20)
    with pytest.raises(Rejected, match="looks for its newest again") as refused:
        pauses.resume(scene.world, "job-1", actor="uid:1", checkpoint="/checkpoint-10", attempts=1)
    assert refused.value.stable_code == "job_changed"
    assert pauses.resume(scene.world, "job-1", actor="uid:1", checkpoint="/checkpoint-20", attempts=2)


def test_only_a_paused_job_is_resumed() -> None:
    with pytest.raises(Rejected, match="only a paused job can be resumed"):
        resume(running())


def test_only_a_running_job_saves_a_checkpoint_on_request() -> None:
    scene = Scene()
    scene.submit("job-1")
    with pytest.raises(Rejected, match="only a running job can save"):
        pauses.request_checkpoint(scene.world, "job-1", actor="uid:1")
    scene = running()
    scene.fold(pauses.request_checkpoint(scene.world, "job-1", actor="uid:1"))
    assert job(scene).attempts[-1].checkpoint_requests == 1


def test_cancelling_a_pausing_job_ends_it() -> None:
    scene = running()
    pause(scene)
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    scene.end(exit_code=75)
    assert scene.state() == "cancelled"


def test_a_drain_pauses_what_has_a_process_and_lets_it_go_on_by_itself() -> None:
    scene = running()
    scene.submit("job-2")
    scene.fold(pauses.drain(scene.world, actor="daemon", reason="the machine stops"))
    assert (scene.state("job-1"), scene.state("job-2")) == ("pausing", "queued")
    scene.end(exit_code=75, resume_from="/checkpoint-1", step=1)
    assert scene.state("job-1") == "queued"


def ripe(*attempts: tuple[str, int], closed: str | None = None) -> Situation:
    return Situation(ripe=frozenset(attempts), closed=closed)


def schedule(scene: Scene, situation: Situation) -> None:
    scene.fold(decisions.schedule(scene.world, elapsed=frozenset(), situation=situation))


def test_a_job_of_higher_priority_has_a_preemptible_one_leave_and_starts_before_it_goes_on() -> None:
    scene = running(preemptible=True)
    scene.submit("urgent", priority=1)
    schedule(scene, ripe(("job-1", 1)))
    assert scene.state("job-1") == "pausing"
    schedule(scene, ripe(("job-1", 1)))  # asked once only
    assert [event.type for event in scene.events].count("job.pause_requested") == 1
    scene.end("job-1", exit_code=75, resume_from="/checkpoint-3", step=3)
    assert scene.state("job-1") == "queued"
    schedule(scene, ripe())
    assert (scene.state("urgent"), scene.state("job-1")) == ("starting", "queued")
    scene.run_to_success("urgent")
    schedule(scene, ripe())
    assert scene.state("job-1") == "starting"


def test_a_job_that_waited_long_does_not_take_back_the_devices_that_it_was_preempted_from() -> None:
    scene = running(preemptible=True, priority=0)
    scene.submit("urgent", priority=1)
    schedule(scene, ripe(("job-1", 1)))
    scene.end("job-1", exit_code=75)
    victim, urgent = job(scene), job(scene, "urgent")
    assert order(victim) > order(urgent) or victim.preempted_by == "urgent"
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values())
    assert waits["job-1"].reason == "behind urgent, which preempted it"


@pytest.mark.parametrize("why", ["not preemptible", "not ripe", "equal priority", "closed"])
def test_nothing_is_preempted_without_cause(why: str) -> None:
    scene = running(preemptible=why != "not preemptible")
    scene.submit("other", priority=0 if why == "equal priority" else 5)
    situation = ripe(
        *([] if why == "not ripe" else [("job-1", 1)]), closed="draining" if why == "closed" else None
    )
    schedule(scene, situation)
    assert scene.state("job-1") == "running"


def test_no_job_is_preempted_for_one_that_would_not_fit_even_then() -> None:
    scene = Scene(devices=2)
    scene.submit("small", preemptible=True)
    scene.submit("firm")
    scene.schedule()
    for name in ("small", "firm"):
        scene.start(name)
    scene.submit("large", priority=9, devices=2)
    schedule(scene, ripe(("small", 1), ("firm", 1)))
    assert scene.state("small") == "running"


def test_nothing_starts_while_the_daemon_drains_and_the_wait_says_why() -> None:
    scene = Scene()
    scene.submit("job-1")
    situation = ripe(closed="the daemon drains; it goes on after its next start")
    schedule(scene, situation)
    assert scene.state() == "queued"
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values(), situation)
    assert "drains" in waits["job-1"].reason


def test_a_device_with_foreign_processes_is_used_when_enough_of_it_is_free() -> None:
    scene = Scene()
    scene.submit("job-1", estimate={"device_bytes": 8 << 30})
    device = next(iter(scene.world.slots))
    tight = Situation(holds={device: Hold("pid 812 (Xorg)", free_bytes=4 << 30)})
    schedule(scene, tight)
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values(), tight)
    assert "pid 812 (Xorg)" in waits["job-1"].reason
    schedule(scene, Situation(holds={device: Hold("pid 812 (Xorg)", free_bytes=9 << 30)}))
    assert scene.state() == "starting"


def test_a_device_that_strangers_have_a_part_of_is_used_within_the_tolerance_and_by_who_ignores_the_estimate() -> (
    None
):
    for estimate, ignores, expected in (
        (10, False, "starting"),
        (11, False, "queued"),
        (30, True, "starting"),
    ):
        scene = Scene()
        scene.submit("job-1", estimate={"device_bytes": estimate << 30}, ignores_estimate=ignores)
        device = next(iter(scene.world.slots))
        schedule(scene, Situation(holds={device: Hold("pid 812 (Xorg)", free_bytes=8 << 30)}))
        assert scene.state() == expected


def two_running() -> Scene:
    """Two jobs that may be preempted hold the two devices."""
    scene = Scene(devices=2)
    for name in ("first", "second"):
        scene.submit(name, preemptible=True)
    scene.schedule()
    for name in ("first", "second"):
        scene.start(name)
    return scene


BOTH = ripe(("first", 1), ("second", 1))


def victims(scene: Scene, situation: Situation = BOTH) -> list[str]:
    found = queue.victims(scene.world.live_jobs(), scene.world.slots.values(), situation)
    return [victim.id for victim, _by in found]


def test_nobody_is_preempted_while_a_free_device_is_only_held_in_passing() -> None:
    scene = two_running()
    scene.fold(decisions.cancel(scene.world, "first", actor="uid:1"))
    scene.end("first", exit_code=75)
    scene.submit("urgent", priority=5)
    for passing, expected in ((True, []), (False, ["second"])):
        hold = Hold("what an attempt left", passing=passing)
        situation = Situation(ripe=BOTH.ripe, holds={"cpu:0": hold})
        assert victims(scene, situation) == expected


def test_nobody_is_preempted_while_another_is_leaving_its_device_whoever_asked_for_it() -> None:
    for leave in ("cancelled", "paused", "preempted", "preempted, then paused"):
        scene = two_running()
        scene.submit("urgent", priority=5)
        assert victims(scene) == ["second"]
        if leave == "cancelled":
            scene.fold(decisions.cancel(scene.world, "first", actor="uid:1"))
        if leave.startswith("preempted"):
            schedule(scene, BOTH)
        if leave.endswith("paused"):
            pause(scene, "second")
        assert victims(scene) == [], leave


def test_nobody_leaves_for_nothing_where_one_larger_job_has_enough_devices() -> None:
    scene = Scene(devices=3)
    scene.submit("single", preemptible=True)
    scene.submit("double", preemptible=True, priority=1, devices=2)
    scene.schedule()
    for name in ("single", "double"):
        scene.start(name)
    scene.submit("urgent", priority=5, devices=2)
    assert victims(scene, ripe(("single", 1), ("double", 1))) == ["double"]


def test_who_preempted_in_vain_preempts_nobody_again() -> None:
    scene = two_running()
    scene.submit("urgent", priority=5)
    assert victims(scene) == ["second"]
    assert victims(scene, replace(BOTH, in_vain=frozenset({"urgent"}))) == []


@pytest.mark.parametrize("why", ["backing off", "no memory", "too few devices", "paused"])
def test_a_preempted_job_does_not_wait_for_one_that_cannot_start(why: str) -> None:
    scene = two_running()
    scene.fold(decisions.cancel(scene.world, "first", actor="uid:1"))
    scene.end("first", exit_code=75)
    scene.submit("urgent", priority=5, devices=2, estimate={"host_bytes": 50 * 10**9})
    schedule(scene, BOTH)
    scene.end("second", exit_code=75)
    assert job(scene, "second").preempted_by == "urgent"
    slots = list(scene.world.slots.values())
    small = Room(memory_bytes=100 * 10**9, memory_free_bytes=9 * 10**9)
    situation = Situation(
        in_backoff=frozenset({"urgent"} if why == "backing off" else ()),
        room=small if why == "no memory" else None,
    )
    assert [each.job.id for each in queue.plan(scene.world.live_jobs(), slots)] == ["urgent"]
    if why == "too few devices":
        slots = slots[:1]
    if why == "paused":
        pause(scene, "urgent")
    live = list(scene.world.live_jobs())
    assert [each.job.id for each in queue.plan(live, slots, situation)] == ["second"]
    assert Waits(live, slots, situation)["second"].reason == "next; about to start"
    assert wait_of(job(scene, "second"), live, slots, situation) == Waits(live, slots, situation)["second"]


def test_a_preempted_job_whose_preemptor_has_begun_says_who_holds_the_device() -> None:
    scene = running(preemptible=True)
    scene.submit("urgent", priority=1)
    schedule(scene, ripe(("job-1", 1)))
    scene.end("job-1", exit_code=75)
    schedule(scene, ripe())
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values())
    assert waits["job-1"].reason == "needs 1 device; 0 of 1 free, held by urgent"


def interrupt(scene: Scene, *, step: int | None = None) -> None:
    """Let the newest attempt give up for what is amiss outside it."""
    newest = job(scene).attempts[-1]
    said = facts.AttemptError(
        attempt=newest.number, code="teacher_unavailable", message="No teacher.", pauses=True
    )
    scene.report("job-1", said)
    scene.end(exit_code=1, resume_from=None if step is None else f"/checkpoint-{step}", step=step)


@pytest.mark.parametrize("told_of_itself", [True, False])
def test_a_job_that_cannot_go_on_for_now_pauses_itself_with_the_reason(*, told_of_itself: bool) -> None:
    scene = Scene()
    scene.submit("job-1")
    scene.schedule()
    if told_of_itself:
        scene.start("job-1")
    scene.report("job-1", facts.JobProgress({"current_step": 12}))
    interrupt(scene, step=10)
    found = job(scene)
    assert (found.state, found.pause_reason, found.resume_from) == ("paused", "No teacher.", "/checkpoint-10")
    assert (found.repeated_steps, found.attempts[-1].outcome, found.attempts[-1].failure) == (
        2,
        "paused",
        None,
    )
    assert not any(slot.holder for slot in scene.world.slots.values())
    waits = wait_of(found, [found], scene.world.slots.values())
    assert waits is not None
    assert waits.reason == "paused: No teacher."
    assert [step.action for step in next_steps(found)] == ["repair", "resume", "cancel"]
    assert "No teacher." in next_steps(found)[0].why


def test_a_job_that_paused_itself_waits_until_it_is_resumed_and_has_used_up_no_try() -> None:
    scene = running(max_attempts=1)
    for _ in range(3):
        interrupt(scene, step=10)
        scene.schedule()
        assert scene.state() == "paused"
        resume(scene)
        scene.schedule()
        scene.start("job-1")
        assert (job(scene).attempts[-1].resume_from, job(scene).pause_reason) == ("/checkpoint-10", None)
    scene.report("job-1", facts.AttemptResult(attempt=4, values={}))
    scene.end()
    assert scene.state() == "succeeded"


def test_a_job_that_was_to_pause_anyway_tells_why_it_could_not_have_gone_on() -> None:
    scene = running()
    scene.fold(pauses.pause(scene.world, "job-1", actor="uid:1", reason="lunch"))
    interrupt(scene)
    assert (scene.state(), job(scene).pause_reason) == ("paused", "No teacher.")


def test_a_job_that_was_to_go_on_after_its_pause_does_though_it_could_not_go_on_before() -> None:
    scene = running()
    pause(scene)
    resume(scene)
    interrupt(scene, step=10)
    assert (scene.state(), job(scene).resume_from) == ("queued", "/checkpoint-10")


def test_a_job_that_is_being_cancelled_is_cancelled_whatever_kept_it_from_going_on() -> None:
    scene = running()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    interrupt(scene)
    assert scene.state() == "cancelled"


def test_an_attempt_that_the_watchdog_stopped_is_judged_by_that() -> None:
    scene = running()
    scene.fold(
        attempt_decisions.intervene(
            scene.world,
            "job-1",
            facts.AttemptIntervened(attempt=1, action="request_stop", failure="stall", reason="no step"),
        )
    )
    interrupt(scene)
    assert (scene.state(), job(scene).attempts[-1].outcome) == ("queued", "stalled")


def test_a_check_of_data_that_cannot_go_on_fails_the_job_with_the_same_words() -> None:
    scene = Scene()
    scene.submit("job-1", validates=True)
    scene.schedule()
    scene.start("job-1")
    interrupt(scene)
    assert (scene.state(), job(scene).error) == (
        "failed",
        {"code": "teacher_unavailable", "message": "No teacher."},
    )


def test_an_error_of_a_log_that_knew_no_such_pauses_is_none() -> None:
    old = {"attempt": 1, "code": "bad", "message": "It broke.", "retryable": False}
    scene = running()
    scene.report("job-1", facts.decode("attempt.error", old))
    scene.end(exit_code=1)
    assert (scene.state(), job(scene).error) == ("failed", {"code": "bad", "message": "It broke."})


def test_a_job_projected_by_a_release_that_knew_no_such_pauses_is_judged_as_before() -> None:
    scene = running()
    old = {"code": "bad", "message": "It broke.", "retryable": False}
    attempt = replace(job(scene).attempts[-1], error=old)
    verdict = judge(job(scene), attempt, end(exit_code=1))
    assert (verdict.outcome, verdict.waits) == ("failed", False)
