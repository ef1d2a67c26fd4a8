"""Workers over HTTP: how they stand, and what is done to them by hand. The GPUs are faked at NVML."""

from __future__ import annotations

from typing import Any

import aiohttp
import anyio
import pytest

from finetuned.domain import decisions, facts
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml
from finetuned.testing import House


async def engine(house: House, key: str) -> str:
    """An engine of that key, which answers; nothing runs it."""
    job_id = f"job-{key}"
    fact = facts.JobSubmitted(
        kind="fake-engine", name=None, params={"model": key}, priority=0, metadata={}, devices=1, validates=False,
        max_attempts=3, models={}, callbacks=[], estimate=None, retry_of=None, resume_from=None, serves=key,
    )  # fmt: skip
    await house.log.execute(lambda world: decisions.submit(world, job_id, fact, actor="test"))
    await house.start_attempt()
    await house.report(job_id, facts.AttemptStarted(attempt=1), facts.JobPhase(phase="serving"))
    return job_id


async def listed(client: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with client.get("/v1/workers") as answer:
        found: list[dict[str, Any]] = (await answer.json())["data"]
        return found


async def test_an_engine_tells_its_queue_and_a_trainer_has_none(
    open_house: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned.engines.gate.STATUS_S", 60)
    async with open_house() as house, open_client(house) as client:
        await engine(house, "a")
        (worker,) = await listed(client)
        assert worker["engine"] == {
            "running": 0, "waiting": 0, "tokens": 0, "kv_used": 0.0, "adapters": []
        }  # fmt: skip
        house.engines.away = True
        (worker,) = await listed(client)
        assert worker["engine"] is None
        assert (worker["heartbeat_s"], worker["gpu_memory_share"]) == (None, None)


async def test_idle_engines_are_ended_and_their_memory_is_proven_to_be_back(
    open_house: Any, open_client: Any
) -> None:
    gpu = FakeGpu("GPU-a", memory=FakeMemory(total=1000, used=900))
    async with open_house(nvml=FakeNvml(gpu)) as house, open_client(house) as client:
        slot = {"id": "gpu:GPU-a", "kind": "gpu", "name": "H200", "memory_bytes": 1000}
        await house.log.execute(lambda world: decisions.devices_detected(world, [slot]))
        job_id = await engine(house, "a")
        answers: list[dict[str, Any]] = []
        head = house.log.head

        async def clear() -> None:
            async with client.post("/v1/workers/clear-gpu") as answer:
                answers.append(await answer.json())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clear)
            with anyio.fail_after(20):
                await house.log.wait(head)  # it is being cancelled
            await house.end_attempt(job_id)
            gpu.memory.used = 100
        (cleared,) = answers
    assert cleared["ended"] == [job_id]
    assert cleared["freed_bytes"] == 800
    (shown,) = cleared["gpus"]
    assert (shown["used_before_bytes"], shown["used_after_bytes"], shown["total_bytes"]) == (900, 100, 1000)


async def test_a_host_without_gpus_says_so(house: House, client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/workers/clear-gpu") as answer:
        cleared = await answer.json()
    assert (cleared["ended"], cleared["gpus"], cleared["freed_bytes"]) == ([], [], 0)
    assert "shows no GPU" in cleared["message"]


@pytest.mark.parametrize("what", ["restart", "kill"])
async def test_a_job_without_a_worker_is_refused(
    house: House, client: aiohttp.ClientSession, what: str
) -> None:
    job_id = await house.accept_job()
    async with client.post(f"/v1/workers/{job_id}/{what}") as answer:
        assert answer.status == 409
        assert (await answer.json())["error"]["code"] == "no_worker"
    async with client.post(f"/v1/workers/job-none/{what}") as answer:
        assert answer.status == 404
