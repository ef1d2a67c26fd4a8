"""The drill: a backup is made of a daemon under load and restored, and the queue goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import STEP_S, Daemon, eventually, running


def finetune(daemon: Daemon, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command as the daemon's user would, and return its JSON."""
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments, "--json"]
    environment = {**daemon.environment, "FINETUNED_STATE_DIR": str(daemon.state), "FINETUNED_LISTEN": ""}
    environment["FINETUNED_SOCKET"] = str(daemon.socket)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout or done.stderr)
    return found


def check(daemon: Daemon, name: str) -> dict[str, Any]:
    """What the doctor says of one thing, having read everything."""
    command = [sys.executable, "-m", "finetuned.cli.main", "doctor", "--deep", "--json"]
    environment = {**daemon.environment, "FINETUNED_STATE_DIR": str(daemon.state), "FINETUNED_LISTEN": ""}
    environment["FINETUNED_SOCKET"] = str(daemon.socket)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    found: dict[str, Any] = {each["name"]: each for each in json.loads(done.stdout)["checks"]}[name]
    return found


@pytest.mark.timeout(300)
def test_a_backup_made_under_load_is_restored_elsewhere_and_the_queue_goes_on(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with running() as daemon:
        ended = daemon.submit(steps=2, register_as="kept")
        daemon.wait_for(ended, timeout=90)
        live = daemon.submit(steps=100_000, step_seconds=STEP_S, checkpoint_every=2)
        eventually(lambda: daemon.job(live)["checkpoints"], what="a checkpoint")
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                daemon.submit(steps=1, priority=-5)

        load = threading.Thread(target=write)
        load.start()
        try:
            made = finetune(daemon, "backup", str(backup), "--include", "models,checkpoints")
        finally:
            stop.set()
            load.join()
        assert daemon.ok("GET", "/v1/log")["head"] > made["head"]["seq"]
        hashes = {event["seq"] for event in daemon.events()}
        assert made["head"]["seq"] in hashes
        included = {each["what"]: each["included"] for each in made["listed"]}
        assert included["model"]
        daemon.kill()  # and the machine is gone
        daemon.kill_attempts()

    with Daemon() as other:
        restored = finetune(other, "restore", str(backup))
        assert restored["head"] == made["head"]
        report = finetune(other, "log", "verify", "--state-dir", str(other.state))
        assert (report["ok"], report["head"]) == (True, made["head"])
        other.start()
        assert other.job(ended)["state"] == "succeeded"
        assert [model["id"] for model in other.ok("GET", "/v1/models")["data"]] == ["kept"]
        assert other.ok("POST", "/v1/log/rebuild")["equal"]
        other.ok("POST", f"/v1/jobs/{live}/cancel")
        assert other.wait_for(live, timeout=90)["state"] == "cancelled"
        queued = [
            job for job in other.ok("GET", "/v1/jobs?limit=1000")["data"] if job["id"] not in {ended, live}
        ]
        for job in queued[-2:]:
            assert other.wait_for(job["id"], timeout=120)["state"] == "succeeded"
        assert other.wait_for(other.submit(steps=1, priority=9), timeout=90)["state"] == "succeeded"


@pytest.mark.timeout(300)
def test_an_older_log_in_the_same_directory_sets_aside_what_it_does_not_know_and_deletes_nothing(
    tmp_path: Path,
) -> None:
    backup = tmp_path / "backup"
    with running() as daemon:
        before = daemon.submit(steps=2)
        daemon.wait_for(before, timeout=90)
        going_on = daemon.held(checkpoint_every=5)
        finetune(daemon, "backup", str(backup))
        daemon.open_gate()
        later = daemon.submit(steps=100_000, step_seconds=STEP_S, priority=9)
        refused = finetune(daemon, "restore", str(backup), "--log-only", code=4)
        assert refused["error"]["code"] == "daemon_running"
        daemon.wait_for(going_on, timeout=90)
        daemon.wait_for(later, "running", timeout=90)  # a trainer that the restored log will not know
        daemon.stop()
        kept = {
            path for path in (daemon.state / "jobs").rglob("*") if path.is_file() and "tmp" not in path.parts
        }
        unknown = daemon.attempt_processes(later)
        assert unknown

        restored = finetune(daemon, "restore", str(backup), "--log-only")
        assert Path(restored["former_log"], "events.sqlite").is_file()
        daemon.start()
        assert daemon.job(before)["state"] == "succeeded"
        assert daemon.request("GET", f"/v1/jobs/{later}")[0] == 404
        ended = daemon.wait_for(going_on, timeout=90)
        assert (ended["state"], ended["attempt"]) == (
            "succeeded",
            1,
        )  # what it did after the backup was read from its bundle
        assert set(daemon.attempt_processes(later)) >= set(unknown)
        found = check(daemon, "bundles")
        assert found["verdict"] == "warn"
        assert later in found["message"]
        assert f"{later} still runs and keeps its devices" in found["message"]
        assert {path for path in kept if not path.exists()} == set()
        assert check(daemon, "projections")["verdict"] == "ok"

        waiting = daemon.submit(steps=1)
        daemon.wait_for(waiting, "queued", timeout=90)
        eventually(
            lambda: "an attempt that the log does not know" in (daemon.job(waiting)["wait_reason"] or ""),
            what="the reason for which it waits",
        )
        daemon.kill_attempts()
        assert daemon.wait_for(waiting, timeout=90)["state"] == "succeeded"
        assert "still runs" not in check(daemon, "bundles")["message"]
