"""The sampler over a real machine, a fake NVML and a fake clock."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from finetuned.telemetry import telemetry
from finetuned.telemetry.gpus import GpuReader
from finetuned.telemetry.host import Host, HostReader, Network
from finetuned.telemetry.processes import Process
from finetuned.telemetry.telemetry import Telemetry, figures
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml, FakeProcess, FakeRates

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    async def look(condition: Callable[[], object]) -> None:
        with anyio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - no event comes from there
                await anyio.sleep(0.01)

    return look


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Host1(HostReader):
    """This machine, with traffic as it is set; ``broken`` fails as a /proc that is not there."""

    received = 0
    broken = False
    looks = 0

    def read(self) -> Host:
        self.looks += 1
        if self.broken:
            raise FileNotFoundError("/proc/stat")
        return super().read()._replace(network=Network(received=self.received, sent=0))


@dataclass
class Rig:
    telemetry: Telemetry
    host: Host1
    clock: Clock
    gpu: FakeGpu


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    gpu, clock, host = FakeGpu("GPU-a"), Clock(), Host1(tmp_path)

    async def attempts() -> Mapping[int, tuple[str, int]]:
        return {10: ("job-1", 1)}

    def table() -> dict[int, Process]:
        return {
            pid: Process(
                pid=pid, name="python", parent=parent, session=1, started=1, cpu_s=1, threads=2, rss=50
            )
            for pid, parent in ((10, 1), (11, 10), (60, 1))
        }

    return Rig(
        Telemetry(host, GpuReader(lambda: FakeNvml(gpu)), attempts, table=table, clock=clock),
        host,
        clock,
        gpu,
    )


async def test_who_asks_before_the_first_look_waits_for_it_and_the_next_ones_get_the_same(
    rig: Rig, no_blocking: None
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.telemetry.run)
        first = await rig.telemetry.now()
        assert await rig.telemetry.now() is first
        tasks.cancel_scope.cancel()


async def test_who_asks_a_sampler_that_never_looked_is_told_after_a_while(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "LOOK_TIMEOUT_S", 0)
    with pytest.raises(TimeoutError):
        await rig.telemetry.now()


async def test_a_driver_that_hangs_keeps_nothing_else_from_being_seen_and_is_asked_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(telemetry, "GPU_TIMEOUT_S", 0.05)
    answers, asked = threading.Event(), 0
    await rig.telemetry.look()

    def hang(_handle: object) -> FakeMemory:
        nonlocal asked
        asked += 1
        answers.wait(20)
        return FakeMemory()

    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetMemoryInfo", staticmethod(hang))
    try:
        for _ in range(3):
            found = await rig.telemetry.look()
            assert [(gpu.id, gpu.problem) for gpu in found.gpus] == [
                ("gpu:GPU-a", "its driver does not answer")
            ]
            assert found.host.memory.total > 0
        assert asked == 1
    finally:
        answers.set()
    await until(lambda: not rig.telemetry.gpus_hang)
    assert (await rig.telemetry.look()).gpus[0].problem is None


async def test_a_driver_is_asked_while_all_threads_of_the_daemon_are_busy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "GPU_TIMEOUT_S", 20)
    threads = anyio.to_thread.current_default_thread_limiter()
    free = int(threads.available_tokens)
    everybody = [object() for _ in range(free)]
    for each in everybody:
        threads.acquire_on_behalf_of_nowait(each)
    try:
        with anyio.fail_after(10):
            (gpu,) = await rig.telemetry._look_at_gpus()
    finally:
        for each in everybody:
            threads.release_on_behalf_of(each)
    assert (gpu.id, gpu.problem) == ("gpu:GPU-a", None)


async def test_a_look_that_no_thread_took_leaves_no_driver_that_hangs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "GPU_TIMEOUT_S", 0)
    await rig.telemetry._look_at_gpus()
    monkeypatch.setattr(telemetry, "GPU_TIMEOUT_S", 20)
    assert not rig.telemetry.gpus_hang
    assert [each.problem for each in (await rig.telemetry.look()).gpus] == [None]


async def test_a_look_joins_gpus_their_holders_and_the_attempts_use(rig: Rig) -> None:
    rig.gpu.compute = [FakeProcess(11, 300), FakeProcess(60, 40)]
    found = await rig.telemetry.look()
    assert [(each.pid, each.name, each.attempt) for each in found.holders["gpu:GPU-a"]] == [
        (11, "python", ("job-1", 1)),
        (60, "python", None),
    ]
    usage = found.usage["job-1", 1]
    assert (usage.processes, usage.rss, usage.gpu_memory) == (2, 100, {"gpu:GPU-a": 300})
    assert found.driver == "570.0"


async def test_the_history_holds_the_machine_and_each_gpu(rig: Rig) -> None:
    for percent in (10, 90):
        rig.gpu.rates = FakeRates(gpu=percent)
        rig.clock.now += 5
        await rig.telemetry.look()
    trend = await rig.telemetry.trend(seconds=60, points=1)
    ranges = [point.figures["gpu:GPU-a", "utilization"] for point in trend.points]
    assert (min(each.low for each in ranges), max(each.high for each in ranges)) == (0.1, 0.9)
    assert ("", "memory_used_bytes") in trend.points[0].figures


async def test_rates_are_per_second_between_two_looks_and_never_negative(rig: Rig) -> None:
    rate = ("", "network_received_bytes_per_second")
    before = await rig.telemetry.look()
    assert rate not in figures(before, None)
    rig.clock.now += 4
    rig.host.received = 1000
    after = await rig.telemetry.look()
    assert figures(after, before)[rate] == 250
    assert figures(before._replace(monotonic=after.monotonic + 1), after)[rate] == 0


async def test_a_look_back_is_as_fine_as_was_asked_but_no_finer_than_what_is_kept(rig: Rig) -> None:
    await rig.telemetry.look()
    for seconds, points, width in ((60, 6, 10), (60, 1000, 5), (86400, 10_000, 60)):
        assert (await rig.telemetry.trend(seconds=seconds, points=points)).width == width


async def test_a_machine_that_cannot_be_looked_at_ends_nothing_and_is_told_of_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    monkeypatch.setattr(telemetry, "FIRST_SAMPLE_S", 0)
    monkeypatch.setattr(telemetry, "SAMPLE_S", 0.001)
    rig.host.broken = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.telemetry.run)
        await until(lambda: rig.host.looks > 3)
        assert caplog.text.count("cannot be looked at") == 1
        rig.host.broken = False
        await rig.telemetry.now()
        tasks.cancel_scope.cancel()
