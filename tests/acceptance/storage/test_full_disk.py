"""The disk of a real daemon fills up and is freed again: nothing is lost, and nobody has to do anything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import STEP_S, Daemon, UnixConnection, eventually
from tests.small_disk import fill, free, relieve, small_disk

MIB = 1 << 20
LEAST = 8 * MIB  # of the disk is to stay free
RESERVE = 4 * MIB
FILLS = 3


class OnSmallDisk(Daemon):
    """A daemon whose state is on a disk of its own; what it writes to stderr is elsewhere."""

    def __init__(self, disk: Path) -> None:
        super().__init__(
            "--state-dir",
            str(disk),
            "--socket",
            str(disk / "s"),
        )
        self.home, self.state, self.socket = self.state, disk, disk / "s"
        self.gate = self.home / "gate"
        settings = self.home / "config.toml"
        settings.write_text(
            f"min_free_disk_bytes = {LEAST}\ndisk_reserve_bytes = {RESERVE}\ncpu_slots = 1\n", "utf-8"
        )
        self.environment["FINETUNED_CONFIG"] = str(settings)

    def spawn(self) -> subprocess.Popen[bytes]:
        with (self.home / "daemon.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "finetuned", *self.arguments],
                env=self.environment,
                stdout=output,
                stderr=output,
            )

    def log(self) -> str:
        return (self.home / "daemon.log").read_text(encoding="utf-8")

    def is_sound(self) -> None:
        """The log is whole, without a gap, and its projections are what a replay gives."""
        report = self.ok("POST", "/v1/log/verify")
        assert report["ok"], report
        events = self.events()
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert self.ok("POST", "/v1/log/rebuild")["equal"]


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(64 * MIB) as directory:
        yield directory


@pytest.fixture
def daemon(disk: Path) -> Iterator[OnSmallDisk]:
    with OnSmallDisk(disk) as running:
        running.start()
        yield running


def of_type(daemon: Daemon, job_id: str, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in daemon.events(job_id) if event["type"] == kind]


def test_a_job_ends_on_a_full_disk_and_goes_on_from_its_checkpoint_once_there_is_room(
    daemon: OnSmallDisk, disk: Path
) -> None:
    """Its checkpoint finds no room: the attempt's end is recorded out of the reserve, and the job waits."""
    job_id = daemon.held(7, checkpoint_every=6, checkpoint_bytes=MIB)
    assert daemon.job(job_id)["checkpoints"]
    fill(disk)
    daemon.open_gate()
    job = daemon.wait_for(job_id, "queued")
    assert free(disk) < LEAST
    (failed,) = of_type(daemon, job_id, "attempt.ended")[-1:]
    assert (failed["outcome"], failed["failure"]) == ("failed", "disk_full")
    eventually(
        lambda: "are kept free" in daemon.job(job_id)["wait_reason"], what="the reason with its numbers"
    )
    assert "GB are free" in job["wait_reason"] or "kB are free" in daemon.job(job_id)["wait_reason"]

    relieve(disk)
    job = daemon.wait_for(job_id)
    assert job["state"] == "succeeded"
    assert job["attempts"][-1]["resume_from"] is not None
    assert set(daemon.steps(job_id)) == set(range(1, 31))
    daemon.is_sound()


def test_what_runs_ends_on_the_full_disk_and_what_is_new_is_refused_with_the_numbers(
    daemon: OnSmallDisk, disk: Path
) -> None:
    ending = daemon.held(artifact_bytes=None)
    waiting = daemon.submit(steps=1)
    daemon.wait_for(waiting, "queued")
    fill(disk)
    status, answer = daemon.request("POST", "/v1/jobs", {"kind": "fake"})
    assert (status, answer["error"]["code"]) == (507, "disk_full")
    assert "GB are free under" in answer["error"]["message"]
    eventually(lambda: of_type(daemon, ending, "attempt.alert"), what="the alert")
    (alert,) = of_type(daemon, ending, "attempt.alert")
    assert alert["subject"] == "disk"
    assert alert["figures"]["free_bytes"] < alert["figures"]["min_free_disk_bytes"] == LEAST
    daemon.open_gate()
    assert daemon.wait_for(ending)["state"] == "succeeded"
    assert daemon.job(waiting)["state"] == "queued"
    assert "are kept free" in daemon.job(waiting)["wait_reason"]
    assert free(disk) < LEAST

    relieve(disk)
    assert daemon.wait_for(waiting)["state"] == "succeeded"
    assert daemon.steps(ending) == list(range(1, 31))
    daemon.is_sound()


def test_on_a_full_disk_a_job_can_be_cancelled_and_deleted_and_that_makes_room(
    daemon: OnSmallDisk, disk: Path
) -> None:
    old = daemon.submit(steps=1, artifact_bytes=20 * MIB)
    daemon.wait_for(old)
    running = daemon.submit(steps=100_000, step_seconds=0.1)
    daemon.wait_for(running, "running")
    fill(disk)
    assert free(disk) == 0
    daemon.ok("POST", f"/v1/jobs/{running}/cancel")
    assert daemon.wait_for(running)["state"] == "cancelled"
    daemon.ok("DELETE", f"/v1/jobs/{old}")
    eventually(lambda: free(disk) > LEAST, what="room")
    again = daemon.submit(steps=1)
    assert daemon.wait_for(again)["state"] == "succeeded"
    daemon.is_sound()


def test_an_upload_that_finds_no_room_leaves_nothing_and_goes_through_once_there_is_some(
    daemon: OnSmallDisk, disk: Path
) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(100_000))
    fill(disk, leave=LEAST + MIB)  # less than the file is
    assert len(rows) > MIB
    status, answer = upload(daemon, rows)
    assert (status, answer["error"]["code"]) == (507, "disk_full")
    assert [each for each in (disk / "datasets").rglob("*") if each.is_file()] == []
    relieve(disk)
    assert upload(daemon, rows)[0] == 201
    daemon.is_sound()


def upload(daemon: Daemon, rows: bytes) -> tuple[int, Any]:
    connection = UnixConnection(daemon.socket, 30)
    try:
        connection.request("POST", "/v1/datasets?name=colours", body=rows)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_daemon_killed_on_the_full_disk_starts_there_again_and_records_what_ended_meanwhile(
    daemon: OnSmallDisk, disk: Path
) -> None:
    job_id = daemon.held(artifact_bytes=None, result={"answer": 1})
    fill(disk)
    daemon.kill()
    daemon.open_gate()
    (disk / "s").unlink()
    daemon.start()
    job = daemon.wait_for(job_id)
    assert (job["state"], job["result"]["answer"], job["attempt"]) == ("succeeded", 1, 1)
    assert free(disk) < LEAST
    relieve(disk)
    after = daemon.submit(steps=1)
    assert daemon.wait_for(after)["state"] == "succeeded"
    assert daemon.steps(job_id) == list(range(1, 31))
    daemon.is_sound()


def test_filled_and_freed_again_and_again_nothing_is_lost(daemon: OnSmallDisk, disk: Path) -> None:
    params = {"steps": 40, "checkpoint_every": 6, "checkpoint_bytes": MIB}
    jobs = [daemon.held(2, **params)]
    jobs.append(daemon.submit("gated", gate=str(daemon.gate), held_at=2, step_seconds=STEP_S, **params))
    for time in range(1, FILLS + 1):
        (running,) = until_one_runs(daemon, jobs)
        fill(disk)
        daemon.open_gate()
        daemon.wait_for(running, "queued")  # for want of room for its next checkpoint
        assert sum(met(daemon, job) for job in jobs) == time
        daemon.shut_gate()
        relieve(disk)
    daemon.open_gate()
    for job_id in jobs:
        assert daemon.wait_for(job_id)["state"] == "succeeded"
        assert set(daemon.steps(job_id)) == set(range(1, 41))
    daemon.is_sound()


def until_one_runs(daemon: Daemon, jobs: list[str]) -> list[str]:
    """Those of the jobs that run, once there are any: there is one device."""

    def found() -> list[str]:
        return [job for job in jobs if daemon.job(job)["state"] == "running"]

    eventually(found, what="a start")
    return found()


def met(daemon: Daemon, job_id: str) -> int:
    """How many attempts of a job found the disk full."""
    ends = of_type(daemon, job_id, "attempt.ended")
    return sum(end["failure"] == "disk_full" for end in ends)
