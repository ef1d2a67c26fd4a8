"""A daemon that drains, with real processes."""

from __future__ import annotations

from tests.acceptance.daemon.process import PATIENCE_S, Daemon, eventually, running


def ended(daemon: Daemon) -> int:
    """The exit code of a daemon that ends by itself."""
    assert daemon.process is not None
    code = daemon.process.wait(timeout=PATIENCE_S)
    daemon.process = None
    return code


def test_a_drained_daemon_stops_with_no_process_left_and_the_next_goes_on_where_it_was() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        waiting = daemon.submit(steps=2)
        daemon.wait_for(waiting, "queued")
        answer = daemon.ok("POST", "/v1/drain", {"reason": "a new kernel"})
        assert answer == {"object": "drain", "mode": "pause", "jobs": [job_id]}
        assert ended(daemon) == 0
        assert not daemon.attempt_processes()
        daemon.start()
        eventually(lambda: len(daemon.steps(job_id)) > 6, what="more steps")
        steps = daemon.steps(job_id)
        assert steps == sorted(set(steps)), "no step twice"
        assert daemon.job(waiting)["attempt"] == 0
        reasons = [
            e["data"].get("reason") for e in daemon.events(job_id) if e["type"] == "job.pause_requested"
        ]
        assert reasons == ["a new kernel"]


def test_a_drain_that_finishes_what_runs_starts_nothing_else() -> None:
    with running() as daemon:
        job_id = daemon.held()
        waiting = daemon.submit(steps=1)
        daemon.wait_for(waiting, "queued")
        daemon.ok("POST", "/v1/drain", {"mode": "finish"})
        assert "drains" in daemon.job(waiting)["wait_reason"]
        daemon.open_gate()
        assert ended(daemon) == 0
        daemon.start()
        assert daemon.job(job_id)["state"] == "succeeded"
        assert daemon.wait_for(waiting)["state"] == "succeeded"


def test_a_drain_that_is_taken_back_lets_the_jobs_go_on() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        waiting = daemon.submit(steps=1, devices=0)
        daemon.ok("POST", "/v1/drain", {"mode": "finish"})
        assert daemon.ok("DELETE", "/v1/drain")["mode"] is None
        assert daemon.wait_for(waiting)["state"] == "succeeded"
        assert daemon.job(job_id)["state"] == "running"
