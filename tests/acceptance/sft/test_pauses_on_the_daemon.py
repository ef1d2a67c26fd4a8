"""The real trainer paused and resumed on a real daemon: nothing is repeated, and nothing comes out otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.acceptance.sft.conftest import MakeRows, chat

pytestmark = [pytest.mark.torch, pytest.mark.timeout(420)]

STEPS = 150  # some seconds: the pause is asked for in the midst of them, also by a busy machine


def submit(daemon: Daemon, model: str, dataset: str) -> str:
    return daemon.submit(
        "sft",
        model=model,
        dataset=dataset,
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=5e-3,
        max_length=64,
        save_steps=STEPS,  # so that no checkpoint is there but the one of the pause
        logging_steps=1,
        seed=7,
        lora_dropout=0.0,
    )


def adapter(job: dict[str, Any]) -> bytes:
    return (Path(job["result"]["adapter_path"]) / "adapter_model.safetensors").read_bytes()


def losses(daemon: Daemon, job_id: str) -> dict[int, float]:
    reports = [event["data"] for event in daemon.events(job_id) if event["type"] == "job.progress"]
    return {each["current_step"]: each["loss"] for each in reports if each["loss"] is not None}


def test_a_paused_and_resumed_training_ends_as_one_that_was_left_alone(
    tiny_model: str, make_rows: MakeRows
) -> None:
    dataset = make_rows("train.jsonl", (chat(number) for number in range(60)))
    with running() as daemon:
        job_id = submit(daemon, tiny_model, dataset)
        eventually(lambda: len(daemon.steps(job_id)) >= 4, timeout=120, what="some steps")
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
        paused = daemon.wait_for(job_id, "paused", timeout=60)
        (saved,) = paused["checkpoints"]
        assert 0 < saved["step"] < STEPS
        assert (paused["repeated_steps"], paused["resume_from"]) == (0, saved["path"])
        assert not daemon.attempt_processes(job_id)
        (listed,) = daemon.ok("GET", f"/v1/jobs/{job_id}/checkpoints?verify=true")["data"]
        assert (listed["validity"], listed["resumes"]) == ("whole", True)

        straight_id = submit(daemon, tiny_model, dataset)  # on the device that is free now
        straight = daemon.wait_for(straight_id, timeout=180)
        assert straight["state"] == "succeeded", straight["error"]

        daemon.ok("POST", f"/v1/jobs/{job_id}/resume")
        resumed = daemon.wait_for(job_id, timeout=180)
        assert resumed["state"] == "succeeded", resumed["error"]
        assert resumed["attempts"][-1]["resume_from"] == saved["path"]
        steps = [step for step in daemon.steps(job_id) if step > 0]
        assert steps == sorted(steps)
        told, expected = losses(daemon, job_id), losses(daemon, straight_id)
        both = told.keys() & expected.keys()
        assert max(both) == STEPS
        assert {step: told[step] for step in both} == {step: expected[step] for step in both}
        assert adapter(resumed) == adapter(straight)
