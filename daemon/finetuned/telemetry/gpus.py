"""One look at the GPUs by NVML. Each figure is asked for alone: what one GPU cannot tell spoils no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar, cast

from finetuned.machine import devices

log = logging.getLogger(__name__)

RETRY_LOOKS = 12  # looks without NVML after it failed, before it is tried again
TEMPERATURE_GPU = 0  # NVML_TEMPERATURE_GPU: the die

T = TypeVar("T")


class GpuMemory(devices.MemoryInfo, Protocol):
    """Bytes."""

    @property
    def used(self) -> int: ...


class Rates(Protocol):
    """Percent of the last moments in which a kernel ran, or memory was read or written."""

    @property
    def gpu(self) -> int: ...
    @property
    def memory(self) -> int: ...


class ProcessInfo(Protocol):
    """A process on a GPU; NVML may not know its memory."""

    @property
    def pid(self) -> int: ...
    @property
    def usedGpuMemory(self) -> int | None: ...  # noqa: N802 - NVML's own names


class Nvml(devices.Nvml, Protocol):
    """The part of ``pynvml`` that is used here; the boundary at which tests put a fake."""

    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> GpuMemory: ...  # noqa: N802
    def nvmlDeviceGetMinorNumber(self, handle: object) -> int: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: object) -> Rates: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: object) -> int: ...  # noqa: N802
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: object) -> int: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> Sequence[ProcessInfo]: ...  # noqa: N802
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: object) -> Sequence[ProcessInfo]: ...  # noqa: N802


class GpuProcess(NamedTuple):
    """A process that holds a GPU, and the memory it has there, if that is known."""

    pid: int
    memory: int | None


class Gpu(NamedTuple):
    """One GPU. Shares are from 0 to 1; ``None`` where it does not tell. ``problem`` says why it answers nothing."""

    id: str
    name: str
    ordinal: int  # NVML's index
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    minor: int | None = None  # of its device node: /dev/nvidia0 is 0
    problem: str | None = None


def load() -> Nvml | None:
    """NVML on a host where a driver is loaded, else ``None``."""
    return cast("Nvml | None", devices.load_nvml())


class GpuReader:
    """Looks at the GPUs. Keeps NVML open between looks: without persistence mode opening it takes a second.

    ``load`` gives NVML, or ``None`` on a host without a driver; it is asked at the first look.
    """

    def __init__(self, load: Callable[[], Nvml | None]) -> None:
        self._load = load
        self._nvml: Nvml | None = None
        self._loaded = False
        self._open = False
        self._rest = 0  # looks to let pass before NVML is tried again
        self.driver: str | None = None

    def read(self) -> tuple[Gpu, ...]:
        """Look now; nothing if there are no GPUs, or their driver fails (the log says so, once)."""
        if not self._loaded:
            self._nvml, self._loaded = self._load(), True
        if self._nvml is None:
            return ()
        if self._rest:
            self._rest -= 1
            return ()
        try:
            self._begin(self._nvml)
            return tuple(_read(self._nvml, index) for index in range(self._nvml.nvmlDeviceGetCount()))
        except self._nvml.NVMLError as error:
            log.warning("NVML fails, and is tried again later: %s", error)
            self.close()
            self._rest = RETRY_LOOKS
            return ()

    def close(self) -> None:
        """Let go of the driver; the next look opens it again."""
        nvml, self._open = (self._nvml if self._open else None), False
        if nvml is not None:
            _told(nvml, nvml.nvmlShutdown)

    def _begin(self, nvml: Nvml) -> None:
        if not self._open:
            nvml.nvmlInit()
            self._open = True
            self.driver = nvml.nvmlSystemGetDriverVersion()


def _read(nvml: Nvml, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    gpu_id, name = f"gpu:{nvml.nvmlDeviceGetUUID(handle)}", nvml.nvmlDeviceGetName(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:  # it fell off its bus, or waits for a reset
        return Gpu(id=gpu_id, name=name, ordinal=index, problem=str(error))
    rates = _told(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    power = _told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = _told(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return Gpu(
        id=gpu_id,
        name=name,
        ordinal=index,
        memory_total=memory.total,
        memory_used=memory.used,
        utilization=None if rates is None else rates.gpu / 100,
        memory_utilization=None if rates is None else rates.memory / 100,
        temperature_celsius=_told(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, TEMPERATURE_GPU)),
        power_watts=None if power is None else power / 1000,
        power_limit_watts=None if limit is None else limit / 1000,
        processes=_processes(nvml, handle),
        minor=_told(nvml, lambda: nvml.nvmlDeviceGetMinorNumber(handle)),
    )


def _processes(nvml: Nvml, handle: object) -> tuple[GpuProcess, ...]:
    """Who computes or draws on a GPU; who does both is named once."""
    found: dict[int, GpuProcess] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for each in _told(nvml, partial(ask, handle)) or ():
            found.setdefault(each.pid, GpuProcess(pid=each.pid, memory=each.usedGpuMemory))
    return tuple(found.values())


def _told(nvml: Nvml, ask: Callable[[], T]) -> T | None:
    """The answer; ``None`` where this GPU, or this user, gets none."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
