"""A fake of NVML, for tests and for machines without a GPU: what it answers is what was put in."""

from __future__ import annotations

from dataclasses import dataclass, field


class FakeNvmlError(Exception):
    """What the fake raises where NVML would."""


@dataclass
class FakeMemory:
    """Bytes."""

    total: int = 80 * 2**30
    used: int = 0


@dataclass
class FakeRates:
    """Percent."""

    gpu: int = 0
    memory: int = 0


@dataclass
class FakeProcess:
    """A process on a GPU."""

    pid: int
    usedGpuMemory: int | None = None  # noqa: N815 - NVML's own names


@dataclass
class FakeGpu:
    """One GPU. ``mute`` names the questions that it does not answer, without their ``nvmlDeviceGet``."""

    uuid: str
    name: str = "NVIDIA H200"
    memory: FakeMemory = field(default_factory=FakeMemory)
    rates: FakeRates = field(default_factory=FakeRates)
    celsius: int = 40
    milliwatts: int = 120_000
    limit_milliwatts: int = 700_000
    compute: list[FakeProcess] = field(default_factory=list)
    graphics: list[FakeProcess] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)


class FakeNvml:
    """NVML over ``gpus``. ``broken`` makes it fail to open; ``open`` counts what was opened and not closed."""

    NVMLError = FakeNvmlError

    def __init__(self, *gpus: FakeGpu, broken: bool = False) -> None:
        self.gpus = list(gpus)
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names, here and below
        """Open."""
        if self.broken:
            raise FakeNvmlError("Driver/library version mismatch")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close."""
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """The driver."""
        return "570.0"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many GPUs there are. Raises when it is ``broken``."""
        if self.broken:
            raise FakeNvmlError("Driver/library version mismatch")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        """The GPU itself."""
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: object) -> str:  # noqa: N802
        """Its id."""
        return self._gpu(handle).uuid

    def nvmlDeviceGetName(self, handle: object) -> str:  # noqa: N802
        """Its name."""
        return self._gpu(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> FakeMemory:  # noqa: N802
        """Its memory."""
        return self._gpu(handle, "MemoryInfo").memory

    def nvmlDeviceGetMinorNumber(self, handle: object) -> int:  # noqa: N802
        """The number of its device node."""
        return self.gpus.index(self._gpu(handle, "MinorNumber"))

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> FakeRates:  # noqa: N802
        """How busy it is."""
        return self._gpu(handle, "UtilizationRates").rates

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:  # noqa: N802, ARG002
        """How warm it is."""
        return self._gpu(handle, "Temperature").celsius

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:  # noqa: N802
        """What it draws."""
        return self._gpu(handle, "PowerUsage").milliwatts

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: object) -> int:  # noqa: N802
        """What it may draw."""
        return self._gpu(handle, "EnforcedPowerLimit").limit_milliwatts

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[FakeProcess]:  # noqa: N802
        """Who computes on it."""
        return self._gpu(handle, "ComputeRunningProcesses").compute

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: object) -> list[FakeProcess]:  # noqa: N802
        """Who draws on it."""
        return self._gpu(handle, "GraphicsRunningProcesses").graphics

    def _gpu(self, handle: object, question: str = "") -> FakeGpu:
        assert isinstance(handle, FakeGpu)
        if question in handle.mute:
            raise FakeNvmlError("Not Supported")
        return handle
