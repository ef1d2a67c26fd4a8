"""Jobs on a real daemon: real processes, real socket, a kind that does nothing."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


def test_a_job_goes_from_submission_to_result_and_the_log_tells_the_story(daemon: Daemon) -> None:
    job_id = daemon.submit(
        steps=5, step_seconds=0.2, checkpoint_every=2, register_as="bot", result={"answer": 42}
    )
    job = daemon.wait_for(job_id)
    assert job["state"] == "succeeded"
    assert job["attempt"] == 1
    assert job["result"]["answer"] == 42
    assert job["progress"]["current_step"] == 5
    assert job["progress"]["progress"] == 100.0
    assert job["audits"][0]["rows"] == 5
    assert [checkpoint["step"] for checkpoint in job["checkpoints"]] == [2, 4]
    assert job["estimate"]["duration_s"] == 1.0

    told = [event["type"] for event in daemon.events(job_id)]
    story = ["job.submitted", "attempt.starting", "attempt.launched", "attempt.started", "dataset.audited"]
    story += ["attempt.result", "attempt.ended", "job.queued", "attempt.starting", "job.progress"]
    story += ["checkpoint.saved", "artifact.published", "attempt.model", "attempt.ended", "job.succeeded"]
    position = 0
    for step in story:
        position = told.index(step, position) + 1
    (model,) = daemon.ok("GET", "/v1/models")["data"]
    assert (model["id"], model["job"]) == ("bot", job_id)
    assert Path(model["path"], "weights.bin").is_file()


def test_progress_events_have_exactly_the_fields_that_are_promised(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=1)
    daemon.wait_for(job_id)
    (event,) = [event for event in daemon.events(job_id) if event["type"] == "job.progress"]
    assert set(event["data"]) == {
        "progress", "current_step", "total_steps", "current_epoch", "total_epochs", "loss", "eval_loss",
        "learning_rate", "grad_norm", "mean_token_accuracy", "samples_per_second", "tokens_per_second",
        "data_wait_fraction", "rss_gb", "gpu_memory_allocated_gb", "gpu_utilization_percent", "eta_seconds",
    }  # fmt: skip
    assert event["data"]["rss_gb"] > 0
    assert event["data"]["learning_rate"] is None


def test_bad_data_fail_the_job_with_the_rows_before_it_takes_a_device(daemon: Daemon) -> None:
    job_id = daemon.submit(bad_rows=2)
    job = daemon.wait_for(job_id)
    assert job["state"] == "failed"
    assert job["error"]["code"] == "bad_dataset"
    assert "row 1" in job["error"]["message"]
    assert "Lower bad_rows" in job["error"]["message"]
    assert not [event for event in daemon.events() if event["type"] == "device.claimed"]


def test_a_worker_that_crashes_is_tried_again_from_its_newest_checkpoint(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=4, checkpoint_every=2, crash_at=3, fail_attempts=1)
    job = daemon.wait_for(job_id)
    assert job["state"] == "succeeded"
    assert job["attempt"] == 2
    assert job["result"]["first_step"] == 3
    assert job["attempts"][1]["outcome"] == "crashed"
    assert job["attempts"][1]["signal"] == signal.SIGKILL
    assert job["attempts"][2]["resume_from"].endswith("checkpoint-2")


def test_an_error_of_the_job_itself_is_shown_and_not_tried_again(daemon: Daemon) -> None:
    job_id = daemon.submit(refuse_at=1)
    job = daemon.wait_for(job_id)
    assert job["error"] == {
        "code": "fake_refused",
        "message": "Refused at step 1, as asked; leave out refuse_at.",
    }
    assert job["attempt"] == 1


def test_cancelling_a_running_job_leaves_nothing_of_it_alive(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=100_000, step_seconds=0.1, spawn_children=2)
    daemon.wait_for(job_id, "running")
    # worker, runner, and two children with a child each
    eventually(lambda: len(daemon.attempt_processes(job_id)) >= 6, what="the whole group")
    daemon.ok("POST", f"/v1/jobs/{job_id}/cancel", {"reason": "enough"})
    job = daemon.wait_for(job_id)
    assert job["state"] == "cancelled"
    assert job["cancel_reason"] == "enough"
    assert daemon.attempt_processes(job_id) == []
    (slot,) = daemon.ok("GET", "/v1/devices")["data"]
    assert slot["holder"] is None


def test_a_queued_job_is_cancelled_at_once_and_says_before_why_it_waits(daemon: Daemon) -> None:
    first = daemon.submit(steps=100_000, step_seconds=0.1)
    daemon.wait_for(first, "running")
    second = daemon.submit(steps=1)
    waiting = daemon.wait_for(second, "queued")
    assert waiting["wait_reason"] == f"needs 1 device; 0 of 1 free, held by {first}"
    assert waiting["queue_position"] == 1
    assert daemon.ok("POST", f"/v1/jobs/{second}/cancel")["state"] == "cancelled"
    status, answer = daemon.request("POST", f"/v1/jobs/{second}/cancel")
    assert (status, answer["error"]["code"]) == (409, "job_ended")


def test_a_higher_priority_is_served_first_and_equals_in_order(daemon: Daemon) -> None:
    first = daemon.submit(steps=100_000, step_seconds=0.1)
    daemon.wait_for(first, "running")
    jobs = [daemon.submit(steps=1, priority=priority) for priority in (0, 0, 5)]
    for job_id in jobs:
        daemon.wait_for(job_id, "queued")
    daemon.ok("POST", f"/v1/jobs/{first}/cancel")
    for job_id in jobs:
        daemon.wait_for(job_id)
    ended = [event["stream"][4:] for event in daemon.events() if event["type"] == "job.succeeded"]
    assert ended == [jobs[2], jobs[0], jobs[1]]


def test_a_retry_is_a_new_job_that_goes_on_from_the_checkpoint_that_is_named(daemon: Daemon) -> None:
    failed = daemon.submit(steps=6, checkpoint_every=2, refuse_at=5)
    assert daemon.wait_for(failed)["state"] == "failed"
    again = daemon.ok("POST", f"/v1/jobs/{failed}/retry", {"from_checkpoint": "4"})
    assert again["retry_of"] == failed
    assert again["resume_from"].endswith("checkpoint-4")
    daemon.wait_for(again["id"])
    status, answer = daemon.request("POST", f"/v1/jobs/{failed}/retry", {"from_checkpoint": "3"})
    assert status == 404
    assert "it has 2, 4" in answer["error"]["message"]

    # Of damaged checkpoints none is offered; `latest` falls back to the newest that holds.
    newest = Path(daemon.job(failed)["checkpoints"][-1]["path"])
    (newest / "state.json").write_text("{}", encoding="utf-8")
    status, answer = daemon.request("POST", f"/v1/jobs/{failed}/retry", {"from_checkpoint": "4"})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "complete" in answer["error"]["message"]
    fallen_back = daemon.ok("POST", f"/v1/jobs/{failed}/retry", {"from_checkpoint": "latest"})
    assert fallen_back["resume_from"].endswith("checkpoint-2")


def test_deleting_a_job_removes_its_files_and_keeps_its_events(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=1)
    daemon.wait_for(job_id)
    directory = daemon.state / "jobs" / job_id
    assert directory.is_dir()
    daemon.ok("DELETE", f"/v1/jobs/{job_id}")
    assert daemon.request("GET", f"/v1/jobs/{job_id}")[0] == 404
    eventually(lambda: not directory.exists(), what="removal of the files")
    with sqlite3.connect(f"file:{daemon.state / 'events.sqlite'}?mode=ro", uri=True) as log:
        (count,) = log.execute("SELECT COUNT(*) FROM events WHERE type = 'job.deleted'").fetchone()
        log.commit()
    log.close()
    assert count == 1


def test_logs_show_what_the_worker_printed(daemon: Daemon) -> None:
    job_id = daemon.submit(steps=2, output_lines=2)
    daemon.wait_for(job_id)
    status, text = daemon.request("GET", f"/v1/jobs/{job_id}/logs")
    assert status == 200
    assert "step 1 line 0\n" in text
    assert daemon.request("GET", f"/v1/jobs/{job_id}/logs?tail=1")[1] == "step 2 line 1\n"


def test_the_daemon_has_no_torch_in_it_after_a_job_ran(daemon: Daemon) -> None:
    daemon.wait_for(daemon.submit(steps=1))
    assert daemon.process is not None
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text(encoding="utf-8")
    assert "torch" not in maps
