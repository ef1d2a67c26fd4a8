"""The real trainer on a real daemon: a small model is fine-tuned while the daemon is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import eventually, running
from tests.acceptance.sft.conftest import MakeRows, chat

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]


def params(model: str, dataset: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "max_steps": 150,
        "per_device_train_batch_size": 2,
        "learning_rate": 5e-3,
        "max_length": 64,
        "save_steps": 50,
        "seed": 7,
        "lora_dropout": 0.0,
    }
    return {**values, **changes}


def test_the_trainer_outlives_the_killed_daemon_and_every_step_is_told_once(
    tiny_model: str, make_rows: MakeRows
) -> None:
    dataset = make_rows("train.jsonl", (chat(number) for number in range(60)))
    with running() as daemon:
        job_id = daemon.submit("sft", **params(tiny_model, dataset, output_name="colours"))
        daemon.wait_for(job_id, "running", timeout=60)
        eventually(lambda: daemon.steps(job_id), timeout=90, what="the first step")
        daemon.kill()
        daemon.start()
        job = daemon.wait_for(job_id, timeout=120)

        assert job["state"] == "succeeded", job["error"]
        assert job["attempt"] == 1
        steps = daemon.steps(job_id)
        assert steps == sorted(set(steps))
        assert steps[-1] == 150
        assert steps[0] == 0
        reports = [event["data"] for event in daemon.events(job_id) if event["type"] == "job.progress"]
        losses = [report["loss"] for report in reports if report["loss"] is not None]
        assert losses[-1] < 0.95 * losses[0]
        assert [checkpoint["step"] for checkpoint in job["checkpoints"]][-1] == 150
        (audit,) = job["audits"]
        assert audit["rows"] == 60
        assert 0 < audit["masked_fraction"] < 1

        model, same = daemon.ok("GET", "/v1/models")["data"]
        assert (model["id"], model["kind"], model["job"]) == ("colours", "adapter", job_id)
        assert same["id"] == f"ft:tiny-llama:finetuned:colours:{job_id.removeprefix('job-')}"
        assert same["stands_for"] == "colours"
        adapter = Path(job["result"]["adapter_path"])
        assert json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 16
        assert job_id in (adapter / "README.md").read_text(encoding="utf-8")

        # Training goes on from the adapter by its registered name.
        onward = daemon.submit("sft", **params(tiny_model, dataset, adapter="colours", max_steps=2))
        job = daemon.wait_for(onward, timeout=120)
        assert job["state"] == "succeeded", job["error"]
        assert job["result"]["train_loss"] < 0.95 * losses[0]


def test_bad_rows_are_named_before_a_device_is_taken(tiny_model: str, tmp_path: Path) -> None:
    dataset = tmp_path / "bad.jsonl"
    dataset.write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": \n', encoding="utf-8"
    )
    with running() as daemon:
        job = daemon.wait_for(daemon.submit("sft", **params(tiny_model, str(dataset))), timeout=60)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "bad_dataset"
        assert "row 2" in job["error"]["message"]
        assert not [event for event in daemon.events() if event["type"] == "device.claimed"]


def test_a_batch_is_found_by_a_job_that_trains_nothing_and_by_the_next_one_from_what_it_kept(
    tiny_model: str, make_rows: MakeRows
) -> None:
    dataset = make_rows("train.jsonl", (chat(number) for number in range(40)))
    auto = {"per_device_train_batch_size": "auto", "gradient_accumulation_steps": 2, "max_steps": 2}
    with running() as daemon:
        tuned = daemon.wait_for(
            daemon.submit("sft", **params(tiny_model, dataset, tune_only=True, **auto)), timeout=120
        )
        assert tuned["state"] == "succeeded", tuned["error"]
        tried = tuned["result"]["batches_tried"]
        assert [each["batch"] for each in tried] == [1, 2, 4, 8][: len(tried)]
        assert tuned["estimate"]["host_bytes"] > 0
        assert [each["setting"] for each in tuned["advice"]] == ["per_device_train_batch_size"]
        assert daemon.ok("GET", "/v1/models")["data"] == []

        trained = daemon.wait_for(daemon.submit("sft", **params(tiny_model, dataset, **auto)), timeout=120)
        assert trained["state"] == "succeeded", trained["error"]
        assert "batches_tried" not in trained["result"]
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            assert trained["result"][name] == tuned["result"][name]
        listed = daemon.ok("GET", "/v1/models")["data"]
        assert len([each for each in listed if each["stands_for"] is None]) == 1
