"""The daemon dies, restarts, or is taken down with its jobs: what must survive and what must not."""

from __future__ import annotations

import subprocess
import sys

from tests.acceptance.daemon.process import Daemon, eventually, running


def test_a_trainer_survives_the_killed_daemon_and_no_step_is_lost_or_repeated() -> None:
    with running() as daemon:
        job_id = daemon.held()
        worker = daemon.attempt_processes(job_id)
        daemon.kill()
        assert set(worker) <= set(daemon.attempt_processes(job_id))
        daemon.open_gate()
        daemon.start()
        job = daemon.wait_for(job_id)
        assert job["state"] == "succeeded"
        assert job["attempt"] == 1
        assert daemon.steps(job_id) == list(range(1, 31))


def test_a_trainer_that_ended_while_the_daemon_was_away_has_its_result() -> None:
    with running() as daemon:
        job_id = daemon.held(result={"answer": 1})
        daemon.kill()
        daemon.open_gate()
        eventually(lambda: not daemon.attempt_processes(job_id), what="the trainer's end")
        daemon.start()
        job = daemon.wait_for(job_id)
        assert job["state"] == "succeeded"
        assert job["result"]["answer"] == 1


def test_sigterm_to_the_daemon_spares_its_trainers() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=100_000, step_seconds=0.1)
        daemon.wait_for(job_id, "running")
        assert daemon.stop() == 0
        assert daemon.attempt_processes(job_id)
        daemon.start()
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        assert daemon.wait_for(job_id)["state"] == "cancelled"
        assert not daemon.attempt_processes(job_id)


def test_a_cancellation_is_honoured_although_the_daemon_died_right_after_it() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=100_000, step_seconds=0.1, ignore_sigterm=False)
        daemon.wait_for(job_id, "running")
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        daemon.kill()
        daemon.start()
        assert daemon.wait_for(job_id)["state"] == "cancelled"
        assert not daemon.attempt_processes(job_id)


def test_the_whole_group_killed_with_the_daemon_is_found_lost_and_tried_again() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=8, checkpoint_every=5, hang_at=7, fail_attempts=1)
        eventually(lambda: daemon.job(job_id)["checkpoints"], what="a checkpoint")
        daemon.kill()
        daemon.kill_attempts(job_id)
        daemon.start()
        job = daemon.wait_for(job_id)
        assert job["state"] == "succeeded"
        assert job["attempts"][1]["outcome"] == "lost"
        assert job["attempts"][2]["resume_from"] is not None


def test_every_accepted_job_is_there_after_a_kill() -> None:
    with running() as daemon:
        accepted = [daemon.submit(steps=0) for _ in range(20)]
        daemon.kill()
        daemon.start()
        for job_id in accepted:
            assert daemon.wait_for(job_id)["state"] == "succeeded"
        report = daemon.ok("POST", "/v1/log/verify")
        assert report["ok"], report


def test_a_secret_that_a_killed_daemon_left_half_stored_is_swept_at_the_next_start() -> None:
    with running() as daemon:
        daemon.ok("PUT", "/v1/secrets/hf", {"value": "hf_abcdefgh"})
        daemon.kill()
        (daemon.state / "secrets" / ".hf-0123abcd").write_text("hf_newer")
        daemon.start()
        assert [path.name for path in (daemon.state / "secrets").iterdir()] == ["hf"]


def test_an_ephemeral_daemon_takes_its_jobs_along() -> None:
    with running("--ephemeral") as daemon:
        job_id = daemon.submit(steps=100_000, step_seconds=0.1, spawn_children=1)
        daemon.wait_for(job_id, "running")
        assert daemon.stop() == 0
        assert daemon.attempt_processes() == []


def test_an_ephemeral_daemon_goes_with_whoever_started_it() -> None:
    with Daemon("--ephemeral") as daemon:
        code = (
            "import subprocess, sys, time; subprocess.Popen([sys.executable, '-m', 'finetuned', *sys.argv[1:]]);"
            "time.sleep(3600)"
        )
        parent = subprocess.Popen([sys.executable, "-c", code, *daemon.arguments], env=daemon.environment)
        try:
            eventually(daemon.is_ready, what="the daemon")
        finally:
            parent.kill()
            parent.wait()
        eventually(lambda: not daemon.is_ready(), what="the daemon's end")


def test_a_job_whose_plugin_is_gone_says_so_instead_of_waiting_for_ever() -> None:
    with running() as daemon:
        first = daemon.submit(steps=100_000, step_seconds=0.1)
        daemon.wait_for(first, "running")
        second = daemon.submit(steps=1)
        daemon.wait_for(second, "queued")
        daemon.stop()
        daemon.environment["FINETUNED_EXTRA_PLUGINS"] = ""
        daemon.start()
        daemon.ok("POST", f"/v1/jobs/{first}/cancel")
        job = daemon.wait_for(second)
        assert job["state"] == "failed"
        assert "plugin of the job kind 'fake' is not loaded" in job["error"]["message"]
