from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned.machine import devices


class NvmlFailure(Exception):
    pass


class Memory:
    total = 80 * 2**30


class FakeNvml:
    """Two GPUs at NVML's boundary; ``broken`` makes it fail where a driver mismatch would."""

    NVMLError = NvmlFailure

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise NvmlFailure("driver/library version mismatch")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return index

    def nvmlDeviceGetUUID(self, handle: object) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: object) -> str:
        return "H200"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> Memory:
        return Memory()


def test_gpus_are_scheduled_where_nvml_finds_any() -> None:
    nvml = FakeNvml()
    found = devices.detect(cpu_slots=None, nvml=nvml)
    assert [(device.id, device.kind, device.name) for device in found] == [
        ("gpu:GPU-0", "gpu", "H200"),
        ("gpu:GPU-1", "gpu", "H200"),
    ]
    assert found[0].memory_bytes == 80 * 2**30
    assert nvml.open == 0


def test_cpu_slots_mean_the_cpu_also_where_there_are_gpus() -> None:
    found = devices.detect(cpu_slots=3, nvml=FakeNvml())
    assert [device.id for device in found] == ["cpu:0", "cpu:1", "cpu:2"]


def test_a_host_whose_nvml_fails_is_scheduled_by_its_cpu_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = devices.detect(cpu_slots=None, nvml=FakeNvml(broken=True))
    assert {device.kind for device in found} == {"cpu"}
    assert "driver/library version mismatch" in caplog.text


def test_there_is_at_least_one_cpu_slot_and_memory_is_shared_out() -> None:
    (slot,) = devices.detect(cpu_slots=1, nvml=None)
    assert slot.memory_bytes == devices.host_memory_bytes()
    assert len(devices.detect(cpu_slots=None, nvml=None)) == max(1, devices.usable_cores() // 4)


def test_pynvml_is_not_even_imported_where_no_driver_is_loaded(tmp_path: Path) -> None:
    assert devices.load_nvml([str(tmp_path / "nvidiactl")]) is None
    (tmp_path / "nvidiactl").touch()
    assert devices.load_nvml([str(tmp_path / "nvidiactl")]) is not None


def test_a_worker_sees_only_the_gpus_of_its_attempt() -> None:
    assert devices.environment(["gpu:GPU-1", "gpu:GPU-3"], slots=4) == {"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-3"}


def test_a_worker_on_a_cpu_slot_gets_its_share_of_the_cores_and_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    environment = devices.environment(["cpu:0"], slots=2)
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert devices.environment(["cpu:0"], slots=2)["OMP_NUM_THREADS"] == "1"
