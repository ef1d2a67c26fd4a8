"""``finetune drain`` and a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.acceptance.daemon.process import Daemon, eventually, running


def finetune(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def a_running_job(daemon: Daemon) -> str:
    job_id = daemon.submit(steps=5000, step_seconds=0.05)
    eventually(lambda: len(daemon.steps(job_id)) >= 2, what="some steps")
    return job_id


def test_drain_stays_until_the_daemon_has_stopped_and_says_what_comes_then() -> None:
    with running() as daemon:
        a_running_job(daemon)
        said = finetune(daemon, "drain", "--reason", "a new disk")
        assert said.returncode == 0, said.stderr
        assert "1 job has processes left" in said.stderr
        assert "what was paused goes on after its next start" in said.stderr
        assert daemon.process is not None
        assert daemon.process.wait(timeout=20) == 0
        daemon.process = None


def test_a_drain_is_taken_back_by_whoever_asked_for_it_and_whoever_waits_is_told() -> None:
    with running() as daemon:
        job_id = a_running_job(daemon)
        begun = finetune(daemon, "drain", "--finish", "--no-wait", "--json")
        assert json.loads(begun.stdout) == {"object": "drain", "mode": "finish", "jobs": [job_id]}
        environment = {**os.environ, "FINETUNED_SOCKET": str(daemon.socket)}
        command = [sys.executable, "-m", "finetuned.cli.main", "drain", "--finish"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
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
