"""Jobs that cannot go on for what is amiss outside them, with a real daemon and real processes."""

from __future__ import annotations

from typing import Any

from tests.acceptance.daemon.process import Daemon, running

PLUGINS = {"FINETUNED_EXTRA_PLUGINS": "finetuned_sdk.fake,tests.acceptance.daemon.unserved"}


def submit(daemon: Daemon, **params: Any) -> str:
    server = str(daemon.state / "teacher")
    return daemon.submit("unserved", steps=6, checkpoint_every=1, server=server, **params)


def test_a_job_whose_server_is_away_pauses_with_the_reason_and_loses_nothing() -> None:
    with running(**PLUGINS) as daemon:
        job_id = submit(daemon, needed_at=4)
        paused = daemon.wait_for(job_id, "paused")
        reason = "teacher does not answer; bring it up."
        assert (paused["pause_reason"], paused["wait_reason"]) == (reason, f"paused: {reason}")
        assert (paused["repeated_steps"], paused["devices"], paused["error"]) == (0, [], None)
        assert (paused["attempts"][-1]["outcome"], paused["attempts"][-1]["cause"]) == ("paused", reason)
        assert not daemon.attempt_processes(job_id)
        assert daemon.wait_for(daemon.submit(steps=1))["state"] == "succeeded"
        steps = daemon.ok("GET", f"/v1/jobs/{job_id}/next")["data"]
        assert [each["action"] for each in steps] == ["repair", "resume", "cancel"]
        (daemon.state / "teacher").touch()
        daemon.ok("POST", f"/v1/jobs/{job_id}/resume")
        assert daemon.wait_for(job_id)["state"] == "succeeded"
        assert daemon.steps(job_id) == [1, 2, 3, 4, 5, 6]


def test_a_job_that_paused_itself_stays_paused_when_the_daemon_is_killed() -> None:
    with running(**PLUGINS) as daemon:
        job_id = submit(daemon, needed_at=2)
        paused = daemon.wait_for(job_id, "paused")
        daemon.kill()
        daemon.start()
        again = daemon.job(job_id)
        assert (again["state"], again["pause_reason"]) == ("paused", paused["pause_reason"])
        daemon.ok("POST", f"/v1/jobs/{job_id}/resume")
        runs = daemon.wait_for(job_id, "paused")["attempts"]  # its server is away still
        assert [each["outcome"] for each in runs if each["purpose"] == "run"] == ["paused", "paused"]


def test_a_job_whose_server_is_away_while_its_data_are_checked_fails_with_the_same_words() -> None:
    with running(**PLUGINS) as daemon:
        job = daemon.wait_for(submit(daemon, needed_at=1))
        message = "teacher does not answer; bring it up."
        assert (job["state"], job["error"]) == ("failed", {"code": "server_away", "message": message})
