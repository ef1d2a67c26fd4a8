from __future__ import annotations

from finetuned.telemetry import holders
from finetuned.telemetry.gpus import Gpu, GpuProcess
from finetuned.telemetry.holders import CpuMeter, Holder
from finetuned.telemetry.processes import Process

JOB = ("job-1", 2)


def process(pid: int, parent: int, *, cpu_s: float = 0.0, started: int = 0) -> Process:
    return Process(
        pid=pid, name=f"p{pid}", parent=parent, session=1, started=started, cpu_s=cpu_s, threads=3, rss=100
    )


def table(*found: Process) -> dict[int, Process]:
    return {each.pid: each for each in found}


def gpu(*found: GpuProcess, name: str = "gpu:a") -> Gpu:
    return Gpu(id=name, name="H200", ordinal=0, processes=found)


def test_a_gpu_is_held_by_our_attempt_by_a_stranger_and_by_one_that_cannot_be_seen() -> None:
    seen = table(process(10, 1), process(11, 10), process(50, 1))
    busy = gpu(GpuProcess(pid=11, memory=7), GpuProcess(pid=50, memory=None), GpuProcess(pid=99, memory=9))
    assert holders.of_gpu(busy, {10: JOB}, seen) == (
        Holder(pid=11, name="p11", memory=7, attempt=JOB),
        Holder(pid=50, name="p50", memory=None, attempt=None),
        Holder(pid=99, name=None, memory=9, attempt=None),  # of another container
    )


def test_an_attempt_uses_what_its_processes_use_together() -> None:
    seen = table(process(10, 1), process(11, 10), process(12, 11), process(50, 1))
    a = gpu(GpuProcess(pid=11, memory=7), GpuProcess(pid=12, memory=3), GpuProcess(pid=50, memory=500))
    b = gpu(GpuProcess(pid=12, memory=None), name="gpu:b")
    found = holders.usages({10: JOB}, [a, b], seen, CpuMeter(), 0.0)
    usage = found[JOB]
    assert (usage.pid, usage.processes, usage.rss, usage.threads) == (10, 3, 300, 9)
    assert usage.gpu_memory == {"gpu:a": 10}


def test_an_attempt_whose_runner_is_gone_uses_nothing_that_could_be_told() -> None:
    assert holders.usages({10: JOB}, [], table(process(50, 1)), CpuMeter(), 0.0) == {}


def test_processors_in_use_are_told_at_the_second_look_and_count_those_that_came_since() -> None:
    meter = CpuMeter()
    assert meter.measure(100.0, {10: [process(10, 1, cpu_s=5)]}) == {10: None}
    members = [process(10, 1, cpu_s=15), process(11, 10, cpu_s=4)]
    assert meter.measure(104.0, {10: members}) == {10: 3.5}


def test_a_pid_that_another_process_has_now_is_not_taken_for_the_old_one() -> None:
    meter = CpuMeter()
    meter.measure(0.0, {10: [process(10, 1, cpu_s=500, started=1)]})
    assert meter.measure(1.0, {10: [process(10, 1, cpu_s=1, started=2)]}) == {10: None}
