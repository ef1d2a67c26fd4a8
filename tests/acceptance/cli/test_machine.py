"""``system`` and ``workers``."""

from __future__ import annotations

from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon

from finetuned import wire

SYSTEM: wire.System = {
    "object": "system",
    "at": "2026-11-22T12:00:00.000000Z",
    "cpu": {"cores": 8, "usable_cores": 4, "utilization": 0.25, "load": [0.5, 1.0, 1.5]},
    "memory": {
        "total_bytes": 24_000_000_000, "used_bytes": 6_000_000_000, "available_bytes": 18_000_000_000,
        "swap_total_bytes": 1_000_000_000, "swap_used_bytes": 0,
    },
    "disk": {
        "path": "/state", "total_bytes": 100_000_000_000, "used_bytes": 1, "free_bytes": 90_000_000_000, "taken": None,
    },
    "network": {"received_bytes": 1, "sent_bytes": 2},
    "driver_version": "580.1",
    "gpus": [
        {
            "id": "GPU-1", "name": "H200", "index": 0, "memory_total_bytes": 140_000_000_000,
            "memory_used_bytes": 70_000_000_000, "utilization": 0.5, "memory_utilization": 0.1,
            "temperature_celsius": 41, "power_watts": 310.4, "power_limit_watts": 700.0, "problem": None,
            "holders": [
                {"pid": 7, "name": "python", "memory_bytes": 70_000_000_000, "job": "job-1", "attempt": 1},
                {"pid": 8, "name": None, "memory_bytes": None, "job": None, "attempt": None},
            ],
        },
        {
            "id": "GPU-2", "name": "H200", "index": 1, "memory_total_bytes": None, "memory_used_bytes": None,
            "utilization": None, "memory_utilization": None, "temperature_celsius": None, "power_watts": None,
            "power_limit_watts": None, "problem": "it fell off the bus", "holders": [],
        },
    ],
    "daemon": {
        "version": "0.1.0", "pid": 3, "started_at": None, "uptime_s": 90.0, "rss_bytes": 90_000_000,
        "open_files": 20, "max_open_files": 1024, "threads": 5, "cpu_s": 1.0, "log_head": 12,
        "loop_lag_s": 0.001, "event_streams": 2,
    },
}  # fmt: skip

WORKER: wire.Worker = {
    "id": "job-1/1", "object": "worker", "job": "job-1", "attempt": 1, "kind": "sft", "name": None,
    "purpose": "run", "state": "running", "phase": "loading_model", "pid": 7, "devices": ["cpu:0"],
    "starting_at": None, "started_at": None, "last_event_at": None, "silent_s": 2.0, "heartbeat_s": 1.0,
    "pids": [7, 8], "processes": 2,
    "threads": 9, "rss_bytes": 500_000_000, "cpu": 1.5, "gpu_memory_bytes": {"GPU-1": 1_000_000_000},
    "gpu_memory_share": {"GPU-1": 0.0125}, "engine": None,
}  # fmt: skip


def test_the_machine_is_shown_with_who_is_on_its_gpus(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/system"] = SYSTEM
    shown = finetune("system").out
    assert "25 % of 4 of 8 cores, load 0.50 1.00 1.50" in shown
    assert "6.0 GB of 24.0 GB (25 %)" in shown
    assert "90.0 GB of 100 GB free at /state" in shown
    assert "job-1 (70.0 GB), pid 8" in shown
    assert "it fell off the bus" in shown
    assert "0.1.0, pid 3, up 1 min 30 s" in shown
    assert finetune("system", "--json").json == SYSTEM


def test_a_machine_without_gpus_or_swap_shows_neither(daemon: FakeDaemon, finetune: Run) -> None:
    plain = {**SYSTEM, "gpus": [], "driver_version": None}
    plain["memory"] = {**SYSTEM["memory"], "swap_total_bytes": 0}
    daemon.answers["GET", "/v1/system"] = plain
    shown = finetune("system").out
    assert "GPU" not in shown
    assert "swap" not in shown
    assert "driver" not in shown


def test_the_past_is_a_line_for_each_figure(daemon: FakeDaemon, finetune: Run) -> None:
    history: wire.SystemHistory = {
        "object": "system_history", "seconds": 60, "bucket_s": 30.0, "at": [None, None],
        "series": [
            {"device": None, "figure": "memory_used_bytes", "min": [1e9, 2e9], "mean": [1e9, 3e9], "max": [1e9, 4e9]},
            {"device": "GPU-1", "figure": "utilization", "min": [None, 0.1], "mean": [None, 0.2], "max": [None, 0.3]},
            {"device": None, "figure": "never", "min": [None], "mean": [None], "max": [None]},
        ],
    }  # fmt: skip
    daemon.answers["GET", "/v1/system/history"] = history
    _, memory, busy = finetune("system", "--history", "60").out.splitlines()
    assert memory.split() == ["memory_used_bytes", "-", "1.0", "GB", "2.0", "GB", "4.0", "GB", "3.0", "GB"]
    assert busy.split() == ["utilization", "GPU-1", "0.1", "0.2", "0.3", "0.2"]
    assert daemon.requests[-1][1] == "/v1/system/history?seconds=60"
    assert finetune("system", "--history", "60", "--json").json["bucket_s"] == 30.0


def test_a_worker_that_holds_no_memory_of_a_gpu_has_a_dash_there(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/workers"] = {"data": [{**WORKER, "gpu_memory_bytes": {}}], "has_more": False}
    _, worker = finetune("workers").out.splitlines()
    assert worker.split()[-5:] == ["500", "MB", "-", "2.0", "s"]


def test_workers_are_listed_with_what_they_use(daemon: FakeDaemon, finetune: Run) -> None:
    idle = {**WORKER, "job": "job-2", "cpu": None, "rss_bytes": None, "gpu_memory_bytes": None, "devices": []}
    daemon.answers["GET", "/v1/workers"] = {"data": [WORKER, idle], "has_more": False}
    _, busy, other = finetune("workers").out.splitlines()
    assert busy.split() == [
        "job-1",
        "1",
        "sft",
        "loading",
        "model",
        "cpu:0",
        "1.5",
        "500",
        "MB",
        "1.0",
        "GB",
        "2.0",
        "s",
    ]
    assert other.split()[5:] == ["-", "-", "-", "-", "2.0", "s"]
    assert finetune("workers", "--json").json["data"][0] == WORKER
    daemon.answers["GET", "/v1/workers"] = {"data": [], "has_more": False}
    assert "Nothing runs" in finetune("workers").err
