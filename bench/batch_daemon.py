"""A real daemon that runs batches for a benchmark, and what one of them took."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.batch_workload import ENDPOINT, text_of

ROOT = Path(__file__).parents[1]
BOUNDARY = "b0undary"
LOOK_S = 0.5  # between two looks whether a batch has ended: more of them would take from the engine
ENDED = {"completed", "failed", "expired", "cancelled"}


class WrongError(Exception):
    """What was measured is not what it should be."""


@dataclass(frozen=True)
class Took:
    """Seconds: ``asking`` from the first request asked to the last line kept, ``whole`` from the upload to the output in hand.

    ``posted`` and ``answered`` are monotonic times at which the batch was sent, and that was answered. ``texts`` are by ``custom_id``.
    """

    asking: float
    whole: float
    posted: float
    answered: float
    texts: dict[str, str]


class Daemon:
    """``finetuned`` on a state directory of its own, over its Unix socket."""

    def __init__(self, directory: Path, config: str, *, threads: int) -> None:
        directory.mkdir()
        self.state = directory / "state"
        self.socket = directory / "s"
        self._config = directory / "config.toml"
        self._config.write_text(
            f"cpu_slots = 1\nengine_idle_s = 3600\nengine_wait_s = 600\n{config}", encoding="utf-8"
        )
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")},
            "FINETUNED_EXTRA_PLUGINS": "bench.noted_engine",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the context lasts it is ready."""
        command = [
            sys.executable,
            "-m",
            "finetuned",
            "--state-dir",
            str(self.state),
            "--socket",
            str(self.socket),
        ]
        arguments = ["--listen", "", "--log-level", "error", "--ephemeral", "--config", str(self._config)]
        process = subprocess.Popen([*command, *arguments], env=self._environment)
        try:
            while not self._is_ready():
                if process.poll() is not None:
                    raise WrongError("the daemon ended before it was ready")
                time.sleep(0.01)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)

    def run(self, content: bytes) -> Took:
        """One batch, from its file to its output."""
        begun = time.monotonic()
        file_id = self._sent(content)
        body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
        posted = time.monotonic()
        batch = self.ask("POST", "/v1/batches", body)
        answered = time.monotonic()
        while batch["status"] not in ENDED:
            time.sleep(LOOK_S)
            batch = self.ask("GET", f"/v1/batches/{batch['id']}")
        if batch["status"] != "completed" or batch["error_file_id"] is not None:
            raise WrongError(f"a batch went wrong: {batch}")
        output = self._fetched(f"/v1/files/{batch['output_file_id']}/content").splitlines()
        whole = time.monotonic() - begun
        return Took(self._asking(batch["id"]), whole, posted, answered, _texts(output))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request with JSON, and its answer."""
        content = None if body is None else json.dumps(body).encode()
        return json.loads(self._fetched(path, method, content, "application/json"))

    def _sent(self, content: bytes) -> str:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        )
        form = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        answer = self._fetched("/v1/files", "POST", form, f"multipart/form-data; boundary={BOUNDARY}")
        return str(json.loads(answer)["id"])

    def _fetched(
        self, path: str, method: str = "GET", content: bytes | None = None, content_type: str = ""
    ) -> bytes:
        connection = _Connection(self.socket)
        try:
            connection.request(
                method, path, content, {} if content is None else {"Content-Type": content_type}
            )
            answer = connection.getresponse()
            found = answer.read()
            if answer.status != 200:
                raise WrongError(f"{method} {path}: {answer.status} {found[:500]!r}")
            return found
        finally:
            connection.close()

    def _asking(self, batch_id: str) -> float:
        """From the making of the file of results, right before the first request, to the last line in it."""
        attempts = self.state / "jobs" / batch_id.replace("batch_", "job-") / "attempts"
        found = list(attempts.glob("*/work/results.ndjson"))
        if len(found) != 1:
            raise WrongError(f"batch {batch_id} has {len(found)} files of results: it did not run once")
        times = subprocess.run(
            ["stat", "--format", "%.9W %.9Y", str(found[0])], check=True, capture_output=True, text=True
        ).stdout.split()
        made, written = map(float, times)
        return written - made

    def _is_ready(self) -> bool:
        try:
            return bool(self.ask("GET", "/readyz"))
        except (OSError, WrongError):
            return False


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _texts(output: list[bytes]) -> dict[str, str]:
    """Raises ``WrongError`` if a ``custom_id`` has two lines."""
    lines = [json.loads(each) for each in output]
    found = {line["custom_id"]: text_of(line["response"]["body"]) for line in lines}
    if len(found) != len(lines):
        raise WrongError(f"{len(lines)} lines for {len(found)} requests")
    return found
