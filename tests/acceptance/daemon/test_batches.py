"""A batch gives exactly one line for each request, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running

PLUGINS = "finetuned_sdk.fake,finetuned_sdk.fake_engine,tests.acceptance.daemon.gated_engine"
URL = "/v1/chat/completions"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> str:
    directory = tmp_path / "model"
    directory.mkdir()
    return str(directory)


def line(number: int, model: str, text: str | None = None, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"say {number}" if text is None else text}]
    asked = {"model": model, "messages": messages, **body}
    return {"custom_id": f"row-{number}", "method": "POST", "url": URL, "body": asked}


def written(path: Path, lines: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path


def submit(daemon: Daemon, path: Path, model: str, **params: Any) -> str:
    asked = {"input": str(path), "model": model, "engine": "gated-engine", **params}
    job_id: str = daemon.ok("POST", "/v1/jobs", {"kind": "batch", "params": asked})["id"]
    return job_id


def files(daemon: Daemon, job_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of the output file and of the error file."""
    listed = daemon.ok("GET", f"/v1/jobs/{job_id}/artifacts")["data"]
    found: dict[str, list[dict[str, Any]]] = {"output": [], "error": []}
    for artifact in listed:
        name = artifact["name"]
        which = name.removesuffix(".jsonl").rpartition("_")[2]
        text = daemon.ok("GET", f"/v1/jobs/{job_id}/artifacts/{name}/files/{name}")
        lines = text.splitlines() if isinstance(text, str) else [json.dumps(text)]
        found[which] = [json.loads(each) for each in lines]
    return found["output"], found["error"]


def ids(lines: Iterable[dict[str, Any]]) -> list[str]:
    return [each["custom_id"] for each in lines]


def done(daemon: Daemon, job_id: str) -> int:
    """Rows that are known to be done."""
    steps = daemon.steps(job_id)
    return steps[-1] if steps else 0


def gate_of(daemon: Daemon) -> str:
    return f"gate:{daemon.gate}"


def half_held(daemon: Daemon, model: str, path: Path, count: int = 40) -> list[dict[str, Any]]:
    """Requests of which every other one is held at the gate."""
    lines = [
        line(number, model, f"{gate_of(daemon)} {number}" if number % 2 else None) for number in range(count)
    ]
    written(path, lines)
    return lines


def engine_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.ok("GET", "/v1/jobs?kind=gated-engine")["data"][0]
    return found


def test_each_request_has_its_answer_in_the_order_of_the_input(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.jsonl", [line(number, model) for number in range(300)])
    job = daemon.wait_for(submit(daemon, path, model))
    assert job["state"] == "succeeded", job
    output, errors = files(daemon, job["id"])
    assert ids(output) == [f"row-{number}" for number in range(300)]
    assert not errors
    said = [each["response"]["body"]["choices"][0]["message"]["content"] for each in output]
    assert said == [f"say {number}" for number in range(300)]
    assert job["result"]["completed"] == 300
    assert job["result"]["output_tokens"] == 600


def test_a_request_that_the_engine_refuses_is_an_error_line_and_not_the_batchs_failure(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    lines = [
        line(0, model),
        line(1, model, temperature=7),
        line(2, model, stream=True),
        line(3, model, "x " * 900),
    ]
    job = daemon.wait_for(submit(daemon, written(tmp_path / "in.jsonl", lines), model))
    assert job["state"] == "succeeded"
    output, errors = files(daemon, job["id"])
    assert ids(output) == ["row-0"]
    assert ids(errors) == ["row-1", "row-2", "row-3"]
    told = [(each["response"]["status_code"], each["response"]["body"]["error"]["code"]) for each in errors]
    assert told == [(400, "invalid_value"), (400, "unsupported_parameter"), (400, "context_length_exceeded")]
    assert job["result"]["failed"] == 3


def test_a_malformed_file_is_not_asked_by_half_and_each_bad_line_is_named(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.jsonl", [line(0, model), {"custom_id": "x"}, line(0, model)])
    job = daemon.wait_for(submit(daemon, path, model))
    assert job["state"] == "failed"
    assert job["error"]["code"] == "bad_dataset"
    assert "row 2: method is missing" in job["error"]["message"]
    assert "row 3: its custom_id is that of line 1" in job["error"]["message"]
    assert files(daemon, job["id"]) == ([], [])


def test_an_endpoint_that_the_engine_does_not_answer_is_refused_at_once(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    params = {"input": str(tmp_path / "in.jsonl"), "model": model, "engine": "gated-engine"}
    body = {"kind": "batch", "params": {**params, "endpoint": "/v1/embeddings"}}
    status, answer = daemon.request("POST", "/v1/jobs", body)
    assert status == 400
    assert answer["error"]["code"] == "unsupported_endpoint"


@pytest.mark.parametrize("victim", ["driver", "engine", "daemon", "all"])
def test_a_kill_in_the_middle_loses_no_request_and_answers_none_twice(
    daemon: Daemon, model: str, tmp_path: Path, victim: str
) -> None:
    lines = half_held(daemon, model, tmp_path / "in.jsonl")
    job_id = submit(daemon, tmp_path / "in.jsonl", model)
    eventually(lambda: done(daemon, job_id) > 0, what="a result")
    if victim in {"driver", "all"}:
        daemon.kill_attempts(job_id)
    if victim in {"engine", "all"}:
        os.kill(engine_of(daemon)["attempts"][-1]["pid"], signal.SIGKILL)
    if victim in {"daemon", "all"}:
        daemon.kill()
        daemon.start()
    daemon.open_gate()
    job = daemon.wait_for(job_id)
    assert job["state"] == "succeeded", job
    output, errors = files(daemon, job_id)
    assert ids(output) == ids(lines)
    assert not errors


@pytest.mark.parametrize("killed", [False, True])
def test_a_batch_that_is_cancelled_keeps_its_finished_lines_and_names_the_others(
    daemon: Daemon, model: str, tmp_path: Path, killed: bool
) -> None:
    lines = half_held(daemon, model, tmp_path / "in.jsonl")
    job_id = submit(daemon, tmp_path / "in.jsonl", model)
    eventually(lambda: done(daemon, job_id) == 20, what="all that is not held")
    if killed:
        daemon.kill_attempts(job_id)
    daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
    job = daemon.wait_for(job_id, "cancelled")
    output, errors = files(daemon, job_id)
    assert ids(output) == ids(lines[::2])
    assert ids(errors) == ids(lines[1::2])
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert {each["response"] for each in errors} == {None}
    assert job["progress"]["completed"] == 20


def test_a_paused_batch_goes_on_where_it_was_and_may_be_cancelled_meanwhile(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    lines = half_held(daemon, model, tmp_path / "in.jsonl")
    paused = [submit(daemon, tmp_path / "in.jsonl", model) for _ in range(2)]
    for job_id in paused:
        eventually(lambda job_id=job_id: done(daemon, job_id) == 20, what="all that is not held")
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
        daemon.wait_for(job_id, "paused")
    daemon.ok("POST", f"/v1/jobs/{paused[0]}/cancel")
    output, errors = files(daemon, paused[0])
    assert ids(output) == ids(lines[::2])
    assert ids(errors) == ids(lines[1::2])
    daemon.ok("POST", f"/v1/jobs/{paused[1]}/resume")
    daemon.open_gate()
    assert daemon.wait_for(paused[1])["state"] == "succeeded"
    assert ids(files(daemon, paused[1])[0]) == ids(lines)


def test_a_batch_that_is_cancelled_before_its_turn_names_all_its_requests(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    lines = [line(number, model, f"{gate_of(daemon)} {number}") for number in range(3)]
    path = written(tmp_path / "in.jsonl", lines)
    first = [submit(daemon, path, model) for _ in range(2)]  # as many as ask one engine at once
    for job_id in first:
        daemon.wait_for(job_id, "running")
    last = submit(daemon, path, model)
    daemon.ok("POST", f"/v1/jobs/{last}/cancel")
    assert daemon.wait_for(last, "cancelled")["attempts"] == []
    output, errors = files(daemon, last)
    assert output == []
    assert ids(errors) == ids(lines)
    batch = daemon.ok("GET", f"/v1/batches/{last.replace('job-', 'batch_')}")
    assert (batch["status"], batch["output_file_id"]) == ("cancelled", None)
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    assert daemon.request("GET", f"/v1/files/{batch['error_file_id']}/content")[0] == 200


def test_a_request_that_kills_its_engine_is_told_of_and_the_others_are_answered(
    daemon: Daemon, model: str, tmp_path: Path
) -> None:
    lines = [line(number, model, "deadly" if number == 3 else None) for number in range(8)]
    path = written(tmp_path / "in.jsonl", lines)
    job_id = submit(daemon, path, model, engine="fake-engine", engine_options={"dies_of": "deadly"})
    assert daemon.wait_for(job_id)["state"] == "succeeded"
    output, errors = files(daemon, job_id)
    assert ids(output) == [f"row-{number}" for number in range(8) if number != 3]
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [("row-3", "engine_died")]
