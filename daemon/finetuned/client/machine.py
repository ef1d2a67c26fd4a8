"""Calls about the machine: devices, the system, the processes that work on jobs."""

from __future__ import annotations

from finetuned.client.calls import Calls
from finetuned.wire import Device


class MachineCalls(Calls):
    """What is there, how busy it is, who holds it."""

    async def devices(self) -> list[Device]:
        """The devices that the daemon schedules, and who holds them."""
        return await self._listed("/v1/devices")

    async def ready(self) -> bool:
        """Whether the daemon takes work. Raises ``UnreachableError`` if nothing answers."""
        return await self._get("/readyz") is not None
