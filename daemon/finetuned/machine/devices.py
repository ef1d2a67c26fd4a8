"""The devices that this host schedules: its GPUs by NVML, else slots of its CPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from finetuned_sdk import Device

log = logging.getLogger(__name__)

CORES_PER_SLOT = 4
DRIVER_MARKS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


class Nvml(Protocol):
    """The part of ``pynvml`` that is used here; the boundary at which tests put a fake."""

    @property
    def NVMLError(self) -> type[Exception]: ...  # noqa: N802 - NVML's own names

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: object) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> MemoryInfo: ...  # noqa: N802


class MemoryInfo(Protocol):
    """NVML's answer about memory, in bytes."""

    @property
    def total(self) -> int: ...


def load_nvml(marks: Sequence[str] = DRIVER_MARKS) -> Nvml | None:
    """``pynvml`` where a driver is loaded, else ``None``: most hosts without a GPU never import it."""
    if not any(Path(mark).exists() for mark in marks):
        return None
    import pynvml  # noqa: PLC0415 - see above

    nvml: Nvml = pynvml
    return nvml


def detect(*, cpu_slots: int | None, nvml: Nvml | None) -> list[Device]:
    """All GPUs if NVML finds any, else slots of the CPU (one for every four cores).

    With ``cpu_slots`` set, that many slots of the CPU and no GPU.
    """
    gpus = list(_gpus(nvml)) if nvml is not None and cpu_slots is None else []
    return gpus or _cpu(cpu_slots)


def _gpus(nvml: Nvml) -> Iterator[Device]:
    try:
        nvml.nvmlInit()
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                yield Device(
                    id=f"gpu:{nvml.nvmlDeviceGetUUID(handle)}",
                    kind="gpu",
                    name=nvml.nvmlDeviceGetName(handle),
                    memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
                )
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        log.warning("A GPU driver is loaded, but NVML cannot list its GPUs: %s", error)


def _cpu(slots: int | None) -> list[Device]:
    count = slots if slots is not None else max(1, usable_cores() // CORES_PER_SLOT)
    memory = host_memory_bytes() // count
    return [
        Device(id=f"cpu:{n}", kind="cpu", name=f"CPU slot {n}", memory_bytes=memory) for n in range(count)
    ]


def usable_cores() -> int:
    """The cores that this process may use: not those of the machine when it is confined to fewer."""
    return len(os.sched_getaffinity(0))


def host_memory_bytes() -> int:
    """The host's physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The memory that could be had without anything being swapped out, as the kernel reckons; 0 if it does not tell."""
    with suppress(OSError, ValueError):
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def environment(devices: Sequence[str], *, slots: int) -> dict[str, str]:
    """What a worker's environment must say so that it uses these devices and no others.

    On a CPU slot the cores are shared out among the slots, and OpenMP waits without spinning: spinning on a core
    that another process has taken made single steps ten times slower.
    """
    gpus = [device.removeprefix("gpu:") for device in devices if device.startswith("gpu:")]
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // max(1, slots)))
    return {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    }
