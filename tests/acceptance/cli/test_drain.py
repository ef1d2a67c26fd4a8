"""``finetune drain`` and a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.acceptance.daemon.process import PATIENCE_S, Daemon, running


def start_finetune(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finetune(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_drain_stays_until_the_daemon_has_stopped_and_says_what_comes_then() -> None:
    with running() as daemon:
        daemon.held()  # it leaves when it has been told of, and not before
        with start_finetune(daemon, "drain", "--reason", "a new disk") as draining:
            assert draining.stderr is not None
            assert "1 job has processes left" in draining.stderr.readline()
            daemon.open_gate()
            told = draining.stderr.read()
        assert draining.returncode == 0, told
        assert "what was paused goes on after its next start" in told
        assert daemon.process is not None
        assert daemon.process.wait(timeout=PATIENCE_S) == 0
        daemon.process = None


def test_a_drain_is_taken_back_by_whoever_asked_for_it_and_whoever_waits_is_told() -> None:
    with running() as daemon:
        job_id = daemon.begun()
        begun = finetune(daemon, "drain", "--finish", "--no-wait", "--json")
        assert json.loads(begun.stdout) == {"object": "drain", "mode": "finish", "jobs": [job_id]}
        with start_finetune(daemon, "drain", "--finish") as waiting:
            assert waiting.stderr is not None
            assert "Draining" in waiting.stderr.readline()
            assert finetune(daemon, "drain", "--cancel").returncode == 0
            told = waiting.stderr.read()
        assert "drain_taken_back" in told or "was taken back" in told
        assert waiting.returncode != 0
        refused = finetune(daemon, "drain", "--cancel", "--json")
        assert json.loads(refused.stdout or refused.stderr)["error"]["code"] == "not_draining"
        assert daemon.job(job_id)["state"] == "running"


def test_cancel_takes_no_other_option() -> None:
    with running() as daemon:
        refused = finetune(daemon, "drain", "--cancel", "--finish")
        assert refused.returncode == 2
        assert "leave the other options out" in refused.stderr
