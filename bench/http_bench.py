"""Requests over the Unix socket: submit, show, list, a page of events, beside one fsync of the same disk.

``python bench/http_bench.py --json FILE [--quick]``. The server is a process of its own; the client is one
keep-alive connection of ``http.client``, so that what is measured is the server and not the client.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOBS = 200  # live jobs beside the ones that are measured
TARGETS = {"submit": "p50 under 10 ms + one fsync", "show": "p50 under 2 ms"}


@dataclass
class Latency:
    """Milliseconds."""

    what: str
    requests: int
    p50_ms: float
    p99_ms: float


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, status: int = 200) -> Any:
        encoded = None if body is None else json.dumps(body)
        self.request(method, path, encoded, {"Content-Type": "application/json"} if body else {})
        answer = self.getresponse()
        content = answer.read()
        assert answer.status == status, content
        return json.loads(content)


def measure(what: str, requests: int, ask: Callable[[], object]) -> Latency:
    for _ in range(20):
        ask()
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return Latency(what, requests, times[len(times) // 2], times[len(times) * 99 // 100])


def fsync(directory: Path, rounds: int) -> Latency:
    """Appending one page and waiting until it is on disk, as the log does for a commit."""
    with (directory / "fsync").open("ab", buffering=0) as file:

        def write() -> None:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())

        return measure("one fsync", rounds, write)


def run(directory: Path, path: Path, requests: int) -> list[Latency]:
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(directory), "--socket", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        connection = Connection(path)
        body = {"kind": "fake", "params": {"steps": 3}, "name": "bench"}
        ids = [connection.ask("POST", "/v1/jobs", body, status=201)["id"] for _ in range(JOBS)]
        before = connection.ask("GET", "/v1/log")["head"]
        results = [
            fsync(directory, requests),
            measure("submit", requests, lambda: connection.ask("POST", "/v1/jobs", body, status=201)),
            measure("show", requests, lambda: connection.ask("GET", f"/v1/jobs/{ids[0]}")),
            measure("list of 50", requests, lambda: connection.ask("GET", "/v1/jobs")),
            measure("events, page of 100", requests, lambda: connection.ask("GET", "/v1/events")),
        ]
        head = connection.ask("GET", "/v1/log")["head"]
        assert head - before == requests + 20, "each accepted job is one event"
        connection.close()
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(20)
    return results


async def serve(state_dir: Path, path: Path) -> None:
    from finetuned.testing import serve_house

    async with serve_house(state_dir, listen="", socket=path):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.socket))
        return 0
    rounds, requests = (1, 100) if options.quick else (3, 1000)
    # Beside the results, not in /tmp: that may be in memory, where an fsync costs nothing.
    beside = options.json.parent if options.json else Path.cwd()
    load = os.getloadavg()[0]
    measured: list[list[Latency]] = []
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix=".http-", dir=beside) as directory,
            tempfile.TemporaryDirectory(prefix="ft-") as short,  # a Unix socket's path must be
        ):
            measured.append(run(Path(directory), Path(short, "socket"), requests))
    results = [
        Latency(
            same[0].what,
            requests,
            statistics.median(each.p50_ms for each in same),
            statistics.median(each.p99_ms for each in same),
        )
        for same in zip(*measured, strict=True)
    ]
    print(f"{JOBS} live jobs; median of {rounds} rounds; load average before: {load:.1f}")
    print(f"{'request':<20} {'p50 ms':>8} {'p99 ms':>8}  target")
    for each in results:
        print(f"{each.what:<20} {each.p50_ms:>8.2f} {each.p99_ms:>8.2f}  {TARGETS.get(each.what, '')}")
    if options.json:
        document = {"latencies": [asdict(each) for each in results], "load_before": load, "targets": TARGETS}
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
