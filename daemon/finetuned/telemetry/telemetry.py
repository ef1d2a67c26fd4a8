"""The sampler: looks at everything every few seconds, and keeps the newest look and the history."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import anyio
import anyio.to_thread

from finetuned.telemetry import history, holders, processes
from finetuned.telemetry.gpus import Gpu, GpuReader
from finetuned.telemetry.history import History, Point
from finetuned.telemetry.holders import CpuMeter, Holder, Usage
from finetuned.telemetry.host import Host, HostReader
from finetuned.telemetry.lag import LoopLag
from finetuned.telemetry.requests import RequestRecorder

log = logging.getLogger(__name__)

SAMPLE_S = 5.0
FIRST_SAMPLE_S = 1.0  # after the start, which needs the processor itself
GPU_TIMEOUT_S = 3.0  # a driver that hangs must not keep the rest from being seen
LOOK_TIMEOUT_S = 10.0

Key = tuple[str, int]  # job and number of an attempt
Attempts = Callable[[], Awaitable[Mapping[int, Key]]]


class Snapshot(NamedTuple):
    """One look. ``at`` is in microseconds since the epoch, ``monotonic`` in seconds for what is a rate.

    ``holders`` is by GPU, ``usage`` by attempt. ``lag_s`` is how late the event loop was at worst since the look
    before.
    """

    at: int
    monotonic: float
    host: Host
    gpus: tuple[Gpu, ...]
    driver: str | None
    holders: Mapping[str, tuple[Holder, ...]]
    usage: Mapping[Key, Usage]
    lag_s: float


class Trend(NamedTuple):
    """What the history says of the last ``seconds``: points of ``width`` seconds, which begin at ``Point.at``
    seconds since the epoch.
    """

    seconds: int
    width: float
    points: list[Point]


async def _no_attempts() -> Mapping[int, Key]:
    return {}


class Telemetry:
    """What is measured. ``attempts`` names ours by the pid of their runner."""

    def __init__(
        self,
        host: HostReader,
        gpus: GpuReader,
        attempts: Attempts = _no_attempts,
        *,
        table: Callable[[], processes.Table] = processes.read_table,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = RequestRecorder()
        self.lag = LoopLag()
        self.gpus_hang = False  # whether a look at the GPUs has begun, in its thread, and not ended
        self._host = host
        self._gpus = gpus
        self._attempts = attempts
        self._table = table
        self._clock = clock
        self._cpu = CpuMeter()
        self._history = History()
        self._newest: Snapshot | None = None
        self._seen: tuple[Gpu, ...] = ()
        self._wanted = anyio.Event()  # somebody waits for the first look
        self._looked = anyio.Event()
        self._gpu_threads = anyio.CapacityLimiter(1)
        self._looking = anyio.Lock()
        self._keeping = anyio.Lock()  # the history is read in a thread

    async def run(self) -> None:
        """Sample until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.lag.run)
            with anyio.move_on_after(FIRST_SAMPLE_S):
                await self._wanted.wait()
            said = ""
            while True:
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001 - whatever cannot be measured, the daemon goes on
                    if repr(error) != said:
                        said = repr(error)
                        log.warning(
                            "The machine cannot be looked at, another try follows every 5 s: %s", said
                        )
                else:
                    said = ""
                await anyio.sleep(SAMPLE_S)

    async def now(self) -> Snapshot:
        """The newest look; waits for the first. Raises ``TimeoutError`` if there is none within some seconds."""
        if self._newest is None:
            self._wanted.set()
            with anyio.fail_after(LOOK_TIMEOUT_S):
                return await self.after(None)
        return self._newest

    async def after(self, snapshot: Snapshot | None) -> Snapshot:
        """The newest look once there is one that is newer."""
        while self._newest is None or self._newest is snapshot:
            await self._looked.wait()
        return self._newest

    async def look(self) -> Snapshot:
        """Look, and remember it."""
        async with self._looking:
            attempts = await self._attempts()
            gpus = await self._look_at_gpus()
            snapshot = await anyio.to_thread.run_sync(self._measure, attempts, gpus)
            async with self._keeping:
                self._history.add(snapshot.monotonic, figures(snapshot, self._newest))
            self._newest = snapshot
            self._looked.set()
            self._looked = anyio.Event()
            return snapshot

    async def gpus_now(self) -> tuple[Gpu, ...]:
        """The GPUs as they are at this moment; the history does not hear of it."""
        async with self._looking:
            return await self._look_at_gpus()

    async def trend(self, *, seconds: int, points: int) -> Trend:
        """The last ``seconds`` in about ``points`` buckets at most."""
        now = self._clock()
        width = max(SAMPLE_S, seconds / points)
        if seconds > history.FINE_POINTS * SAMPLE_S:
            width = max(width, history.MINUTE_S)
        async with self._keeping:
            found = await anyio.to_thread.run_sync(
                lambda: history.in_buckets(self._history.since(now - seconds), width)
            )
        epoch = time.time() - now  # the history's clock is monotonic: the wall's may have been set meanwhile
        return Trend(
            seconds=seconds, width=width, points=[Point(each.at + epoch, each.figures) for each in found]
        )

    async def _look_at_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs; those seen last, with a problem, while their driver does not answer: it may never again."""
        if not self.gpus_hang:  # there is never a second one, :meth:`look` being alone
            with anyio.move_on_after(GPU_TIMEOUT_S):
                # Threads of its own: that the others are busy says nothing of the driver.
                self._seen = await anyio.to_thread.run_sync(
                    self._read_gpus, abandon_on_cancel=True, limiter=self._gpu_threads
                )
                return self._seen
        return tuple(
            Gpu(id=each.id, name=each.name, ordinal=each.ordinal, problem="its driver does not answer")
            for each in self._seen
        )

    def _read_gpus(self) -> tuple[Gpu, ...]:
        self.gpus_hang = True
        try:
            return self._gpus.read()
        finally:
            self.gpus_hang = False

    def _measure(self, attempts: Mapping[int, Key], gpus: tuple[Gpu, ...]) -> Snapshot:
        host, at = self._host.read(), self._clock()
        needed = bool(attempts) or any(gpu.processes for gpu in gpus)
        table = self._table() if needed else {}
        return Snapshot(
            at=time.time_ns() // 1000,
            monotonic=at,
            host=host,
            gpus=gpus,
            driver=self._gpus.driver,
            holders={gpu.id: holders.of_gpu(gpu, attempts, table) for gpu in gpus},
            usage=holders.usages(attempts, gpus, table, self._cpu, at),
            lag_s=self.lag.take_worst(),
        )


def figures(snapshot: Snapshot, before: Snapshot | None) -> dict[history.Key, float]:
    """What of a look goes into the history; rates need the look before."""
    host = snapshot.host
    found: dict[str, float | None] = {
        "cpu_utilization": host.cpu.utilization,
        "memory_used_bytes": host.memory.used,
        "swap_used_bytes": host.memory.swap_used,
        "disk_used_bytes": host.disk.used,
        "daemon_rss_bytes": host.daemon.rss,
        "loop_lag_seconds": snapshot.lag_s,
    }
    if before is not None and (passed := snapshot.monotonic - before.monotonic) > 0:
        received = host.network.received - before.host.network.received
        sent = host.network.sent - before.host.network.sent
        # An interface that went took its counters along.
        found["network_received_bytes_per_second"] = max(0, received) / passed
        found["network_sent_bytes_per_second"] = max(0, sent) / passed
    of_machine = {("", name): value for name, value in found.items() if value is not None}
    return of_machine | {
        (gpu.id, name): value
        for gpu in snapshot.gpus
        for name, value in _of_gpu(gpu).items()
        if value is not None
    }


def _of_gpu(gpu: Gpu) -> dict[str, float | None]:
    return {
        "utilization": gpu.utilization,
        "memory_used_bytes": gpu.memory_used,
        "temperature_celsius": gpu.temperature_celsius,
        "power_watts": gpu.power_watts,
    }
