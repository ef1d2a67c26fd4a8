"""A job of higher priority has the devices of a preemptible one, which goes on afterwards by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running


def submit(daemon: Daemon, *, steps: int, **request: object) -> str:
    body = {"kind": "fake", "params": {"steps": steps, "step_seconds": 0.1}, **request}
    job_id: str = daemon.ok("POST", "/v1/jobs", body)["id"]
    return job_id


@pytest.fixture
def early(tmp_path: Path) -> str:
    """A configuration by which jobs may be preempted soon after they began."""
    file = tmp_path / "config.toml"
    file.write_text("preemption_min_run_s = 0.3\n")
    return str(file)


def test_an_urgent_job_gets_the_device_and_the_preempted_one_repeats_no_step(early: str) -> None:
    with running("--config", early) as daemon:
        patient = submit(daemon, steps=5000, preemptible=True)
        eventually(lambda: len(daemon.steps(patient)) >= 3, what="some steps")
        urgent = submit(daemon, steps=5, priority=1)
        assert daemon.wait_for(urgent)["state"] == "succeeded"
        before = len(daemon.steps(patient))
        eventually(lambda: len(daemon.steps(patient)) > before + 2, what="more steps")
        runs = [each for each in daemon.job(patient)["attempts"] if each["purpose"] == "run"]
        assert [each["outcome"] for each in runs] == ["paused", None]
        assert runs[0]["cause"] == f"preempted by {urgent}, which has priority 1 over its 0"
        steps = daemon.steps(patient)
        assert steps == sorted(set(steps))
        # It had not begun again before the urgent one was done with the device.
        assert runs[1]["starting_at"] >= daemon.job(urgent)["attempts"][-1]["ended_at"]


def test_a_job_that_is_not_preemptible_keeps_its_device(early: str) -> None:
    with running("--config", early) as daemon:
        firm = daemon.held()
        urgent = submit(daemon, steps=1, priority=9)
        daemon.wait_for(urgent, "queued")
        seen = daemon.ok("GET", "/v1/system")["at"]
        eventually(lambda: daemon.ok("GET", "/v1/system")["at"] > seen, what="time enough to preempt it")
        assert daemon.job(firm)["state"] == "running"
        daemon.open_gate()
        assert daemon.wait_for(urgent)["state"] == "succeeded"
        assert [each["outcome"] for each in daemon.job(firm)["attempts"] if each["purpose"] == "run"] == [
            "succeeded"
        ]
