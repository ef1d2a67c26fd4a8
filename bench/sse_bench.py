"""Event streams: a thousand subscribers of ours, and of sse-starlette on uvicorn, in one run.

``python bench/sse_bench.py --json FILE [--quick]``. The server and the clients are processes of their own. The
clients are one loop over raw sockets that notes when each frame came; the server notes when each commit was
acknowledged; both read CLOCK_MONOTONIC, which is one clock for all processes of a host. Every frame of every
subscriber is counted and its position compared: what is missing, twice or out of order makes the run fail.

Saturated: 512 callers append as fast as they can to streams of their own while the followed stream gets its events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

RATE = 100  # events a second on the followed stream
WRITERS = 512
FRAME = re.compile(rb"id: (\d+)\r?\nevent: job\.progress\r?\ndata: ")
TARGETS = {
    "p99_ms": 60.0,
    "saturated_p99_ms": 100.0,
    "server_cores": 0.5,
    "idle_kib": 15.0,
}


@dataclass
class Delivery:
    """One run. ``server_cores`` is the server's CPU time over the wall time, publishing included."""

    server: str
    subscribers: int
    writers: int
    expected: int
    frames: int
    frames_per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    server_cores: float
    other_commits_per_s: float


# ---- the servers -----------------------------------------------------------------------------------------


class Publisher(Protocol):
    """A server under test: where it is, and how it publishes."""

    address: tuple[str, int]
    request: bytes

    async def publish(self, step: int) -> int: ...
    def load(self, writers: int, tasks: asyncio.TaskGroup) -> Callable[[], int]: ...


class Ours:
    """The daemon's API over its log."""

    def __init__(self, house: Any, job: str, others: Sequence[str], secret: str) -> None:
        self._house = house
        self._job = job
        self._others = others
        self.address = house.addresses.tcp
        self.request = (
            f"GET /v1/jobs/{job}/events?stream=true&types=job.progress HTTP/1.1\r\n"
            f"Host: localhost\r\nAuthorization: Bearer {secret}\r\n\r\n"
        ).encode()

    @classmethod
    async def open(cls, stack: AsyncExitStack, state_dir: Path, writers: int) -> Self:
        from finetuned.testing import serve_house

        house = await stack.enter_async_context(serve_house(state_dir))
        job = await house.accept_job()
        others = [await house.accept_job() for _ in range(writers)]
        _, secret = await house.commands.tokens.create(scope="read", name=None, actor="bench")
        return cls(house, job, others, secret)

    async def publish(self, step: int) -> int:
        (event,) = await self._house.progress(self._job, step)
        return int(event.seq)

    def load(self, writers: int, tasks: asyncio.TaskGroup) -> Callable[[], int]:
        """Callers that append without pause; returns a function that stops them and counts their commits."""
        done, stopped = 0, False

        async def write(job: str) -> None:
            nonlocal done
            while not stopped:
                await self._house.progress(job, done)
                done += 1

        def stop() -> int:
            nonlocal stopped
            stopped = True
            return done

        for job in self._others[:writers]:
            tasks.create_task(write(job))
        return stop


class Starlette:
    """sse-starlette on uvicorn: one generator a client over a shared list, woken by an event."""

    request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def __init__(self) -> None:
        self._events: list[dict[str, str]] = []
        self._more = asyncio.Event()
        self.address = ("127.0.0.1", 0)

    @classmethod
    async def open(cls, stack: AsyncExitStack, _state_dir: Path, _writers: int) -> Self:
        import uvicorn
        from sse_starlette import EventSourceResponse
        from starlette.applications import Starlette as Application
        from starlette.routing import Route

        made = cls()

        async def events(_request: Any) -> Any:
            return EventSourceResponse(made.follow())

        app = Application(routes=[Route("/events", events)])
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        made.address = listening.getsockname()
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))

        async def stop() -> None:
            server.should_exit = True
            await serving

        stack.push_async_callback(stop)
        return made

    async def follow(self) -> Any:
        cursor = len(self._events)
        while True:
            while cursor < len(self._events):
                yield self._events[cursor]
                cursor += 1
            await self._more.wait()

    async def publish(self, step: int) -> int:
        seq = len(self._events) + 1
        data = json.dumps(
            {
                "seq": seq, "stream": "job/job-1", "version": seq, "type": "job.progress",
                "at": "2026-11-22T12:00:00.000000Z", "actor": "attempt:1", "data": {"current_step": step},
            }
        )  # fmt: skip
        self._events.append({"id": str(seq), "event": "job.progress", "data": data})
        more, self._more = self._more, asyncio.Event()
        more.set()
        return seq

    def load(self, writers: int, _tasks: asyncio.TaskGroup) -> Callable[[], int]:
        assert writers == 0
        return lambda: 0


async def serve(kind: str, state_dir: Path, writers: int) -> None:
    """The server's process: does what the lines on stdin say, answers a line each."""
    async with AsyncExitStack() as stack:
        opener: Callable[..., Awaitable[Publisher]] = Ours.open if kind == "ours" else Starlette.open
        server = await opener(stack, state_dir, writers)
        say({"address": server.address, "request": server.request.decode()})
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            say(await _publish(server, order["seconds"], order["writers"]))


async def _publish(server: Publisher, seconds: float, writers: int) -> dict[str, Any]:
    commits: list[tuple[int, float]] = []

    async def publish(step: int) -> None:
        seq = await server.publish(step)
        commits.append((seq, time.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        stop = server.load(writers, tasks)
        start, cpu = time.monotonic(), time.process_time()
        # Not one after the other: the rate must not fall because the log is busy.
        async with asyncio.TaskGroup() as publishing:
            for step in range(int(seconds * RATE)):
                await asyncio.sleep(max(0.0, start + step / RATE - time.monotonic()))
                publishing.create_task(publish(step))
        wall, cpu = time.monotonic() - start, time.process_time() - cpu
        others = stop()
    return {"commits": sorted(commits), "cores": cpu / wall, "others_per_s": others / wall}


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


# ---- the clients -----------------------------------------------------------------------------------------


class Server:
    """The server's process, as the clients see it."""

    def __init__(self, kind: str, state_dir: Path, writers: int) -> None:
        command = [
            sys.executable,
            __file__,
            "--serve",
            kind,
            "--state",
            str(state_dir),
            "--writers",
            str(writers),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opened = self.answer()
        self.address = tuple(opened["address"])
        self.request = opened["request"].encode()

    def order(self, seconds: float, writers: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"seconds": seconds, "writers": writers}) + "\n")
        self._process.stdin.flush()

    @property
    def answered(self) -> int:
        """The descriptor that becomes readable with an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the server died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Swarm:
    """Subscribers in one loop."""

    def __init__(self, server: Server, count: int) -> None:
        self._poll = select.epoll()
        self.connections: dict[int, socket.socket] = {}
        self.received: dict[int, list[tuple[float, list[bytes]]]] = {}
        self._rest: dict[int, bytes] = {}
        for _ in range(count):
            connection = socket.create_connection(server.address)
            connection.sendall(server.request)
            # The answer's head says that the server has us.
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            assert b" 200 " in head.split(b"\r\n")[0], head
            connection.setblocking(False)
            number = connection.fileno()
            self.connections[number] = connection
            self.received[number] = []
            self._rest[number] = head.partition(b"\r\n\r\n")[2]
            self._poll.register(number, select.EPOLLIN)

    def read(self, seconds: float, *, until: Callable[[], bool]) -> None:
        """Read for so long, or until a condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            for number, _ in self._poll.poll(0.05):
                chunk = self.connections[number].recv(1 << 18)
                if not chunk:
                    raise SystemExit("the server cut a client")
                self._take(number, chunk, time.monotonic())

    def _take(self, number: int, chunk: bytes, now: float) -> None:
        text = self._rest[number] + chunk
        end = (
            text.rfind(b"\n\n") + 2
            if b"\r\n\r\n" not in text
            else max(text.rfind(b"\n\n"), text.rfind(b"\r\n\r\n")) + 2
        )
        if end < 2:
            self._rest[number] = text
            return
        self._rest[number] = text[end:]
        if ids := FRAME.findall(text, 0, end):
            self.received[number].append((now, ids))

    def frames(self) -> int:
        return sum(len(ids) for batches in self.received.values() for _, ids in batches)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self._poll.close()


def deliver(kind: str, subscribers: int, seconds: float, writers: int, *, patience: float) -> Delivery:
    """One run, checked frame by frame."""
    with tempfile.TemporaryDirectory(prefix="ft-") as directory:
        server = Server(kind, Path(directory), WRITERS if writers else 0)
        try:
            swarm = Swarm(server, subscribers)
            swarm.read(0.5, until=lambda: False)
            server.order(seconds, writers)
            start = time.monotonic()
            swarm.read(20 * seconds, until=lambda: bool(select.select([server.answered], [], [], 0)[0]))
            report = server.answer()
            expected = [seq for seq, _ in report["commits"]]
            total = len(expected) * subscribers
            swarm.read(patience, until=lambda: swarm.frames() >= total)
            frames = swarm.frames()
            last = max(now for batches in swarm.received.values() for now, _ in batches)
            latencies = _check(swarm, report["commits"], complete=kind == "ours")
            swarm.close()
        finally:
            server.close()
    return Delivery(
        server=kind,
        subscribers=subscribers,
        writers=writers,
        expected=total,
        frames=frames,
        frames_per_s=frames / (last - start),
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        worst_ms=latencies[-1] * 1e3,
        server_cores=report["cores"],
        other_commits_per_s=report["others_per_s"],
    )


def _check(swarm: Swarm, commits: Sequence[tuple[int, float]], *, complete: bool) -> list[float]:
    """Compare what each subscriber got with what was committed; the sorted latencies in seconds."""
    expected = [b"%d" % seq for seq, _ in commits]
    acknowledged = {b"%d" % seq: at for seq, at in commits}
    latencies: list[float] = []
    for batches in swarm.received.values():
        got = [each for _, ids in batches for each in ids]
        if got != expected[: len(got)] or (complete and len(got) != len(expected)):
            raise SystemExit(
                f"a subscriber got {len(got)} of {len(expected)} frames, or got them out of order"
            )
        latencies += [now - acknowledged[each] for now, ids in batches for each in ids]
    return sorted(latencies)


def idle(kind: str, subscribers: int) -> float:
    """KiB of the server's memory for each subscriber that waits."""
    with tempfile.TemporaryDirectory(prefix="ft-") as directory:
        server = Server(kind, Path(directory), 0)
        try:
            warm = Swarm(server, 50)
            warm.read(0.5, until=lambda: False)
            before = server.rss_kib()
            swarm = Swarm(server, subscribers)
            swarm.read(1.0, until=lambda: False)
            after = server.rss_kib()
            warm.close()
            swarm.close()
        finally:
            server.close()
    return (after - before) / subscribers


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", choices=("ours", "sse-starlette"), help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--writers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        asyncio.run(serve(options.serve, options.state, options.writers))
        return 0
    subscribers, seconds = (50, 2.0) if options.quick else (1000, 10.0)
    load = os.getloadavg()[0]
    runs = [
        deliver("ours", subscribers, seconds, 0, patience=10),
        deliver("ours", subscribers, seconds, WRITERS, patience=20),
        deliver("sse-starlette", subscribers, seconds, 0, patience=20),
    ]
    memory = {kind: idle(kind, subscribers) for kind in ("ours", "sse-starlette")}
    show(runs, memory, load)
    if options.json:
        document = {
            "runs": [asdict(run) for run in runs],
            "idle_kib": memory,
            "load_before": load,
            "targets": TARGETS,
        }
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


def show(runs: Sequence[Delivery], memory: dict[str, float], load: float) -> None:
    print(f"{RATE} events/s; load average before: {load:.1f}")
    print(
        f"{'server':<14} {'clients':>7} {'writers':>7} {'frames/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'worst':>8} {'cores':>6}"
    )
    for run in runs:
        print(
            f"{run.server:<14} {run.subscribers:>7} {run.writers:>7} {run.frames_per_s:>9.0f} {run.p50_ms:>8.1f}"
            f" {run.p99_ms:>8.1f} {run.worst_ms:>8.1f} {run.server_cores:>6.2f}"
        )
    print(f"saturated beside {runs[1].other_commits_per_s:.0f} other commits/s")
    print("idle subscriber:", ", ".join(f"{kind} {kib:.1f} KiB" for kind, kib in memory.items()))
    print(
        f"targets (ours): p99 under {TARGETS['p99_ms']:.0f} ms and under {TARGETS['saturated_p99_ms']:.0f} ms saturated,"
        f" under {TARGETS['server_cores']} core, under {TARGETS['idle_kib']:.0f} KiB idle"
    )


if __name__ == "__main__":
    sys.exit(main())
