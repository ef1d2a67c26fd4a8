"""A real daemon in a process of its own, spoken to over its real socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetuned.attempts import temporary
from finetuned_sdk.bundle import Bundle

START_S = 20.0  # generous: other tests share the cores


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Daemon:
    """``finetuned`` on a state directory of its own. Leaves nothing running when it is closed."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        # Unix socket paths are short: not below pytest's long tmp_path.
        self._scratch = tempfile.TemporaryDirectory(prefix="ftd-", ignore_cleanup_errors=True)
        self.state = Path(self._scratch.name)
        self.socket = self.state / "s"
        self.arguments = [
            "--state-dir",
            str(self.state),
            "--socket",
            str(self.socket),
            "--listen",
            "",
            *arguments,
        ]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FINETUNED_")},
            "FINETUNED_EXTRA_PLUGINS": "finetuned_sdk.fake",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.log())
        try:
            self.stop()  # kindly, so that coverage is written
        finally:
            self.kill()
        for pid in self.attempt_processes():
            _signal(pid, signal.SIGKILL)
        for bundle in (self.state / "jobs").glob("*/attempts/*"):
            temporary.remove(Bundle(bundle))
        self._scratch.cleanup()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for anything."""
        with (self.state / "daemon.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "finetuned", *self.arguments],
                env=self.environment,
                stdout=output,
                stderr=output,
            )

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        self.process = self.spawn()
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        return self

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """As the kernel's out-of-memory killer would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As systemd would; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.process = None
        return code

    def log(self) -> str:
        """What it wrote to stderr."""
        return (self.state / "daemon.log").read_text(encoding="utf-8")

    # ---- talking to it -----------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None, timeout: float = 10) -> tuple[int, Any]:
        """One request; status and decoded body."""
        connection = UnixConnection(self.socket, timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            raw = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
            return response.status, json.loads(raw) if is_json else raw.decode()
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: object = None) -> Any:
        """One request that must succeed; its body."""
        status, answer = self.request(method, path, body)
        assert status in {200, 201}, (status, answer)
        return answer

    def submit(self, kind: str = "fake", priority: int = 0, **params: Any) -> str:
        """Submit a job; its id."""
        job = self.ok("POST", "/v1/jobs", {"kind": kind, "params": params, "priority": priority})
        return str(job["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        found: dict[str, Any] = self.ok("GET", f"/v1/jobs/{job_id}")
        return found

    def wait_for(self, job_id: str, *states: str, timeout: float = 30) -> dict[str, Any]:
        """Wait until the job is in one of the states (default: ended)."""
        wanted = states or ("succeeded", "failed", "cancelled")
        deadline = time.monotonic() + timeout
        while (job := self.job(job_id))["state"] not in wanted:
            assert time.monotonic() < deadline, (job["state"], job["wait_reason"], job["error"], self.log())
            assert states == () or job["state"] not in {"succeeded", "failed", "cancelled"}, (
                job["state"],
                job["error"],
            )
            time.sleep(0.02)
        return job

    def events(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """All events of a job, or of the whole log."""
        path = "/v1/events" if job_id is None else f"/v1/jobs/{job_id}/events"
        found: list[dict[str, Any]] = []
        while True:
            page = self.ok("GET", f"{path}?limit=1000&after={found[-1]['seq'] if found else 0}")
            found += page["data"]
            if not page["has_more"]:
                return found

    def steps(self, job_id: str) -> list[int]:
        """The steps that the job's progress events tell of."""
        return [
            event["data"]["current_step"] for event in self.events(job_id) if event["type"] == "job.progress"
        ]

    def attempt_processes(self, job_id: str = "") -> list[int]:
        """Every process that belongs to an attempt (of a job) of this daemon, by the mark in its environment."""
        bundles = str(self.state / "jobs" / job_id)
        jobs = [job_id] if job_id else [path.name for path in Path(bundles).glob("*")]  # ids are random
        marks = [f"FINETUNED_ATTEMPT={job}/" for job in jobs]
        return [pid for pid, environment in _environments() if any(mark in environment for mark in marks)] + [
            pid
            for pid, command in _commands()
            if "finetuned.attempts.runner" in command and bundles in command
        ]


def _environments() -> Iterator[tuple[int, str]]:
    yield from _proc("environ")


def _commands() -> Iterator[tuple[int, str]]:
    yield from _proc("cmdline")


def _proc(name: str) -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if "State:\tZ" in (path / "status").read_text(encoding="utf-8"):
                continue
            yield int(path.name), (path / name).read_bytes().decode("utf-8", "replace").replace("\0", " ")
        except OSError:
            continue


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Daemon]:
    """A daemon that is ready."""
    with Daemon(*arguments, **environment) as daemon:
        yield daemon.start()


def eventually(condition: Any, timeout: float = 15, what: str = "the condition") -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout} s"
        time.sleep(0.02)
