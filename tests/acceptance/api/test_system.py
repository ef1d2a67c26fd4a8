"""The machine, its GPUs and the workers over HTTP: a real machine, a fake NVML, attempts whose process is this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from finetuned import __version__
from finetuned.domain import facts
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml, FakeProcess, FakeRates


@pytest.fixture
def process() -> Iterator[int]:
    """The pid of another process."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as started:
        yield started.pid
        started.kill()


async def get(client: aiohttp.ClientSession, path: str, **params: Any) -> Any:
    response = await client.get(path, params=params)
    assert response.status == 200, await response.text()
    return await response.json()


async def launch(house: Any, pid: int) -> str:
    """A job whose attempt runs, its runner being the process ``pid``."""
    job_id: str = await house.accept_job()
    await house.start_attempt()
    started = facts.AttemptLaunched(attempt=1, pid=pid, boot_id="b", start_time=1, process_group=pid)
    await house.report(job_id, started, facts.AttemptStarted(attempt=1, hello={}))
    return job_id


async def test_the_system_is_told_with_the_daemons_own_process(house: Any, client: Any) -> None:
    system = await get(client, "/v1/system")
    assert system["object"] == "system"
    assert 0 < system["memory"]["used_bytes"] < system["memory"]["total_bytes"]
    assert system["disk"]["path"] == str(house.config.state_dir)
    assert (system["gpus"], system["driver_version"]) == ([], None)
    daemon = system["daemon"]
    assert (daemon["version"], daemon["pid"], daemon["log_head"]) == (
        __version__,
        os.getpid(),
        house.log.head,
    )
    assert daemon["rss_bytes"] > 10 * 2**20
    assert 0 < daemon["open_files"] <= daemon["max_open_files"]
    assert daemon["uptime_s"] > 0
    assert daemon["event_streams"] == 0


async def test_open_event_streams_are_counted(house: Any, client: Any, until: Any) -> None:
    async with client.get("/v1/events", params={"stream": "true"}):
        await until(lambda: house.feed.clients)
        assert (await get(client, "/v1/system"))["daemon"]["event_streams"] == 1


async def test_each_gpu_tells_who_holds_it_whether_ours_or_a_stranger(
    open_house: Any, open_client: Any, process: int
) -> None:
    gpu = FakeGpu("GPU-a", memory=FakeMemory(total=1000, used=900), rates=FakeRates(gpu=50))
    gpu.compute = [FakeProcess(process, 600), FakeProcess(1, 200), FakeProcess(2**22 + 1)]
    async with open_house(nvml=FakeNvml(gpu)) as house, open_client(house) as client:
        job_id = await launch(house, process)
        await house.telemetry.look()
        system = await get(client, "/v1/system")
        (worker,) = (await get(client, "/v1/workers"))["data"]
    (found,) = system["gpus"]
    assert (found["id"], found["utilization"], found["memory_used_bytes"]) == ("gpu:GPU-a", 0.5, 900)
    ours, stranger, hidden = found["holders"]
    assert (ours["job"], ours["attempt"], ours["memory_bytes"]) == (job_id, 1, 600)
    assert (stranger["pid"], stranger["job"], stranger["memory_bytes"]) == (1, None, 200)
    assert stranger["name"]
    assert hidden == {
        "pid": 2**22 + 1, "name": None, "memory_bytes": None, "job": None, "attempt": None,
    }  # fmt: skip
    assert worker["gpu_memory_bytes"] == {"gpu:GPU-a": 600}
    assert worker["rss_bytes"] > 2**20


async def test_a_worker_is_shown_from_its_start_and_gone_with_its_attempt(house: Any, client: Any) -> None:
    assert (await get(client, "/v1/workers"))["data"] == []
    job_id = await house.accept_job()
    await house.start_attempt()
    (starting,) = (await get(client, "/v1/workers"))["data"]
    assert (starting["id"], starting["state"], starting["pid"]) == (f"{job_id}/1", "starting", None)
    assert (starting["rss_bytes"], starting["cpu"], starting["gpu_memory_bytes"]) == (None, None, None)
    assert starting["devices"] == ["cpu:0"]
    await house.end_attempt(job_id)
    assert (await get(client, "/v1/workers"))["data"] == []


async def test_what_a_worker_uses_is_told_after_a_look_and_its_processors_after_two(
    house: Any, client: Any
) -> None:
    job_id = await launch(house, os.getpid())
    for _ in range(2):
        await house.telemetry.look()
        sum(range(2_000_000))
    asked_at = time.time()
    (worker,) = (await get(client, "/v1/workers"))["data"]
    answered_at = time.time()
    assert (worker["job"], worker["attempt"], worker["purpose"], worker["state"]) == (
        job_id,
        1,
        "run",
        "running",
    )
    assert worker["pid"] == os.getpid()
    assert worker["rss_bytes"] > 10 * 2**20
    assert worker["processes"] >= 1
    assert worker["threads"] >= 2
    assert worker["cpu"] is not None
    heard_at = datetime.fromisoformat(worker["last_event_at"]).timestamp()
    assert asked_at - heard_at - 0.001 <= worker["silent_s"] <= answered_at - heard_at + 0.001
    assert worker["silent_s"] > 0
    assert worker["last_event_at"] >= worker["started_at"] >= worker["starting_at"]


async def test_the_history_has_one_list_a_figure_with_a_value_for_each_time(
    open_house: Any, open_client: Any
) -> None:
    gpu = FakeGpu("GPU-a")
    async with open_house(nvml=FakeNvml(gpu)) as house, open_client(house) as client:
        for percent in (20, 80):
            gpu.rates = FakeRates(gpu=percent)
            await house.telemetry.look()
        history = await get(client, "/v1/system/history", seconds=86400, points=1)
    assert (history["object"], history["seconds"], history["bucket_s"]) == ("system_history", 86400, 86400)
    series = {(each["device"], each["figure"]): each for each in history["series"]}
    assert {"memory_used_bytes", "disk_used_bytes", "daemon_rss_bytes", "loop_lag_seconds"} <= {
        figure for device, figure in series if device is None
    }
    for each in series.values():
        assert len(each["min"]) == len(each["mean"]) == len(each["max"]) == len(history["at"])
    utilization = series["gpu:GPU-a", "utilization"]
    assert (min(utilization["min"]), max(utilization["max"])) == (0.2, 0.8)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"seconds": "9"}, "seconds"),
        ({"seconds": "86401"}, "seconds"),
        ({"points": "0"}, "points"),
        ({"points": "many"}, "points"),
        ({"second": "60"}, "second"),
    ],
)
async def test_a_look_back_that_cannot_be_is_refused_with_what_can(
    client: Any, params: dict[str, str], named: str
) -> None:
    response = await client.get("/v1/system/history", params=params)
    error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, named)
    assert "from" in error["message"] or "Did you mean 'seconds'" in error["message"]


async def test_a_daemon_that_has_not_looked_yet_says_so(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned.telemetry.telemetry.LOOK_TIMEOUT_S", 0)
    monkeypatch.setattr(house.telemetry, "_newest", None)
    response = await client.get("/v1/system")
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "unavailable")
    assert "Ask again in a moment" in error["message"]
