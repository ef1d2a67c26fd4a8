"""The watchdog over attempts, with a real daemon: what a user sees of a job that hangs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.acceptance.daemon.process import Daemon, eventually, running

#: short, so that a test can wait for them, and longer than a busy machine lets a trainer wait for a core
SHORT = {"heartbeat_s": 3.0, "start_s": 60.0, "stall_s": 3.0, "pause_s": 15.0}


def submit(daemon: Daemon, timeouts: dict[str, float], *, max_attempts: int = 3, **params: Any) -> str:
    body = {"kind": "fake", "params": params, "timeouts": timeouts, "max_attempts": max_attempts}
    return str(daemon.ok("POST", "/v1/jobs", body)["id"])


def interventions(daemon: Daemon, job_id: str) -> list[str]:
    """What was done, in order; a worker that came back to life on a busy machine may be dumped twice."""
    found = [event["data"] for event in daemon.events(job_id) if event["type"] == "attempt.intervened"]
    return [action for action, _ in groupby(each["action"] for each in found)]


@contextmanager
def impatient(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose trainers get 0.3 s between SIGTERM and SIGKILL."""
    settings = tmp_path / "settings.toml"
    settings.write_text("cancel_grace_s = 0.3\n", encoding="utf-8")
    with running("--config", str(settings)) as daemon:
        yield daemon


def test_a_hung_trainer_is_dumped_stopped_and_tried_again_from_the_checkpoint_it_saved() -> None:
    with running() as daemon:
        job_id = submit(daemon, SHORT, steps=6, step_seconds=0.15, hang_at=3, fail_attempts=1)
        job = daemon.wait_for(job_id)
        assert job["state"] == "succeeded"
        first, second = job["attempts"][1:]
        assert (first["outcome"], first["failure"]) == ("stalled", "stall")
        assert first["cause"].endswith("(training, after step 2)")
        assert second["resume_from"].endswith("checkpoint-3")
        assert daemon.steps(job_id) == [1, 2, 3, 4, 5, 6]
        assert interventions(daemon, job_id) == ["dump_stacks", "request_stop"]
        status, logs = daemon.request("GET", f"/v1/jobs/{job_id}/logs?attempt=1")
        assert status == 200
        assert "most recent call first" in str(logs)


def test_one_that_ignores_everything_is_killed_with_its_group_and_each_attempt_says_why(
    tmp_path: Path,
) -> None:
    with impatient(tmp_path) as daemon:
        limits = {**SHORT, "pause_s": 0.3}
        job_id = submit(daemon, limits, max_attempts=1, hang_at=2, ignore_sigterm=True, spawn_children=2)
        job = daemon.wait_for(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "gave_up")
        assert "attempt 1: no step for" in job["error"]["message"]
        assert interventions(daemon, job_id) == ["dump_stacks", "request_stop", "terminate", "kill"]
        assert daemon.attempt_processes(job_id) == []


def test_a_start_that_takes_too_long_says_in_which_phase_it_hung(tmp_path: Path) -> None:
    with impatient(tmp_path) as daemon:
        limits = {**SHORT, "start_s": 8.0, "pause_s": 0.3}
        job_id = submit(daemon, limits, max_attempts=1, loading_seconds=60)
        job = daemon.wait_for(job_id)
        assert job["attempts"][-1]["failure"] == "start_timeout"
        assert re.search(
            r"no first step, and no sign of work for \d+ s \(loading_model\)", job["error"]["message"]
        )


def test_a_job_fails_at_its_deadline_and_keeps_what_it_has() -> None:
    with running() as daemon:
        limits = {**SHORT, "stall_s": 30.0, "max_duration_s": 3.0}
        job_id = submit(daemon, limits, steps=100_000, step_seconds=0.02)
        job = daemon.wait_for(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
        assert "max_duration_s allows 3 s" in job["error"]["message"]
        assert f"finetune retry {job_id} --from-checkpoint latest" in job["error"]["message"]
        assert job["checkpoints"]
        assert interventions(daemon, job_id) == ["request_stop"]


def test_a_daemon_killed_in_the_middle_of_a_stall_is_followed_by_one_that_sees_it_through(
    tmp_path: Path,
) -> None:
    with impatient(tmp_path) as daemon:
        job_id = submit(daemon, SHORT, max_attempts=1, hang_at=2, ignore_sigterm=True)
        eventually(lambda: "request_stop" in interventions(daemon, job_id), what="the request")
        daemon.kill()  # while the trainer has most of its time to stop left
        assert daemon.attempt_processes(job_id)
        daemon.start()
        job = daemon.wait_for(job_id)
        assert job["attempts"][-1]["outcome"] == "stalled"
        assert interventions(daemon, job_id) == ["dump_stacks", "request_stop", "terminate", "kill"]
        assert daemon.attempt_processes(job_id) == []
