"""Chat through the daemon beside the bare engine: what the way through the daemon adds to an answer.

``python bench/chat_bench.py --json FILE [--quick]``. The engine, the daemon and the client are processes of their own. The
engine is the fake one, which takes no time of its own, so that nothing hides what is added. Each question goes to the
engine's own socket and then, as HTTP on the Unix socket, to the daemon, one after the other, so that neighbours on the machine
disturb both alike; every answer is compared with what the engine must say. *at once* is how many ask at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WORDS = "the quick brown fox jumps over the lazy dog and comes back again to rest"  # 15 words, 15 tokens
TARGET_MS = 3.0
AT_ONCE = (1, 8)


@dataclass
class Added:
    """Milliseconds. ``added_p50_ms`` is the difference of the two medians."""

    what: str
    at_once: int
    requests: int
    engine_p50_ms: float
    engine_p99_ms: float
    daemon_p50_ms: float
    daemon_p99_ms: float
    added_p50_ms: float


# ---- the servers -----------------------------------------------------------------------------------------


async def serve_engine(path: Path) -> None:
    from finetuned_sdk.engines.host import listening
    from finetuned_sdk.fake_engine import FakeEngine, FakeEngineParams

    async with listening(path, FakeEngine(FakeEngineParams(model="any", at_once=64))):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def serve_daemon(state: Path, engine: Path) -> None:
    from finetuned.testing import serve_house

    async with serve_house(state) as house:
        house.engines.path = engine
        print(house.addresses.socket, flush=True)
        await asyncio.Event().wait()


@contextmanager
def child(*arguments: str) -> Iterator[str]:
    """This program as a server; the line that it prints once it serves."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


# ---- the client ------------------------------------------------------------------------------------------


def body(model: Path, *, stream: bool) -> dict[str, Any]:
    return {"model": str(model), "messages": [{"role": "user", "content": WORDS}], "stream": stream}


class Http:
    """One keep-alive connection, read no further than need be: what is measured is the server and not the client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, model: Path) -> None:
        self._reader, self._writer = reader, writer
        self._requests = {stream: self._request(body(model, stream=stream)) for stream in (False, True)}

    @staticmethod
    def _request(document: dict[str, Any]) -> bytes:
        content = json.dumps(document).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
        )

    async def whole(self) -> None:
        head = await self._ask(stream=False)
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await self._reader.readexactly(length))
        assert answer["choices"][0]["message"]["content"] == WORDS

    async def first(self) -> float:
        """The time of the first chunk; the rest is read, too."""
        await self._ask(stream=True)
        first = 0.0
        while size := int(await self._reader.readline(), 16):
            chunk = await self._reader.readexactly(size + 2)
            if not first:
                first = time.perf_counter()
                assert chunk.startswith(b"data: {")
        await self._reader.readline()
        return first

    async def streamed(self) -> None:
        await self.first()

    async def _ask(self, *, stream: bool) -> bytes:
        self._writer.write(self._requests[stream])
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head.splitlines()[0], head
        return head


class Bare:
    """The engine's own socket."""

    def __init__(self, client: Any, model: Path) -> None:
        from finetuned_sdk.engines import Request

        self._client = client
        self._requests = {
            stream: Request(endpoint="/v1/chat/completions", body=body(model, stream=stream))
            for stream in (False, True)
        }

    async def whole(self) -> None:
        answer = await self._client.answer(self._requests[False])
        assert answer["choices"][0]["message"]["content"] == WORDS

    async def first(self) -> float:
        first = 0.0
        async with self._client.ask(self._requests[True]) as parts:
            async for _ in parts:
                first = first or time.perf_counter()
        return first

    async def streamed(self) -> None:
        await self.first()


async def timed(ask: Callable[[], Awaitable[float | None]]) -> float:
    """How long until the answer, or its first chunk, was there, in milliseconds."""
    begun = time.perf_counter()
    at = await ask()
    return 1000 * ((at or time.perf_counter()) - begun)


async def measure(what: str, bare: list[Bare], daemon: list[Http], requests: int) -> Added:
    at_once = len(bare)
    engine_ms: list[float] = []
    daemon_ms: list[float] = []
    for number in range(requests // at_once + 10):
        for side, found in ((bare, engine_ms), (daemon, daemon_ms)):
            times = await asyncio.gather(*(timed(getattr(each, what)) for each in side))
            if number >= 10:  # the first warm up
                found.extend(times)
    engine_p50, daemon_p50 = statistics.median(engine_ms), statistics.median(daemon_ms)
    return Added(
        what,
        at_once,
        len(daemon_ms),
        engine_p50,
        statistics.quantiles(engine_ms, n=100)[98],
        daemon_p50,
        statistics.quantiles(daemon_ms, n=100)[98],
        daemon_p50 - engine_p50,
    )


async def run(directory: Path, engine: Path, socket: str, requests: int) -> list[Added]:
    from finetuned_sdk.engines import connect

    model = directory / "model"
    model.mkdir()
    results = []
    async with connect(engine) as client:
        for at_once in AT_ONCE:
            connections = [await asyncio.open_unix_connection(socket) for _ in range(at_once)]
            daemon = [Http(*each, model) for each in connections]
            bare = [Bare(client, model) for _ in range(at_once)]
            results += [
                await measure(what, bare, daemon, requests) for what in ("whole", "first", "streamed")
            ]
            for _, writer in connections:
                writer.close()
    return results


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--daemon", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import uvloop  # as the daemon has

    if options.daemon:
        with suppress(KeyboardInterrupt):
            uvloop.run(serve_daemon(options.daemon, options.engine))
        return 0
    if options.engine:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve_engine(options.engine))
        return 0
    requests, load = 200 if options.quick else 2000, os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ft-") as scratch:
        directory = Path(scratch)
        engine, state = directory / "engine.sock", directory / "state"
        state.mkdir()
        with (
            child("--engine", str(engine)) as ready,
            child("--daemon", str(state), "--engine", str(engine)) as socket,
        ):
            assert ready == "ready"
            results = uvloop.run(run(directory, engine, socket, requests))
    print(f"a fake engine, answers of 15 tokens; load average before: {load:.1f}")
    print(
        f"{'answer':<10} {'at once':>8} {'engine p50':>11} {'daemon p50':>11} {'added p50':>10} {'daemon p99':>11}"
    )
    for each in results:
        met = (
            ""
            if each.at_once > 1
            else f"  {'met' if each.added_p50_ms < TARGET_MS else 'MISSED'}: under {TARGET_MS:g}"
        )
        print(
            f"{each.what:<10} {each.at_once:>8} {each.engine_p50_ms:>11.2f} {each.daemon_p50_ms:>11.2f}"
            f" {each.added_p50_ms:>10.2f} {each.daemon_p99_ms:>11.2f}{met}"
        )
    if options.json:
        document = {"added": [asdict(each) for each in results], "load_before": load, "target_ms": TARGET_MS}
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
