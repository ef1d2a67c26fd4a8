"""Limits of a job, kept by a real daemon and its runners on a machine that delegates no control group."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running

from finetuned.attempts import cgroup

MB = 10**6


def no_group() -> str | None:
    """Why an attempt gets no control group here; ``None`` if it gets one, and its limits are kept by that."""
    try:
        cgroup.delegated(cgroup.own())
    except cgroup.NoGroupError as error:
        return str(error)
    return None


WHY = no_group()
pytestmark = pytest.mark.skipif(WHY is None, reason="a control group is delegated to whatever runs here")


def submit(daemon: Daemon, limits: dict[str, float], **params: Any) -> str:
    # Its estimate says that it would not fit: that is what these jobs are for.
    body = {"kind": "fake", "params": params, "limits": limits, "ignores_estimate": True}
    return str(daemon.ok("POST", "/v1/jobs", body)["id"])


def of_type(daemon: Daemon, job: str, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in daemon.events(job) if event["type"] == kind]


def test_an_attempt_over_its_memory_is_ended_by_its_runner_and_the_next_takes_half() -> None:
    with running() as daemon:
        # The first attempt hangs with what it holds, so that it is the limit that ends it.
        job = submit(daemon, {"memory": 300 * MB}, memory_bytes=500 * MB, hang_at=1, fail_attempts=1)
        found = daemon.wait_for(job, timeout=60)
        first, second = found["attempts"][-2:]
        assert (first["failure"], first["outcome"]) == ("host_out_of_memory", "crashed")
        assert "of memory, more than its limit of 0.30 GB" in first["cause"]
        assert second["overrides"] == {"memory_bytes": 250 * MB}
        assert (found["state"], found["result"]["held_bytes"]) == ("succeeded", 250 * MB)
        assert daemon.attempt_processes(job) == []


def test_a_job_that_must_not_be_reduced_fails_with_the_limit_named() -> None:
    with running() as daemon:
        body = {
            "kind": "fake",
            "params": {"memory_bytes": 500 * MB, "hang_at": 1},
            "limits": {"memory": 300 * MB},
            "reduces_batch": False,
            "ignores_estimate": True,
            "max_attempts": 1,
        }
        job = daemon.ok("POST", "/v1/jobs", body)["id"]
        error = daemon.wait_for(job, timeout=60)["error"]
        assert error["code"] == "gave_up"
        assert "more than its limit of 0.30 GB" in error["message"]


def test_files_over_the_limit_stop_the_attempt_with_a_checkpoint_and_fail_the_job() -> None:
    with running() as daemon:
        job = submit(
            daemon,
            {"disk": 20 * MB},
            checkpoint_every=1,
            checkpoint_bytes=15 * MB,
            steps=10_000,
            step_seconds=0.2,
        )
        found = daemon.wait_for(job, timeout=60)
        assert found["error"]["code"] == "limit_exceeded"
        assert "more than its limit of 20.0 MB" in found["error"]["message"]
        (asked,) = [
            each for each in of_type(daemon, job, "attempt.intervened") if each["action"] == "request_stop"
        ]
        assert asked["failure"] == "limit"
        assert (
            len(found["attempts"]) == 2
        )  # its validation, and the one run: the same again would take as much


def test_an_event_says_how_each_limit_is_kept_once() -> None:
    limits: dict[str, float] = {"memory": 2000 * MB, "cpu": 1, "disk": 9000 * MB, "gpu_memory": 1000 * MB}
    with running() as daemon:
        job = submit(daemon, limits, steps=100_000, step_seconds=0.05)

        def told() -> list[dict[str, Any]]:
            return [each for each in of_type(daemon, job, "attempt.alert") if each["subject"] == "limits"]

        daemon.wait_for(job, "running")
        eventually(lambda: any(each["attempt"] == 1 for each in told()), what="the alert")
        daemon.kill()
        daemon.start()
        seen = daemon.ok("GET", "/v1/system")["at"]
        eventually(lambda: daemon.ok("GET", "/v1/system")["at"] > seen, what="another look")
        (alert,) = [each for each in told() if each["attempt"] == 1]
        assert alert["figures"] == limits
        assert alert["message"] == (
            "memory up to 2.00 GB: looked at by its runner, which ends it above; processors up to 1: it is given"
            " whole ones of the machine's; memory of each GPU up to 1.00 GB: it has no GPU; files up to 9.00 GB:"
            f" looked at by the daemon (no control group: {WHY})"
        )
        worker = worker_of(daemon, job)
        assert len(os.sched_getaffinity(worker)) == 1
        environment = Path(f"/proc/{worker}/environ").read_bytes()
        assert b"\0OMP_NUM_THREADS=1\0" in b"\0" + environment
        daemon.ok("POST", f"/v1/jobs/{job}/cancel", {})
        daemon.wait_for(job)


def test_a_kill_by_somebody_is_no_want_of_memory() -> None:
    with running() as daemon:
        job = submit(daemon, {}, steps=100_000, step_seconds=0.05)
        daemon.wait_for(job, "running")
        os.kill(worker_of(daemon, job), signal.SIGKILL)
        eventually(lambda: len(of_type(daemon, job, "attempt.ended")) > 1, what="the end")
        ended = of_type(daemon, job, "attempt.ended")[1]  # after the validation's
        assert (ended["oom_killed"], ended["failure"]) == (False, "crash")
        daemon.ok("POST", f"/v1/jobs/{job}/cancel", {})
        daemon.wait_for(job)


def worker_of(daemon: Daemon, job: str) -> int:
    return int(of_type(daemon, job, "attempt.started")[-1]["hello"]["pid"])
