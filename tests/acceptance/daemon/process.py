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

ROOT = Path(__file__).parents[3]
# Generous: other tests share the cores, and only what is broken lasts so long.
START_S = 60.0
PATIENCE_S = 60.0
STEP_S = 0.15  # of a job that is begun: long enough for each step's progress to be told


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
        self.gate = self.state / "gate"
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
            "FINETUNED_EXTRA_PLUGINS": "finetuned_sdk.fake,tests.acceptance.daemon.gated",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
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
        self.kill_attempts()
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
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        return code

    def log(self) -> str:
        """What it wrote to stderr."""
        return (self.state / "daemon.log").read_text(encoding="utf-8")

    # ---- talking to it -----------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None, timeout: float = 30) -> tuple[int, Any]:
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

    def begun(self, done: int = 3, **params: Any) -> str:
        """Submit a job that would run for hours; its id, once it has done some steps."""
        job_id = self.submit(**{"steps": 100_000, "step_seconds": STEP_S, **params})
        self.wait_for(job_id, "running")
        eventually(lambda: len(self.steps(job_id)) >= done, what="some steps")
        return job_id

    def held(self, at: int = 3, **params: Any) -> str:
        """Submit a job that stands still after a step until the gate is opened; its id, once it does so."""
        gate = {"gate": str(self.gate), "held_at": at}
        return self.begun(at, **{"kind": "gated", "steps": 30, **gate, **params})

    def open_gate(self) -> None:
        """Let what is held go on."""
        self.gate.touch()

    def shut_gate(self) -> None:
        """Hold them again at their next step."""
        self.gate.unlink()

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        found: dict[str, Any] = self.ok("GET", f"/v1/jobs/{job_id}")
        return found

    def wait_for(self, job_id: str, *states: str, timeout: float = PATIENCE_S) -> dict[str, Any]:
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
        bundles = self.state / "jobs" / job_id
        jobs = [job_id] if job_id else [path.name for path in bundles.glob("*")]  # ids are random
        marks = [f"FINETUNED_ATTEMPT={job}/" for job in jobs]
        found = [pid for pid, environment in _environments() if any(mark in environment for mark in marks)]
        return found + self._runners(job_id)

    def kill_attempts(self, job_id: str = "") -> None:
        """Kill every process of its attempts (of a job), and wait until they are gone.

        The runners come first: they would tell how their workers ended.
        """
        pids = [*self._runners(job_id), *self.attempt_processes(job_id)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not {*pids} & {*self.attempt_processes(job_id)}, what="the processes' end")

    def _runners(self, job_id: str) -> list[int]:
        bundles = str(self.state / "jobs" / job_id)
        return [
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


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Daemon]:
    """A daemon that is ready."""
    with Daemon(*arguments, **environment) as daemon:
        yield daemon.start()


def eventually(condition: Any, timeout: float = PATIENCE_S, what: str = "the condition") -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout} s"
        time.sleep(0.02)
