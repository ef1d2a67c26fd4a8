"""The processes that work on jobs."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Worker(TypedDict):
    """A live attempt and what its processes use together. ``pid`` is its runner's.

    ``cpu`` counts processors in use (2.5 is two and a half of them), ``rss_bytes`` pages that its processes share
    more than once, ``gpu_memory_bytes`` is by device, where NVML tells. These and ``processes`` and ``threads`` are
    null until they were looked at. ``last_event_at`` is when its job was last heard of, ``silent_s`` how long ago.
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
    processes: int | None
    threads: int | None
    rss_bytes: int | None
    cpu: float | None
    gpu_memory_bytes: dict[str, int] | None
