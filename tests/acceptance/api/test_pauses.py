"""The routes of pauses, resumes and checkpoints: what they record, once, and what they refuse."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

from finetuned.commands.pauses import PauseCommands
from finetuned.domain import facts
from finetuned.domain.job import Job, JobState
from finetuned.results.checkpoints import Found
from finetuned_sdk import checkpoints

KEY = {"Idempotency-Key": "9d1f"}


async def a_running_job(house: Any) -> str:
    job_id: str = await house.accept_job()
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1))
    return job_id


async def save(house: Any, job_id: str, step: int, *, attempt: int = 1) -> Path:
    """A checkpoint as a worker saves it, on disk first."""
    home = house.jobs_dir / job_id / "attempts" / str(attempt) / "checkpoints"
    home.mkdir(parents=True, exist_ok=True)
    made = home.parent / f"made-{step}"
    made.mkdir()
    (made / "weights.bin").write_bytes(b"1" * step)
    path, content = checkpoints.publish(made, home, step=step, metrics={"loss": 0.5})
    await house.report(
        job_id,
        facts.CheckpointSaved(attempt=attempt, step=step, path=str(path), bytes=content.total_bytes),
    )
    return path


async def paused_job(house: Any, client: Any, *steps: int) -> str:
    """A job that saved at these steps, went two further, and was paused."""
    job_id = await a_running_job(house)
    for step in steps:
        await save(house, job_id, step)
    if steps:
        await house.progress(job_id, steps[-1] + 2)
    await answer(client, f"/v1/jobs/{job_id}/pause")
    await house.end_attempt(job_id, error=True)
    assert (await house.queries.job(job_id)).state is JobState.PAUSED
    return job_id


async def answer(
    client: Any, path: str, body: Any = None, status: int = 200, **options: Any
) -> dict[str, Any]:
    response = await client.post(path, json=body, **options)
    assert response.status == status, await response.text()
    document: dict[str, Any] = await response.json()
    return document if status < 400 else document["error"]


async def types(house: Any, job_id: str) -> list[str]:
    page = await house.log.scan(after=0, limit=1000, stream=f"job/{job_id}")
    return [event.type for event in page.events]


async def test_a_pause_records_who_asked_why_and_how_long_it_waits(house: Any, client: Any) -> None:
    job_id = await a_running_job(house)
    job = await answer(client, f"/v1/jobs/{job_id}/pause", {"reason": "lunch", "wait_s": 5})
    assert (job["state"], job["pause_reason"]) == ("pausing", "lunch")
    page = await house.log.scan(after=0, limit=1000, types={"job.pause_requested"})
    (event,) = page.events
    assert (event.data["reason"], event.data["wait_s"], event.data["then"]) == ("lunch", 5.0, "paused")
    assert event.actor.startswith("uid:")


@pytest.mark.parametrize("action", ["pause", "checkpoint"])
async def test_a_request_that_is_repeated_with_its_key_is_carried_out_once(
    house: Any, client: Any, action: str
) -> None:
    job_id = await a_running_job(house)
    for replayed in (None, "true"):
        response = await client.post(f"/v1/jobs/{job_id}/{action}", json={}, headers=KEY)
        assert response.status == 200
        assert response.headers.get("Idempotency-Replayed") == replayed
    assert (await types(house, job_id)).count(f"job.{action}_requested") == 1


async def test_a_resume_that_is_repeated_with_its_key_is_carried_out_once(house: Any, client: Any) -> None:
    job_id = await paused_job(house, client, 10)
    await answer(client, f"/v1/jobs/{job_id}/resume", headers=KEY)
    before = await types(house, job_id)
    response = await client.post(f"/v1/jobs/{job_id}/resume", headers=KEY)
    assert (response.status, response.headers["Idempotency-Replayed"]) == (200, "true")
    assert await types(house, job_id) == before


async def test_a_pause_takes_no_more_than_a_day_for_its_checkpoint(house: Any, client: Any) -> None:
    job_id = await a_running_job(house)
    for wait_s in (-1, 86_401, "soon"):
        error = await answer(client, f"/v1/jobs/{job_id}/pause", {"wait_s": wait_s}, status=400)
        assert error["param"] == "wait_s"
    error = await answer(client, f"/v1/jobs/{job_id}/checkpoint", {"now": True}, status=400)
    assert error["code"] == "unknown_parameter"


async def test_a_reason_that_is_a_secret_is_refused(house: Any, client: Any) -> None:
    job_id = await a_running_job(house)
    reason = "hf_" + "a1" * 17
    error = await answer(client, f"/v1/jobs/{job_id}/pause", {"reason": reason}, status=400)
    assert error["code"] == "secret_in_params"


async def test_what_the_state_does_not_allow_is_refused_with_its_code(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    assert (await answer(client, f"/v1/jobs/{job_id}/checkpoint", status=409))["code"] == "job_not_running"
    assert (await answer(client, f"/v1/jobs/{job_id}/resume", status=409))["code"] == "job_not_paused"
    named = await answer(client, f"/v1/jobs/{job_id}/resume", {"from_checkpoint": 5}, status=409)
    assert named["code"] == "job_not_paused"  # and not a word about a checkpoint
    await house.start_attempt()
    await answer(client, f"/v1/jobs/{job_id}/cancel")
    assert (await answer(client, f"/v1/jobs/{job_id}/pause", status=409))["code"] == "job_cancelling"
    await house.end_attempt(job_id)
    assert (await answer(client, f"/v1/jobs/{job_id}/pause", status=409))["code"] == "job_ended"
    for action in ("pause", "resume", "checkpoint"):
        assert (await answer(client, f"/v1/jobs/job-none/{action}", status=404))["code"] == "not_found"


async def test_a_resume_goes_on_from_the_newest_checkpoint_by_default(house: Any, client: Any) -> None:
    job_id = await paused_job(house, client, 10, 20)
    job = await answer(client, f"/v1/jobs/{job_id}/resume", {"from_checkpoint": "latest"})
    assert (job["state"], job["resume_from"].rsplit("/", 1)[1]) == ("queued", "checkpoint-20")


@pytest.mark.parametrize("named", [10, "10", "1/checkpoint-10"])
async def test_a_named_checkpoint_is_gone_on_from_and_the_steps_after_it_are_told(
    house: Any, client: Any, named: str | int
) -> None:
    job_id = await paused_job(house, client, 10, 20)
    job = await answer(client, f"/v1/jobs/{job_id}/resume", {"from_checkpoint": named})
    assert job["resume_from"].rsplit("/", 1)[1] == "checkpoint-10"
    assert job["repeated_steps"] == 12


async def test_a_checkpoint_that_is_not_there_or_damaged_is_refused_and_the_job_stays_paused(
    house: Any, client: Any
) -> None:
    job_id = await paused_job(house, client, 10, 20)
    error = await answer(client, f"/v1/jobs/{job_id}/resume", {"from_checkpoint": 15}, status=404)
    assert (error["param"], "it has 10, 20" in error["message"]) == ("from_checkpoint", True)
    damaged = (await house.queries.job(job_id)).checkpoints[0]["path"]
    (Path(damaged) / "weights.bin").write_bytes(b"2" * 10)  # as long as it was
    error = await answer(client, f"/v1/jobs/{job_id}/resume", {"from_checkpoint": 10}, status=404)
    assert f"finetune checkpoints {job_id}" in error["message"]
    assert (await house.queries.job(job_id)).state is JobState.PAUSED


async def test_a_resume_without_any_whole_checkpoint_is_refused_instead_of_beginning_anew(
    house: Any, client: Any
) -> None:
    job_id = await paused_job(house, client, 10)
    await answer(client, f"/v1/jobs/{job_id}/resume")
    await answer(client, f"/v1/jobs/{job_id}/pause")  # it waits in the queue, with a checkpoint to go on from
    job = await house.queries.job(job_id)
    shutil.rmtree(job.checkpoints[0]["path"])
    assert job.resume_from == job.checkpoints[0]["path"]
    error = await answer(client, f"/v1/jobs/{job_id}/resume", status=409)
    assert error["code"] == "checkpoint_missing"
    assert f"finetune retry {job_id}" in error["message"]
    assert (await house.queries.job(job_id)).state is JobState.PAUSED


async def test_a_job_that_was_paused_before_it_ran_begins_when_it_is_resumed(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    assert (await answer(client, f"/v1/jobs/{job_id}/pause"))["state"] == "paused"
    job = await answer(client, f"/v1/jobs/{job_id}/resume")
    assert (job["state"], job["resume_from"]) == ("queued", None)


async def test_checkpoints_say_whether_their_files_hold_and_which_one_comes_next(
    house: Any, client: Any
) -> None:
    job_id = await a_running_job(house)
    paths = [await save(house, job_id, step) for step in (10, 20, 30)]
    shutil.rmtree(paths[2])
    (paths[1] / "weights.bin").write_bytes(b"2" * 20)  # as long as it was: only reading it tells
    for query, found in (
        ("", [("complete", False), ("complete", True), ("damaged", False)]),
        ("?verify=true", [("whole", True), ("damaged", False), ("damaged", False)]),
    ):
        response = await client.get(f"/v1/jobs/{job_id}/checkpoints{query}")
        listed = (await response.json())["data"]
        assert [(each["validity"], each["resumes"]) for each in listed] == found
        assert all((each["problem"] is None) == (each["validity"] != "damaged") for each in listed)


async def test_a_job_is_tried_again_from_a_checkpoint_that_its_id_names(house: Any, client: Any) -> None:
    job_id = await a_running_job(house)
    path = await save(house, job_id, 10)
    await answer(client, f"/v1/jobs/{job_id}/cancel")
    await house.end_attempt(job_id)
    again = await answer(
        client, f"/v1/jobs/{job_id}/retry", {"from_checkpoint": "1/checkpoint-10"}, status=201
    )
    assert (again["resume_from"], again["retry_of"]) == (str(path), job_id)


async def test_a_job_shows_the_limits_and_time_outs_that_it_was_given(client: Any) -> None:
    body = {
        "kind": "fake",
        "timeouts": {"max_duration_s": 60},
        "limits": {"memory": 1 << 30},
        "preemptible": True,
        "reduces_batch": False,
    }
    job = await answer(client, "/v1/jobs", body, status=201)
    assert (job["timeouts"]["max_duration_s"], job["timeouts"]["stall_s"]) == (60, 600)
    assert (job["limits"], job["preemptible"], job["reduces_batch"]) == ({"memory": 1 << 30}, True, False)


async def test_a_job_that_ran_while_its_checkpoints_were_read_is_not_resumed_from_an_older_one(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await paused_job(house, client, 10)
    look_up = PauseCommands._found

    async def run_and_pause() -> None:
        await answer(client, f"/v1/jobs/{job_id}/resume")
        await house.start_attempt()
        await house.report(job_id, facts.AttemptStarted(attempt=2))
        await save(house, job_id, 20, attempt=2)
        await answer(client, f"/v1/jobs/{job_id}/pause")
        await house.end_attempt(job_id, error=True)

    def slow(commands: PauseCommands, job: Job, wanted: str | None) -> Found | None:
        found = look_up(commands, job, wanted)
        monkeypatch.setattr(PauseCommands, "_found", look_up)
        anyio.from_thread.run(run_and_pause)
        return found

    monkeypatch.setattr(PauseCommands, "_found", slow)
    error = await answer(client, f"/v1/jobs/{job_id}/resume", status=409)
    assert error["code"] == "job_changed"
    assert "finetune resume" in error["message"]
    await answer(client, f"/v1/jobs/{job_id}/resume")
    resumed = await house.queries.job(job_id)
    assert resumed.resume_from.endswith("checkpoint-20")
