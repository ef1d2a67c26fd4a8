"""Workers restarted, killed and cleared by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.domain.worlds import Scene

from finetuned.attempt_orders import live
from finetuned.domain import decisions, facts, worker_decisions
from finetuned.domain.engines import Demand, Wanted
from finetuned.domain.errors import Rejected
from finetuned.domain.states import JobState


def running(**changes: Any) -> Scene:
    scene = Scene()
    scene.submit(**changes)
    scene.schedule()
    scene.start()
    return scene


def test_a_trainer_that_is_restarted_pauses_and_is_queued_again() -> None:
    scene = running()
    scene.fold(worker_decisions.restart(scene.world, "job-1", actor="uid:1"))
    job = scene.world.jobs["job-1"]
    assert (job.state, job.pause_then) == (JobState.PAUSING, "queued")
    assert worker_decisions.restart(scene.world, "job-1", actor="uid:1") == []
    scene.end()
    assert scene.world.jobs["job-1"].state is JobState.QUEUED


def test_an_engine_that_is_restarted_is_ended_and_comes_when_it_is_asked() -> None:
    scene = running(serves="key")
    scene.fold(worker_decisions.restart(scene.world, "job-1", actor="uid:1"))
    job = scene.world.jobs["job-1"]
    assert (job.state, job.cancel_reason) == (JobState.CANCELLING, worker_decisions.RESTARTED)


def test_a_worker_that_is_killed_is_given_no_time() -> None:
    scene = running()
    scene.fold(worker_decisions.kill(scene.world, "job-1", actor="uid:1"))
    job = scene.world.jobs["job-1"]
    assert job.live_attempt is not None
    order = live(job, job.live_attempt).stop
    assert order is not None
    assert order.force
    assert "uid:1" in order.reason


def test_a_worker_that_the_watchdog_stops_is_not_killed_at_once() -> None:
    scene = running()
    fact = facts.AttemptIntervened(attempt=1, action="terminate", failure="stall", reason="no step")
    scene.report("job-1", fact)
    job = scene.world.jobs["job-1"]
    assert job.live_attempt is not None
    order = live(job, job.live_attempt).stop
    assert order is not None
    assert not order.force


def test_a_kill_overtakes_the_watchdog_and_a_cancel() -> None:
    scene = running()
    scene.report(
        "job-1", facts.AttemptIntervened(attempt=1, action="terminate", failure="stall", reason="no step")
    )
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
    scene.fold(worker_decisions.kill(scene.world, "job-1", actor="uid:1"))
    job = scene.world.jobs["job-1"]
    assert job.live_attempt is not None
    order = live(job, job.live_attempt).stop
    assert order is not None
    assert order.force


def test_a_job_whose_worker_was_killed_is_tried_again() -> None:
    scene = running()
    scene.fold(worker_decisions.kill(scene.world, "job-1", actor="uid:1"))
    scene.end()
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.QUEUED
    assert job.attempts[-1].failure == "stopped"


def test_a_job_without_a_worker_has_none_to_restart_or_to_kill() -> None:
    scene = Scene()
    scene.submit()
    for act in (worker_decisions.restart, worker_decisions.kill):
        with pytest.raises(Rejected) as refused:
            act(scene.world, "job-1", actor="uid:1")
        assert refused.value.stable_code == "no_worker"


def test_only_engines_that_nobody_asks_are_cleared() -> None:
    scene = Scene(devices=3)
    asked = Wanted(kind="engine", params={}, model="asked")
    for number, key in enumerate(("idle", asked.key), 1):
        scene.submit(f"job-{number}", serves=key)
    scene.submit("job-3")
    scene.schedule()
    idle, busy = worker_decisions.idle(scene.world, Demand(online={asked.key: asked}))
    assert ([each.id for each in idle], [each.id for each in busy]) == (["job-1"], ["job-2"])
    scene.fold(worker_decisions.clear(scene.world, {"job-1", "job-3"}, actor="uid:1"))
    states = [scene.world.jobs[f"job-{number}"].state for number in (1, 2, 3)]
    assert states == [JobState.CANCELLING, JobState.STARTING, JobState.STARTING]
