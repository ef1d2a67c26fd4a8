"""Who holds each GPU, and what each attempt uses: NVML's processes and the process table put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from finetuned.telemetry import processes
from finetuned.telemetry.gpus import Gpu
from finetuned.telemetry.processes import Process, Table

Key = tuple[str, int]  # job and number of an attempt


class Holder(NamedTuple):
    """A process on a GPU. ``attempt`` is ours if it is one of ours; ``name`` is ``None`` if it cannot be seen."""

    pid: int
    name: str | None
    memory: int | None
    attempt: Key | None


class Usage(NamedTuple):
    """What the processes of one attempt use together. ``cpu`` counts processors: 2.5 is two and a half of them.

    It is ``None`` until it was looked at twice. ``rss`` counts pages that they share more than once.
    ``gpu_memory`` is by device, in bytes, where NVML tells.
    """

    pid: int
    processes: int
    rss: int
    threads: int
    cpu: float | None
    gpu_memory: Mapping[str, int]
    pids: tuple[int, ...] = ()


@dataclass(slots=True)
class CpuMeter:
    """Turns processor time into processors in use. ``at`` is when it was last looked, in seconds."""

    at: float | None = None
    used: dict[tuple[int, int], float] = field(default_factory=dict)  # by pid and start

    def measure(self, at: float, families: Mapping[int, Iterable[Process]]) -> dict[int, float | None]:
        """Processors in use by each family since the last look; ``None`` for one that is new."""
        before, passed = self.used, None if self.at is None else at - self.at
        self.at = at
        self.used = {
            (each.pid, each.started): each.cpu_s for members in families.values() for each in members
        }
        return {root: _share(members, before, passed) for root, members in families.items()}


def _share(
    members: Iterable[Process], before: Mapping[tuple[int, int], float], passed: float | None
) -> float | None:
    mine = list(members)
    if not passed or not any((each.pid, each.started) in before for each in mine):
        return None
    # One that is new has used all its time since the last look.
    return sum(each.cpu_s - before.get((each.pid, each.started), 0.0) for each in mine) / passed


def of_gpu(gpu: Gpu, attempts: Mapping[int, Key], table: Table) -> tuple[Holder, ...]:
    """The processes on a GPU. ``attempts`` are ours, by the pid of their runner."""
    holders = []
    for each in gpu.processes:
        root = processes.owner(each.pid, attempts, table)
        seen = table.get(each.pid)
        holders.append(
            Holder(
                pid=each.pid,
                name=None if seen is None else seen.name,
                memory=each.memory,
                attempt=None if root is None else attempts[root],
            )
        )
    return tuple(holders)


def usages(
    attempts: Mapping[int, Key], gpus: Iterable[Gpu], table: Table, meter: CpuMeter, at: float
) -> dict[Key, Usage]:
    """What each attempt uses whose runner is alive."""
    families = processes.families(attempts, table)
    shares = meter.measure(at, families)
    on_gpus = list(gpus)
    return {
        attempts[root]: Usage(
            pid=root,
            processes=len(members),
            rss=sum(each.rss for each in members),
            threads=sum(each.threads for each in members),
            cpu=shares[root],
            gpu_memory=_gpu_memory({each.pid for each in members}, on_gpus),
            pids=tuple(sorted(each.pid for each in members)),
        )
        for root, members in families.items()
        if members
    }


def _gpu_memory(pids: set[int], gpus: Iterable[Gpu]) -> dict[str, int]:
    found: dict[str, int] = {}
    for gpu in gpus:
        known = [each.memory for each in gpu.processes if each.pid in pids and each.memory is not None]
        if known:
            found[gpu.id] = sum(known)
    return found
