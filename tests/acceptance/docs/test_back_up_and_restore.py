"""docs/how-to/back-up-and-restore.md, done as it says, with a real daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.unit.docs import pages

from finetuned_events import archive

PAGE = pages.DOCS / "how-to" / "back-up-and-restore.md"
BACK_UP, CHECK, RESTORE = pages.blocks(PAGE, "sh")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def do(script: str, daemon: Daemon, backup: Path) -> str:
    """Run a block of the page as its reader would; what it prints."""
    environment = {
        **daemon.environment,
        "STATE": str(daemon.state),
        "BACKUP": str(backup),
        "FINETUNED_SOCKET": str(daemon.socket),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", "-euc", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_there_at_the_backup_is_there_again_and_nothing_later(daemon: Daemon, backup: Path) -> None:
    before = daemon.submit(steps=2, register_as="kept")
    daemon.wait_for(before)
    do(BACK_UP, daemon, backup)
    head = daemon.ok("GET", "/v1/log")["head"]
    after = daemon.submit(steps=1)
    daemon.wait_for(after)
    daemon.stop()
    assert "nothing wrong" in do(CHECK, daemon, backup)

    do(RESTORE, daemon, backup)
    daemon.start()
    assert daemon.job(before)["state"] == "succeeded"
    assert [model["id"] for model in daemon.ok("GET", "/v1/models")["data"]] == ["kept"]
    assert daemon.request("GET", f"/v1/jobs/{after}")[0] == 404
    assert (daemon.state / "jobs" / after).is_dir()
    assert daemon.events()[head - 1]["seq"] == head
    assert daemon.ok("POST", "/v1/log/verify")["ok"]
    daemon.wait_for(daemon.submit(steps=1))


def test_on_an_empty_machine_results_come_back_and_a_job_that_ran_goes_on(
    daemon: Daemon, backup: Path
) -> None:
    ended = daemon.submit(steps=2, register_as="kept")
    daemon.wait_for(ended)
    archived = Path(daemon.ok("POST", "/v1/log/archive", {"upto": "5"})["path"])
    # Its first attempt gets no further, however long a busy machine backs up.
    live = daemon.submit(steps=8, checkpoint_every=5, hang_at=7, fail_attempts=1)
    eventually(lambda: daemon.job(live)["checkpoints"], what="a checkpoint")
    do(BACK_UP, daemon, backup)
    daemon.kill()
    daemon.kill_attempts()
    for name in ("jobs", "datasets", "archives"):
        shutil.rmtree(daemon.state / name)

    do(RESTORE, daemon, backup)
    daemon.start()
    (model,) = daemon.ok("GET", "/v1/models")["data"]
    assert Path(model["path"], "weights.bin").is_file()
    assert [each["path"] for each in daemon.ok("GET", "/v1/log")["archives"]] == [str(archived)]
    assert archive.check(archived).head.seq == 5
    job = daemon.wait_for(live)
    assert job["state"] == "succeeded"
    assert [each["outcome"] for each in job["attempts"]][1:] == ["lost", "succeeded"]
    assert job["attempts"][2]["resume_from"] is not None


def test_what_a_job_did_after_the_backup_is_read_from_its_bundle(daemon: Daemon, backup: Path) -> None:
    job_id = daemon.held()
    do(BACK_UP, daemon, backup)
    daemon.open_gate()
    daemon.wait_for(job_id)
    steps = daemon.steps(job_id)
    daemon.stop()

    do(RESTORE, daemon, backup)
    daemon.start()
    job = daemon.wait_for(job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 2)  # its validation and one run
    assert daemon.steps(job_id) == steps
