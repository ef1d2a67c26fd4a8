"""OpenAI's own client fine-tunes a small model on a real daemon, from the upload to the figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.job_create_params import Method
from tests.acceptance.daemon.process import Daemon, eventually
from tests.acceptance.sft.tiny import chat, exchange, save_model

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]
PATIENCE_S = 120.0
SMALL: Method = {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 2, "n_epochs": 1}}}


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    """The client of a daemon of its own."""
    with Daemon() as daemon:
        daemon.start()
        transport = httpx2.HTTPTransport(uds=str(daemon.socket))
        with (
            httpx2.Client(transport=transport) as http,
            openai.OpenAI(base_url="http://localhost/v1", api_key="none", http_client=http) as found,
        ):
            yield found


def upload(client: openai.OpenAI, *rows: dict[str, Any]) -> str:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("rows.jsonl", lines.encode()), purpose="fine-tune").id


def pair(number: int) -> dict[str, Any]:
    """An exchange and another answer to it, as OpenAI writes preferences."""
    question, answer = exchange(number)
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": answer}],
        "non_preferred_output": [{"role": "assistant", "content": f"not {answer}"}],
    }


def wait_for(client: openai.OpenAI, job: FineTuningJob, *statuses: str) -> FineTuningJob:
    """The job, once it has one of the statuses. One that fails meanwhile fails the test."""

    def reached() -> bool:
        now = client.fine_tuning.jobs.retrieve(job.id)
        assert now.status != "failed" or "failed" in statuses, now.error
        return now.status in statuses

    eventually(reached, timeout=PATIENCE_S, what=f"{statuses}")
    return client.fine_tuning.jobs.retrieve(job.id)


def progress(client: openai.OpenAI, job: FineTuningJob) -> dict[str, Any]:
    """What the job says of itself beside OpenAI's fields."""
    found: dict[str, Any] = (client.fine_tuning.jobs.retrieve(job.id).model_extra or {})["x_finetuned"]
    return found


def test_a_program_written_for_openai_trains_here(client: openai.OpenAI, tmp_path: Path) -> None:
    save_model(tmp_path / "tiny-llama")
    jobs = client.fine_tuning.jobs
    rows, held_out = upload(client, *map(chat, range(12))), upload(client, chat(20), chat(21))
    first = jobs.create(
        model=str(tmp_path / "tiny-llama"),
        training_file=rows,
        validation_file=held_out,
        suffix="colours",
        seed=7,
        extra_body={"x_finetuned": {"params": {"max_length": 64, "save_steps": 3}}},
        method=SMALL,
    )
    second = jobs.create(model=str(tmp_path / "tiny-llama"), training_file=rows, method=SMALL)
    assert jobs.cancel(second.id).status == "cancelled"
    done = wait_for(client, first, "succeeded")

    identity = first.id.removeprefix("ftjob-")
    assert done.fine_tuned_model == f"ft:tiny-llama:finetuned:colours:{identity}"
    assert done.trained_tokens is not None
    assert done.trained_tokens > 0
    assert done.finished_at is not None
    events = list(jobs.list_events(first.id, limit=5))  # all pages
    messages = [each.message for each in reversed(events)]
    assert messages[:2] == [f"Created fine-tuning job: {first.id}", f"Validating training file: {rows}"]
    assert "Files validated, moving job to queued state" in messages
    assert messages[-1].startswith("The job has successfully completed")
    losses = [each for each in events if each.type == "metrics" and "train_loss" in dict(each.data or {})]  # type: ignore[call-overload]
    assert len(losses) >= 6
    checkpoints = list(jobs.checkpoints.list(first.id))
    assert [each.step_number for each in checkpoints] == [6, 3]
    assert checkpoints[0].metrics.full_valid_loss is not None
    (results,) = done.result_files
    table = list(csv.DictReader(client.files.content(results).text.splitlines()))
    assert [row["step"] for row in table] == [str(step) for step in range(1, 7)]
    assert client.files.retrieve(results).purpose == "fine-tune-results"

    # Training goes on from what came of it, pauses, goes on, and is ended.
    third = jobs.create(
        model=done.fine_tuned_model,
        training_file=rows,
        extra_body={"x_finetuned": {"params": {"max_length": 64, "max_steps": 100_000}}},
        method=SMALL,
    )
    eventually(
        lambda: (progress(client, third)["progress"] or {}).get("current_step", 0) > 2,
        timeout=PATIENCE_S,
        what="some steps",
    )
    assert third.model == f"colours-{identity}"
    assert jobs.pause(third.id).status in {"pausing", "paused"}
    wait_for(client, third, "paused")
    saved, *_ = jobs.checkpoints.list(third.id).data  # the newest first
    jobs.resume(third.id)
    eventually(
        lambda: (progress(client, third)["progress"] or {})["current_step"] > saved.step_number,
        timeout=PATIENCE_S,
        what="further steps",
    )
    assert progress(client, third)["attempt"] == 2
    jobs.cancel(third.id)
    eventually(lambda: jobs.retrieve(third.id).finished_at, timeout=PATIENCE_S, what="its end")
    assert [each.id for each in jobs.list()] == [third.id, second.id, first.id]


def test_preferences_and_a_teacher_train_what_a_job_before_has_made(
    client: openai.OpenAI, tmp_path: Path
) -> None:
    base = str(tmp_path / "tiny-llama")
    save_model(tmp_path / "tiny-llama")
    jobs = client.fine_tuning.jobs
    small = {"max_length": 64, "max_steps": 2}
    rows = upload(client, *map(chat, range(8)))
    begun = jobs.create(model=base, training_file=rows, extra_body={"x_finetuned": {"params": small}})
    model = wait_for(client, begun, "succeeded").fine_tuned_model
    assert model is not None

    preferred = jobs.create(
        model=model,
        training_file=upload(client, *map(pair, range(8))),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "batch_size": 2}}},
        extra_body={"x_finetuned": {"params": small}},
    )
    own = {"params": {**small, "max_completion_length": 8}}
    teaching = {
        "type": "distillation",
        "distillation": {"teacher": base, "hyperparameters": {"batch_size": 2}},
    }
    taught = jobs.create(model=model, training_file=rows, extra_body={"method": teaching, "x_finetuned": own})
    for job, method in ((preferred, "dpo"), (taught, "distillation")):
        done = wait_for(client, job, "succeeded")
        assert done.method is not None
        assert done.method.type == method
        assert done.fine_tuned_model == f"ft:tiny-llama:finetuned::{job.id.removeprefix('ftjob-')}"
        assert done.result_files
