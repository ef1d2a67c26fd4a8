"""The daemon under test: the acceptance tests' one, that can be killed while it starts and whose disk may be full."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.daemon.process import Daemon
from tests.chaos import processes

ROOT = Path(__file__).parents[2]
READY_S = 60.0  # generous: the machine is busy on purpose
#: little patience, and only the disk's last mebibytes kept free: its whole is small
SETTINGS = "cancel_grace_s = 1\nmin_free_disk_bytes = 4194304\n"
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class DaemonDiedError(Exception):
    """It ended though nobody killed it."""


class Server(Daemon):
    """``finetuned`` with room for several jobs, and quick jobs beside the fake ones. Its own log is off its disk."""

    def __init__(self, *, slots: int = 2, environment: Mapping[str, str]) -> None:
        super().__init__(
            FINETUNED_EXTRA_PLUGINS="finetuned_sdk.fake,tests.chaos.quick",
            PYTHONPATH=":".join(str(ROOT / part) for part in ("", "daemon", "events", "plugins")),
            **environment,
        )
        self._messages = tempfile.TemporaryDirectory(prefix="ftd-log-")
        self.messages = Path(self._messages.name) / "daemon.log"
        self.messages.touch()
        settings = self.messages.with_name("config.toml")
        settings.write_text(f"cpu_slots = {slots}\n{SETTINGS}", encoding="utf-8")
        self.arguments += ["--config", str(settings)]
        self.starts = 0
        OPEN.add(self)

    def __exit__(self, *arguments: object) -> None:
        try:
            super().__exit__(*arguments)  # type: ignore[arg-type]
        finally:
            OPEN.discard(self)
            self._messages.cleanup()

    def abandon(self) -> None:
        """Leave nothing of it, at once: the harness itself is being ended."""
        if self.process is not None:
            self.process.kill()
        while pids := self.of_attempts():
            for pid in pids:
                processes.kill(pid)
            time.sleep(0.05)
        subprocess.run(["umount", "--lazy", self.state], check=False, capture_output=True)
        for directory in (self.state, self.messages.parent):
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def jobs_dir(self) -> Path:
        """Where the bundles are."""
        return self.state / "jobs"

    @property
    def job_ids(self) -> Collection[str]:
        """All jobs that have had an attempt, by their directories."""
        try:
            return {path.name for path in self.jobs_dir.iterdir()}
        except OSError:
            return set()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for anything."""
        self.starts += 1
        with self.messages.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "finetuned", *self.arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def begin(self) -> None:
        """Start it and go on at once."""
        self.process = self.spawn()

    def await_ready(self, seconds: float = READY_S) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None:
                raise DaemonDiedError(f"the daemon ended by itself while it started\n{self.log()[-2000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the daemon was not ready after {seconds:g} s\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def start(self) -> Server:
        """Start it and wait until it is ready."""
        self.begin()
        self.await_ready()
        return self

    def log(self) -> str:
        """What it wrote to stderr."""
        return self.messages.read_text(encoding="utf-8", errors="replace")

    def request(self, method: str, path: str, body: object = None, timeout: float = 60) -> tuple[int, Any]:
        """One request; status and decoded body."""
        return super().request(method, path, body, timeout)

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs."""
        found: list[dict[str, Any]] = []
        while True:
            after = f"&after={found[-1]['id']}" if found else ""
            page = self.ok("GET", f"/v1/jobs?limit=200{after}")
            found += page["data"]
            if not page["has_more"]:
                return found

    def settle(self, seconds: float) -> list[dict[str, Any]]:
        """Resume what is paused, and wait until every job has ended; those that did not within the time."""
        deadline = time.monotonic() + seconds
        while True:
            restless = [job for job in self.jobs() if job["state"] not in ENDED]
            if not restless or time.monotonic() > deadline:
                return restless
            for job in restless:
                if job["state"] == "paused":  # what cannot be resumed stays, and is told of
                    self.request("POST", f"/v1/jobs/{job['id']}/resume", {})
            time.sleep(0.2)

    def of_attempts(self) -> list[int]:
        """Every living process of an attempt, runners included."""
        mine = [process.pid for process in processes.marked(self.job_ids)]
        return [*mine, *processes.runners(self.jobs_dir)]

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)


OPEN: set[Server] = set()  # for whoever has to leave nothing behind


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until the condition holds; how long that took, in seconds. Raises ``TimeoutError``."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)
    return time.monotonic() - began


#: what a request to a daemon raises that is not there, or goes in the middle
AWAY = (OSError, http.client.HTTPException, ValueError)
