"""The doctor's checks of what the daemon keeps, shown state directories that are ill."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.backups.state import State, tampered

from finetuned.cli import state_checks
from finetuned.cli.shapes import Check
from finetuned_events import EventLog
from finetuned_sdk import manifest
from finetuned_sdk.bundle import Bundle, RunnerIdentity


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.made(tmp_path / "state")


def bundles(state: State) -> Check:
    return state_checks.bundles(state.jobs, state_checks.known(state.log))


def checkpoints(state: State, *, deep: bool = False) -> Check:
    return state_checks.checkpoints(state.jobs, state_checks.known(state.log), deep=deep)


def test_a_state_that_is_well_is_found_so(state: State) -> None:
    found = [
        state_checks.chain(state.path),
        state_checks.projections(state.path),
        state_checks.archives(state.log),
        bundles(state),
        checkpoints(state),
        checkpoints(state, deep=True),
        state_checks.space(state.path),
    ]
    assert {each["verdict"] for each in found} == {"ok"}, found
    assert found[4]["message"] == "1 read through (the newest of each live job), and they hold"
    assert found[5]["message"] == "2 read through (all), and they hold"
    assert "jobs" in found[6]["message"]


def test_an_edited_event_is_found_in_the_chain(state: State) -> None:
    tampered(state.log)
    found = state_checks.chain(state.path)
    assert (found["verdict"], found["message"]) == (
        "fail",
        "Event 2 or its place was changed after it was written.",
    )
    assert "finetune restore" in (found["remedy"] or "")


def test_a_projection_that_is_not_the_fold_is_found_and_left_as_it_is(state: State) -> None:
    with closing(sqlite3.connect(state.log)) as raw:
        raw.execute("UPDATE jobs SET state = 'running'")
        raw.commit()
    for _ in range(2):
        found = state_checks.projections(state.path)
        assert (found["verdict"], found["message"]) == (
            "fail",
            "A replay of the log gives other rows than jobs.",
        )
        assert "finetune log rebuild" in (found["remedy"] or "")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [("kept", "ok"), ("gone", "warn"), ("cut", "fail"), ("moved", "ok"), ("moved from another's", "ok")],
)
def test_an_archive_that_is_gone_or_cut_is_found(
    state: State, tmp_path: Path, change: str, verdict: str
) -> None:
    async def archive() -> Path:
        log: EventLog[Any]
        async with EventLog.open(state.log) as log:
            return (await log.archive(2, tmp_path / "elsewhere.gz")).path

    path = asyncio.run(archive())
    match change:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-1])
        case "moved" | "moved from another's":
            (state.path / "archives").mkdir()
            path.rename(state.path / "archives" / path.name)
            if change != "moved":
                path.write_bytes(b"of another log")
    assert state_checks.archives(state.log)["verdict"] == verdict


def test_bundles_that_the_log_does_not_know_are_told_and_whether_they_run(state: State) -> None:
    Bundle(state.jobs / "job-unknown" / "attempts" / "1").path.mkdir(parents=True)
    quarantined = state.jobs / state.live / "attempts" / "quarantine-2-17"
    quarantined.mkdir()
    found = bundles(state)
    assert found["verdict"] == "warn"
    assert "job-unknown" in found["message"]
    assert "quarantine-2-17 was set aside" in found["message"]
    assert "still runs" not in found["message"]
    assert "by hand" in (found["remedy"] or "")

    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    started = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    own = RunnerIdentity(boot_id=boot, pid=os.getpid(), start_time=started, process_group=os.getpgrp())
    Bundle(state.jobs / "job-unknown" / "attempts" / "1").claim(own)
    assert "job-unknown still runs and keeps its devices" in bundles(state)["message"]


def test_a_live_job_without_its_files_is_a_failure(state: State) -> None:
    (state.jobs / state.live / "attempts" / "1" / "spec.json").unlink()
    found = bundles(state)
    assert (found["verdict"], found["message"]) == (
        "fail",
        f"The files of {state.live}/1 are gone while it runs.",
    )


def test_files_of_deleted_jobs_are_told(state: State) -> None:
    (state.jobs / state.deleted).mkdir()
    found = bundles(state)
    assert found["verdict"] == "warn"
    assert state.deleted in found["message"]


def test_a_flipped_byte_of_the_newest_checkpoint_is_found(state: State) -> None:
    file = state.checkpoint / "weights.bin"
    file.write_bytes(b"X" + file.read_bytes()[1:])
    found = checkpoints(state)
    assert found["verdict"] == "fail"
    assert found["message"].startswith("1 of 1 do not hold:")


def test_an_older_checkpoint_is_read_only_when_all_are(state: State) -> None:
    older = state.checkpoint.with_name("step-1")
    (older / "weights.bin").write_bytes(b"other")
    assert checkpoints(state)["verdict"] == "ok"
    assert checkpoints(state, deep=True)["verdict"] == "fail"
    manifest.seal(older, step=1)
    assert checkpoints(state, deep=True)["verdict"] == "ok"


def test_what_is_open_to_others_is_found_with_the_command_that_closes_it(tmp_path: Path) -> None:
    secrets, socket = tmp_path / "secrets", tmp_path / "s"
    (tmp_path / "events.sqlite").touch(0o640)
    tmp_path.chmod(0o750)
    assert state_checks.permissions(tmp_path, socket, secrets)["verdict"] == "ok"
    secrets.mkdir(mode=0o700)
    (secrets / "hf").touch(0o600)
    hooks = tmp_path / "webhooks"
    hooks.mkdir(mode=0o700)
    (hooks / "webhook-1").touch(0o600)
    socket.touch()
    socket.chmod(0o660)
    assert state_checks.permissions(tmp_path, socket, secrets)["verdict"] == "ok"
    for path, mode, remedy in (
        (secrets / "hf", 0o640, "chmod 600"),
        (secrets, 0o750, "chmod 700"),
        (hooks / "webhook-1", 0o644, "chmod 600"),
        (hooks, 0o711, "chmod 700"),
        (tmp_path / "events.sqlite", 0o660, "chmod go-w"),
        (socket, 0o666, "chmod o="),
    ):
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        found = state_checks.permissions(tmp_path, socket, secrets)
        assert (found["verdict"], found["remedy"]) == ("fail", f"`{remedy} {path}`")
        path.chmod(before)
