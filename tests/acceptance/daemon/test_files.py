"""Files of a real daemon: what a kill leaves of them, what its memory is while one is sent, and who reads them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import psutil
from tests.acceptance.daemon.process import Daemon, UnixConnection, eventually, running

MIB = 1 << 20
BOUNDARY = "b0undary"
ROWS = b'{"prompt": "a", "completion": "b"}\n'


def form(name: str, content: bytes, **fields: str) -> bytes:
    heads = [f'name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    told = "".join(f"--{BOUNDARY}\r\nContent-Disposition: form-data; {each}" for each in heads)
    told += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="rows.jsonl"\r\n\r\n'
    return told.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(daemon: Daemon, path: str, body: bytes) -> dict[str, Any]:
    connection = UnixConnection(daemon.socket, timeout=60)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, found
        return found
    finally:
        connection.close()


def content(daemon: Daemon, file_id: str) -> bytes:
    connection = UnixConnection(daemon.socket, timeout=60)
    try:
        connection.request("GET", f"/v1/files/{file_id}/content")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


def on_disk(daemon: Daemon) -> list[Path]:
    return sorted(each for each in (daemon.state / "files").rglob("*") if each.is_file())


def test_what_was_answered_is_there_after_a_kill_and_what_was_not_is_gone() -> None:
    rows = ROWS * 100_000
    with running() as daemon:
        kept = post(daemon, "/v1/files", form("file", rows, purpose="fine-tune"))
        begun = daemon.ok(
            "POST",
            "/v1/uploads",
            {"bytes": 2, "filename": "x", "mime_type": "", "purpose": "evals"},
        )
        post(daemon, f"/v1/uploads/{begun['id']}/parts", form("data", b"x"))
        half = form("file", rows, purpose="batch")
        connection = UnixConnection(daemon.socket, timeout=30)
        connection.putrequest("POST", "/v1/files")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("Content-Length", str(len(half)))
        connection.endheaders()
        connection.send(half[: len(half) // 2])
        eventually(
            lambda: [each for each in on_disk(daemon) if "incoming" in each.parts and each.stat().st_size],
            what="the first bytes on disk",
        )
        daemon.kill()
        connection.close()
        nameless = daemon.state / "files" / "file-0123456789"  # moved there, and killed before its event
        nameless.mkdir()
        (nameless / "data.jsonl").write_bytes(ROWS)
        daemon.start()
        assert daemon.ok("GET", "/v1/files")["data"] == [kept]
        assert content(daemon, kept["id"]) == rows
        status, refused = daemon.request("POST", f"/v1/uploads/{begun['id']}/cancel")
        assert (status, refused["error"]["code"]) == (404, "upload_not_found")
        stored = daemon.state / "files" / kept["id"] / "data.jsonl"
        eventually(lambda: on_disk(daemon) == [stored], what="what has no name to go")
        assert stored.stat().st_mode & 0o777 == 0o440  # it never changes


def test_a_part_of_64_mib_is_not_held_in_memory() -> None:
    with running() as daemon:
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        post(
            daemon, "/v1/files", form("file", ROWS, purpose="evals")
        )  # what the first imports does not count
        begun = {"bytes": 64 * MIB, "filename": "x", "mime_type": "", "purpose": "user_data"}
        upload = daemon.ok("POST", "/v1/uploads", begun)["id"]
        sent = os.urandom(64 * MIB)
        body = form("data", sent)
        before, seen, done = process.memory_info().rss, [0], threading.Event()

        def look() -> None:
            while not done.wait(0.005):
                seen.append(process.memory_info().rss)

        looking = threading.Thread(target=look)
        looking.start()
        part = post(daemon, f"/v1/uploads/{upload}/parts", body)
        made = daemon.ok("POST", f"/v1/uploads/{upload}/complete", {"part_ids": [part["id"]]})
        seen.append(process.memory_info().rss)
        done.set()
        looking.join()
        assert max(seen) - before < 24 * MIB
        assert hashlib.sha256(content(daemon, made["file"]["id"])).digest() == hashlib.sha256(sent).digest()


def test_a_file_follows_its_jobs_through_deletion() -> None:
    """The path that is resolved at submission is in the worker's specification, and stays until the job has ended."""
    with running() as daemon:
        file = post(daemon, "/v1/files", form("file", ROWS, purpose="fine-tune"))
        (kept,) = on_disk(daemon)
        job_id = daemon.submit("fake", dataset=f"file:{file['id']}", steps=100_000, step_seconds=0.05)
        job = daemon.wait_for(job_id, "running")
        assert job["datasets"]["dataset"] == {
            "name": file["id"], "version": hashlib.sha256(ROWS).hexdigest(), "path": str(kept),
        }  # fmt: skip
        spec = json.loads((daemon.state / "jobs" / job_id / "attempts" / "1" / "spec.json").read_text())
        assert spec["datasets"]["dataset"]["path"] == str(kept)
        daemon.ok("DELETE", f"/v1/files/{file['id']}")
        assert daemon.request("GET", f"/v1/files/{file['id']}")[0] == 404
        daemon.kill()
        daemon.start()
        assert kept.is_file()
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        eventually(lambda: not kept.exists(), what="the removal of the file")
