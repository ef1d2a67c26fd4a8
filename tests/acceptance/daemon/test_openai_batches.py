"""OpenAI's own client sends a file, runs a batch over it, polls, cancels and downloads, against a real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.acceptance.daemon.test_batches import PLUGINS, URL, gate_of, ids, line, written

ENDED = {"completed", "failed", "cancelled", "expired"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = tmp_path / "config.toml"
    config.write_text('default_engine = "gated-engine"\n', encoding="utf-8")
    with running("--config", str(config), FINETUNED_EXTRA_PLUGINS=PLUGINS) as found:
        yield found


@pytest.fixture
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    transport = httpx.HTTPTransport(uds=str(daemon.socket))
    with (
        httpx.Client(transport=transport, timeout=60) as http,
        openai.OpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0
        ) as found,
    ):
        yield found


@pytest.fixture
def model(tmp_path: Path) -> str:
    directory = tmp_path / "model"
    directory.mkdir()
    return str(directory)


def sent(client: openai.OpenAI, path: Path, lines: Iterable[object], purpose: Any = "batch") -> str:
    with written(path, lines).open("rb") as file:
        return client.files.create(file=file, purpose=purpose).id


def begun(client: openai.OpenAI, file_id: str, **more: Any) -> Any:
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def completed(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    eventually(lambda: client.batches.retrieve(batch_id).status in ENDED, what="the batch's end")
    return client.batches.retrieve(batch_id)


def content(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_created_polled_and_downloaded(client: openai.OpenAI, model: str, tmp_path: Path) -> None:
    file_id = sent(
        client, tmp_path / "in.jsonl", [line(0, model), line(1, model, temperature=9), line(2, model)]
    )
    batch = begun(client, file_id, metadata={"night": "run"})
    assert batch.id.startswith("batch_")
    assert batch.status == "validating"
    assert batch.metadata == {"night": "run"}
    assert batch.expires_at - batch.created_at == 86_400
    assert (batch.output_file_id, batch.error_file_id, batch.errors) == (None, None, None)
    batch = ended(client, batch.id)
    assert batch.status == "completed"
    assert batch.model == model
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (
        3,
        2,
        1,
    )
    assert batch.usage.input_tokens == 4
    assert batch.usage.total_tokens == 8
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert ids(content(client, batch.output_file_id)) == ["row-0", "row-2"]
    (error,) = content(client, batch.error_file_id)
    assert error["response"]["body"]["error"]["param"] == "temperature"
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
    assert [each.id for each in client.batches.list(limit=1)] == [batch.id]


def test_a_batch_of_which_nothing_succeeded_is_completed_without_an_output(
    client: openai.OpenAI, model: str, tmp_path: Path
) -> None:
    file_id = sent(client, tmp_path / "in.jsonl", [line(0, model, temperature=9)])
    batch = ended(client, begun(client, file_id).id)
    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert ids(content(client, batch.error_file_id)) == ["row-0"]


def test_a_malformed_file_fails_the_batch_with_each_bad_line(
    client: openai.OpenAI, model: str, tmp_path: Path
) -> None:
    file_id = sent(
        client, tmp_path / "in.jsonl", [line(0, model), line(1, "other"), "no object", line(0, model)]
    )
    batch = ended(client, begun(client, file_id).id)
    assert batch.status == "failed"
    assert [(each.line, each.code) for each in batch.errors.data] == [
        (2, "mismatched_model"),
        (3, "invalid_json_line"),
        (4, "duplicate_custom_id"),
    ]
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts.total == 0
    assert batch.failed_at is not None


def test_a_cancelled_batch_still_has_its_finished_lines(
    client: openai.OpenAI, daemon: Daemon, model: str, tmp_path: Path
) -> None:
    file_id = sent(client, tmp_path / "in.jsonl", [line(0, model), line(1, model, f"{gate_of(daemon)} held")])
    batch = begun(client, file_id)
    eventually(lambda: completed(client, batch.id) == 1, what="an answer")
    assert client.batches.retrieve(batch.id).status == "in_progress"
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    assert batch.created_at <= batch.cancelling_at <= batch.cancelled_at
    assert ids(content(client, batch.output_file_id)) == ["row-0"]
    (error,) = content(client, batch.error_file_id)
    assert (error["custom_id"], error["error"]["code"]) == ("row-1", "batch_cancelled")
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "job_ended"


def test_a_batch_whose_window_is_shorter_than_its_work_ends_by_itself(
    client: openai.OpenAI, daemon: Daemon, model: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.jsonl", [line(0, model, f"{gate_of(daemon)} held")])
    params = {"input": str(path), "model": model, "completion_window": 1}
    job_id = daemon.ok("POST", "/v1/jobs", {"kind": "batch", "params": params})["id"]
    reason = {"reason": "batch_expired: as the daemon says it"}
    status, told = daemon.request("POST", f"/v1/jobs/{job_id}/cancel", reason)
    assert (status, told["error"]["param"]) == (400, "reason")
    batch = ended(client, job_id.replace("job-", "batch_"))
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert (batch.cancelling_at, batch.cancelled_at) == (None, None)
    assert batch.output_file_id is None
    (error,) = content(client, batch.error_file_id)
    assert error["error"]["code"] == "batch_expired"


def refusal(client: openai.OpenAI, file_id: str, **changes: Any) -> openai.APIStatusError:
    asked: dict[str, Any] = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h", **changes}
    with pytest.raises(openai.APIStatusError) as refused:
        client.batches.create(**asked)
    return refused.value


def test_what_cannot_be_is_refused_at_once_and_named(
    client: openai.OpenAI, daemon: Daemon, model: str, tmp_path: Path
) -> None:
    good = sent(client, tmp_path / "good.jsonl", [line(0, model)])
    other = sent(client, tmp_path / "tuning.jsonl", [line(0, model)], purpose="fine-tune")
    unknown = sent(client, tmp_path / "unknown.jsonl", [line(0, "no-such-model")])
    bare = sent(client, tmp_path / "bare.jsonl", ["{}"])
    told = [
        refusal(client, "file-0000000000"),
        refusal(client, other),
        refusal(client, unknown),
        refusal(client, bare),
        refusal(client, good, completion_window="1h"),
        refusal(client, good, endpoint="/v1/responses"),
        refusal(client, good, endpoint="/v1/embeddings", extra_body={"engine": "gated-engine"}),
        refusal(client, good, extra_body={"window": 7}),
    ]
    assert [(each.status_code, each.code, each.param) for each in told] == [
        (404, "file_not_found", "input_file_id"),
        (400, "wrong_purpose", "input_file_id"),
        (404, "model_not_found", "model"),
        (400, "invalid_input_file", "input_file_id"),
        (400, "invalid_params", "completion_window"),
        (400, "invalid_params", "endpoint"),
        (400, "unsupported_endpoint", None),
        (400, "unknown_parameter", "window"),
    ]
    assert list(client.batches.list()) == []


def test_pages_of_batches_are_the_newest_first(client: openai.OpenAI, model: str, tmp_path: Path) -> None:
    file_id = sent(client, tmp_path / "in.jsonl", [line(0, model)])
    made = [begun(client, file_id).id for _ in range(3)]
    page = client.batches.list(limit=2)
    assert [each.id for each in page.data] == made[:0:-1]
    assert page.has_more
    assert [each.id for each in client.batches.list(limit=2, after=made[1])] == made[:1]
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_0000000000")
