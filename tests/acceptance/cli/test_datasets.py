"""``datasets``, and the files that ``run`` sends."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned import wire
from finetuned.cli import preview, transfers

ROWS = b'{"text": "a"}\n{"text": "b"}\n'
VERSION = hashlib.sha256(ROWS).hexdigest()
SHORT = VERSION[:16]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my rows.v2.jsonl"
    file.write_bytes(ROWS)
    return file


def submitted(daemon: FakeDaemon) -> dict[str, Any]:
    (body,) = [body for method, path, body in daemon.requests if (method, path) == ("POST", "/v1/jobs")]
    params: dict[str, Any] = body["params"]
    return params


def sent(daemon: FakeDaemon) -> list[str]:
    return [path for method, path, _ in daemon.requests if method == "POST" and "/v1/datasets" in path]


# ---- run ---------------------------------------------------------------------------------------------------


def test_a_file_is_sent_once_however_often_it_is_trained_on(
    daemon: FakeDaemon, finetune: Run, rows: Path
) -> None:
    first = finetune("run", "sft", "--model", "tiny", "--data", str(rows))
    assert submitted(daemon)["dataset"] == f"dataset:my-rows@{SHORT}"
    assert f"dataset:my-rows@{SHORT}" in first.err
    daemon.requests.clear()
    second = finetune("run", "sft", "--model", "tiny", "--data", rows.name)
    assert submitted(daemon)["dataset"] == f"dataset:my-rows@{SHORT}"
    assert sent(daemon) == []
    assert "is sent" not in second.err
    daemon.requests.clear()
    rows.write_bytes(ROWS + b"{}\n")
    finetune("run", "sft", "--model", "tiny", "--data", str(rows))
    assert len(sent(daemon)) == 1


def test_an_absolute_path_in_a_parameter_is_the_servers(
    daemon: FakeDaemon, finetune: Run, rows: Path
) -> None:
    finetune("run", "sft", "--model", "tiny", "--param", f"dataset={rows}")
    assert submitted(daemon)["dataset"] == str(rows)
    assert sent(daemon) == []


def test_a_relative_path_in_a_parameter_is_this_machines(
    daemon: FakeDaemon, finetune: Run, rows: Path
) -> None:
    finetune("run", "sft", "--model", "tiny", "--param", f"dataset=./{rows.name}")
    assert submitted(daemon)["dataset"] == f"dataset:my-rows@{SHORT}"


@pytest.mark.parametrize("value", ["dataset:rows", "org/rows", "/nowhere/on/this/machine.jsonl"])
def test_what_is_no_file_here_is_left_to_the_daemon(daemon: FakeDaemon, finetune: Run, value: str) -> None:
    assert finetune("run", "sft", "--model", "tiny", "--data", value).code == 0
    assert submitted(daemon)["dataset"] == value


def test_nothing_is_sent_for_a_request_that_is_wrong(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    assert finetune("run", "sft", "--data", str(rows), "--param", "max_stps=1").code == 2
    assert sent(daemon) == []


def test_an_upload_that_is_refused_submits_nothing(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    told = {
        "error": {"code": "dataset_format_unknown", "message": "Say --format.", "param": None, "type": "t"}
    }
    daemon.answers["GET", "/v1/datasets/my-rows"] = {"versions": []}
    daemon.answers["POST", "/v1/datasets"] = (400, told)
    outcome = finetune("run", "sft", "--model", "tiny", "--data", str(rows))
    assert (outcome.code, outcome.err) == (2, "Error: Say --format.\n")
    assert not any(path == "/v1/jobs" for _, path, _ in daemon.requests)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("rows.jsonl", "rows"),
        ("My Rows (2).csv", "My-Rows-2"),
        (".hidden", "hidden"),
        ("ünïcode.jsonl", "n-code"),
        ("日本.jsonl", "data"),
        ("a" * 200 + ".jsonl", "a" * 96),
    ],
)
def test_a_datasets_name_comes_from_the_files(file: str, name: str) -> None:
    assert transfers.name_for(Path(file)) == name


# ---- datasets ----------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_under_its_name_or_another(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    outcome = finetune("datasets", "upload", rows.name)
    assert outcome.out == f"dataset:my-rows@{SHORT}: 2 rows, jsonl, {len(ROWS)} B\n"
    finetune("datasets", "upload", rows.name, "--name", "other", "--format", "jsonl", "--json")
    assert sent(daemon)[-1] == f"/v1/datasets?name=other&format=jsonl&sha256={VERSION}"
    assert "my-rows" in finetune("datasets").out
    assert len(finetune("datasets", "ls", "--json").json["data"]) == 2
    assert "/state/other" in finetune("datasets", "show", "other").out
    assert finetune("datasets", "show", "other", "--json").json["version"] == VERSION
    assert finetune("datasets", "show", "none").code == 3


def test_a_file_that_is_not_there_is_wrong_usage(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    outcome = finetune("datasets", "upload", "nowhere.jsonl")
    assert outcome.code == 2
    assert "nowhere.jsonl is no file of this machine" in outcome.err
    assert "datasets upload" in finetune("datasets").err


def test_what_is_there_already_is_not_sent_again(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    first = finetune("datasets", "upload", rows.name)
    second = finetune("datasets", "upload", rows.name)
    assert first.out == second.out
    assert "nothing is sent" in second.err
    assert len(sent(daemon)) == 1


def test_a_file_of_the_server_is_registered_by_its_path(
    daemon: FakeDaemon, finetune: Run, rows: Path
) -> None:
    finetune("datasets", "upload", rows.name)
    daemon.answers["POST", "/v1/datasets/register"] = daemon.datasets["my-rows"]
    assert finetune("datasets", "register", "big", "/srv/big.parquet").out.startswith("dataset:my-rows@")
    assert daemon.requests[-1][2] == {"name": "big", "path": "/srv/big.parquet"}


def test_a_dataset_or_a_version_of_it_is_removed(daemon: FakeDaemon, finetune: Run) -> None:
    assert "is removed" in finetune("datasets", "rm", "rows").out
    assert daemon.requests[-1][:2] == ("DELETE", "/v1/datasets/rows")
    assert finetune("datasets", "rm", "dataset:rows@0123456789ab", "--json").json["deleted"] is True
    assert daemon.requests[-1][1] == "/v1/datasets/rows?version=0123456789ab"


def test_a_datasets_file_comes_back_as_it_was(daemon: FakeDaemon, finetune: Run, rows: Path) -> None:
    finetune("datasets", "upload", rows.name)
    daemon.content["/v1/datasets/my-rows/content"] = ROWS
    outcome = finetune("datasets", "download", f"my-rows@{SHORT}")
    assert outcome.out == f"my-rows.jsonl: {len(ROWS)} B, checksum right.\n"
    assert Path("my-rows.jsonl").read_bytes() == ROWS
    answer = finetune("datasets", "download", "my-rows", "-o", "here", "--json").json
    assert answer == {"id": "my-rows", "version": VERSION, "target": str(Path("here").absolute())}
    daemon.content["/v1/datasets/my-rows/content"] = ROWS[::-1]
    assert finetune("datasets", "download", "my-rows", "-o", "other").code == 6
    assert not Path("other").exists()
    assert finetune("datasets", "download", "my-rows@00000000").code == 3


PREVIEW: wire.DatasetPreview = {
    "object": "dataset.preview", "id": "rows", "version": VERSION, "format": "jsonl",
    "data": [
        {"row": 1, "value": {"text": "ä"}, "cut": False, "problem": None},
        {"row": 2, "value": "plain", "cut": True, "problem": None},
        {"row": 3, "value": None, "cut": False, "problem": "it is no JSON"},
    ],
    "has_more": True, "next_after": "2:40",
}  # fmt: skip


def test_rows_are_shown_as_they_are(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/datasets/rows/preview"] = PREVIEW
    outcome = finetune("datasets", "preview", "rows@01234567", "--rows", "3", "--after", "0:0")
    assert outcome.out.splitlines() == ['     1  {"text": "ä"}', "     2  plain …", "     3  ! it is no JSON"]
    assert "--after 2:40" in outcome.err
    assert daemon.requests[-1][1] == "/v1/datasets/rows/preview?version=01234567&rows=3&after=0:0"
    assert finetune("datasets", "preview", "rows", "--json").json == PREVIEW


# ---- audits and tokens -----------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "dataset": "dataset:rows", "sha256": VERSION, "model": "tiny", "format": "messages", "max_length": 64,
    "rows": [
        {
            "row": 1, "length": 5, "cut": 1, "trained": 2, "hidden": 3,
            "tokens": [
                {"id": 1, "text": "<user>", "trained": False},
                {"id": 2, "text": "hi", "trained": False},
                {"id": 3, "text": "hel", "trained": True},
                {"id": 4, "text": "lo", "trained": True},
            ],
        },
        {"row": 2, "problem": "no answer"},
    ],
}  # fmt: skip


def audited(daemon: FakeDaemon) -> None:
    audit: wire.DatasetAudit = {
        "object": "dataset.audit", "job": "job-2", "version": VERSION,
        "created_at": "2026-11-22T12:00:00.000000Z",
        "report": {"rows": 2, "truncated_rows": 1, "warnings": ["One row is cut."]},
    }  # fmt: skip
    daemon.answers["GET", "/v1/datasets/rows/audits"] = {
        "data": [{**audit, "job": "job-gone"}, audit],
        "has_more": False,
    }
    told = {"error": {"code": "not_found", "message": "None.", "param": None, "type": "t"}}
    daemon.answers["GET", "/v1/jobs/job-gone/artifacts/preview.json"] = (404, told)
    content = json.dumps(DOCUMENT).encode()
    file = {"path": "preview.json", "bytes": len(content), "crc32": zlib.crc32(content)}
    daemon.answers["GET", "/v1/jobs/job-2/artifacts/preview.json"] = {"files": [file], "has_more": False}
    daemon.answers["GET", "/v1/jobs/job-2/artifacts/preview.json/files/preview.json"] = content


def test_tokens_that_are_trained_on_stand_in_brackets_where_there_is_no_colour(
    daemon: FakeDaemon, finetune: Run
) -> None:
    audited(daemon)
    outcome = finetune("datasets", "preview", "rows", "--tokens")
    assert "<user>hi[hello]\n… and 3 more" in outcome.out
    assert "row 1: 5 tokens, 2 trained on, 1 cut off" in outcome.out
    assert "row 2: no answer" in outcome.out
    as_json = finetune("datasets", "preview", "rows", "--tokens", "--rows", "1", "--json").json
    assert (as_json["job"], len(as_json["rows"])) == ("job-2", 1)


def test_tokens_stand_out_by_colour_and_neighbours_are_told_apart() -> None:
    text = preview.tokens(DOCUMENT["rows"][0]["tokens"])
    styles = [str(span.style) for span in text.spans if text.plain[span.start : span.end] not in "[]"]
    assert styles == ["dim", "dim underline", "bold green", "bold green underline"]
    assert preview.tokens([{"text": "a", "trained": False}]).plain == "a"


def test_without_an_audit_tokens_say_how_to_have_one(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/datasets/rows/audits"] = {"data": [], "has_more": False}
    outcome = finetune("datasets", "preview", "rows", "--tokens")
    assert outcome.code == 3
    assert "finetune datasets audit rows --model MODEL" in outcome.err


def test_an_audit_is_a_job_that_can_be_watched(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-5"] = a_job("job-5", state="succeeded", finished_at="2026-11-22T12:01:30.000000Z")
    daemon.answers["POST", "/v1/datasets/rows/audit"] = a_job("job-5")
    outcome = finetune("datasets", "audit", "rows@01234567", "--model", "tiny", "--param", "max_length=64")
    assert outcome.out == "job-5 is queued.\n"
    assert daemon.requests[-1][2] == {"model": "tiny", "version": "01234567", "params": {"max_length": 64}}
    daemon.happens("job-5", "job.succeeded", {"result": {}})
    watched = finetune("datasets", "audit", "rows", "--model", "tiny", "--watch")
    assert "--tokens" in watched.err


def test_what_jobs_found_is_listed(daemon: FakeDaemon, finetune: Run) -> None:
    audited(daemon)
    assert "One row is cut." in finetune("datasets", "audits", "rows").out
    assert finetune("datasets", "audits", "rows", "--json").json["data"][1]["job"] == "job-2"
    daemon.answers["GET", "/v1/datasets/rows/audits"] = {"data": [], "has_more": False}
    assert "datasets audit rows" in finetune("datasets", "audits", "rows").err
