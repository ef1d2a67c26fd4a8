"""Uploads and a daemon that is killed in the middle of them."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, UnixConnection, eventually, running

LINE = b'{"prompt": "a", "completion": "b"}\n'


def upload(daemon: Daemon, rows: bytes) -> tuple[int, dict[str, Any]]:
    connection = UnixConnection(daemon.socket, timeout=30)
    try:
        connection.request("POST", "/v1/datasets?name=colours", body=rows)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def files(daemon: Daemon) -> list[Path]:
    return [each for each in (daemon.state / "datasets").rglob("*") if each.is_file()]


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_and_the_file_can_be_sent_again() -> None:
    rows = LINE * 100_000
    with running() as daemon:
        connection = UnixConnection(daemon.socket, timeout=30)
        connection.putrequest("POST", "/v1/datasets?name=colours")
        connection.putheader("Content-Length", str(len(rows)))
        connection.endheaders()
        connection.send(rows[: len(rows) // 2])
        eventually(
            lambda: [each for each in files(daemon) if each.stat().st_size], what="the first bytes on disk"
        )
        daemon.kill()
        connection.close()
        daemon.start()
        assert files(daemon) == []
        assert daemon.ok("GET", "/v1/datasets")["data"] == []

        status, dataset = upload(daemon, rows)
        assert (status, dataset["version"]) == (201, hashlib.sha256(rows).hexdigest())
        daemon.kill()
        daemon.start()
        assert daemon.ok("GET", "/v1/datasets/colours") == dataset
        (kept,) = files(daemon)
        assert kept.read_bytes() == rows
        assert kept.stat().st_mode & 0o777 == 0o440  # a version never changes


def test_a_client_that_vanishes_is_no_defect_of_the_daemon() -> None:
    with running() as daemon:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(daemon.socket))
            client.sendall(
                b"POST /v1/datasets?name=colours HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + LINE
            )
            eventually(lambda: files(daemon), what="the upload's file")
        eventually(lambda: not files(daemon), what="its removal")
        assert "Traceback" not in daemon.log()
        assert "failed (req_" not in daemon.log()


def test_a_dataset_follows_its_jobs_through_deletion() -> None:
    """The path that is resolved at submission is in the worker's specification, and stays until the job has ended."""
    with running() as daemon:
        _, dataset = upload(daemon, LINE)
        (kept,) = files(daemon)
        job_id = daemon.submit("fake", dataset="dataset:colours", steps=100_000, step_seconds=0.05)
        job = daemon.wait_for(job_id, "running")
        assert job["datasets"]["dataset"] == {
            "name": "colours", "version": dataset["version"], "path": str(kept),
        }  # fmt: skip
        spec = json.loads((daemon.state / "jobs" / job_id / "attempts" / "1" / "spec.json").read_text())
        assert spec["datasets"]["dataset"]["path"] == str(kept)
        daemon.ok("DELETE", "/v1/datasets/colours")
        assert daemon.request("GET", "/v1/datasets/colours")[0] == 404
        daemon.kill()
        daemon.start()
        assert kept.is_file()
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        eventually(lambda: not kept.exists(), what="the removal of the file")


@pytest.mark.parametrize("reference", ["dataset:colour", "dataset:colours@00000000"])
def test_a_job_for_a_dataset_that_is_not_there_is_refused(reference: str) -> None:
    with running() as daemon:
        upload(daemon, LINE)
        status, answer = daemon.request(
            "POST", "/v1/jobs", {"kind": "fake", "params": {"dataset": reference}}
        )
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (
            400,
            "dataset_not_found",
            "params.dataset",
        )
