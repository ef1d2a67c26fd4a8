"""``finetune batch`` against a real daemon: prompts in, answers out, and what failed once more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.daemon.process import Daemon, running
from tests.acceptance.daemon.test_batches import PLUGINS, gate_of, line, written

from finetuned.client import SyncClient


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A real daemon that the command line finds by its socket."""
    config = tmp_path / "config.toml"
    config.write_text('default_engine = "gated-engine"\n', encoding="utf-8")
    with running("--config", str(config), FINETUNED_EXTRA_PLUGINS=PLUGINS) as found:
        monkeypatch.setenv("FINETUNED_SOCKET", str(found.socket))
        monkeypatch.delenv("FINETUNED_URL", raising=False)
        yield found


@pytest.fixture
def model(tmp_path: Path) -> str:
    directory = tmp_path / "model"
    directory.mkdir()
    return str(directory)


def answers(path: Path) -> dict[str, Any]:
    lines = [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]
    return {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in lines}


def test_prompts_of_a_csv_are_answered_into_a_file(
    real: Daemon, finetune: Run, model: str, tmp_path: Path
) -> None:
    assert real.is_ready()
    prompts, out = tmp_path / "cities.csv", tmp_path / "out.jsonl"
    prompts.write_text("id,city\nk1,Rome\nk2,Oslo\n", encoding="utf-8")
    told = finetune(
        "batch", "run", str(prompts), "--model", model, "--template", "where is {city}",
        "-o", str(out), "--watch", "--metadata", "team=a",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert answers(out) == {"k1": "where is Rome", "k2": "where is Oslo"}
    assert not (tmp_path / "out.errors.jsonl").exists()
    (listed,) = finetune("batch", "ls", "--json").json["data"]
    assert (listed["status"], listed["metadata"]) == ("completed", {"team": "a"})
    assert listed["id"] in finetune("batch").out
    assert "2 answered" in finetune("batch", "show", listed["id"]).out


def test_what_failed_is_asked_again_alone(real: Daemon, finetune: Run, model: str, tmp_path: Path) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": "at once"}, {"prompt": f"{gate_of(real)} held"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    begun = finetune("batch", "run", str(prompts), "--model", model, "--json").json
    job_id = begun["x_finetuned"]["job"]
    with SyncClient() as daemon:
        while daemon.batch(begun["id"])["request_counts"]["completed"] < 1:
            daemon.job(job_id)  # asks again; nothing else is waited for
    assert finetune("batch", "retry-failed", begun["id"]).code == 2  # it has not ended
    assert "what it has finished is kept" in finetune("batch", "cancel", begun["id"]).out
    real.wait_for(job_id, "cancelled")
    shown = finetune("batch", "show", begun["id"])
    assert "1 answered" in shown.out
    assert "1 without an answer" in shown.out
    assert f"finetune batch retry-failed {begun['id']}" in shown.out
    real.open_gate()
    left = out.with_name("out.errors.jsonl")
    left.write_text("of an earlier run", encoding="utf-8")
    again = finetune("batch", "retry-failed", begun["id"], "-o", str(out), "--json")
    assert again.code == 0, again.err
    assert list(answers(out)) == ["row-2"]
    assert f"{left} is not of this batch" in again.err
    assert again.lines[0]["metadata"] == {"retry_of": begun["id"]}
    assert finetune("batch", "retry-failed", again.lines[0]["id"]).code == 2  # nothing of it failed


@pytest.mark.parametrize("source", ["path", "dataset", "file"])
def test_what_failed_is_asked_again_wherever_the_batch_has_read_it(
    real: Daemon, finetune: Run, model: str, tmp_path: Path, source: str
) -> None:
    assert real.is_ready()
    path = written(tmp_path / "in.jsonl", [line(0, model), line(1, model, temperature=7)])
    with SyncClient() as daemon:
        if source == "dataset":
            daemon.upload_dataset("prompts", path)
            path.unlink()
        sent = daemon.upload_file(path, purpose="batch")["id"] if source == "file" else ""
    named = {"path": str(path), "dataset": "dataset:prompts", "file": f"file:{sent}"}[source]
    asked = {"input": named, "model": model, "engine": "gated-engine", "window": 7}
    job_id = real.ok("POST", "/v1/jobs", {"kind": "batch", "params": asked, "metadata": {"n": 1}})["id"]
    assert real.wait_for(job_id)["state"] == "succeeded"
    batch_id = job_id.replace("job-", "batch_")
    again = finetune("batch", "retry-failed", batch_id, "--watch", "--json")
    assert again.code == 1  # it is refused again, and a script should know
    made = real.ok("GET", f"/v1/jobs/{again.lines[0]['x_finetuned']['job']}")
    assert (made["params"]["window"], made["params"]["engine"]) == (7, "gated-engine")
    assert made["metadata"] == {"n": 1, "retry_of": batch_id}
    assert finetune("batch", "show", again.lines[0]["id"], "--json").json["request_counts"]["total"] == 1
    with SyncClient() as daemon:  # and now the input goes, or another takes its place
        if source == "path":
            written(path, [line(0, model)])
        elif source == "dataset":
            daemon.delete_dataset("prompts")
        else:
            daemon.delete_file(sent)
    refused = finetune("batch", "retry-failed", batch_id)
    assert refused.code == 2
    assert "finetune batch run" in refused.err


def test_a_malformed_batch_names_its_lines(real: Daemon, finetune: Run, model: str, tmp_path: Path) -> None:
    assert real.is_ready()
    prompts = tmp_path / "in.csv"
    prompts.write_text("id,city\nk1,Rome\nk1,Oslo\n", encoding="utf-8")
    told = finetune("batch", "run", str(prompts), "--model", model, "--template", "{city}", "--watch")
    assert told.code == 1
    assert "line 2: its custom_id is that of line 1 (duplicate_custom_id)" in told.out


def test_what_is_no_file_here_or_no_batch_is_refused(real: Daemon, finetune: Run, model: str) -> None:
    assert real.is_ready()
    assert finetune("batch", "run", "nowhere.jsonl", "--model", model).code == 2
    refused = finetune("batch", "show", "batch_0000000000")
    assert (refused.code, "`finetune batch` lists them" in refused.err) == (3, True)
