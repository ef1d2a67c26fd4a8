"""Jobs paused, resumed and told to save, with a real daemon and real processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.daemon.process import STEP_S, Daemon, eventually, running


@contextmanager
def impatient() -> Iterator[Daemon]:
    """A daemon that waits a second between SIGTERM and SIGKILL."""
    with Daemon() as daemon:
        settings = daemon.state / "config.toml"
        settings.write_text("cancel_grace_s = 1\n", encoding="utf-8")
        daemon.arguments += ["--config", str(settings)]
        yield daemon.start()


def pause(daemon: Daemon, job_id: str, **body: Any) -> dict[str, Any]:
    """Pause a job; the job once it is paused."""
    daemon.ok("POST", f"/v1/jobs/{job_id}/pause", body)
    return daemon.wait_for(job_id, "paused")


def resume(daemon: Daemon, job_id: str, **body: Any) -> int:
    """Resume a job and let it do three more steps; how many it had done before."""
    before = len(daemon.steps(job_id))
    daemon.ok("POST", f"/v1/jobs/{job_id}/resume", body)
    eventually(lambda: len(daemon.steps(job_id)) >= before + 3, what="more steps")
    return before


def refused(daemon: Daemon, job_id: str, action: str, body: Any = None) -> tuple[int, str, str]:
    """A request that is refused: status, code, message."""
    status, answer = daemon.request("POST", f"/v1/jobs/{job_id}/{action}", body)
    assert status >= 400, answer
    return status, answer["error"]["code"], answer["error"]["message"]


def is_unbroken(steps: list[int]) -> bool:
    return steps == list(range(1, len(steps) + 1))


def test_a_pause_saves_at_a_step_frees_the_device_and_a_resume_repeats_no_step() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        waiting = daemon.submit(steps=1)
        assert daemon.job(waiting)["state"] in {"validating", "queued"}
        assert daemon.ok("POST", f"/v1/jobs/{job_id}/pause", {"reason": "lunch"})["state"] == "pausing"
        paused = daemon.wait_for(job_id, "paused")
        assert (paused["repeated_steps"], paused["devices"], paused["pause_reason"]) == (0, [], "lunch")
        assert paused["attempts"][-1]["outcome"] == "paused"
        assert not daemon.attempt_processes(job_id)
        assert daemon.wait_for(waiting)["state"] == "succeeded"
        resume(daemon, job_id)
        job = daemon.job(job_id)
        assert job["attempts"][-1]["resume_from"] == paused["resume_from"] is not None
        assert (job["id"], job["pause_reason"]) == (job_id, None)
        assert is_unbroken(daemon.steps(job_id))


def test_a_pause_is_noticed_at_once_and_not_when_the_daemon_looks_again() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
        daemon.wait_for(job_id, "paused", timeout=25)  # it looks again by itself after 30 s


def test_a_pause_that_the_daemon_is_killed_in_is_carried_out_by_the_next_daemon() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
        daemon.kill()
        daemon.start()
        paused = daemon.wait_for(job_id, "paused")
        assert paused["repeated_steps"] == 0
        daemon.kill()
        daemon.start()
        assert daemon.job(job_id)["state"] == "paused"
        resume(daemon, job_id)
        assert is_unbroken(daemon.steps(job_id))


def test_a_resume_that_the_daemon_is_killed_after_goes_on_with_the_next_daemon() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        paused = pause(daemon, job_id)
        before = len(daemon.steps(job_id))
        daemon.ok("POST", f"/v1/jobs/{job_id}/resume")
        daemon.kill()
        daemon.start()
        eventually(lambda: len(daemon.steps(job_id)) >= before + 3, what="more steps")
        assert is_unbroken(daemon.steps(job_id))
        assert [
            each["resume_from"] for each in daemon.job(job_id)["attempts"] if each["purpose"] == "run"
        ] == [
            None,
            paused["resume_from"],
        ]


def test_a_queued_job_is_paused_at_once_and_begins_when_it_is_resumed() -> None:
    with running() as daemon:
        running_job = daemon.begun()
        queued = daemon.submit(steps=1)
        daemon.wait_for(queued, "queued")
        assert daemon.ok("POST", f"/v1/jobs/{queued}/pause")["state"] == "paused"
        daemon.ok("POST", f"/v1/jobs/{running_job}/cancel")
        daemon.wait_for(running_job)
        assert daemon.job(queued)["state"] == "paused"
        daemon.ok("POST", f"/v1/jobs/{queued}/resume")
        assert daemon.wait_for(queued)["state"] == "succeeded"


def test_a_starting_job_is_paused_before_or_after_its_first_step() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=100_000, step_seconds=STEP_S)
        daemon.wait_for(job_id, "starting", "running")
        paused = pause(daemon, job_id)
        assert (paused["devices"], daemon.attempt_processes(job_id)) == ([], [])
        before = daemon.steps(job_id)
        resume(daemon, job_id)
        assert is_unbroken(daemon.steps(job_id)[: len(before) + 3])


def test_a_trainer_that_does_not_save_in_time_is_stopped_and_the_steps_that_costs_are_told() -> None:
    with impatient() as daemon:
        job_id = daemon.begun(ignore_sigterm=True)
        daemon.ok("POST", f"/v1/jobs/{job_id}/checkpoint")
        eventually(lambda: daemon.job(job_id)["checkpoints"], what="a checkpoint")
        step = daemon.job(job_id)["checkpoints"][0]["step"]
        eventually(lambda: daemon.steps(job_id)[-1] > step, what="another step")
        paused = pause(daemon, job_id, wait_s=0.2)
        done = daemon.steps(job_id)[-1]
        saved = max(each["step"] for each in paused["checkpoints"])
        assert (saved, paused["repeated_steps"]) == (step, done - step)
        before = resume(daemon, job_id)
        assert daemon.steps(job_id)[before] == saved + 1


def test_a_paused_job_is_cancelled_and_cannot_be_resumed_then() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        pause(daemon, job_id)
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        assert daemon.wait_for(job_id)["state"] == "cancelled"
        status, code, message = refused(daemon, job_id, "resume")
        assert (status, code) == (409, "job_not_paused")
        assert "finetune show" in message
        again = daemon.ok("POST", f"/v1/jobs/{job_id}/retry", {"from_checkpoint": "latest"})
        daemon.wait_for(again["id"], "running")
        eventually(lambda: daemon.steps(again["id"]), what="a step")
        assert daemon.steps(again["id"])[0] == daemon.steps(job_id)[-1] + 1


def test_a_running_job_saves_when_it_is_asked_and_goes_on() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        assert daemon.job(job_id)["checkpoints"] == []
        assert daemon.ok("POST", f"/v1/jobs/{job_id}/checkpoint")["state"] == "running"
        eventually(lambda: daemon.job(job_id)["checkpoints"], what="a checkpoint")
        step = daemon.job(job_id)["checkpoints"][0]["step"]
        eventually(lambda: daemon.steps(job_id)[-1] > step, what="another step")
        assert len(daemon.job(job_id)["checkpoints"]) == 1
        assert is_unbroken(daemon.steps(job_id))
        assert refused(daemon, daemon.submit(steps=0), "checkpoint")[:2] == (409, "job_not_running")


def test_a_job_goes_on_from_the_checkpoint_that_is_named_by_its_step_or_its_id() -> None:
    with running() as daemon:
        job_id = daemon.begun(7, checkpoint_every=2)
        paused = pause(daemon, job_id)
        assert paused["repeated_steps"] == 0
        before = resume(daemon, job_id, from_checkpoint=2)
        queued = next(
            each for each in reversed(daemon.events(job_id)) if each["type"] == "job.queued"
        )  # fmt: skip
        assert queued["data"]["repeated_steps"] == daemon.steps(job_id)[before - 1] - 2
        assert daemon.steps(job_id)[before] == 3
        pause(daemon, job_id)
        before = resume(daemon, job_id, from_checkpoint="1/checkpoint-4")
        assert daemon.steps(job_id)[before] == 5
        pause(daemon, job_id)
        status, code, message = refused(daemon, job_id, "resume", {"from_checkpoint": 999})
        assert (status, code) == (404, "not_found")
        assert "finetune checkpoints" in message


def test_after_a_rewind_the_later_checkpoints_of_earlier_attempts_do_not_count() -> None:
    with running() as daemon:
        job_id = daemon.begun(7, checkpoint_every=2)
        pause(daemon, job_id)
        resume(daemon, job_id, from_checkpoint=2)
        daemon.kill_attempts(job_id)
        eventually(lambda: len(daemon.job(job_id)["attempts"]) == 4, what="another attempt")
        last = daemon.job(job_id)["attempts"]
        assert last[3]["resume_from"].split("/attempts/")[1].split("/")[0] in {"1", "2"}
        assert int(last[3]["resume_from"].rsplit("-", 1)[1]) <= max(
            each["step"] for each in daemon.job(job_id)["checkpoints"] if each["attempt"] == 2
        )


def test_a_resume_passes_over_a_damaged_checkpoint_and_is_refused_if_there_is_no_other() -> None:
    with running() as daemon:
        job_id = daemon.begun(4, checkpoint_every=2)
        paused = pause(daemon, job_id)
        (Path(paused["resume_from"]) / "weights.bin").write_bytes(b"\1" * 64)  # as long as it was
        listed = daemon.ok("GET", f"/v1/jobs/{job_id}/checkpoints?verify=true")["data"]
        assert [each["validity"] for each in listed] == ["whole"] * (len(listed) - 1) + ["damaged"]
        assert "has changed" in listed[-1]["problem"]
        newest = [each for each in listed if each["resumes"]]
        assert [each["id"] for each in newest] == [listed[-2]["id"]]
        before = resume(daemon, job_id)
        assert daemon.steps(job_id)[before] == listed[-2]["step"] + 1
        paused = pause(daemon, job_id)
        for each in paused["checkpoints"]:
            shutil.rmtree(each["path"])
        status, code, message = refused(daemon, job_id, "resume")
        assert (status, code) == (409, "checkpoint_missing")
        assert f"finetune retry {job_id}" in message
        assert refused(daemon, job_id, "resume", {"from_checkpoint": "latest"})[:2] == (404, "not_found")
        assert daemon.job(job_id)["state"] == "paused"


def test_a_job_that_is_resumed_while_it_still_pauses_goes_on_by_itself() -> None:
    with impatient() as daemon:
        job_id = daemon.begun(ignore_sigterm=True, checkpoint_every=2)
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause", {"wait_s": 5})
        assert daemon.ok("POST", f"/v1/jobs/{job_id}/resume")["state"] == "pausing"
        eventually(lambda: len(daemon.job(job_id)["attempts"]) == 3, what="another attempt")
        assert "job.paused" not in [event["type"] for event in daemon.events(job_id)]
