"""Calls about the machine: devices, the system, the processes that work on jobs."""

from __future__ import annotations

from typing import Final

from finetuned.client.calls import Calls, part
from finetuned.client.transport import SILENCE_TIMEOUT
from finetuned.wire import Alive, Cleared, Device, Job, System, SystemHistory, Worker

CLEAR_TIMEOUT: Final = 120.0  # seconds: engines end first


class MachineCalls(Calls):
    """What is there, how busy it is, who holds it."""

    async def devices(self, *, at: int | str | None = None) -> list[Device]:
        """The devices that the daemon schedules, and who holds them; or who did ``at`` a position or time."""
        return await self._listed("/v1/devices", at=at)

    async def system(self) -> System:
        """The machine now: processors, memory, disk, GPUs and who is on them, and the daemon's own process."""
        system: System = await self._get("/v1/system")
        return system

    async def system_history(self, *, seconds: int | None = None, points: int | None = None) -> SystemHistory:
        """The machine over the last ``seconds``, in at most ``points`` stretches."""
        history: SystemHistory = await self._get("/v1/system/history", seconds=seconds, points=points)
        return history

    async def workers(self) -> list[Worker]:
        """The live attempts and what their processes use."""
        return await self._listed("/v1/workers")

    async def restart_worker(self, job: str) -> Job:
        """Have the worker of a job leave, and come again."""
        restarted: Job = await self._post(f"/v1/workers/{part(job)}/restart")
        return restarted

    async def kill_worker(self, job: str) -> Job:
        """Kill the processes of a job's worker at once; the job is tried again as after a crash."""
        killed: Job = await self._post(f"/v1/workers/{part(job)}/kill")
        return killed

    async def clear_gpu(self) -> Cleared:
        """End the engines that nobody asks, and read the GPUs before and afterwards."""
        cleared: Cleared = await self._post("/v1/workers/clear-gpu", timeout=CLEAR_TIMEOUT)
        return cleared

    async def prometheus(self) -> str:
        """The daemon's figures as Prometheus scrapes them."""
        async with self._transport.stream(
            "/metrics", query={}, headers={}, silence=SILENCE_TIMEOUT
        ) as content:
            return (await content.read()).decode()

    async def alive(self) -> Alive:
        """The daemon's release and how long it has been up. Raises ``UnreachableError`` if nothing answers."""
        found: Alive = await self._get("/healthz")
        return found

    async def ready(self) -> bool:
        """Whether the daemon takes work. Raises ``UnreachableError`` if nothing answers."""
        return await self._get("/readyz") is not None
