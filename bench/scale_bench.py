"""The daemon as its log grows: requests over both doors, the start, and the memory it takes.

``python bench/scale_bench.py --json FILE [--quick] [--part latency|memory|download …]``. A log is filled with the
events of ended jobs (about a hundred each) and some that wait; a real daemon is started on it; one keep-alive
connection asks. Flat means: p50 on the largest log beside p50 on the smallest. In the memory part a daemon lives
through what a day brings, in minutes: jobs, requests and streams that come and go. In the download part a sparse
file of 2 GiB is fetched whole and compared by its CRC.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PROGRESS = 90  # progress events of each ended job
EVENTS_A_JOB = PROGRESS + 10
WAITING = 50  # jobs that wait beside the ended ones
REQUESTS = 500
MIB = 1 << 20
TARGETS = {
    "ready_s": 1.0,
    "flat": 1.5,  # p50 with the most events over p50 with the fewest
    "download_growth_mib": 16.0,
    "churn_growth_mib": 2.0,
}


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, or over TCP with a token."""

    def __init__(self, path: Path | None = None, *, port: int = 0, token: str = "") -> None:
        super().__init__("127.0.0.1", port, timeout=120)
        self._path = path
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, status: int = 200) -> Any:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        self.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        content = answer.read()
        assert answer.status == status, content
        return json.loads(content)


# ---- a log of a given size ---------------------------------------------------------------------------------


async def fill(state_dir: Path, events: int) -> int:
    """Write ended jobs with their events; the head."""
    from finetuned.domain import facts
    from finetuned.domain.streams import job_event
    from finetuned.store import open_log

    def life(job_id: str, number: int) -> list[Any]:
        given: list[facts.Fact] = [
            facts.AttemptStarting(attempt=1, purpose="run", devices=[]),
            facts.AttemptLaunched(attempt=1, pid=1, boot_id="b", start_time=1, process_group=1),
            facts.AttemptStarted(attempt=1),
            facts.JobPhase(phase="training"),
            *(
                facts.JobProgress({"step": step, "total_steps": PROGRESS, "loss": 2.0 / (step + 1)})
                for step in range(PROGRESS)
            ),
            facts.CheckpointSaved(attempt=1, step=PROGRESS, path=f"/none/{number}", bytes=1),
            facts.EvaluationRecorded(name="heldout", metrics={"loss": 1.0}),
            facts.AttemptResult(attempt=1, values={"loss": 1.0}),
            facts.AttemptEnded(attempt=1, outcome="succeeded", exit_code=0),
            facts.JobSucceeded(result={"loss": 1.0}),
        ]
        submitted = job_event(job_id, request(), actor="uid:0")
        return [submitted, *(job_event(job_id, fact, actor="attempt:1") for fact in given)]

    def request() -> facts.JobSubmitted:
        return facts.JobSubmitted(
            kind="fake", name="bench", params={"steps": 3}, priority=0, metadata={}, devices=1, validates=False,
            max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        )  # fmt: skip

    async with open_log(state_dir / "events.sqlite") as log:
        for first in range(0, events // EVENTS_A_JOB, 20):
            batch = [
                event
                for number in range(first, min(first + 20, events // EVENTS_A_JOB))
                for event in life(f"job-{number:010d}", number)
            ]
            await log.append(batch)
        return log.head


# ---- the daemon ------------------------------------------------------------------------------------------


@contextmanager
def daemon(
    state_dir: Path, short: Path, *, plugins: str = "finetuned_sdk.fake"
) -> Iterator[tuple[Any, Path, int, float]]:
    """A real daemon: its process, socket, TCP port, and how long it took to be ready (seconds)."""
    path, port, settings = short / "s", free_port(), short / "config.toml"
    command = [
        sys.executable, "-m", "finetuned", "--state-dir", str(state_dir), "--socket", str(path),
        "--listen", f"127.0.0.1:{port}", "--log-level", "error", "--ephemeral", "--config", str(settings),
    ]  # fmt: skip
    settings.write_text("cpu_slots = 1\n", encoding="utf-8")
    environment = {**os.environ, "FINETUNED_EXTRA_PLUGINS": plugins, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    try:
        while not is_ready(path):
            assert process.poll() is None, "the daemon ended before it was ready"
            time.sleep(0.005)
        yield process, path, port, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def is_ready(path: Path) -> bool:
    connection = Connection(path)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def rss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) / 1024


def quantiles(requests: int, ask: Callable[[], object]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    for _ in range(20):
        ask()
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return {"p50_ms": times[len(times) // 2], "p99_ms": times[len(times) * 99 // 100]}


# ---- latency and start -----------------------------------------------------------------------------------


def latency(events: int, requests: int, beside: Path) -> dict[str, Any]:
    """Requests over both doors on a log with so many events, and the start on it."""
    with (
        tempfile.TemporaryDirectory(prefix=".scale-", dir=beside) as directory,
        tempfile.TemporaryDirectory(prefix="ft-") as short,
    ):
        state = Path(directory)
        head = asyncio.run(fill(state, events))
        with daemon(state, Path(short)):  # the first start after a fill reads a cold file
            pass
        found: dict[str, Any] = {"events": head, "jobs": events // EVENTS_A_JOB}
        with daemon(state, Path(short)) as (process, path, port, ready_s):
            found["ready_s"], found["rss_mib"] = ready_s, rss_mib(process.pid)
            unix = Connection(path)
            _occupy(unix)
            token = unix.ask("POST", "/v1/tokens", {"scope": "operate"}, status=201)["token"]
            for door, connection in (("socket", unix), ("tcp", Connection(port=port, token=token))):
                found[door] = _requests(connection, requests, jobs=events // EVENTS_A_JOB)
                connection.close()
        return found


def _occupy(connection: Connection) -> None:
    """Have the only device held and some jobs wait, so that nothing is started while requests are timed."""
    params = {"steps": 1, "step_seconds": 3600}
    for _ in range(1 + WAITING):
        connection.ask("POST", "/v1/jobs", {"kind": "fake", "params": params}, status=201)
    deadline = time.monotonic() + 60
    while connection.ask("GET", "/v1/jobs?state=running")["data"] == []:
        assert time.monotonic() < deadline, "the job that holds the device did not start"
        time.sleep(0.05)


def _requests(connection: Connection, requests: int, *, jobs: int) -> dict[str, dict[str, float]]:
    body = {"kind": "fake", "params": {"steps": 3}, "priority": -1000}
    middle = f"/v1/jobs/job-{jobs // 2:010d}"
    assert connection.ask("GET", middle)["state"] == "succeeded"
    late = connection.ask("GET", "/v1/log")["head"] // 2
    return {
        "submit": quantiles(requests, lambda: connection.ask("POST", "/v1/jobs", body, status=201)),
        "show a job": quantiles(requests, lambda: connection.ask("GET", middle)),
        "list 10 jobs": quantiles(
            requests, lambda: connection.ask("GET", "/v1/jobs?state=succeeded&limit=10")
        ),
        "events, page of 100": quantiles(requests, lambda: connection.ask("GET", f"/v1/events?after={late}")),
        "a job's events": quantiles(requests, lambda: connection.ask("GET", f"{middle}/events")),
        "list all jobs": quantiles(3, lambda: _all(connection, jobs)),
    }


def _all(connection: Connection, jobs: int) -> None:
    seen, after = set(), ""
    while True:
        page = connection.ask("GET", f"/v1/jobs?state=succeeded&limit=1000{after}")
        seen |= {job["id"] for job in page["data"]}
        if not page["has_more"]:
            break
        after = f"&after={page['next_after']}"
    assert len(seen) == jobs, (len(seen), jobs)


# ---- memory ----------------------------------------------------------------------------------------------


def memory(rounds: int, clients: int) -> dict[str, Any]:
    """Idle, with streams open, and over a day's worth of churn in ``rounds`` parts."""
    with tempfile.TemporaryDirectory(prefix="ft-") as directory:
        state = Path(directory)
        with daemon(state, state) as (process, path, _port, _ready), ExitStack() as stack:
            time.sleep(3)
            found: dict[str, Any] = {"idle_mib": rss_mib(process.pid)}
            streams = [stack.enter_context(stream(path)) for _ in range(clients)]
            found["clients"], found["with_clients_mib"] = clients, rss_mib(process.pid)
            for each in streams:
                each.close()
            connection = Connection(path)
            series = []
            for number in range(rounds):
                _churn(connection, path)
                series.append({"round": number + 1, "rss_mib": rss_mib(process.pid)})
            found["churn"] = series
            found["events"] = connection.ask("GET", "/v1/log")["head"]
            # The first half fills caches that are bounded; what grows after that would grow for ever.
            half = series[len(series) // 2]["rss_mib"]
            found["churn_growth_mib"] = series[-1]["rss_mib"] - half
            connection.close()
    return found


def _churn(connection: Connection, path: Path) -> None:
    """What some hours bring: jobs that run, jobs that are cancelled, polls, refusals, streams that come and go."""
    run = [
        connection.ask("POST", "/v1/jobs", {"kind": "fake", "params": {"steps": 5}}, status=201)["id"]
        for _ in range(2)
    ]
    for _ in range(60):
        job = connection.ask("POST", "/v1/jobs", {"kind": "fake", "priority": -10}, status=201)["id"]
        connection.ask("GET", f"/v1/jobs/{job}")
        connection.ask("POST", f"/v1/jobs/{job}/cancel", {})
        connection.ask("GET", "/v1/jobs?limit=10")
        connection.ask("GET", "/v1/jobs/nope", status=404)
    for _ in range(50):
        with stream(path):
            pass
    for _ in range(200):
        connection.ask("GET", "/v1/events?limit=50")
        connection.ask("GET", "/v1/system")
    deadline = time.monotonic() + 120
    while any(
        connection.ask("GET", f"/v1/jobs/{job}")["state"] not in {"succeeded", "failed"} for job in run
    ):
        assert time.monotonic() < deadline, "the jobs did not end"
        time.sleep(0.05)
    for job in run:
        assert connection.ask("GET", f"/v1/jobs/{job}")["state"] == "succeeded"
        connection.ask("DELETE", f"/v1/jobs/{job}")


@contextmanager
def stream(path: Path) -> Iterator[socket.socket]:
    """An event stream that is open and has begun."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /v1/events?stream=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)
        yield connection


# ---- download --------------------------------------------------------------------------------------------


async def publish(state_dir: Path, size: int) -> str:
    """An ended job with a sparse artifact; the id."""
    from finetuned.domain import facts
    from finetuned.domain.streams import job_event
    from finetuned.store import open_log
    from finetuned_sdk import manifest

    job_id = "job-download00"
    root = state_dir / "jobs" / job_id / "attempts" / "1" / "artifacts" / "model"
    root.mkdir(parents=True)
    with (root / "weights.safetensors").open("wb") as file:
        file.truncate(size)
    content = manifest.seal(root, kind="model")
    given: list[facts.Fact] = [
        facts.JobSubmitted(
            kind="fake", name="download", params={}, priority=0, metadata={}, devices=0, validates=False,
            max_attempts=1, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None,
        ),
        facts.AttemptStarting(attempt=1, purpose="run", devices=[]),
        facts.AttemptStarted(attempt=1),
        facts.ArtifactPublished(attempt=1, name="model", kind="model", path=str(root), bytes=content.total_bytes),
        facts.AttemptResult(attempt=1, values={}),
        facts.AttemptEnded(attempt=1, outcome="succeeded", exit_code=0),
        facts.JobSucceeded(result={}),
    ]  # fmt: skip
    async with open_log(state_dir / "events.sqlite") as log:
        await log.execute(lambda _world: [job_event(job_id, fact, actor="attempt:1") for fact in given])
    return job_id


def download(size: int, beside: Path) -> dict[str, Any]:
    """Fetch a large file and the archive around it; the daemon's growth and the rate."""
    expected = 0
    for _ in range(size // MIB):
        expected = zlib.crc32(bytes(MIB), expected)
    with (
        tempfile.TemporaryDirectory(prefix=".scale-", dir=beside) as directory,
        tempfile.TemporaryDirectory(prefix="ft-") as short,
    ):
        state = Path(directory)
        job = asyncio.run(publish(state, size))
        with daemon(state, Path(short)) as (process, path, _port, _ready):
            unix = Connection(path)
            unix.ask("GET", f"/v1/jobs/{job}")
            before = rss_mib(process.pid)
            found: dict[str, Any] = {"bytes": size}
            base = f"/v1/jobs/{job}/artifacts/model"
            peak = 0.0
            for what, target in (
                ("file", f"{base}/files/weights.safetensors"),
                ("archive", f"{base}/archive"),
            ):
                connection = Connection(path)
                connection.request("GET", target)
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                started, seen, crc = time.perf_counter(), 0, 0
                while block := answer.read(4 * MIB):
                    seen += len(block)
                    crc = zlib.crc32(block, crc)
                    if seen % (64 * MIB) < 4 * MIB:
                        peak = max(peak, rss_mib(process.pid))
                found[f"{what}_mib_per_s"] = seen / MIB / (time.perf_counter() - started)
                assert seen == int(answer.headers["Content-Length"])
                assert what == "archive" or crc == expected, "other bytes came than were there"
                connection.close()
            found["growth_mib"] = max(0.0, peak - before)
    return found


# ---- the whole -------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", action="append", choices=("latency", "memory", "download"))
    options = parser.parse_args()
    parts = options.part or ["latency", "memory", "download"]
    beside = options.json.parent if options.json else Path.cwd()
    document: dict[str, Any] = {"targets": TARGETS, "load_before": os.getloadavg()[0]}
    if "latency" in parts:
        sizes = (1_000, 10_000) if options.quick else (1_000, 100_000, 1_000_000)
        document["latency"] = [latency(size, 50 if options.quick else REQUESTS, beside) for size in sizes]
        _print_latency(document["latency"])
    if "memory" in parts:
        document["memory"] = memory(4 if options.quick else 24, 100 if options.quick else 1000)
        _print_memory(document["memory"])
    if "download" in parts:
        document["download"] = download((64 if options.quick else 2048) * MIB, beside)
        _print_download(document["download"])
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


def _print_latency(found: list[dict[str, Any]]) -> None:
    print(
        f"{'events in the log':<34}" + "".join(f"{each['events']:>20,}" for each in found) + "   last/first"
    )
    print(f"{'ready after, s (target 1.0)':<34}" + "".join(f"{each['ready_s']:>20.2f}" for each in found))
    print(f"{'RSS then, MiB':<34}" + "".join(f"{each['rss_mib']:>20.1f}" for each in found))
    for door in ("socket", "tcp"):
        for what in found[0][door]:
            cells = "".join(
                f"{each[door][what]['p50_ms']:>11.2f} /{each[door][what]['p99_ms']:>7.2f}" for each in found
            )
            ratio = found[-1][door][what]["p50_ms"] / found[0][door][what]["p50_ms"]
            print(f"{door + ': ' + what + ', ms p50 / p99':<34}{cells}{ratio:>12.2f}")


def _print_memory(found: dict[str, Any]) -> None:
    print(
        f"idle {found['idle_mib']:.1f} MiB; with {found['clients']} streams {found['with_clients_mib']:.1f} MiB"
    )
    print("churn, MiB after each part: " + " ".join(f"{each['rss_mib']:.1f}" for each in found["churn"]))
    print(
        f"growth in the second half: {found['churn_growth_mib']:.1f} MiB (target {TARGETS['churn_growth_mib']})"
    )


def _print_download(found: dict[str, Any]) -> None:
    print(
        f"{found['bytes'] / (1 << 30):.2f} GiB: {found['file_mib_per_s']:.0f} MiB/s as a file, "
        f"{found['archive_mib_per_s']:.0f} as an archive; RSS grew by {found['growth_mib']:.1f} MiB "
        f"(target {TARGETS['download_growth_mib']})"
    )


if __name__ == "__main__":
    sys.exit(main())
