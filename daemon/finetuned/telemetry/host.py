"""One look at the machine and at the daemon's own process. Takes some milliseconds; call it in a thread."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any, NamedTuple

from finetuned.machine import devices


class Cpu(NamedTuple):
    """The machine's processors. ``utilization`` is the share of their time that was used since the last look, 0 to 1;
    ``None`` at the first. ``load`` is the kernel's over 1, 5 and 15 minutes.
    """

    cores: int
    usable_cores: int
    utilization: float | None
    load: tuple[float, float, float]


class Memory(NamedTuple):
    """The machine's memory in bytes. ``available`` can be had without swapping."""

    total: int
    available: int
    swap_total: int
    swap_used: int

    @property
    def used(self) -> int:
        """What cannot be had."""
        return self.total - self.available


class Disk(NamedTuple):
    """The file system of the state directory, in bytes. ``free`` is what the daemon's user may still write."""

    path: str
    total: int
    used: int
    free: int


class Network(NamedTuple):
    """Bytes through all network interfaces but loopback since the machine's start."""

    received: int
    sent: int


class OwnProcess(NamedTuple):
    """The daemon itself. ``cpu_s``: processor time since its start; ``started`` in seconds since the epoch."""

    pid: int
    rss: int
    open_files: int
    max_files: int
    threads: int
    cpu_s: float
    started: float


class Host(NamedTuple):
    """One look."""

    cpu: Cpu
    memory: Memory
    disk: Disk
    network: Network
    daemon: OwnProcess


class HostReader:
    """Looks at the machine; remembers the last look for what is a rate."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._cpu_times: tuple[float, float] | None = None  # busy and all, in seconds since boot

    def read(self) -> Host:
        """Look now. Raises ``OSError`` if the machine does not say."""
        import psutil  # noqa: PLC0415 - 12 ms of the daemon's start

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        disk = psutil.disk_usage(str(self._state_dir))
        return Host(
            cpu=Cpu(
                cores=psutil.cpu_count() or 1,
                usable_cores=devices.usable_cores(),
                utilization=self._utilization(psutil.cpu_times()),
                load=os.getloadavg(),
            ),
            memory=Memory(
                total=memory.total, available=memory.available, swap_total=swap.total, swap_used=swap.used
            ),
            disk=Disk(path=str(self._state_dir), total=disk.total, used=disk.used, free=disk.free),
            network=_network(psutil.net_io_counters(pernic=True)),
            daemon=_own(psutil.Process()),
        )

    def _utilization(self, times: Any) -> float | None:
        # The kernel counts a guest's time as the user's already.
        total: float = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy: float = total - times.idle - getattr(times, "iowait", 0.0)
        before, self._cpu_times = self._cpu_times, (busy, total)
        if before is None or total <= before[1]:
            return None
        return min(1.0, max(0.0, (busy - before[0]) / (total - before[1])))


def _network(interfaces: dict[str, Any]) -> Network:
    outside = [counters for name, counters in interfaces.items() if name != "lo"]
    return Network(
        received=sum(each.bytes_recv for each in outside), sent=sum(each.bytes_sent for each in outside)
    )


def _own(process: Any) -> OwnProcess:
    with process.oneshot():
        times = process.cpu_times()
        return OwnProcess(
            pid=process.pid,
            rss=process.memory_info().rss,
            open_files=process.num_fds(),
            max_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            threads=process.num_threads(),
            cpu_s=times.user + times.system,
            started=process.create_time(),
        )
