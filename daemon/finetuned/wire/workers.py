"""The processes that work on jobs."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class EngineQueue(TypedDict):
    """How busy an engine is. ``kv_used`` is the share of its cache that is taken, null where it has no such cache.

    ``tokens`` counts all that it has computed or generated.
    """

    running: int
    waiting: int
    tokens: int
    kv_used: float | None
    adapters: list[str]


class Worker(TypedDict):
    """A live attempt and what its processes use together. ``pid`` is its runner's.

    ``cpu`` counts processors in use (2.5 is two and a half of them), ``rss_bytes`` pages that its processes share
    more than once, ``gpu_memory_bytes`` and ``gpu_memory_share`` (of all that the device has) are by device, where NVML tells. These and ``processes`` and ``threads`` are
    null until they were looked at. ``last_event_at`` is when its job was last heard of, ``silent_s`` how long ago;
    ``heartbeat_s`` is how long ago its process last showed that it lives. ``engine`` is null for all but engines that answer.
    """

    id: str
    object: Literal["worker"]
    job: str
    attempt: int
    kind: str
    name: str | None
    purpose: str
    state: str
    phase: str | None
    pid: int | None
    devices: list[str]
    starting_at: str | None
    started_at: str | None
    last_event_at: str | None
    silent_s: float
    heartbeat_s: float | None
    pids: list[int] | None
    processes: int | None
    threads: int | None
    rss_bytes: int | None
    cpu: float | None
    gpu_memory_bytes: dict[str, int] | None
    gpu_memory_share: dict[str, float] | None
    engine: EngineQueue | None


class ClearedGpu(TypedDict):
    """Memory of one GPU before the idle engines ended, and after."""

    id: str
    name: str
    total_bytes: int | None
    used_before_bytes: int | None
    used_after_bytes: int | None


class Cleared(TypedDict):
    """What became of ``POST /v1/workers/clear-gpu``. ``ended`` and ``asked`` are engines, by their jobs."""

    object: Literal["clearing"]
    ended: list[str]
    asked: list[str]
    gpus: list[ClearedGpu]
    freed_bytes: int
    message: str
