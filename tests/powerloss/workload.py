"""What is done while strace looks on: everything that a client is told is written to a file, as soon as it is told.

Run in a process of its own: ``python -m tests.powerloss.workload ROOT MARKS``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.acceptance.daemon.process import Daemon, UnixConnection

ROWS: Final = b'{"prompt": "a", "completion": "b"}\n' * 600
SECRET: Final = "hf_abcdefgh"
CHANGED_SECRET: Final = "hf_ijklmnop"
TIMEOUT_S: Final = 120.0  # each system call is looked at: everything takes its time
RESERVE: Final = 65_536  # bytes; room on the disk is tested elsewhere


class KeptDaemon(Daemon):
    """A daemon whose state is not in its own scratch directory, and outlives it."""

    def __init__(self, state: Path) -> None:
        super().__init__(
            "--state-dir", str(state), FINETUNED_DISK_RESERVE_BYTES=str(RESERVE), FINETUNED_CPU_SLOTS="1"
        )
        (self.state / "jobs").symlink_to(state / "jobs")  # so that its processes are found


class Client:
    """Asks, and marks what it was told."""

    def __init__(self, daemon: Daemon, marks: int) -> None:
        self.daemon = daemon
        self._marks = marks
        self._head = 0

    def mark(self, **told: Any) -> None:
        """It is known from now on."""
        os.write(self._marks, json.dumps(told).encode() + b"\n")

    def upload(self) -> None:
        """Send the data set."""
        connection = UnixConnection(self.daemon.socket, timeout=60)
        try:
            connection.request("POST", "/v1/datasets?name=colours", body=ROWS)
            answer = connection.getresponse()
            told = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status == 201, told
        assert told["version"] == hashlib.sha256(ROWS).hexdigest()
        self.mark(event="dataset.registered", stream="", count=1)

    def secret(self, value: str) -> None:
        """Store a secret."""
        self.daemon.ok("PUT", "/v1/secrets/hf", {"value": value})
        self.mark(secret=value)

    def submit(self, **params: Any) -> str:
        """Submit a job; its id."""
        job = self.daemon.submit(**params)
        self.mark(event="job.submitted", stream=job, count=1)
        return job

    def ask(self, job: str, verb: str, event: str, count: int = 1) -> None:
        """Tell the daemon to do something with a job, which is on disk once it answers."""
        self.daemon.ok("POST", f"/v1/jobs/{job}/{verb}", {})
        self.mark(event=event, stream=job, count=count)

    def look(self) -> list[dict[str, Any]]:
        """The events that are new."""
        page: list[dict[str, Any]] = self.daemon.ok("GET", f"/v1/events?limit=1000&after={self._head}")[
            "data"
        ]
        if page:
            self._head = page[-1]["seq"]
            self.mark(head=self._head)
        return page

    def wait(self, job: str, *states: str) -> None:
        """Wait until a job is in one of the states, looking at the events all the while."""
        deadline = time.monotonic() + TIMEOUT_S
        while (now := self.daemon.job(job))["state"] not in states:
            assert time.monotonic() < deadline, (now, self.daemon.log())
            self.look()
            time.sleep(0.1)
        self.look()

    def wait_for(self, job: str, event: str) -> None:
        """Wait for an event of a job."""
        deadline = time.monotonic() + TIMEOUT_S
        while not any(each["type"] == event and job in each["stream"] for each in self.look()):
            assert time.monotonic() < deadline, self.daemon.log()
            time.sleep(0.1)


def run(root: Path, marks: Path) -> None:
    """A daemon's first start, a job from its data to its model with a pause between, and a second start."""
    descriptor = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with KeptDaemon(root / "state") as daemon:
        client = Client(daemon, descriptor)
        daemon.start()
        client.look()
        client.upload()
        client.secret(SECRET)
        job = client.submit(
            dataset="dataset:colours",
            steps=4,
            step_seconds=0.4,
            checkpoint_every=1,
            checkpoint_bytes=20_000,
            register_as="bot",
        )
        client.wait_for(job, "checkpoint.saved")
        client.ask(job, "pause", "job.pause_requested")
        client.wait(job, "paused", "succeeded")
        client.secret(CHANGED_SECRET)
        daemon.stop()
        daemon.start()
        if daemon.job(job)["state"] == "paused":
            client.ask(job, "resume", "job.queued", count=1)
        client.wait(job, "succeeded")
        other = client.submit(steps=1, crash_at=1, fail_attempts=1)
        client.wait(other, "succeeded")
        daemon.stop()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
