"""How the machine and the workers look to the outside. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetuned import views, wire
from finetuned.commands.workers import Clearing
from finetuned.queries.observation import Worker
from finetuned.storage.inventory import Taken
from finetuned.telemetry.gpus import Gpu
from finetuned.telemetry.history import Key, Point
from finetuned.telemetry.holders import Holder
from finetuned.telemetry.telemetry import Snapshot, Trend
from finetuned_sdk.engines import EngineStatus

if TYPE_CHECKING:
    from finetuned.wire import system as shapes


def system(
    each: Snapshot,
    *,
    version: str,
    uptime_s: float,
    log_head: int,
    event_streams: int,
    taken: Taken | None = None,
) -> wire.System:
    """The machine and the daemon as ``GET /v1/system`` shows them."""
    host, own = each.host, each.host.daemon
    return {
        "object": "system",
        "at": views.time(each.at),
        "cpu": {
            "cores": host.cpu.cores,
            "usable_cores": host.cpu.usable_cores,
            "utilization": _rounded(host.cpu.utilization),
            "load": [round(value, 2) for value in host.cpu.load],
        },
        "memory": {
            "total_bytes": host.memory.total,
            "used_bytes": host.memory.used,
            "available_bytes": host.memory.available,
            "swap_total_bytes": host.memory.swap_total,
            "swap_used_bytes": host.memory.swap_used,
        },
        "disk": {
            "path": host.disk.path,
            "total_bytes": host.disk.total,
            "used_bytes": host.disk.used,
            "free_bytes": host.disk.free,
            "taken": None if taken is None else _taken(taken),
        },
        "network": {"received_bytes": host.network.received, "sent_bytes": host.network.sent},
        "driver_version": each.driver,
        "gpus": [gpu(one, each.holders.get(one.id, ())) for one in each.gpus],
        "daemon": {
            "version": version,
            "pid": own.pid,
            "started_at": views.time(round(own.started * 1_000_000)),
            "uptime_s": round(uptime_s, 3),
            "rss_bytes": own.rss,
            "open_files": own.open_files,
            "max_open_files": own.max_files,
            "threads": own.threads,
            "cpu_s": round(own.cpu_s, 2),
            "log_head": log_head,
            "loop_lag_s": round(each.lag_s, 6),
            "event_streams": event_streams,
        },
    }


def _taken(each: Taken) -> shapes.DiskTaken:
    return {
        "log_bytes": each.log,
        "reserve_bytes": each.reserve,
        "datasets_bytes": each.datasets,
        "cache_bytes": each.cache,
        "live_jobs_bytes": each.live_jobs,
        "ended_jobs_bytes": each.ended_jobs,
        "unknown_bytes": each.unknown_jobs,
    }


def gpu(each: Gpu, holders: Sequence[Holder]) -> shapes.Gpu:
    """A GPU and who is on it."""
    return {
        "id": each.id,
        "name": each.name,
        "index": each.ordinal,
        "memory_total_bytes": each.memory_total,
        "memory_used_bytes": each.memory_used,
        "utilization": each.utilization,
        "memory_utilization": each.memory_utilization,
        "temperature_celsius": each.temperature_celsius,
        "power_watts": each.power_watts,
        "power_limit_watts": each.power_limit_watts,
        "problem": each.problem,
        "holders": [
            {
                "pid": one.pid,
                "name": one.name,
                "memory_bytes": one.memory,
                "job": None if one.attempt is None else one.attempt[0],
                "attempt": None if one.attempt is None else one.attempt[1],
            }
            for one in holders
        ],
    }


def history(each: Trend) -> wire.SystemHistory:
    """The machine over time, one list a figure."""
    keys = sorted({key for point in each.points for key in point.figures})
    return {
        "object": "system_history",
        "seconds": each.seconds,
        "bucket_s": each.width,
        "at": [views.time(round(point.at * 1_000_000)) for point in each.points],
        "series": [_series(key, each.points) for key in keys],
    }


def _series(key: Key, points: Sequence[Point]) -> shapes.HistorySeries:
    found = [point.figures.get(key) for point in points]
    return {
        "device": key[0] or None,
        "figure": key[1],
        "min": [None if one is None else _rounded(one.low) for one in found],
        "mean": [None if one is None else _rounded(one.mean) for one in found],
        "max": [None if one is None else _rounded(one.high) for one in found],
    }


def worker(each: Worker, *, now: int) -> wire.Worker:
    """A live attempt. ``now`` is in microseconds since the epoch."""
    job, attempt, usage = each.job, each.attempt, each.usage
    return {
        "id": f"{job.id}/{attempt.number}",
        "object": "worker",
        "job": job.id,
        "attempt": attempt.number,
        "kind": job.kind,
        "name": job.name,
        "purpose": attempt.purpose,
        "state": job.state.value,
        "phase": job.phase,
        "pid": attempt.pid,
        "devices": attempt.devices,
        "starting_at": views.time(attempt.starting_at),
        "started_at": views.time(attempt.started_at),
        "last_event_at": views.time(job.updated_at),
        "silent_s": max(0.0, round((now - job.updated_at) / 1_000_000, 3)),
        "heartbeat_s": None if each.beat_s is None else round(each.beat_s, 3),
        "pids": None if usage is None else list(usage.pids),
        "processes": None if usage is None else usage.processes,
        "threads": None if usage is None else usage.threads,
        "rss_bytes": None if usage is None else usage.rss,
        "cpu": None if usage is None else _rounded(usage.cpu),
        "gpu_memory_bytes": None if usage is None else dict(usage.gpu_memory),
        "gpu_memory_share": None if usage is None else _shares(usage.gpu_memory, each.gpu_total),
        "engine": None if each.engine is None else _engine(each.engine),
    }


def _shares(used: Mapping[str, int], total: Mapping[str, int]) -> dict[str, float]:
    return {device: round(held / total[device], 4) for device, held in used.items() if total.get(device)}


def _engine(status: EngineStatus) -> wire.EngineQueue:
    return {
        "running": status.running,
        "waiting": status.waiting,
        "tokens": status.tokens,
        "kv_used": _rounded(status.kv_used),
        "adapters": list(status.adapters),
    }


def cleared(each: Clearing) -> wire.Cleared:
    """What ending the idle engines gave back."""
    after = {gpu.id: gpu for gpu in each.after}
    gpus: list[wire.ClearedGpu] = [
        {
            "id": gpu.id,
            "name": gpu.name,
            "total_bytes": gpu.memory_total,
            "used_before_bytes": gpu.memory_used,
            "used_after_bytes": after[gpu.id].memory_used if gpu.id in after else None,
        }
        for gpu in each.before
    ]
    return {
        "object": "clearing",
        "ended": list(each.ended),
        "asked": list(each.asked),
        "gpus": gpus,
        "freed_bytes": each.freed,
        "message": each.message,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
