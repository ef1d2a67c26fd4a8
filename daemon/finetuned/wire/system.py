"""The machine and the daemon, now and over time. Sizes are bytes, shares are 0 to 1."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Cpu(TypedDict):
    """The machine's processors. ``usable_cores`` are those that the daemon may use; ``utilization`` is the share of
    all cores that was used in the last seconds, null at the first look; ``load`` is over 1, 5 and 15 minutes.
    """

    cores: int
    usable_cores: int
    utilization: float | None
    load: list[float]


class Memory(TypedDict):
    """The machine's memory. ``available_bytes`` can be had without swapping; the rest is used."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int


class DiskTaken(TypedDict):
    """What of the disk is the daemon's own. ``unknown_bytes`` are files among the jobs' that the log does not know.

    ``cache_bytes`` are what trainings keep to spare later ones the work; nothing is lost with them.
    """

    log_bytes: int
    reserve_bytes: int
    datasets_bytes: int
    cache_bytes: int
    live_jobs_bytes: int
    ended_jobs_bytes: int
    unknown_bytes: int


class Disk(TypedDict):
    """The file system of the state directory. ``free_bytes`` is what the daemon may still write; ``taken`` is what it
    takes itself, looked at once a minute, and null before the first look.
    """

    path: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    taken: DiskTaken | None


class Network(TypedDict):
    """Bytes through all network interfaces but loopback since the machine's start."""

    received_bytes: int
    sent_bytes: int


class GpuHolder(TypedDict):
    """A process on a GPU. ``job`` and ``attempt`` are null for one that is not the daemon's; ``name`` and
    ``memory_bytes`` where they cannot be seen.
    """

    pid: int
    name: str | None
    memory_bytes: int | None
    job: str | None
    attempt: int | None


class Gpu(TypedDict):
    """A GPU and who is on it. A figure that it does not tell is null; ``problem`` says why it tells nothing."""

    id: str
    name: str
    index: int
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    utilization: float | None
    memory_utilization: float | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None
    problem: str | None
    holders: list[GpuHolder]


class Daemon(TypedDict):
    """The daemon's own process. ``log_head`` is the newest event's ``seq``; ``loop_lag_s`` how late its event loop was
    at worst in the last seconds; ``event_streams`` how many clients follow events.
    """

    version: str
    pid: int
    started_at: str | None
    uptime_s: float
    rss_bytes: int
    open_files: int
    max_open_files: int
    threads: int
    cpu_s: float
    log_head: int
    loop_lag_s: float
    event_streams: int


class System(TypedDict):
    """The machine and the daemon as they were seen ``at``, some seconds ago at most."""

    object: Literal["system"]
    at: str | None
    cpu: Cpu
    memory: Memory
    disk: Disk
    network: Network
    driver_version: str | None
    gpus: list[Gpu]
    daemon: Daemon


class HistorySeries(TypedDict):
    """One figure over time; ``device`` is a GPU's id, or null for the machine and the daemon.

    ``min``, ``mean`` and ``max`` have one value for each time of the history, null where it was not measured.
    """

    device: str | None
    figure: str
    min: list[float | None]
    mean: list[float | None]
    max: list[float | None]


class SystemHistory(TypedDict):
    """The machine over the last ``seconds``, in stretches of ``bucket_s``. ``at`` are their beginnings; stretches
    without any look are left out. Kept in memory: it begins with the daemon.
    """

    object: Literal["system_history"]
    seconds: int
    bucket_s: float
    at: list[str | None]
    series: list[HistorySeries]
