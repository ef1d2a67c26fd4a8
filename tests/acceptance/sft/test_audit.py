"""sft-audit: what a training would read, and its first rows as tokens with the loss mask."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.acceptance.daemon.process import Daemon, UnixConnection, running
from tests.acceptance.sft.conftest import MakeContext, MakeRows, MakeTokenizer, chat

from finetuned_sdk import BadDatasetError, JobError
from finetuned_sft import audit
from finetuned_sft.params import SFTAuditParams, SFTParams
from finetuned_sft.tokenization import IGNORED
from finetuned_sft.validation import validate

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]


def shown(ctx: Any) -> dict[str, Any]:
    (artifact,) = ctx.of_type("artifact")
    assert (artifact["name"], artifact["kind"]) == ("preview.json", "dataset_preview")
    document: dict[str, Any] = json.loads(Path(artifact["path"]).read_text(encoding="utf-8"))
    return document


def test_the_preview_marks_the_tokens_that_the_training_learns_from(
    tiny_model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    from finetuned_sft.trainer import load_rows
    from finetuned_training.model import load_tokenizer

    dataset = make_rows("rows.jsonl", map(chat, range(9)))
    params = SFTAuditParams(model=tiny_model, dataset=dataset, max_length=24, preview_rows=3)
    ctx = make_context(params)
    audit.run(ctx, params)

    document = shown(ctx)
    assert document["sha256"] == hashlib.sha256(Path(dataset).read_bytes()).hexdigest()
    tokenizer = load_tokenizer(tiny_model, params)
    trained = load_rows(ctx, "dataset", "train", params, tokenizer)
    assert [row["row"] for row in document["rows"]] == [1, 2, 3]
    for row, example in zip(document["rows"], trained, strict=False):
        assert [token["id"] for token in row["tokens"]] == example["input_ids"]
        assert [token["trained"] for token in row["tokens"]] == [
            label != IGNORED for label in example["labels"]
        ]
    (fact,) = ctx.of_type("audit")
    report = fact["report"]
    assert report["rows"] == 9
    assert report["extra"]["length_percentiles"]["p100"] == report["max_tokens"]
    assert ctx.results == {"preview": "preview.json", "preview_rows": 3}


def test_the_trained_text_is_the_answer_with_its_end(
    tiny_model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    row = {
        "messages": [{"role": "user", "content": "hé 🙂?"}, {"role": "assistant", "content": "naïve 🚀 日本"}]
    }
    params = SFTAuditParams(model=tiny_model, dataset=make_rows("rows.jsonl", [row]))
    ctx = make_context(params)
    audit.run(ctx, params)
    (shown_row,) = shown(ctx)["rows"]
    text = "".join(token["text"] for token in shown_row["tokens"] if token["trained"])
    assert text.removesuffix("\n") == "naïve 🚀 日本<|im_end|>"
    assert (
        "".join(token["text"] for token in shown_row["tokens"])
        == "<|im_start|>user\nhé 🙂?<|im_end|>\n<|im_start|>assistant\nnaïve 🚀 日本<|im_end|>\n"
    )


@pytest.fixture(scope="module")
def tokenizer(tokenizer_factory: MakeTokenizer) -> Any:
    return tokenizer_factory()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=40))
def test_the_texts_of_the_tokens_together_are_the_text(tokenizer: Any, text: str) -> None:
    ids = list(tokenizer(text)["input_ids"])
    texts = list(audit.texts(ids, tokenizer))
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(
        ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def test_rows_that_are_cut_say_by_how_much(
    tiny_model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    params = SFTAuditParams(
        model=tiny_model, dataset=make_rows("rows.jsonl", [chat(1), chat(2)]), max_length=12
    )
    ctx = make_context(params)
    with pytest.raises(BadDatasetError, match="Raise max_length"):
        audit.run(ctx, params)
    for row in shown(ctx)["rows"]:
        assert row["length"] == 12 + row["cut"]
        assert len(row["tokens"]) == 12


def test_bad_rows_are_shown_in_their_place_before_they_are_refused(
    tiny_model: str, tmp_path: Path, make_context: MakeContext
) -> None:
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text(json.dumps(chat(1)) + '\n{"messages": []}\n' + json.dumps(chat(2)) + "\n")
    params = SFTAuditParams(model=tiny_model, dataset=str(dataset))
    ctx = make_context(params)
    with pytest.raises(BadDatasetError, match="row 2"):
        audit.run(ctx, params)
    good, bad, after = shown(ctx)["rows"]
    assert "problem" in bad
    assert bad["row"] == 2
    assert good["tokens"]
    assert after["tokens"]


def test_content_that_is_not_what_the_job_referred_to_is_refused(
    tiny_model: str, make_rows: MakeRows, make_context: MakeContext
) -> None:
    path = make_rows("rows.jsonl", [chat(1), chat(2)])
    version = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    params = SFTParams(model=tiny_model, dataset="dataset:colours", eval_dataset="dataset:held")
    used = {name: {"name": name, "version": version, "path": path} for name in ("dataset", "eval_dataset")}
    ctx = make_context(params, datasets=used)
    validate(ctx, params)
    assert [fact["report"]["dataset"] for fact in ctx.of_type("audit")] == ["dataset:colours", "dataset:held"]

    Path(path).write_text(json.dumps(chat(3)) + "\n")
    with pytest.raises(JobError, match="put it back as it was") as caught:
        validate(make_context(params, datasets=used), params)
    assert caught.value.code == "dataset_changed"


def post_file(daemon: Daemon, name: str, rows: bytes) -> dict[str, Any]:
    connection = UnixConnection(daemon.socket, timeout=30)
    connection.request("POST", f"/v1/datasets?name={name}", body=rows)
    answer = connection.getresponse()
    document: dict[str, Any] = json.loads(answer.read())
    connection.close()
    assert answer.status in {200, 201}, document
    return document


def test_a_dataset_is_uploaded_audited_and_trained_on_by_its_name(tiny_model: str) -> None:
    rows = b"".join(json.dumps(chat(number)).encode() + b"\n" for number in range(12))
    params: dict[str, Any] = {"model": tiny_model, "max_steps": 2, "max_length": 64}
    with running() as daemon:
        dataset = post_file(daemon, "colours", rows)
        audited = daemon.ok("POST", "/v1/datasets/colours/audit", {"model": tiny_model})
        held = {"name": "validation", "params": {"dataset": "dataset:held", "max_new_tokens": 2}}
        post_file(daemon, "held", b'{"prompt": "what colour", "completion": "red"}\n')
        job_id = daemon.submit("sft", dataset="dataset:colours", callbacks=[held], **params)
        newer = post_file(daemon, "colours", rows * 2)
        assert newer["version"] != dataset["version"]

        job = daemon.wait_for(audited["id"], timeout=60)
        assert job["state"] == "succeeded", job["error"]
        assert [each["name"] for each in job["artifacts"]] == ["preview.json"]
        job = daemon.wait_for(job_id, timeout=120)
        assert job["state"] == "succeeded", job["error"]
        assert job["audits"][0]["sha256"] == dataset["version"]  # the newest when it was submitted
        assert job["result"]["validation"]["rows"] == 1

        audits = daemon.ok("GET", f"/v1/datasets/colours/audits?version={dataset['version']}")["data"]
        assert {each["job"] for each in audits} == {audited["id"], job_id}
        assert daemon.ok("GET", f"/v1/datasets/colours/audits?version={newer['version']}")["data"] == []

        # A retry has the rows of the job that it repeats, whatever the name means by now.
        again = daemon.ok("POST", f"/v1/jobs/{job_id}/retry", {"from_checkpoint": "latest"})
        assert daemon.wait_for(again["id"], timeout=120)["audits"][0]["sha256"] == dataset["version"]
        # Once that version is gone, it says so.
        daemon.ok("DELETE", f"/v1/datasets/colours?version={dataset['version']}")
        status, answer = daemon.request("POST", f"/v1/jobs/{job_id}/retry")
        assert (status, answer["error"]["code"]) == (400, "dataset_not_found")
        assert "submit a new job" in answer["error"]["message"]
        status, answer = daemon.request(
            "POST", "/v1/jobs", {"kind": "sft", "params": {**params, "dataset": "dataset:colour"}}
        )
        assert (status, answer["error"]["param"]) == (400, "params.dataset")
        assert "Did you mean 'colours'?" in answer["error"]["message"]


def test_a_registered_file_that_changed_is_refused_when_a_job_names_it(
    tiny_model: str, make_rows: MakeRows
) -> None:
    path = make_rows("rows.jsonl", [chat(number) for number in range(4)])
    with running() as daemon:
        daemon.ok("POST", "/v1/datasets/register", {"name": "colours", "path": path})
        Path(path).write_text(json.dumps(chat(9)) + "\n")
        params = {"model": tiny_model, "dataset": "dataset:colours", "max_steps": 1}
        status, answer = daemon.request("POST", "/v1/jobs", {"kind": "sft", "params": params})
        assert (status, answer["error"]["code"]) == (409, "dataset_changed")
        assert "register it again" in answer["error"]["message"]
