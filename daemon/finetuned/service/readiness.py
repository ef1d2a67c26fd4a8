"""Waiting until the service that was started answers, and is the release that it should be."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from finetuned.service.steps import StepError

PAUSE_S = 0.2
ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Wait for the daemon at a socket."""

    socket: Path
    version: str
    timeout_s: float = 60.0

    @property
    def text(self) -> str:
        """Where, and for whom."""
        return f"wait until finetuned {self.version} answers at {self.socket}"

    def run(self) -> None:
        """Return when it is ready. Raises ``StepError`` if it is not in time, or another version."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            said = self._look()
            if said is None:
                return
            if time.monotonic() > deadline:
                raise StepError(f"{said}; `journalctl -u finetuned` (or `--user -u`) says why.")
            time.sleep(PAUSE_S)

    def _look(self) -> str | None:
        """What is amiss; ``None`` if nothing is."""
        try:
            if ask(self.socket, "/readyz")[0] != http.client.OK:
                return f"The daemon at {self.socket} is not ready"
            version = ask(self.socket, "/healthz")[1].get("version")
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"Nothing answers at {self.socket} ({error})"
        if version != self.version:
            return f"finetuned {version} answers at {self.socket} instead of {self.version}"
        return None


def ask(path: Path, question: str) -> tuple[int, dict[str, object]]:
    """GET ``question`` over a Unix socket: status and JSON. Raises what `http.client` and the socket do."""
    connection = _Connection(path)
    try:
        connection.request("GET", question)
        answer = connection.getresponse()
        return answer.status, dict(json.loads(answer.read()))
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
