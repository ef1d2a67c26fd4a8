"""The command line's newer half and a real daemon: datasets, results, the machine, and a restart in the middle."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.daemon.process import Daemon, running

from finetuned.client import Client, SyncClient
from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import TooLargeError

DEADLINE = 60  # seconds
ROWS = b'{"text": "a"}\n{"text": "b"}\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


@pytest.fixture
def here(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNED_SOCKET", str(daemon.socket))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_goes_there_once_and_back_again(daemon: Daemon, finetune: Run, here: Path) -> None:
    rows = here / "rows.jsonl"
    rows.write_bytes(ROWS)
    first = finetune("run", "fake", "--data", str(rows), "--json")
    assert first.code == 0, first.err
    assert first.json["params"]["dataset"].startswith("dataset:rows@")
    assert (
        first.json["datasets"]["dataset"]["version"]
        == finetune("datasets", "show", "rows", "--json").json["version"]
    )
    again = finetune("run", "fake", "--data", "rows.jsonl", "--watch")
    assert again.code == 0, again.err
    assert "is sent" not in again.err
    assert len(finetune("datasets", "--json").json["data"][0]["versions"]) == 1
    assert '{"text": "b"}' in finetune("datasets", "preview", "rows").out
    assert finetune("datasets", "download", "rows", "-o", "back").code == 0
    assert (here / "back").read_bytes() == ROWS
    assert finetune("datasets", "register", "same", str(rows)).out.startswith("dataset:same@")
    assert finetune("datasets", "rm", "same").code == 0
    assert finetune("datasets", "show", "same").code == 3
    assert finetune("datasets", "audits", "rows").code == 0
    assert finetune("datasets", "audit", "rows", "--model", "none").code in {2, 3}


def test_what_a_job_leaves_comes_here(daemon: Daemon, finetune: Run, here: Path) -> None:
    job = finetune(
        "run", "fake", "--param", "steps=5", "--param", "checkpoint_every=2", "--param", "output_lines=2",
        "--param", "artifact_bytes=100000", "--param", "register_as=tuned", "--json", "--watch",
    ).lines[-1]  # fmt: skip
    assert job["state"] == "succeeded"
    points = [line.split("\t") for line in finetune("metrics", job["id"], "--names", "loss").out.splitlines()]
    told = [e["data"]["current_step"] for e in daemon.events(job["id"]) if e["type"] == "job.progress"]
    assert [(name, step) for name, _, step, _, _ in points] == [("loss", str(step)) for step in told]
    assert finetune("metrics", job["id"], "--watch", "--json").lines[0]["series"]
    assert [each["step"] for each in finetune("checkpoints", job["id"], "--json").json["data"]] == [2, 4]
    (artifact,) = finetune("artifacts", job["id"], "--json").json["data"]
    files = finetune("artifacts", job["id"], artifact["name"], "--json").json["data"]
    exported = finetune("export", "tuned", "-o", "out", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["files"] == len(files)
    found = {str(each.relative_to(here / "out")) for each in (here / "out").rglob("*") if each.is_file()}
    assert found == {each["path"] for each in files}
    assert finetune("export", job["id"], "--zip", "-o", "out.zip").code == 0
    with zipfile.ZipFile(here / "out.zip") as archive:
        assert sum(each.file_size for each in archive.infolist()) == artifact["bytes"]
    assert "tuned" in finetune("models", "lineage", "tuned").out
    assert finetune("next", job["id"]).code == 0
    assert finetune("logs", job["id"], "--search", "STEP 3").out.count("step 3") == 2
    assert finetune("logs", job["id"], "--count", "--json").json["lines"] >= 10
    assert finetune("logs", job["id"], "--follow").out.count("step ") == 10
    assert finetune("templates", "save", "again", "--job", job["id"]).code == 0
    assert finetune("run", "--template", "again", "--param", "steps=1", "--watch").code == 0
    assert finetune("templates", "show", "again@1").code == 0
    assert finetune("templates", "rm", "again").code == 0


def test_the_machine_is_shown(daemon: Daemon, finetune: Run, here: Path) -> None:
    assert finetune("system", "--json").json["daemon"]["pid"] == daemon.process.pid  # type: ignore[union-attr]
    assert finetune("system").code == 0
    assert finetune("system", "--history", "60").code == 0
    assert finetune("workers").code == 0
    (look,) = finetune("top", "--times", "1", "--json").lines
    assert look["system"]["object"] == "system"
    assert finetune("top", "--times", "1").code == 0
    checks = {each["name"]: each["verdict"] for each in finetune("doctor", "--json").json["checks"]}
    assert checks["daemon"] == "ok"


def test_a_program_without_a_loop_sees_the_same(daemon: Daemon, here: Path) -> None:
    with SyncClient(Endpoint(socket=daemon.socket)) as client:
        job = client.submit("fake", {"steps": 2}, name="from a program")
        types = [event["type"] for event in _until_end(client, job["id"])]
        assert types[-1] == "job.succeeded"
        assert "finetuned_" in client.prometheus()
        assert client.alive()["status"]
        before = client.job(job["id"], at=job["seq"])
    assert before["state"] != "succeeded"


def _until_end(client: SyncClient, job_id: str) -> Iterator[dict[str, object]]:
    for event in client.follow(job=job_id):
        yield {**event}
        if event["type"] == "job.succeeded":
            return


async def test_an_upload_that_is_too_large_is_refused_with_the_servers_words(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("max_upload_bytes = 1000\n")
    large = tmp_path / "large.jsonl"
    large.write_bytes(b'{"text": "a"}\n' * 1_000_000)
    with running("--config", str(config)) as small:
        async with Client(Endpoint(socket=small.socket)) as client:
            with pytest.raises(TooLargeError, match="max_upload_bytes"):
                await client.upload_dataset("large", large)
            assert (await client.datasets())["data"] == []


# ---- exactly once ----------------------------------------------------------------------------------------------


class Between:
    """Stands between a client and a daemon; the answer to the first submission is lost, and the daemon with it."""

    def __init__(self, path: Path, upstream: Path, lost: Callable[[], None]) -> None:
        self.path, self._upstream, self._lost = path, upstream, lost
        self.posts = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, suppress(OSError):
                self._relay(client)

    def _relay(self, client: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(str(self._upstream))
            awaited = False
            while True:
                for ready in select.select([client, daemon], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        if data.startswith(b"POST /v1/jobs "):
                            self.posts += 1
                            awaited = self.posts == 1
                        daemon.sendall(data)
                    elif awaited:
                        self._lost()  # the submission is on disk, and nobody is told
                        return
                    else:
                        client.sendall(data)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextmanager
def between(path: Path, daemon: Daemon, lost: Callable[[], None]) -> Iterator[Between]:
    relay = Between(path, daemon.socket, lost)
    thread = threading.Thread(target=relay.serve, name="between")
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join(DEADLINE)


def test_a_job_is_submitted_once_though_the_daemon_is_killed_before_it_answers(directory: Path) -> None:
    with running() as daemon:

        def restart() -> None:
            daemon.kill()
            daemon.start()

        with between(directory / "b", daemon, restart) as relay:
            environment = {**os.environ, "FINETUNED_SOCKET": str(relay.path)}
            command = [sys.executable, "-m", "finetuned.cli.main", "run", "fake", "--name", "once", "--json"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
            )
        assert done.returncode == 0, done.stderr
        assert relay.posts == 2
        assert "Nothing is done twice." in done.stderr
        jobs = daemon.ok("GET", "/v1/jobs")["data"]
        assert [each["id"] for each in jobs] == [json.loads(done.stdout)["id"]]


async def test_without_a_daemon_that_comes_back_the_fate_is_said_to_be_unknown(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned.client.transport.PATIENCE", 0.5)
    with running() as daemon, between(directory / "b", daemon, daemon.kill) as relay:
        async with Client(Endpoint(socket=relay.path)) as client:
            with pytest.raises(UnreachableError):
                await client.submit("fake", {})
        daemon.start()
        assert len(daemon.ok("GET", "/v1/jobs")["data"]) == 1
