"""The command line and a real daemon, with a job kind that does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.daemon.process import Daemon, eventually, running

DEADLINE = 50  # seconds


@contextmanager
def start_finetune(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``finetune`` in a process of its own, which is gone at the end however that comes."""
    environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_watch_sees_every_event_once_though_the_daemon_is_killed_in_between() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        with start_finetune(daemon, "watch", job_id, "--json") as watching:
            assert watching.stdout is not None
            first = watching.stdout.readline()
            daemon.kill()
            daemon.start()
            before = len(daemon.steps(job_id))
            eventually(lambda: len(daemon.steps(job_id)) > before, what="another step")
            daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
            lines: list[dict[str, Any]] = [json.loads(line) for line in (first, *watching.stdout)]
            err = "" if watching.stderr is None else watching.stderr.read()
            watching.wait(DEADLINE)
        assert watching.returncode == 1, err  # it did not succeed
        told = [line["seq"] for line in lines[:-1]]
        seqs = [event["seq"] for event in daemon.events(job_id)]
        # It began where the job stood, and ends with the job's end: what comes behind that is no news of the job.
        assert told == seqs[seqs.index(told[0]) :][: len(told)]
        assert lines[-2]["type"] == "job.cancelled"
        assert lines[-1]["state"] == "cancelled"
        assert "Connection lost" in err


def test_followed_logs_end_when_the_job_does() -> None:
    with running() as daemon:
        job_id = daemon.submit(steps=5, step_seconds=0.1, output_lines=2)
        with start_finetune(daemon, "logs", "--follow", job_id) as following:
            out, err = following.communicate(timeout=DEADLINE)
        assert following.returncode == 0, err
        assert [line for line in out.splitlines() if line.startswith("step")] == [
            f"step {step} line {line}" for step in range(1, 6) for line in range(2)
        ]


def test_the_commands_speak_the_daemons_language(finetune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as daemon:
        monkeypatch.setenv("FINETUNED_SOCKET", str(daemon.socket))
        job = finetune("run", "fake", "--param", "steps=2", "--param", "checkpoint_every=1", "--json").json
        assert finetune("watch", job["id"]).code == 0
        shown = finetune("show", job["id"], "--json").json
        states = [row["state"] for row in shown["timeline"] if row["state"]]
        assert states == ["validating", "queued", "starting", "running", "succeeded"]
        assert finetune("retry", job["id"], "--from-checkpoint", "1", "--watch").code == 0
        assert [each["state"] for each in finetune("ls", "--json").json["data"]] == ["succeeded"] * 2
        assert finetune("retry", job["id"], "--from-checkpoint", "9").code == 3
        assert finetune("cancel", job["id"]).code == 4
        assert finetune("delete", job["id"]).code == 0
        assert finetune("show", job["id"]).code == 3
        assert finetune("run", "fake", "--param", "bad_rows=1", "--watch").code == 1
        assert finetune("run", "fake", "--param", "refused=true").code == 2
        assert finetune("run", "fake", "--param", "step=1").code == 2
        assert finetune("ls", "--state", "failed", "--kind", "fake", "--json").json["data"]
        assert "fake" in finetune("kinds").out
        assert "cpu:0" in finetune("devices").out
        token = finetune("tokens", "create", "--scope", "read", "--json").json
        assert finetune("tokens", "revoke", token["id"]).code == 0
        assert finetune("tokens", "revoke", "tok-none").code == 3
        assert finetune("log", "verify").code == 0
        assert finetune("log", "rebuild", "--json").json["equal"] is True
        copy = daemon.state / "copy.sqlite"
        assert finetune("log", "backup", str(copy)).code == 0
        assert finetune("log", "backup", str(copy)).code == 2
        assert finetune("log", "verify", "--state-dir", str(daemon.state)).code == 0
        assert finetune("log", "rebuild", "--state-dir", str(daemon.state)).code == 4
        assert finetune("events", "--type", "job.failed", "--json").lines[0]["data"]["code"] == "bad_dataset"
        assert finetune("events", "--type", "job.faild").code == 2
        assert finetune("models", "--json").json["data"] == []
        assert finetune("models", "show", "none").code == 3


def test_a_followed_log_begins_at_its_head() -> None:
    with running() as daemon:
        with start_finetune(daemon, "events", "--follow", "--limit", "1", "--json") as following:
            eventually(lambda: following.poll() is not None or connected(daemon), what="the stream")
            job_id = daemon.submit(steps=100_000, step_seconds=0.2)  # goes on after the stream is there
            out, err = following.communicate(timeout=DEADLINE)
        assert following.returncode == 0, err
        assert json.loads(out)["stream"] == f"job/{job_id}"


def connected(daemon: Daemon) -> bool:
    """Whether somebody holds a connection to the daemon's socket: each end has a line in the kernel's list."""
    with open("/proc/net/unix", encoding="utf-8") as sockets:  # noqa: PTH123 - a file of the kernel's
        named = [line for line in sockets if line.rstrip().endswith(str(daemon.socket))]
    return len(named) > 1
